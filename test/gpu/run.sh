#!/usr/bin/env bash
# Builds for the GPU of this machine, tests and measures (README.md). The exit code is 1 when a test failed.
#
#   test/gpu/run.sh [STEP...]     steps: build ops logits perf bench sanitize (default: all, in this order)
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
steps=("$@")
[ $# -gt 0 ] || steps=(build ops logits perf bench sanitize)
cd "$ROOT"

gpu=${HEXKV_GPU_BUILD:-$ROOT/build-gpu}
report=$gpu/report
bin=$gpu/bin
device=${HEXKV_GPU_DEVICE:-CUDA0}
rounds=${HEXKV_GPU_ROUNDS:-3}
mkdir -p "$report"
failed=0

have nvidia-smi && nvidia-smi -L > /dev/null 2>&1 || die "this machine has no NVIDIA GPU that nvidia-smi sees; the tests without one are in make test"
machine() { nvidia-smi --query-gpu="$1" --format=csv,noheader,nounits | head -n 1; }
json_string() { printf '"%s"' "$(sed 's/[\\"]/\\&/g' <<< "$1")"; }
# result STEP JSON: what the report shows of a step
result() { printf '%s\n' "$2" > "$report/$1.json"; }

step_build() {
    if [ ! -d "$LLAMA" ]; then
        [ -f "${HEXKV_GPU_SOURCES:-}" ] || die "$LLAMA is missing; run make configure, or name the file of test/gpu/bundle.sh in HEXKV_GPU_SOURCES"
        mkdir -p "$BUILD"
        tar -xzf "$HEXKV_GPU_SOURCES" -C "$BUILD"
        export HEXKV_NO_PATCH=1
    fi
    [ -d "$LLAMA/.git" ] || export HEXKV_NO_PATCH=1
    cmake -S . -B "$gpu" -G Ninja -DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES="${HEXKV_GPU_ARCH:-native}" -DGGML_CUDA_NCCL=OFF \
        -DGGML_CUDA_FA_QUANTS='f16-f16;q8_0-q8_0;q4_0-q4_0' > "$report/configure.log" 2>&1 ||
        { tail -n 20 "$report/configure.log" >&2; die "CMake failed; the log is $report/configure.log"; }
    cmake --build "$gpu" --target test-backend-ops llama-bench llama-perplexity random_gguf
}

step_ops() {
    local op out rows=()
    for op in HEX_ATTN HEX_COMMIT; do
        out=$report/ops-$op.txt
        "$bin/test-backend-ops" test -b "$device" -o "$op" > "$out" 2>&1 || failed=1
        # a test that the device refuses passes nothing
        rows+=("$(awk -v op="$op" '/not supported/ { s++ } /: .*OK/ && /\(/ { p++ } /: .*FAIL/ && /\(/ { f++ }
            END { printf "{\"op\": \"%s\", \"passed\": %d, \"failed\": %d, \"not_supported\": %d}", op, p, f, s }' "$out")")
        grep -q 'OK' "$out" || { failed=1; say "$op: nothing ran on $device; see $out"; }
        say "${rows[-1]}"
    done
    result ops "[$(IFS=,; echo "${rows[*]}")]"
}

step_logits() {
    local text=$ROOT/cmd/hexrun/internal/corpus/opticks.txt model cache rows=() base out
    [ -n "${HEXKV_GPU_MODELS:-}" ] || { say 'logits: skipped, HEXKV_GPU_MODELS names no model'; return 0; }
    for model in $HEXKV_GPU_MODELS; do
        [ -f "$model" ] || die "$model in HEXKV_GPU_MODELS does not exist"
        for cache in off balanced tiny; do
            base=$gpu/logits.bin out=$report/logits-$(basename "$model" .gguf)-$cache.txt
            "$bin/llama-perplexity" -m "$model" -f "$text" -c 2048 -ub 64 --chunks 1 -fa on --hex "$cache" -dev none -ngl 0 \
                --kl-divergence-base "$base" > "$out.cpu" 2>&1 || failed=1
            "$bin/llama-perplexity" -m "$model" -c 2048 -ub 64 --chunks 1 -fa on --hex "$cache" -dev "$device" -ngl 99 \
                --kl-divergence-base "$base" --kl-divergence > "$out" 2>&1 || failed=1
            rm -f "$base"
            if [ "$cache" != off ] && grep -q 'stay on the CPU' "$out"; then failed=1; say "$cache: the cache stayed on the CPU; see $out"; fi
            rows+=("$(awk -v m="$(basename "$model")" -v c="$cache" '/Mean +KLD:/ { k = $3 } /Same top p:/ { t = $4 }
                END { printf "{\"model\": \"%s\", \"cache\": \"%s\", \"kl_mean\": %s, \"same_top1_percent\": %s}", m, c, k == "" ? "null" : k, t == "" ? "null" : t }' "$out")")
            case ${rows[-1]} in *null*) failed=1 ;; esac
            say "${rows[-1]}"
        done
    done
    result logits "[$(IFS=,; echo "${rows[*]}")]"
}

# Lines "op(parameters) us" of one round.
perf_lines() { sed -n 's/^ *\([A-Z_]*([^()]*)\): .* \([0-9.]*\) us\/run.*/\1 \2/p'; }

step_perf() {
    local i
    rm -f "$report"/perf-*.txt
    for ((i = 1; i <= rounds; i++)); do # each round measures all of them, one after the other
        HEXKV_PERF_LARGE=1 "$bin/test-backend-ops" perf -b "$device" -o FLASH_ATTN_EXT,HEX_ATTN,HEX_COMMIT -p 'hexkv|type_k|hsk=128,hsv=128,nh=(8|64),nr23=\[4,1\]' > "$report/perf-$i.raw" 2>&1 || failed=1
        perf_lines < "$report/perf-$i.raw" > "$report/perf-$i.txt"
    done
    [ -s "$report/perf-1.txt" ] || { failed=1; say "perf: nothing was measured; see $report/perf-1.raw"; }
    cat "$report"/perf-*.txt | awk '
        function number(s, k) { return match(s, "[(,]" k "=[0-9]+") ? substr(s, RSTART + length(k) + 2, RLENGTH - length(k) - 2) + 0 : 0 }
        # stock attention of N sequences is measured as 8*N heads
        function shape(s) { return number(s, "kv") " " number(s, "nb") " " (s ~ /^FLASH/ ? number(s, "nh")/8 : number(s, "ns")) }
        { if (!($1 in n)) order[++m] = $1; v[$1, ++n[$1]] = $2 }
        END {
            printf "["
            for (i = 1; i <= m; i++) {
                k = order[i]
                for (a = 1; a < n[k]; a++) for (b = a + 1; b <= n[k]; b++) if (v[k, b] < v[k, a]) { t = v[k, a]; v[k, a] = v[k, b]; v[k, b] = t }
                v[k] = v[k, int((n[k] + 1)/2)]
                if (k ~ /^FLASH.*type_K=f16/) f16[shape(k)] = v[k]
                ratio = k !~ /COMMIT/ && shape(k) in f16 ? v[k]/f16[shape(k)] : "null"
                printf "%s{\"op\": \"%s\", \"us_median\": %s, \"us_min\": %s, \"us_max\": %s, \"ratio_to_f16\": %s}", (i > 1 ? ", " : ""), k, v[k], v[k, 1], v[k, n[k]], ratio
            }
            printf "]"
        }' > "$report/perf.json"
}

step_bench() {
    local model=$gpu/random-8b.gguf layers=${HEXKV_GPU_LAYERS:-32}
    [ -f "$model" ] || "$bin/random_gguf" "$model" "$layers"
    # llama-bench runs the caches in turns for each depth
    "$bin/llama-bench" -m "$model" -dev "$device" -ngl 99 -fa 1 -p 512 -n 64 -d "${HEXKV_GPU_DEPTHS:-0,4096,16384,32768}" -r "$rounds" \
        --hex off,balanced,tiny -o json > "$report/bench.json" 2> "$report/bench.log" || failed=1
    "$bin/llama-bench" -m "$model" -dev "$device" -ngl 99 -fa 1 -p 0 -n 64 -d "${HEXKV_GPU_DEPTHS:-0,4096,16384,32768}" -r "$rounds" \
        -ctk q8_0 -ctv q8_0 -o json > "$report/bench-q8_0.json" 2>> "$report/bench.log" || failed=1
}

step_sanitize() {
    local tool rows=() out
    have compute-sanitizer || { say 'sanitize: skipped, compute-sanitizer is missing'; return 0; }
    for tool in memcheck racecheck; do
        out=$report/sanitize-$tool.txt
        # the shapes that differ in kernels: head sizes, few and many rows, all residual codecs
        timeout 900 compute-sanitizer --tool "$tool" --error-exitcode 99 "$bin/test-backend-ops" test -b "$device" -o HEX_ATTN,HEX_COMMIT \
            -p "${HEXKV_GPU_SANITIZE:-nb=(1|5|70),}" > "$out" 2>&1 || failed=1
        rows+=("{\"tool\": \"$tool\", \"summary\": $(json_string "$(grep -o 'ERROR SUMMARY.*\|RACECHECK SUMMARY.*' "$out" | tail -n 1)")}")
        say "${rows[-1]}"
    done
    result sanitize "[$(IFS=,; echo "${rows[*]}")]"
}

# Everything that steps have found so far, in one file, and the tables of it.
write_report() {
    local name out=$report/report.json md=$report/report.md
    {
        printf '{\n  "gpu": %s,\n  "driver": %s,\n  "clocks_sm_mem_mhz": %s,\n  "clocks_max_mhz": %s,\n  "power_limit_w": %s,\n  "commit": %s' \
            "$(json_string "$(machine name)")" "$(json_string "$(machine driver_version)")" "$(json_string "$(machine clocks.sm,clocks.mem)")" \
            "$(json_string "$(machine clocks.max.sm,clocks.max.mem)")" "$(json_string "$(machine power.limit)")" \
            "$(json_string "$(git rev-parse --short HEAD 2>/dev/null || echo unknown)")"
        for name in ops logits perf bench bench-q8_0 sanitize; do
            [ -s "$report/$name.json" ] && printf ',\n  "%s": %s' "$name" "$(cat "$report/$name.json")"
        done
        printf '\n}\n'
    } > "$out"
    {
        printf '# HEX on %s\n\nDriver %s; clocks SM, memory: %s MHz (at most %s).\n' "$(machine name)" "$(machine driver_version)" "$(machine clocks.sm,clocks.mem)" "$(machine clocks.max.sm,clocks.max.mem)"
        for name in ops logits sanitize; do
            [ ! -s "$report/$name.json" ] || { printf '\n## %s\n\n' "$name"; tr -d '[]' < "$report/$name.json" | sed 's/},{/}\n{/g' | sed 's/[{}"]//g; s/^/* /'; }
        done
        if [ -s "$report/perf.json" ]; then
            printf '\n## Ops\n\n| op | µs, median | least | most | of f16 |\n|---|--:|--:|--:|--:|\n'
            sed 's/}, {/}\n{/g' "$report/perf.json" | sed -n 's/.*"op": "\([^"]*\)", "us_median": \([^,]*\), "us_min": \([^,]*\), "us_max": \([^,]*\), "ratio_to_f16": \([^}]*\)}.*/| `\1` | \2 | \3 | \4 | \5 |/p'
        fi
        if [ -s "$report/bench.json" ]; then
            printf '\n## Whole model, random 8B, tokens per second\n\n| cache | depth | test | t/s | ± |\n|---|--:|---|--:|--:|\n'
            cat "$report/bench.json" "$report/bench-q8_0.json" 2> /dev/null | awk -F'[:,]' '
                /"hex"/ { h = $2 } /"type_k"/ { k = $2 } /"n_depth"/ { d = $2 } /"n_prompt"/ { p = $2 } /"n_gen"/ { g = $2 } /"avg_ts"/ { a = $2 } /"stddev_ts"/ { s = $2
                    gsub(/[" ]/, "", h); gsub(/[" ]/, "", k)
                    printf "| %s | %s | %s | %.1f | %.1f |\n", h == "" || h == "off" ? k : "hex:" h, d + 0, p + 0 ? "prefill " p + 0 : "decode " g + 0, a, s }'
        fi
    } > "$md"
    say "report: $out, $md"
}

for step in "${steps[@]}"; do
    declare -F "step_$step" > /dev/null || die "unknown step '$step'; steps: build ops logits perf bench sanitize"
    say "step $step"
    "step_$step"
    write_report
done
[ "$failed" = 0 ] || die "a test failed or something did not run; see $report"
