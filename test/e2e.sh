#!/usr/bin/env bash
# End to end on the default model, with the built tools: one line per check, `ok NAME`, `FAIL NAME: why` or `skip NAME: why`.
# hexrun's commands have Go tests of their own (cmd/hexrun); here is what only a whole build shows.
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
read_pin "$ROOT/scripts/models.pin"
bin=$BUILD/bin hexrun=$BUILD/bin/hexrun
model=$BUILD/models/$MODEL_FILE
[ -x "$hexrun" ] && [ -f "$model" ] || die "$hexrun or $model is missing; run make all model"
make_tmp
fails=0
ok()   { echo "ok $1"; }
fail() { echo "FAIL $1: $2"; fails=$((fails + 1)); }

# gives NAME PATTERN COMMAND...: succeeds, and its output (both streams) matches
gives() {
    local name=$1 pattern=$2
    shift 2
    if ! timeout 600 "$@" > "$TMP/out" 2>&1 < /dev/null; then fail "$name" "$(tail -n 2 "$TMP/out" | head -c 300)"
    elif ! grep -Eq -e "$pattern" "$TMP/out"; then fail "$name" "no '$pattern' in: $(tail -n 3 "$TMP/out" | head -c 300)"
    else ok "$name"
    fi
}
# sentence NAME CODE COMMAND...: fails with that exit code and says one sentence on stderr
sentence() {
    local name=$1 code=$2 status=0
    shift 2
    timeout 300 "$@" > "$TMP/out" 2> "$TMP/err" < /dev/null || status=$?
    if   [ "$status" != "$code" ]; then fail "$name" "exit code $status, wanted $code: $(head -c 300 "$TMP/err")"
    elif [ "$(grep -c . "$TMP/err")" != 1 ]; then fail "$name" "not one sentence: $(head -c 300 "$TMP/err")"
    else ok "$name: $(sed "s|$TMP/||" "$TMP/err" | head -c 200)"
    fi
}

# ---- answers, the same ones each time

ask=("$hexrun" run -m "$model" --temp 0 -n 24 -c 512 --raw -p 'The capital of France is')
for cache in '--hex off' '--hex balanced' '--hex tiny' '-ctk hex3 -ctv hex2'; do
    # shellcheck disable=SC2086
    gives "an answer with $cache" Paris "${ask[@]}" $cache
done
for try in first second; do "${ask[@]}" --hex balanced > "$TMP/$try" 2> /dev/null < /dev/null || true; done
if [ -s "$TMP/first" ] && cmp -s "$TMP/first" "$TMP/second"; then ok 'the same answer twice'
else fail 'the same answer twice' "$(diff "$TMP/first" "$TMP/second" | head -n 4)"
fi
printf 'Why is the sky blue?\n/stats\n/bye\n' > "$TMP/chat.in"
gives 'hexrun chat' 'light|atmosphere' bash -c '"$@" < '"$TMP/chat.in" - "$hexrun" chat -m "$model" --hex balanced --temp 0 -n 48 -c 512

# ---- upstream's tools with the new flags

head -c 6000 "$ROOT/cmd/hexrun/internal/corpus/opticks.txt" > "$TMP/text"
ppl=("$bin/llama-perplexity" -m "$model" -f "$TMP/text" -c 512 --chunks 1)
gives 'llama-perplexity --hex'        'Final estimate: PPL = [0-9]' "${ppl[@]}" -ub 64 --hex balanced
gives 'llama-perplexity -ctk hex3'    'Final estimate: PPL = [0-9]' "${ppl[@]}" -fa on -ctk hex3 -ctv hex2
gives 'LLAMA_ARG_HEX'                 'refined \(hex'                env LLAMA_ARG_HEX=tiny "${ppl[@]}" -v
gives 'llama-completion --hex'        'Paris'    "$bin/llama-completion" -m "$model" -no-cnv --temp 0 -n 8 -c 512 --hex tiny -p 'The capital of France is'
gives 'llama-bench --hex'             'balanced' "$bin/llama-bench" -m "$model" -p 32 -n 4 -r 1 --hex off,balanced
if "$bin/llama-quantize" --allow-requantize "$model" "$TMP/hex.gguf" hex3 > "$TMP/out" 2>&1; then
    fail 'llama-quantize refuses hex3' 'it made a model'
else
    ok 'llama-quantize refuses hex3'
fi
gives 'llama-server --hex' 'Paris' python3 "$ROOT/test/ask_server.py" "$bin/llama-server" -m "$model" --hex balanced -c 1024 -np 2

# ---- HEX off is stock, bit for bit: the logits that both builds save

if [ -x "$BUILD/stock/bin/llama-perplexity" ]; then
    for build in stock/bin bin; do
        "$BUILD/$build/llama-perplexity" "${ppl[@]:1}" --kl-divergence-base "$TMP/logits.${build%/*}" > "$TMP/out" 2>&1 || true
    done
    if cmp -s "$TMP/logits.stock" "$TMP/logits.bin"; then ok 'logits with HEX off are those of the stock build'
    else fail 'logits with HEX off are those of the stock build' 'they differ'
    fi
else
    echo "skip logits with HEX off are those of the stock build: it is not built (make stock)"
fi

# ---- hostile inputs: a sentence each, the documented exit code, no crash

head -c 1000000 "$model" > "$TMP/header.gguf"
head -c 50000000 "$model" > "$TMP/half.gguf"
echo 'This is not a model.' > "$TMP/text.gguf"
: > "$TMP/empty.gguf"
mkdir "$TMP/directory.gguf"
run=("$hexrun" run -p Hello -n 4)
sentence 'truncated header'      1 "${run[@]}" -m "$TMP/header.gguf"
sentence 'truncated data'        1 "${run[@]}" -m "$TMP/half.gguf"
sentence 'not a GGUF'            1 "${run[@]}" -m "$TMP/text.gguf"
sentence 'directory as a model'  1 "${run[@]}" -m "$TMP/directory.gguf"
sentence 'zero-byte model'       1 "${run[@]}" -m "$TMP/empty.gguf"
sentence 'missing model'         1 "${run[@]}" -m "$TMP/missing.gguf"
sentence 'context beyond memory' 1 "${run[@]}" -m "$model" -c 60000000
sentence 'negative context'      2 "${run[@]}" -m "$model" -c -5
sentence 'unknown preset'        2 "${run[@]}" -m "$model" --hex nonsense
sentence 'contradictory flags'   2 "${run[@]}" -m "$model" --hex balanced -ctk q8_0
sentence 'unknown flag'          2 "${run[@]}" -m "$model" --hexagon
sentence 'share out of range'    2 "${run[@]}" -m "$model" --hex balanced --hex-heavy 1.5
sentence 'invalid UTF-8'         1 "$hexrun" run -m "$model" -n 4 -p $'caf\xff\xfe'

[ "$fails" = 0 ]
