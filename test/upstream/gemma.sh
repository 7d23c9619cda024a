#!/usr/bin/env bash
# A real model with a sliding window, Gemma 3 270M, in llama-server: one line per check, as test/e2e.sh. scripts/gemma.sh fetches the model.
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
bin=$BUILD/bin model=$BUILD/models/gemma-3-270m.Q4_K_M.gguf
[ -f "$model" ] || { echo "skip Gemma 3 270M: ${model#"$ROOT/"} is missing; scripts/gemma.sh fetches it, under Gemma's terms"; exit 0; }
make_tmp
unset LLAMA_ARG_HEX
fails=0
ok()   { echo "ok $1"; }
fail() { echo "FAIL $1: $2"; fails=$((fails + 1)); }

"$bin/llama-completion" -m "$model" --hex balanced -c 512 -n 4 --temp 0 -no-cnv -lv 4 -p 'One, two,' > "$TMP/log" 2>&1 < /dev/null || true
if grep -q 'log_plan: refined (' "$TMP/log" && ! grep -q 'HEX is off' "$TMP/log"; then ok 'layers with full attention have a HEX cache'
else fail 'layers with full attention have a HEX cache' "$(grep 'HEX' "$TMP/log" | head -n 2)"
fi

slots() { # NAME [OPTION...] -- [OPTION...]: those of server_slots.py, those of llama-server
    local name=$1
    local -a options=()
    shift
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    if python3 "$ROOT/test/server_slots.py" "${options[@]}" "$bin/llama-server" -m "$model" --hex balanced "$@" > "$TMP/out" 2>&1 && [ "$(tail -n 1 "$TMP/out")" = ok ]; then ok "$name"
    else fail "$name" "$(tail -n 1 "$TMP/out")"
    fi
    sed 's/^/    /' "$TMP/out" # the transcript, in the log
}
slots 'llama-server --swa-full: four slots, prompt cache, a slot restored to the same state, a context shift' -- --swa-full
slots 'llama-server, slots no larger than the window: the same, prompts read again from a checkpoint' --window --
slots 'llama-server, slots larger than the window: no context shift, a text that fills its context' --window --large --

[ "$fails" = 0 ]
