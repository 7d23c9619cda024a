#!/usr/bin/env bash
# Every test. Each step prints what it runs; the last line is `N passed, N failed, N skipped`, over all single tests.
#
#   test/run.sh [STEP...]     steps: scripts ctest cuda backend-ops quantize-fns vet go e2e sanitize (default: all, in this order)
#
# A step that fails without saying which test failed, or that ran no test at all, counts as one failed test.
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
cd "$ROOT"
steps=("$@")
[ $# -gt 0 ] || steps=(scripts ctest cuda backend-ops quantize-fns vet go e2e sanitize)

passed=0 failed=0 skipped=0 broken=()
make_tmp
export HEXKV_BUILD=$BUILD

# run NAME COUNTER COMMAND...: prints and runs the command; COUNTER reads its output and prints "passed failed skipped".
# With count_one the command is one test, which passes when it succeeds.
run() {
    local name=$1 counter=$2 status=0 p=0 f=0 s=0 start=$SECONDS
    shift 2
    printf '\n== %s\n$ %s\n' "$name" "$(command_line "$@")"
    "$@" 2>&1 | tee "$TMP/out" || status=${PIPESTATUS[0]}
    read -r p f s < <("$counter" < "$TMP/out") || true
    if [ "$status" != 0 ] && [ "${f:-0}" = 0 ]; then f=1; fi
    if [ "$counter" = count_one ] && [ "$status" = 0 ]; then p=1; fi
    if [ $((${p:-0} + ${f:-0} + ${s:-0})) = 0 ]; then echo "no test was run"; f=1; fi
    passed=$((passed + ${p:-0})) failed=$((failed + ${f:-0})) skipped=$((skipped + ${s:-0}))
    [ "${f:-0}" = 0 ] || broken+=("$name")
    printf -- '-- %s: %s passed, %s failed, %s skipped, %s s\n' "$name" "${p:-0}" "${f:-0}" "${s:-0}" $((SECONDS - start))
}

count_ctest() { awk '/Test +#[0-9]+:/ { if (/Passed/) p++; else if (/Skipped|Not Run \(Disabled\)/) s++; else f++ } END { print p+0, f+0, s+0 }'; }
count_ops()   { awk '/tests passed/ { split($1, a, "/"); p += a[1]; f += a[2] - a[1] } END { print p+0, f+0, 0 }'; }
count_go()    { awk '/^ *--- PASS/ { p++ } /^ *--- FAIL/ { f++ } /^ *--- SKIP/ { s++ } /^FAIL\t.*\[(build|setup) failed\]/ { f++ } /^panic:|^WARNING: DATA RACE/ { f++ } END { print p+0, f+0, s+0 }'; }
count_lines() { awk '/^ok / { p++ } /^FAIL / { f++ } /^skip / { s++ } END { print p+0, f+0, s+0 }'; }
count_one()   { cat > /dev/null; echo "0 0 0"; }

step_scripts() { run 'fetch and patch scripts' count_lines bash test/scripts.sh; }

step_ctest() {
    echo; echo "== building the tests"; cmake --build "$BUILD" --target tests || true
    run ctest count_ctest ctest --test-dir "$BUILD" --output-on-failure --no-tests=error
}

# Kernels run in ctest, on the CPU (test/cuda); here they are compiled for GPUs.
step_cuda() { run 'CUDA sources compile' count_lines bash test/cuda/compile.sh; }

# Upstream's suite of ops, on this machine's backends, for the new types and ops.
step_backend-ops() {
    local tool=$BUILD/bin/test-backend-ops op
    for op in HEX_ATTN HEX_COMMIT; do
        run "test-backend-ops $op" count_ops "$tool" test -b CPU -o "$op"
    done
    run 'test-backend-ops HEX_ATTN, precise' count_ops env HEXKV_COARSE=0 "$tool" test -b CPU -o HEX_ATTN
    local typed="test -b CPU -o MUL_MAT,MUL_MAT_ID,GET_ROWS,SET_ROWS,CPY,FLASH_ATTN_EXT -p hex[1-4]"
    # shellcheck disable=SC2086
    run 'test-backend-ops, types hex1 to hex4' count_ops "$tool" $typed
}

step_quantize-fns() { run 'test-quantize-fns' count_one "$BUILD/bin/test-quantize-fns"; }

step_vet() {
    run 'go vet' count_one go vet ./...
    run 'go vet, laboratory' count_one go -C test/lab vet ./... # a module of its own
}
# -count=1: Go's cache does not see that libhexkv.a changed
step_go()  {
    run 'go test' count_go go test -race -count=1 -timeout 30m -v ./...
    run 'go test, laboratory' count_go go -C test/lab test -count=1 -v ./...
}
step_e2e() {
    run 'stock llama-perplexity, to compare logits with' count_one bash scripts/stock.sh llama-perplexity
    run 'end to end' count_lines bash test/e2e.sh
}

step_sanitize() { run 'sanitizers' count_ctest bash scripts/sanitize.sh; }

for step in "${steps[@]}"; do
    declare -F "step_$step" > /dev/null || die "unknown step '$step'; steps: scripts ctest cuda backend-ops quantize-fns vet go e2e sanitize"
    "step_$step"
done

echo
[ ${#broken[@]} = 0 ] || printf 'failed: %s\n' "${broken[@]}"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
