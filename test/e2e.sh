#!/usr/bin/env bash
# End to end on the default model: one line per check, `ok NAME`, `FAIL NAME: why` or `skip NAME: why`.
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
read_pin "$ROOT/scripts/models.pin"
hexrun=$BUILD/bin/hexrun
model=$BUILD/models/$MODEL_FILE
make_tmp
fails=0
ok()   { echo "ok $1"; }
fail() { echo "FAIL $1: $2"; fails=$((fails + 1)); }

# sentence NAME COMMAND...: the command must fail with an exit code below 128, and say one short reason on stderr
sentence() {
    local name=$1 status=0 lines
    shift
    timeout 120 "$@" > "$TMP/out" 2> "$TMP/err" < /dev/null || status=$?
    lines=$(grep -c . "$TMP/err" || true)
    if   [ "$status" = 0 ];    then fail "$name" "succeeded"
    elif [ "$status" = 124 ];  then fail "$name" "timed out"
    elif [ "$status" -ge 128 ]; then fail "$name" "crashed with exit code $status"
    elif [ "$lines" = 0 ] || [ "$lines" -gt 3 ]; then fail "$name" "$lines lines on stderr: $(head -c 300 "$TMP/err")"
    else ok "$name (exit code $status: $(head -n 1 "$TMP/err" | head -c 160))"
    fi
}

[ -f "$model" ] || { echo "skip everything: $model is missing (make model)"; exit 0; }

if "$hexrun" version > "$TMP/out" 2>&1 && grep -q "llama.cpp" "$TMP/out"; then ok version; else fail version "$(head -n 3 "$TMP/out")"; fi

# hostile inputs: a sentence each, no crash
head -c 1000000 "$model" > "$TMP/truncated.gguf"
echo 'This is not a model.' > "$TMP/text.gguf"
: > "$TMP/empty.gguf"
mkdir "$TMP/directory.gguf"
run=("$hexrun" run -p Hello -n 4)
sentence 'truncated GGUF'        "${run[@]}" -m "$TMP/truncated.gguf"
sentence 'not a GGUF'            "${run[@]}" -m "$TMP/text.gguf"
sentence 'directory as a model'  "${run[@]}" -m "$TMP/directory.gguf"
sentence 'zero-byte model'       "${run[@]}" -m "$TMP/empty.gguf"
sentence 'missing model'         "${run[@]}" -m "$TMP/missing.gguf"
sentence 'context beyond memory' "${run[@]}" -m "$model" -c 2000000000
sentence 'negative context'      "${run[@]}" -m "$model" -c -5
sentence 'unknown preset'        "${run[@]}" -m "$model" --hex nonsense
sentence 'contradictory flags'   "${run[@]}" -m "$model" --hex balanced -ctk q8_0

[ "$fails" = 0 ]
