# Shared by the scripts of this folder and of patches/. Sourced, not run.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BUILD=${HEXKV_BUILD:-$ROOT/build}
LLAMA=$BUILD/llama.cpp

# Git without the user's settings, without rewriting the index on read-only commands (CMake watches that file).
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_OPTIONAL_LOCKS=0 GIT_TERMINAL_PROMPT=0
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES

say()  { printf 'hexkv: %s\n' "$*"; }
die()  { printf 'hexkv: error: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# A command as one line that can be pasted in the repository's root: words that need quotes have them.
command_line() {
    local word line=
    for word in "$@"; do
        word=${word//"$ROOT/"/}
        case $word in ''|*[!A-Za-z0-9_./:,=@%+-]*) word=${word@Q} ;; esac
        line+=" $word"
    done
    printf '%s\n' "${line# }"
}

# Reads KEY=VALUE lines of a pin file into shell variables.
read_pin() {
    local key value
    [ -f "$1" ] || die "$1 is missing; restore it from the repository"
    while IFS='=' read -r key value; do
        case $key in ''|\#*) continue ;; esac
        printf -v "$key" '%s' "$value"
    done < "$1"
}

sha256() {
    if   have sha256sum; then sha256sum "$1"     | cut -d' ' -f1
    elif have shasum;    then shasum -a 256 "$1" | cut -d' ' -f1
    elif have openssl;   then openssl dgst -sha256 -r "$1" | cut -d' ' -f1
    else die "no tool computes SHA-256; install coreutils (sha256sum)"
    fi
}

# A directory that is removed when the script ends, beside the build products so that a rename is atomic.
make_tmp() {
    mkdir -p "$BUILD"
    TMP=$(mktemp -d "$BUILD/.tmp.XXXXXX")
    trap 'rm -rf "$TMP"' EXIT
}

# A command whose output goes to a log that the error message can name.
quiet() {
    printf '$ %s\n' "$*" >> "$BUILD/fetch.log"
    "$@" >> "$BUILD/fetch.log" 2>&1
}
