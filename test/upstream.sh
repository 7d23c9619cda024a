#!/usr/bin/env bash
# llama.cpp's own test suites, with HEX off and with HEX on, and a table of the results (test/README.md).
#
#   test/upstream.sh [SUITE...]    suites: quantize archs state fragmented threads rollback server shifts tools load rpc ops
#                                  and, not by default, load-asan, load-tsan: a server built with a sanitizer; gemma: a real model with
#                                  a sliding window, which scripts/gemma.sh fetches
#
# HEX is switched on as users do it: by LLAMA_ARG_HEX in the environment. Logs are in build/upstream/logs.
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
read_pin "$ROOT/scripts/models.pin"
cd "$ROOT"
all=(quantize archs state fragmented threads rollback server shifts tools load rpc ops)
suites=("$@")
[ $# -gt 0 ] || suites=("${all[@]}")

bin=$BUILD/bin work=$BUILD/upstream logs=$BUILD/upstream/logs
model=$BUILD/models/$MODEL_FILE
preset=${HEXKV_PRESET:-balanced}
[ -f "$model" ] || die "$model is missing; run make model"
mkdir -p "$logs"
unset LLAMA_ARG_HEX
export HEXKV_BUILD=$BUILD HEXKV_MODEL=$model
export LLAMA_ARG_LOG_COLORS=off GGML_NO_BACKTRACE=1
rows=() failed=0

# suite NAME HEX COUNTER COMMAND...: HEX is `off`, `on` or `-` (no context in it). COUNTER reads the log and prints
# "passed failed skipped expected": the last are failures that upstream/server_tests.py names, with the reason. With HEX on, its log
# must show a HEX cache; or, for models that fall back as a whole, that they did. Both are counted in the table. Which architectures
# fall back is a list by name, test/upstream/fallbacks.txt: each that does otherwise is a failure.
falls_back=' deepseek4-moe kimi-k3-moe '
architectures() { awk -v "all=$1" -f test/upstream/architectures.awk test/upstream/fallbacks.txt "$2" || echo 'FAIL architectures: awk failed'; }
suite() {
    local name=$1 hex=$2 counter=$3 log=$logs/$1-$2.log status=0 p f s x start=$SECONDS tiers=- fallbacks=- want='a HEX cache' others=
    shift 3
    local -a with=(env)
    [ "$hex" != on ] || with=(env "LLAMA_ARG_HEX=$preset")
    log=${log// /-}
    printf '\n== %s, HEX %s\n$ %s\n' "$name" "$hex" "$(command_line "${with[@]}" "$@")"
    "${with[@]}" "$@" > "$log" 2>&1 < /dev/null || status=$?
    read -r p f s x < <("$counter" "$status" < "$log")
    x=${x:-0}
    if [ "$status" != 0 ] && [ "$f" = 0 ]; then f=1; fi
    if [ "$counter" = count_lines ]; then grep '^skip ' "$log" || true; fi
    if [ $((p + f + x)) = 0 ] && { [ "$counter" != count_lines ] || [ "$s" = 0 ]; }; then echo "no test was run"; f=1; fi
    if [ "$hex" = on ]; then
        tiers=$(grep -c 'refined (' "$log") || true
        fallbacks=$(grep -c 'HEX is off for this model' "$log") || true
        if [[ $falls_back == *" ${name##* } "* ]]; then want='a fall-back'; fi
        if { [ "$want" = 'a fall-back' ] && [ "$fallbacks" = 0 ]; } || { [ "$want" = 'a HEX cache' ] && [ "$tiers" = 0 ]; }; then
            echo "HEX was asked for, and the log does not show $want"
            f=$((f + 1))
        fi
        case $name in
            test-llama-archs)     others=$(architectures 1 "$log") ;;
            test-save-load-state) others=$(architectures 0 "$log") ;; # it has no model of some
        esac
        if [ -n "$others" ]; then echo "$others"; f=$((f + $(grep -c . <<< "$others"))); fi
    fi
    [ "$f" = 0 ] || { grep -iE 'fail|error|assert' "$log" | tail -n 20 || true; echo "the log is $log"; }
    failed=$((failed + f))
    printf -- '-- %s passed, %s failed, %s expected to fail, %s skipped, %s s\n' "$p" "$f" "$x" "$s" $((SECONDS - start))
    rows+=("$(printf '| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |' "$name" "$hex" "$tiers" "$fallbacks" $((p + f + s + x)) "$p" "$f" "$x" "$s" $((SECONDS - start)))")
}
both() { # NAME COUNTER COMMAND...
    local name=$1
    shift
    suite "$name" off "$@"
    suite "$name" on "$@"
}

