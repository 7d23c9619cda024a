#!/usr/bin/env bash
# llama.cpp, csrc and the tests under sanitizers.
#
#   scripts/sanitize.sh [CTEST_ARGUMENT...]     address and undefined: builds into build/asan, runs the C and C++ tests
#   scripts/sanitize.sh server [address|thread] builds llama-server, with the thread sanitizer into build/tsan
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
target=tests dir=$BUILD/asan kind=ON
if [ "${1:-}" = server ]; then
    target=llama-server
    if [ "${2:-}" = thread ]; then dir=$BUILD/tsan kind=thread; fi
fi
mkdir -p "$dir"
cmake -S "$ROOT" -B "$dir" -G Ninja -DHEXKV_SANITIZE="$kind" -DGGML_OPENMP=OFF -DCMAKE_BUILD_TYPE=RelWithDebInfo \
    -DCMAKE_C_FLAGS_RELWITHDEBINFO='-O2 -g1 -DNDEBUG' -DCMAKE_CXX_FLAGS_RELWITHDEBINFO='-O1 -g1 -DNDEBUG' \
    -DHEXKV_LLAMA_DIR="$LLAMA" > "$dir/configure.log" 2>&1 ||
    { tail -n 20 "$dir/configure.log" >&2; die "configuring the sanitizer build failed; the log is $dir/configure.log"; }
cmake --build "$dir" --target "$target" -- ${JOBS:+-j "$JOBS"}
[ "$target" = tests ] || exit 0
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}
exec ctest --test-dir "$dir" --output-on-failure --no-tests=error "$@"
