#!/usr/bin/env bash
# What test/upstream.sh and test/load.py judge by, on logs and servers with faults: one line per check, as test/e2e.sh. No models.
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
cd "$ROOT/test/upstream"
make_tmp
fails=0
is() { if [ "$2" = "$3" ]; then echo "ok $1"; else echo "FAIL $1: got '$2', wanted '$3'"; fails=$((fails + 1)); fi; }

# architectures: lines of log as test-llama-archs -v 4 has them
model() { # ARCHITECTURE LINE...
    printf '0.00.1 I llama_model_loader: - kv   0:      general.architecture str              = %s\n' "$1"
    shift
    [ $# = 0 ] || printf '%s\n' "$@"
}
hex='0.00.2 I log_plan: refined (hex3) per KV head: 32 sinks and recent, 22 heavy hitters'
off='0.00.2 W llama_hex_resolve: HEX is off for this model: no layer has full attention; the KV cache is q8_0'
printf '# comment\nmamba off no layer has full attention\ndream none\n' > "$TMP/list"
judged() { # [all=1]: the names that are judged otherwise, of the log on standard input
    cat > "$TMP/log"
    awk ${1:+-v "$1"} -f architectures.awk "$TMP/list" "$TMP/log" | sed -E 's/^FAIL ([^:]*):.*/\1/' | tr '\n' ' '
}
is 'architectures as in the list'            "$({ model llama "$hex"; model mamba "$off"; model dream; model qwen2 "$hex" "$hex"; } | judged all=1)" ''
is 'one that lost HEX'                       "$({ model llama "$hex"; model qwen2 "$off"; model mamba "$off"; model dream; } | judged all=1)" 'qwen2 '
is 'one that lost HEX without a word'        "$({ model llama; model qwen2 "$hex"; } | judged)" 'llama '
is 'one that lost HEX in one of its models'  "$({ model llama "$hex"; model llama "$off"; model llama "$hex"; } | judged)" 'llama '
is 'one of the list that has HEX'            "$({ model mamba "$hex"; model llama "$hex"; } | judged)" 'mamba '
is 'one that falls back for another reason'  "$({ model mamba "${off/no layer has full attention/head size 80}"; model llama "$hex"; } | judged)" 'mamba '
is 'one of the list that is not in the log'  "$(model llama "$hex" | judged all=1)$(model llama "$hex" | judged)" 'mamba dream '
is 'a log without its last line'             "$({ model llama "$hex"; model llama; } | judged)" ''
is 'a log without architectures'             "$(echo nothing | judged)" 'architectures '
grep -v '^#' fallbacks.txt | awk '{ print $1 }' | LC_ALL=C sort -c 2> "$TMP/out" || true
is 'the list is in order'                    "$(cat "$TMP/out")" ''

# load.py: what it finds in a server with a fault
for fault in '' leak short no-shift exit; do
    case $fault in
        leak)     want='resident memory is flat ' ;;
        short)    want='every answer is complete answers past the context of a slot, and their context shifts in the log ' ;;
        no-shift) want='every answer is complete answers past the context of a slot, and their context shifts in the log ' ;;
        exit)     want='the server ends with exit code 0 ' ;;
        *)        want= ;;
    esac
    FAULT=$fault python3 ../load.py 6 4 python3 stand_in_server.py > "$TMP/out" 2>&1 || true
    is "a server under load, fault '$fault'" "$(sed -nE 's/^FAIL ([^:]*):.*/\1/p' "$TMP/out" | tr '\n' ' ')" "$want"
    grep -q 'MiB per minute' "$TMP/out" || { echo "FAIL load.py prints its figures: $(tail -n 1 "$TMP/out")"; fails=$((fails + 1)); }
done

[ "$fails" = 0 ]
