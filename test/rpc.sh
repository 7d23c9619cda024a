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
worker $port
worker $((port + 1))
remote=(--rpc "127.0.0.1:$port,127.0.0.1:$((port + 1))" -ngl 99 -ts 1,1)

head -c 4000 "$ROOT/cmd/hexrun/internal/corpus/opticks.txt" > "$TMP/text"
ppl=("$bin/llama-perplexity" -m "$model" -f "$TMP/text" -c 512 -ub 64 --chunks 1 -t 1 -lv 4)
for hex in off balanced; do
    "${ppl[@]}" --hex $hex --kl-divergence-base "$TMP/local.$hex"  > "$TMP/out.local"  2>&1 || fail "one process, --hex $hex" "$(tail -n 2 "$TMP/out.local")"
    "${ppl[@]}" --hex $hex --kl-divergence-base "$TMP/remote.$hex" "${remote[@]}" > "$TMP/out.remote.$hex" 2>&1 || fail "two workers, --hex $hex" "$(tail -n 2 "$TMP/out.remote.$hex")"
    if [ -s "$TMP/local.$hex" ] && cmp -s "$TMP/local.$hex" "$TMP/remote.$hex"; then ok "--hex $hex: two workers give the logits of one process, bit for bit"
    else fail "--hex $hex: two workers give the logits of one process" "they differ"
    fi
done
on_workers=$(grep -cE 'RPC[01]\[.*KV buffer size' "$TMP/out.remote.balanced" || true)
if [ "$on_workers" -ge 2 ] && ! grep -q 'has no kernels for this HEX cache' "$TMP/out.remote.balanced"; then ok 'both workers hold a part of the HEX cache'
else fail 'both workers hold a part of the HEX cache' "$(grep 'KV buffer size\|has no kernels' "$TMP/out.remote.balanced" | head -n 3)"
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
