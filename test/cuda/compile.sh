#!/usr/bin/env bash
# Compiles csrc/cuda/*.cu and the patched files of ggml-cuda for the architectures that kernels differ on; one line per
# check, as test/e2e.sh. Skipped where nvcc is missing; `make cuda-toolkit` installs it.
#
#   test/cuda/compile.sh [ARCH...]     default: 75 80 90
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
archs=("$@")
[ $# -gt 0 ] || archs=(75 80 90)

nvcc=$BUILD/cuda-toolkit/bin/nvcc
[ -x "$nvcc" ] || nvcc=$(command -v nvcc || true)
if [ -z "$nvcc" ]; then
    echo 'skip CUDA sources compile: nvcc is missing; make cuda-toolkit installs it'
    exit 0
fi
make_tmp
ggml=$LLAMA/ggml
fails=0
# check NAME FILE [FLAG...]: no error and no warning
check() {
    local name=$1 file=$2
    shift 2
    if "$nvcc" -std=c++17 -use_fast_math -extended-lambda -I"$ROOT/csrc" -I"$ggml/include" -I"$ggml/src" \
            -DGGML_CUDA_USE_GRAPHS -Xcompiler -Wno-pedantic "$@" -o "$TMP/out" "$file" > "$TMP/log" 2>&1 && [ ! -s "$TMP/log" ]; then
        echo "ok $name"
    else
        echo "FAIL $name: $(head -c 2000 "$TMP/log")"
        fails=$((fails + 1))
    fi
}
exact=$(sed -n 's/^set(HEXKV_CUDA_EXACT \(.*\))$/\1/p' "$ROOT/cmake/sources.cmake")
[ -n "$exact" ] || die "cmake/sources.cmake sets no HEXKV_CUDA_EXACT; this script takes the flags of hex_commit.cu from it"

for arch in "${archs[@]}"; do
    for file in "$ROOT"/csrc/cuda/*.cu; do
        flags=()
        case $file in */hex_commit.cu) read -ra flags <<< "$exact" ;; esac
        check "$(basename "$file") for sm_$arch" "$file" -c -arch="sm_$arch" "${flags[@]}"
    done
done
# every file of ggml-cuda that a patch touches, to PTX: its own code is short
while read -r file; do
    for arch in "${archs[@]}"; do
        check "$(basename "$file") to PTX for compute_$arch" "$LLAMA/$file" -ptx -arch="compute_$arch"
    done
done < <(sed -n 's/^+++ b\/\(ggml\/src\/ggml-cuda\/.*\.cu\)$/\1/p' "$ROOT"/patches/0*.patch | sort -u)

check 'bandwidth.cu of the GPU script' "$ROOT/test/gpu/bandwidth.cu" -c -arch=sm_80

# the encoder's arithmetic is IEEE, with one rounding per operation: nothing is fused, flushed or approximated
read -ra flags <<< "$exact"
check 'hex_commit.cu to PTX' "$ROOT/csrc/cuda/hex_commit.cu" -ptx -arch=compute_80 "${flags[@]}"
if grep -qE '\.ftz|fma\.rn\.f32|\.approx' "$TMP/out"; then
    echo "FAIL hex_commit.cu rounds as the CPU does: $(grep -E '\.ftz|fma\.rn\.f32|\.approx' "$TMP/out" | sort | uniq -c | head -n 5)"
    fails=$((fails + 1))
else
    echo 'ok hex_commit.cu rounds as the CPU does'
fi
[ "$fails" = 0 ]
