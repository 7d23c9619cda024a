#!/usr/bin/env bash
# Layers on other machines: two workers on loopback hold the model and its HEX cache. One line per check, as test/e2e.sh.
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
read_pin "$ROOT/scripts/models.pin"
bin=$BUILD/bin model=$BUILD/models/$MODEL_FILE
[ -x "$bin/ggml-rpc-server" ] || die "$bin/ggml-rpc-server is missing; run make (with -DGGML_RPC=ON, the default)"
make_tmp
export GGML_NO_BACKTRACE=1
fails=0
ok()   { echo "ok $1"; }
fail() { echo "FAIL $1: $2"; fails=$((fails + 1)); }

port=$(python3 -c '
import socket
for _ in range(100): # two free ports in a row
    with socket.socket() as a, socket.socket() as b:
        a.bind(("127.0.0.1", 0))
        try:
            b.bind(("127.0.0.1", a.getsockname()[1] + 1))
        except (OSError, OverflowError):
            continue
        print(a.getsockname()[1])
        break')
[ -n "$port" ] || die "no two free ports in a row; close programs that listen on 127.0.0.1"

# Starts a worker; $! is its process.
worker() {
    "$bin/ggml-rpc-server" --device CPU --host 127.0.0.1 --port "$1" -t 1 > "$TMP/worker-$1.log" 2>&1 &
    workers+=($!)
    for _ in {1..200}; do
        kill -0 "${workers[-1]}" 2> /dev/null || die "the RPC worker on port $1 ended: $(tail -n 2 "$TMP/worker-$1.log")"
        if (exec 3<> "/dev/tcp/127.0.0.1/$1") 2> /dev/null; then return; fi
        sleep 0.05
    done
    die "the RPC worker on port $1 does not answer: $(tail -n 2 "$TMP/worker-$1.log")"
}
workers=()
trap 'kill "${workers[@]}" 2> /dev/null; rm -rf "$TMP"' EXIT
worker "$port"
worker $((port + 1))
rpc=(--rpc "127.0.0.1:$port,127.0.0.1:$((port + 1))" -ts "1,1")
remote=("${rpc[@]}" -ngl 99)
# what is on the workers: all, all but the cache, the large batches' work at most
placements=('-ngl 99' '-ngl 99 -nkvo' '-ngl 0')

# The cache is on both workers, or on none of them; LOG is of -lv 4.
holds() { # PLACEMENT LOG
    local on here
    on=$(grep -cE 'RPC[01]\[.*KV buffer size' "$2") || true
    here=$(grep -cE ' CPU KV buffer size' "$2") || true
    if grep -q 'has no kernels for this HEX cache' "$2"; then return 1; fi
    case $1 in '-ngl 99') [ "$on" -ge 2 ] && [ "$here" = 0 ] ;; *) [ "$on" = 0 ] && [ "$here" -ge 1 ] ;; esac
}

# logits of a prompt
head -c 4000 "$ROOT/cmd/hexrun/internal/corpus/opticks.txt" > "$TMP/text"
ppl=("$bin/llama-perplexity" -m "$model" -f "$TMP/text" -c 512 -ub 64 --chunks 1 -t 1 -lv 4)
for hex in off balanced; do
    "${ppl[@]}" --hex $hex --kl-divergence-base "$TMP/local" > "$TMP/out" 2>&1 || fail "one process, --hex $hex" "$(tail -n 2 "$TMP/out")"
    for flags in "${placements[@]}"; do
        name="--hex $hex $flags: two workers give the logits of one process, bit for bit"
        rm -f "$TMP/remote"
        # shellcheck disable=SC2086
        "${ppl[@]}" --hex $hex --kl-divergence-base "$TMP/remote" "${rpc[@]}" $flags > "$TMP/out" 2>&1 || true
        if ! [ -s "$TMP/local" ] || ! cmp -s "$TMP/local" "$TMP/remote"; then fail "$name" "they differ; $(tail -n 1 "$TMP/out" | head -c 200)"
        elif ! holds "$flags" "$TMP/out"; then fail "$name" "the cache is elsewhere: $(grep 'KV buffer size\|has no kernels' "$TMP/out" | head -n 3)"
        else ok "$name"
        fi
    done
done

# text, token by token
completion=("$bin/llama-completion" -m "$model" --hex balanced -c 512 -n 48 --temp 0 --ignore-eos -no-cnv -t 1 -p 'The capital of France is')
"${completion[@]}" > "$TMP/local" 2> /dev/null < /dev/null || true
for flags in "${placements[@]}"; do
    name="--hex balanced $flags: two workers write the text of one process"
    # shellcheck disable=SC2086
    "${completion[@]}" "${rpc[@]}" $flags > "$TMP/remote" 2> "$TMP/out" < /dev/null || true
    if [ "$(wc -c < "$TMP/local")" -gt 100 ] && cmp -s "$TMP/local" "$TMP/remote"; then ok "$name"
    else fail "$name" "'$(tail -c 200 "$TMP/remote" | tr '\n' ' ')', $(tail -n 1 "$TMP/out" | head -c 200)"
    fi
done

# a server: four slots at once, the prompt cache, a saved slot, a context shift. The text across the shift is of one slot alone: that of one process
slots=(python3 "$ROOT/test/server_slots.py" "$bin/llama-server" -m "$model" --hex balanced -t 1)
"${slots[@]}" > "$TMP/local" 2>&1 || fail 'a server without workers' "$(tail -n 1 "$TMP/local")"
if "${slots[@]}" "${remote[@]}" > "$TMP/remote" 2>&1 && [ "$(tail -n 1 "$TMP/remote")" = ok ]; then ok 'a server over two workers: four slots, streaming, prompt cache, a slot saved and restored, a context shift'
else fail 'a server over two workers' "$(tail -n 1 "$TMP/remote")"
fi
shifted=$(grep '^past the context' "$TMP/local") || true
if [ -n "$shifted" ] && grep -qxF "$shifted" "$TMP/remote"; then ok 'a context shift on two workers: the text of one process'
else fail 'a context shift on two workers' "$(grep '^past the context' "$TMP/remote") is not $shifted"
fi

# a worker dies in the middle of an answer
: > "$TMP/out"
"$bin/llama-completion" -m "$model" "${remote[@]}" --hex balanced -no-cnv --ignore-eos -n 2000 -c 2304 -t 1 -p 'Once upon a time' > "$TMP/out" 2>&1 < /dev/null &
client=$!
for _ in {1..300}; do if grep -q 'Once upon a time' "$TMP/out"; then break; fi; sleep 0.1; done
sleep 1
kill -9 "${workers[1]}"; wait "${workers[1]}" 2> /dev/null || true
status=0; wait $client 2> /dev/null || status=$?
if [ $status != 0 ] && grep -q "the RPC worker 127.0.0.1:$((port + 1)) is gone" "$TMP/out"; then ok "a lost worker: $(grep -o 'the RPC worker.*' "$TMP/out" | head -n 1)"
else fail 'a lost worker is named' "exit code $status: $(tail -n 2 "$TMP/out" | head -c 300)"
fi

[ "$fails" = 0 ]
