#!/usr/bin/env bash
# Configures build/ when that is needed: the first time, or when CMake arguments are given. After that Ninja itself
# configures again whenever a CMake file, a patch or the list of sources changes.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
if [ -f "$BUILD/build.ninja" ] && [ $# = 0 ]; then exit 0; fi
bash "$ROOT/scripts/preflight.sh" build
say "configuring $BUILD (log: $BUILD/configure.log)"
# errors are shown, the rest goes to the log
if ! cmake -S "$ROOT" -B "$BUILD" -G Ninja "$@" > "$BUILD/configure.log" 2> "$BUILD/configure.err"; then
    grep '^hexkv: error' "$BUILD/configure.err" >&2 || tail -n 20 "$BUILD/configure.err" >&2
    exit 1
fi
cat "$BUILD/configure.err" >> "$BUILD/configure.log"
grep -h '^hexkv: \|^-- hexkv: ' "$BUILD/configure.log" || true
