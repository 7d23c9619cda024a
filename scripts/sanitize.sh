#!/usr/bin/env bash
# The C and C++ tests under address and undefined sanitizers: builds llama.cpp, csrc and the tests into build/asan, runs them.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
mkdir -p "$BUILD/asan"
cmake -S "$ROOT" -B "$BUILD/asan" -G Ninja -DHEXKV_SANITIZE=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo \
    -DCMAKE_C_FLAGS_RELWITHDEBINFO='-O2 -g1 -DNDEBUG' -DCMAKE_CXX_FLAGS_RELWITHDEBINFO='-O1 -g1 -DNDEBUG' \
    -DHEXKV_LLAMA_DIR="$LLAMA" > "$BUILD/asan/configure.log" 2>&1 ||
    { tail -n 20 "$BUILD/asan/configure.log" >&2; die "configuring the sanitizer build failed; the log is $BUILD/asan/configure.log"; }
cmake --build "$BUILD/asan" --target tests -- ${JOBS:+-j "$JOBS"}
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1:halt_on_error=1}
exec ctest --test-dir "$BUILD/asan" --output-on-failure --no-tests=error "$@"
