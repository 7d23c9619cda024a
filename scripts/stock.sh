#!/usr/bin/env bash
# Builds the same llama.cpp without patches into build/stock, for comparisons: same compiler, same settings.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
read_pin "$ROOT/patches/PIN"

[ -d "$LLAMA/.git" ] || bash "$ROOT/scripts/llama.sh"
src=$BUILD/stock/src
if [ "$(cat "$BUILD/stock/.tree" 2>/dev/null)" != "$TREE" ]; then
    say "exporting the unpatched llama.cpp $RELEASE"
    rm -rf "$src"
    mkdir -p "$src"
    git -C "$LLAMA" archive --format=tar pin | tar -x -C "$src"
    echo "$TREE" > "$BUILD/stock/.tree"
fi
# OpenMP off as in hexkv's build unless HEXKV_STOCK_OPENMP=ON; GGML_NATIVE follows the main build.
native=$(sed -n 's/^GGML_NATIVE:BOOL=//p' "$BUILD/CMakeCache.txt" 2>/dev/null || true)
cuda=$(sed -n 's/^GGML_CUDA:BOOL=//p' "$BUILD/CMakeCache.txt" 2>/dev/null || true)
cmake -S "$src" -B "$BUILD/stock" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DGGML_NATIVE="${native:-ON}" -DGGML_CUDA="${cuda:-OFF}" -DGGML_OPENMP="${HEXKV_STOCK_OPENMP:-OFF}" \
    -DGGML_CCACHE=OFF -DBUILD_SHARED_LIBS=OFF -DGGML_BACKEND_DL=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
    -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
    -DLLAMA_BUILD_NUMBER=0 -DLLAMA_BUILD_COMMIT="$RELEASE" > "$BUILD/stock/configure.log" 2>&1 ||
    { tail -n 20 "$BUILD/stock/configure.log" >&2; die "configuring the stock build failed; the log is $BUILD/stock/configure.log"; }
targets=${*:-llama-bench llama-perplexity llama-completion llama-quantize test-backend-ops}
# shellcheck disable=SC2086
cmake --build "$BUILD/stock" --target $targets -- ${JOBS:+-j "$JOBS"}
say "the stock tools are in $BUILD/stock/bin"