count_one()    { cat > /dev/null; if [ "$1" = 0 ]; then echo 1 0 0; else echo 0 1 0; fi; }
count_ops()    { awk '/tests passed/ { split($1, a, "/"); p += a[1]; f += a[2] - a[1] } /not supported/ { s++ } END { print p+0, f+0, s+0 }'; }
# The end of a log may be lost with upstream's log thread, a last result with it: then the exit code stands for that one.
count_archs()  { # rows of the table, less the "Meta" device that needs several. Log lines cut rows in two
    awk -F'|' -v status="$1" '/\| *(Dense|MoE)\|/ && $3 !~ /Meta/ { n++; if (/SKIP/) s++ } /\[1;32mOK/ { p++ } /\[1;31mFAIL/ { f++ }
        END { lost = n - s - p; if (status == 0 && !f && lost == 1) p++; else if (lost > f) f = lost; print p+0, f+0, s+0 }'
}
count_state()  { awk -v status="$1" '/^All tests passed/ { p++ } /: model .*\.gguf/ { n++ } END { if (status == 0 && p == n - 1) p++; print p+0, n - p, 0 }'; }
count_lines()  { awk '/^ok / { p++ } /^FAIL / { f++ } /^skip / { s++ } END { print p+0, f+0, s+0 }'; }
count_pytest() { # "12 passed, 1 failed, 2 skipped, 3 deselected in 4.2s"
    grep -E '^=+ .* in [0-9.]+s' | tail -n 1 | awk '{ for (i = 2; i <= NF; i++) { w = $i; gsub(",", "", w)
        if (w == "passed") p += $(i-1); if (w == "xfailed") x += $(i-1); if (w == "failed" || w == "error" || w == "errors") f += $(i-1); if (w == "skipped" || w == "deselected") s += $(i-1) } }
        END { print p+0, f+0, s+0, x+0 }'
}

suite_ops()      { suite test-backend-ops - count_ops "$bin/test-backend-ops" test -b CPU; }
suite_quantize() { suite test-quantize-fns - count_one "$bin/test-quantize-fns"; }
suite_archs()    { both test-llama-archs count_archs "$bin/test-llama-archs" -s 1 -v 4; }

models() { # the tiny models of all architectures that test-llama-archs makes
    [ -f "$work/models/.done" ] && return
    mkdir -p "$work/models"
    "$bin/test-llama-archs" -s 1 -o "$work/models" > "$logs/models.log" 2>&1 || die "the models were not made; the log is $logs/models.log"
    touch "$work/models/.done"
}
suite_state() {
    models
    both test-save-load-state count_state env -C "$work" "$bin/test-save-load-state" --models "$work/models" -lv 4
}
suite_fragmented() { both test-state-restore-fragmented count_one "$bin/test-state-restore-fragmented" -m "$model" -lv 4; }
suite_threads()    { both test-thread-safety count_one "$bin/test-thread-safety" -m "$model" -p 'The meaning of life is' -n 128 -c 256 -ub 32 -np 4 -t "${LLAMA_ARG_THREADS:-2}" -lv 4; }
suite_rollback() {
    models
    local name
    for name in qwen35-dense nemotron_h-dense deepseek4-moe kimi-k3-moe; do
        both "test-recurrent-state-rollback $name" count_one "$bin/test-recurrent-state-rollback" -m "$work/models/$name.gguf" -lv 4
    done
}

# Units of llama-server that use the cache. What needs other models (images) or concerns no cache is left out.
suite_server() {
    local python=$work/venv/bin/python
    if [ ! -x "$python" ]; then
        python3 -m venv "$work/venv" && quiet "$python" -m pip install -q -r "$LLAMA/tools/server/tests/requirements.txt" ||
            die "pytest and its requirements could not be installed in $work/venv (details: $BUILD/fetch.log)"
    fi
    local unit
    for unit in slot_save ctx_shift kv_keep_only_active speculative completion; do
        LLAMA_ARG_LOG_VERBOSITY=4 both "llama-server $unit" count_pytest "$python" test/upstream/server_tests.py -rA "unit/test_$unit.py" \
            -k 'not multimodal and not image and not mmproj and not openai_library_stops'
    done
}
suite_tools()  { suite 'tools of llama.cpp' - count_lines bash test/tools.sh; }
suite_load()   { LOAD_LOG=$logs/load-server.log suite 'llama-server under load' - count_lines python3 test/load.py "${HEXKV_LOAD_SECONDS:-60}" 8 "$bin/llama-server" -m "$model" --hex "$preset"; }
load_sanitized() { # address or thread, the folder of its build
    JOBS=${JOBS:-} bash scripts/sanitize.sh server "$1"
    LOAD_SANITIZED=1 LOAD_LOG=$logs/load-$1-server.log ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1 TSAN_OPTIONS="halt_on_error=0 suppressions=$ROOT/test/upstream/tsan.supp" LLAMA_ARG_THREADS=1 \
        suite "llama-server under load, $1 sanitizer" - count_lines python3 test/load.py "${HEXKV_LOAD_SECONDS:-60}" 4 "$BUILD/$2/bin/llama-server" -m "$model" --hex "$preset"
}
suite_load-asan() { load_sanitized address asan; }
suite_load-tsan() { load_sanitized thread tsan; }
suite_gemma()  { suite 'Gemma 3 270M in llama-server' - count_lines bash test/upstream/gemma.sh; }
suite_rpc()    { suite 'RPC workers' - count_lines bash test/rpc.sh; }
suite_shifts() {
    local text=cmd/hexrun/internal/corpus/opticks.txt
    suite 'ten context shifts' - count_lines "$bin/measure_shifts" "$model" "$text" 4
    suite 'ten context shifts beside another sequence' - count_lines "$bin/measure_shifts" "$model" "$text" 4 beside
}

echo "== building"
cmake --build "$BUILD" --target tools upstream -- ${JOBS:+-j "$JOBS"}
for name in "${suites[@]}"; do
    declare -F "suite_$name" > /dev/null || die "unknown suite '$name'; suites: ${all[*]} load-asan load-tsan gemma"
    "suite_$name"
done

{
    echo '| suite | HEX | HEX caches | fall-backs | cases | passed | failed | expected to fail | skipped | seconds |'
    echo '|---|---|--:|--:|--:|--:|--:|--:|--:|--:|'
    printf '%s\n' "${rows[@]}"
} | tee "$work/table.md"
[ "$failed" = 0 ]
