#!/usr/bin/env bash
# Builds for the GPU of this machine, tests and measures (README.md). The exit code is 1 when a test failed or did not run.
#
#   test/gpu/run.sh [--quick] [STEP...]     steps: models build ops logits tier perf bench sanitize (default: all, in this order)
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
quick=
if [ "${1:-}" = --quick ]; then
    quick=1
    shift
fi
all=(models build ops logits tier perf bench sanitize)
steps=("$@")
[ $# -gt 0 ] || steps=("${all[@]}")
for step in "${steps[@]}"; do
    case " ${all[*]} " in *" $step "*) ;; *) die "unknown step '$step'; steps: ${all[*]}" ;; esac
done
cd "$ROOT"

gpu=${HEXKV_GPU_BUILD:-$ROOT/build-gpu}
report=$gpu/report
bin=$gpu/bin
packed=${HEXKV_GPU_PACKED:-$BUILD/gpu}
device=${HEXKV_GPU_DEVICE:-CUDA0}
rounds=${HEXKV_GPU_ROUNDS:-$([ "$quick" ] && echo 2 || echo 3)}
index=${HEXKV_GPU_INDEX:-${device//[!0-9]/}} # for nvidia-smi
seconds=${HEXKV_GPU_SECONDS:-540}
layers=${HEXKV_GPU_LAYERS:-32}
awk=$ROOT/test/gpu/report.awk
mkdir -p "$report"
failed=0
step='' # the one that runs
export CUDA_DEVICE_ORDER=PCI_BUS_ID # CUDA counts as nvidia-smi does

have nvidia-smi && nvidia-smi -L > /dev/null 2>&1 || die "this machine has no NVIDIA GPU that nvidia-smi sees; the tests without one are in make test"
machine() { nvidia-smi -i "${index:-0}" --query-gpu="$1" --format=csv,noheader,nounits | head -n 1; }
machine name > /dev/null 2>&1 || die "nvidia-smi knows no GPU ${index:-0}; set HEXKV_GPU_INDEX to the number that nvidia-smi gives to $device"
json_string() { printf '"%s"' "$(tr -d '\n' <<< "$1" | sed 's/[\\"]/\\&/g')"; }
# result STEP JSON: what the report shows of a step
result() { printf '%s\n' "$2" > "$report/$1.json"; }
bad()    { failed=1; say "FAILED: $*"; echo "$*" >> "$report/$step.failed"; }
note()   { say "$*"; echo "$*" >> "$report/$step.notes"; }
give_up() { bad "$*"; exit 1; } # later steps need this one

# ---- time: a step may use its share of what is left, so that a slow one does not take the others' turn

share() { case $1 in ops) echo 2 ;; logits) echo 4 ;; tier) echo 2 ;; perf) echo 5 ;; bench) echo 5 ;; sanitize) echo 3 ;; *) echo 0 ;; esac; }
deadline=0
set_deadline() { # of steps[$1]
    local i sum=0 mine
    mine=$(share "${steps[$1]}")
    for ((i = $1; i < ${#steps[@]}; i++)); do sum=$((sum + $(share "${steps[i]}"))); done
    deadline=$((mine == 0 ? seconds : SECONDS + (seconds - SECONDS)*mine/sum))
}
left() { echo $((seconds == 0 ? 100000 : deadline - SECONDS)); }
# limited COMMAND...: exit code 124 when the step's time is over, or $at_most seconds of it
at_most=
limited() {
    local n
    n=$(left)
    [ -z "$at_most" ] || [ "$n" -le "$at_most" ] || n=$at_most
    [ "$n" -ge 2 ] || return 124
    timeout -k 5 "$n" "$@"
}

# ---- clocks and memory, sampled while a step measures

sampler=
start_samples() {
    nvidia-smi --query-gpu=clocks.sm,clocks.mem,power.draw,temperature.gpu,memory.used --format=csv,noheader,nounits -i "${index:-0}" \
        -lms 200 > "$1" 2> /dev/null &
    sampler=$!
}
stop_samples() {
    [ -z "$sampler" ] || { kill "$sampler" 2> /dev/null; wait "$sampler" 2> /dev/null || true; }
    sampler=
}
samples_json() { awk -F', *' -f "$awk" -v what=samples "$1"; }

# ---- steps

step_models() { # joins the parts of test/gpu/bundle.sh; they may come one at a time
    local part name n hash i joined
    mkdir -p "$gpu/models"
    for part in "$packed"/*.part-*; do
        name=$(basename "${part%.part-*}")
        if [ -f "$part" ] && [ ! -f "$gpu/models/$name" ]; then cp "$part" "$gpu/models/"; fi
    done
    for part in "$gpu"/models/*.part-1-of-*; do
        [ -f "$part" ] || continue
        hash=${part##*-} name=${part%.part-*} n=${part##*-of-} n=${n%-*} joined=1
        for ((i = 1; i <= n; i++)); do [ -f "$name.part-$i-of-$n-$hash" ] || joined=; done
        [ "$joined" ] || { note "$(basename "$name"): not all of its $n parts are here yet"; continue; }
        for ((i = 1; i <= n; i++)); do cat "$name.part-$i-of-$n-$hash"; done > "$name.tmp"
        case $(sha256 "$name.tmp") in "$hash"*) ;; *) rm -f "$name".part-* "$name.tmp"; bad "the parts of $(basename "$name") do not give the file that was packed; copy them again"; continue ;; esac
        mv "$name.tmp" "$name"
        rm -f "$name".part-*
        say "$name"
    done
}

# Unpacks llama.cpp when it is missing or came from another archive.
unpack_sources() {
    local sources=${HEXKV_GPU_SOURCES:-$packed/sources.tar.gz} mark=$LLAMA.sha256 hash new=$LLAMA.new file
    [ ! -d "$LLAMA/.git" ] || return 0 # that is kept by scripts/llama.sh
    if [ ! -f "$sources" ]; then
        [ -d "$LLAMA" ] || give_up "$LLAMA is missing; run make configure, or copy the files of test/gpu/bundle.sh to $packed"
        return 0
    fi
    hash=$(sha256 "$sources")
    [ ! -d "$LLAMA" ] || [ "$(cat "$mark" 2> /dev/null)" != "$hash" ] || return 0
    rm -rf "$new"
    mkdir -p "$new"
    tar -xzmf "$sources" -C "$new" --strip-components=1 || give_up "$sources cannot be unpacked; copy it again"
    if [ -d "$LLAMA" ]; then # what is the same keeps its time and is not compiled again
        while read -r -d '' file; do
            if cmp -s "$LLAMA/$file" "$new/$file"; then touch -r "$LLAMA/$file" "$new/$file"; fi
        done < <(cd "$new" && find . -type f -print0)
    fi
    rm -rf "$LLAMA"
    mv "$new" "$LLAMA"
    echo "$hash" > "$mark"
}

step_build() {
    local targets=(test-backend-ops test-save-load-state llama-bench llama-perplexity random_gguf) nvcc cap
    unpack_sources
    cap=$(machine compute_cap | tr -d .) # `native` needs CMake 3.24
    case $cap in ''|*[!0-9]*) give_up "nvidia-smi does not say what this GPU can compute (compute_cap); install a newer driver" ;; esac
    [ -d "$LLAMA/.git" ] || export HEXKV_NO_PATCH=1
    # the attention kernels of the caches that are compared, and no others
    cmake -S . -B "$gpu" -G Ninja -DHEXKV_LLAMA_DIR="$LLAMA" -DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES="${HEXKV_GPU_ARCH:-$cap-real}" \
        -DGGML_CUDA_FA_QUANTS='f16-f16;q8_0-q8_0;q4_0-q4_0' -DGGML_RPC=OFF -DHEXKV_TESTS=ON > "$report/configure.log" 2>&1 ||
        { tail -n 20 "$report/configure.log" >&2; give_up "CMake failed; the log is $report/configure.log"; }
    cmake --build "$gpu" --target "${targets[@]}" > "$report/build.log" 2>&1 ||
        { grep -m 20 -A 5 'error' "$report/build.log" >&2 || true; give_up "the build failed; the log is $report/build.log"; }
    nvcc=$(sed -n 's/^CMAKE_CUDA_COMPILER:[A-Z]*=//p' "$gpu/CMakeCache.txt")
    "$nvcc" -std=c++17 -O3 -arch="sm_$cap" -o "$bin/bandwidth" test/gpu/bandwidth.cu > "$report/bandwidth.log" 2>&1 || note "bandwidth.cu does not compile; see $report/bandwidth.log"
}

step_ops() {
    local op out status rows=()
    for op in HEX_ATTN HEX_COMMIT; do
        out=$report/ops-$op.txt status=0
        limited "$bin/test-backend-ops" test -b "$device" -o "$op" > "$out" 2>&1 || status=$?
        rows+=("$(awk -f "$awk" -v what=ops -v op="$op" -v status="$status" "$out")")
        say "${rows[-1]}"
        result ops "[$(IFS=,; echo "${rows[*]}")]"
        case $status in 0) ;; 124|137) bad "$op: cut off after its time" ;; *) bad "$op: exit code $status; see $out" ;; esac
        case ${rows[-1]} in *'"passed": 0,'*) bad "$op: no test passed on $device; see $out" ;; esac
    done
}

# models: those of HEXKV_GPU_MODELS, or what the step `models` has joined
find_models() {
    local model
    models=()
    if [ -n "${HEXKV_GPU_MODELS:-}" ]; then
        read -ra models <<< "$HEXKV_GPU_MODELS"
    else
        for model in "$gpu"/models/*.gguf; do if [ -f "$model" ]; then models+=("$model"); fi; done
    fi
    [ ${#models[@]} -gt 0 ] || { bad 'not run: there is no model; test/gpu/README.md says how to bring one'; return 1; }
}
# smallest: that of `models` whose file is the smallest
find_smallest() {
    local model size least=
    smallest=
    for model in "${models[@]}"; do
        [ -f "$model" ] || continue
        size=$(wc -c < "$model")
        if [ -z "$least" ] || [ "$size" -lt "$least" ]; then least=$size smallest=$model; fi
    done
}
# llama-perplexity wants twice as many tokens as a context holds
text=$gpu/text.txt
write_text() { cat cmd/hexrun/internal/corpus/opticks.txt cmd/hexrun/internal/corpus/opticks.txt > "$text"; }

# The limits: f16 shows what other kernels do to this model on its own. A HEX cache may add to that, because near-equal scores
# pick other tokens to refine, but not much. A floor that is itself far off means that the runs do not compare.
step_logits() {
    local model cache ub rows=() models smallest floor caches=(off balanced tiny) tokens=${HEXKV_GPU_TOKENS:-2048}
    find_models || return 0
    find_smallest
    write_text
    [ -z "$quick" ] || caches=(off balanced)
    for model in "${models[@]}"; do
        [ -f "$model" ] || { bad "$model in HEXKV_GPU_MODELS does not exist"; continue; }
        for ub in 64 8; do # rows of a ubatch: the kernels of prefill, and those of decoding (few query rows; csrc/cuda/README.md)
            floor=
            for cache in "${caches[@]}"; do
                [ "$(left)" -ge 3 ] || { bad "$(basename "$model"), $cache, ubatches of $ub: not run, the time is over"; continue; }
                compare_logits "$model" "$(basename "$model")" "$cache" "$ub" "$tokens"
            done
        done
    done
    # a longer context of the smallest model, in fewer steps
    [ -z "$quick" ] && [ "$tokens" -lt 8192 ] && [ -n "$smallest" ] || return 0
    floor=
    for cache in off balanced; do
        [ "$(left)" -ge 60 ] || { note "no logits of 8192 tokens, for lack of time"; return 0; }
        compare_logits "$smallest" "$(basename "$smallest") with 8192 tokens" "$cache" 512 8192
    done
}
# compare_logits MODEL NAME CACHE UBATCH TOKENS: a row of the report; `floor` is that of f16
compare_logits() {
    local model=$1 name=$2 cache=$3 ub=$4 tokens=$5 what="$2, $3, ubatches of $4" base=$gpu/logits.bin out verdict
    local -a flags=(-m "$model" -c "$tokens" -ub "$ub" --chunks 1 -fa on --hex "$cache" --kl-divergence-base "$base")
    out=$report/logits-$(basename "$model" .gguf)-$cache-$ub.txt
    limited "$bin/llama-perplexity" "${flags[@]}" -f "$text" -dev none -ngl 0 > "$out.cpu" 2>&1 ||
        bad "$what, on the CPU: exit code $?; see $out.cpu"
    limited "$bin/llama-perplexity" "${flags[@]}" --kl-divergence -dev "$device" -ngl 99 > "$out" 2>&1 ||
        bad "$what, on $device: exit code $?; see $out"
    rm -f "$base"
    if [ "$cache" != off ] && grep -q 'stay on the CPU' "$out"; then bad "$what: the cache stayed on the CPU; see $out"; fi
    rows+=("$(awk -f "$awk" -v what=logits -v model="$name" -v cache="$cache" -v ub="$ub" -v floor="$floor" "$out")")
    [ "$cache" != off ] || floor=$(sed -n 's/.*"kl_mean": \([0-9.e-]*\), "same_top1_percent": \([0-9.]*\), "verdict": "ok".*/\1 \2/p' <<< "${rows[-1]}")
    say "${rows[-1]}"
    verdict=$(sed -n 's/.*"verdict": "\([^"]*\)".*/\1/p' <<< "${rows[-1]}")
    [ "$verdict" = ok ] || bad "$what: $verdict"
    result logits "[$(IFS=,; echo "${rows[*]}")]"
}

# What ops alone do not show of a HEX cache on a GPU: its states, a cache or layers on the CPU, CUDA graphs.
step_tier() {
    local rows=() models smallest out status whole=$gpu/whole.bin part what verdict kl top flags
    find_models || return 0
    find_smallest
    [ -n "$smallest" ] || { bad 'not run: no model of HEXKV_GPU_MODELS exists'; return 0; }
    write_text
    tier_row() { # CHECK VERDICT [KL TOP]
        rows+=("$(printf '{"check": "%s", "kl_mean": %s, "same_top1_percent": %s, "verdict": "%s"}' "$1" "${3:-null}" "${4:-null}" "$2")")
        say "${rows[-1]}"
        [ "$2" = ok ] || bad "$1: $2"
        result tier "[$(IFS=,; echo "${rows[*]}")]"
    }
    # predictions OUT FLAG...: those of the smallest model with HEX
    predictions() {
        local out=$1
        shift
        limited "$bin/llama-perplexity" -m "$smallest" --chunks 1 -fa on --hex balanced -f "$text" -dev "$device" "$@" > "$out" 2>&1
    }

    what='states are saved and restored' out=$report/tier-state.txt status=0
    LLAMA_ARG_HEX=balanced limited "$bin/test-save-load-state" -m "$smallest" -dev "$device" -ngl 99 -lv 4 > "$out" 2>&1 || status=$?
    if [ "$status" != 0 ]; then tier_row "$what" "exit code $status"
    elif ! grep -q 'refined (' "$out"; then tier_row "$what" 'the log shows no HEX cache'
    elif grep -q 'stay on the CPU' "$out"; then tier_row "$what" 'the cache stayed on the CPU'
    else tier_row "$what" ok
    fi

    # one token at a time: that is what graphs are made of
    what='the same bits without CUDA graphs' out=$report/tier-graphs.txt part=$gpu/part.bin status=0
    predictions "$out" -ngl 99 -c 512 -b 512 -ub 1 --kl-divergence-base "$whole" || status=$?
    GGML_CUDA_DISABLE_GRAPHS=1 predictions "$out.without" -ngl 99 -c 512 -b 512 -ub 1 --kl-divergence-base "$part" || status=$?
    if [ "$status" != 0 ]; then tier_row "$what" "exit code $status"
    elif [ ! -s "$whole" ]; then tier_row "$what" 'no predictions'
    elif cmp -s "$whole" "$part"; then tier_row "$what" ok
    else tier_row "$what" 'they differ'
    fi
    rm -f "$part" "$whole"

    # limits as of `logits` where f16 itself is off by a KL of 0.005 and 93 % are the same
    status=0
    predictions "$report/tier-whole.txt" -ngl 99 -c 1024 -b 1024 -ub 64 --kl-divergence-base "$whole" || status=$?
    if grep -q 'stay on the CPU' "$report/tier-whole.txt"; then bad 'the cache stayed on the CPU'; fi
    for part in -nkvo '-ngl 15'; do
        what="$part against the whole on the GPU" out=$report/tier${part// /}.txt
        if [ "$status" != 0 ] || [ ! -s "$whole" ]; then tier_row "$what" 'no predictions of the whole'; continue; fi
        case $part in -nkvo) flags=(-nkvo -ngl 99) ;; *) read -ra flags <<< "$part" ;; esac
        if ! predictions "$out" "${flags[@]}" -c 1024 -b 1024 -ub 64 --kl-divergence-base "$whole" --kl-divergence; then tier_row "$what" 'llama-perplexity failed'; continue; fi
        read -r kl top verdict < <(awk -f "$awk" -v what=logits -v cache=balanced -v floor='0.005 93' "$out" |
            sed -n 's/.*"kl_mean": \([^,]*\), "same_top1_percent": \([^,]*\), "verdict": "\([^"]*\)".*/\1 \2 \3/p') || true
        tier_row "$what" "${verdict:-no figures}" "${kl:-null}" "${top:-null}"
    done
    rm -f "$whole"
}

step_perf() {
    local i began status=0 filter='n_ring=256|permute=\[0,2,1,3\]'
    [ -z "$quick" ] || filter='kv=(4096|32768),.*(n_ring=256|permute=\[0,2,1,3\])'
    rm -f "$report"/perf-*
    [ ! -x "$bin/bandwidth" ] || limited "$bin/bandwidth" "${device//[!0-9]/}" > "$report/bandwidth.json" 2>> "$report/bandwidth.log" || rm -f "$report/bandwidth.json"
    start_samples "$report/perf-clocks.csv"
    for ((i = 1; i <= rounds; i++)); do # each round measures all of them, one after the other
        began=$SECONDS
        HEXKV_PERF_LARGE=1 limited "$bin/test-backend-ops" perf -b "$device" -o FLASH_ATTN_EXT,HEX_ATTN,HEX_COMMIT -p "${HEXKV_GPU_PERF:-$filter}" > "$report/perf-$i.raw" 2>&1 || status=$?
        # "op(parameters) us"
        sed -n 's/^ *\([A-Z_]*([^()]*)\): .* \([0-9.]*\) us\/run.*/\1 \2/p' "$report/perf-$i.raw" > "$report/perf-$i.txt"
        case $status in 0) ;; 124|137) if [ "$i" = 1 ]; then bad 'the first round was cut off'; else note "round $i was cut off"; fi; break ;; *) bad "test-backend-ops perf: exit code $status; see $report/perf-$i.raw"; break ;; esac
        [ "$(left)" -ge $((SECONDS - began)) ] || { note "$i of $rounds rounds, for lack of time"; break; }
    done
    stop_samples
    cat "$report"/perf-*.txt | awk -f "$awk" -v what=perf -v bandwidth="$(cat "$report/bandwidth.json" 2> /dev/null)" > "$report/perf.json"
    samples_json "$report/perf-clocks.csv" > "$report/clocks.json"
    grep -q '"op": "HEX_ATTN' "$report/perf.json" || bad "HEX_ATTN was not measured; see $report/perf-1.raw"
}

# Each round measures every cache, a process each, so that what changes with time meets all of them.
step_bench() {
    local model=$gpu/random-8b-$layers.gguf i cache name flags before what depths=${HEXKV_GPU_DEPTHS:-$([ "$quick" ] && echo 4096 || echo 4096,32768)}
    rm -f "$report"/bench*
    [ -f "$model" ] || { limited "$bin/random_gguf" "$model.tmp" "$layers" && mv "$model.tmp" "$model"; } || { bad 'the random model could not be written'; return 0; }
    for ((i = 1; i <= rounds; i++)); do
        for cache in f16 hex:balanced q8_0 hex:tiny q4_0; do
            [ -z "$quick" ] || case $cache in hex:tiny|q4_0) continue ;; esac
            [ "$(left)" -ge 15 ] || { what="round $i of $rounds ended before $cache, for lack of time"; if [ "$i" = 1 ]; then bad "$what"; else note "$what"; fi; break 2; }
            name=${cache/:/-}
            case $cache in hex:*) flags=(--hex "${cache#hex:}") ;; *) flags=(-ctk "$cache" -ctv "$cache") ;; esac
            before=$(machine memory.used)
            start_samples "$report/bench-$name-$i.csv"
            limited "$bin/llama-bench" -v -m "$model" -dev "$device" -ngl 99 -fa 1 -p 512 -n 64 -d "$depths" -r 1 "${flags[@]}" -o jsonl \
                > "$report/bench-$name-$i.jsonl" 2> "$report/bench-$name.log" || bad "llama-bench, $cache: exit code $?; see $report/bench-$name.log"
            stop_samples
            if grep -q 'stay on the CPU' "$report/bench-$name.log"; then bad "$cache: the cache stayed on the CPU"; fi
            awk -f "$awk" -v what=bench_lines -v cache="$cache" "$report/bench-$name-$i.jsonl" >> "$report/bench.txt"
            [ "$i" -gt 1 ] || awk -F', *' -f "$awk" -v what=memory -v cache="$cache" -v before="$before" "$report/bench-$name-$i.csv" "$report/bench-$name.log" >> "$report/memory.txt"
        done
    done
    awk -f "$awk" -v what=bench "$report/bench.txt" > "$report/bench.json"
    awk -f "$awk" -v what=memory_rows "$report/memory.txt" > "$report/memory.json"
    grep -q '"cache": "hex:balanced"' "$report/bench.json" || bad "hex:balanced was not measured; see $report/bench-hex-balanced.log"
}

step_sanitize() {
    local tool rows=() out status sanitizer nvcc filter='kv=[0-9]{1,4},nb=(1|5|40|70),' few='kv=129,nb=(1|40),'
    sanitizer=$(command -v compute-sanitizer || true)
    nvcc=$(sed -n 's/^CMAKE_CUDA_COMPILER:[A-Z]*=//p' "$gpu/CMakeCache.txt" 2> /dev/null || true)
    if [ -z "$sanitizer" ] && [ -x "$(dirname "${nvcc:-/}")/compute-sanitizer" ]; then sanitizer=$(dirname "$nvcc")/compute-sanitizer; fi
    if [ -z "$sanitizer" ]; then
        bad 'not run: compute-sanitizer is missing; install it with CUDA, or name the other steps'
        result sanitize '[{"tool": "compute-sanitizer", "summary": "not run: it is missing on this machine"}]'
        return 0
    fi
    # Shapes that differ in kernels: head sizes 64 to 256, few and many rows, all residual codecs. --quick, and racecheck, which is
    # several times slower: head sizes.
    [ -z "$quick" ] || filter=$few
    for tool in memcheck racecheck; do
        out=$report/sanitize-$tool.txt status=0 at_most=
        if [ "$tool" = memcheck ]; then at_most=$(($(left)/2)); else filter=$few; fi
        limited "$sanitizer" --tool "$tool" --error-exitcode 99 "$bin/test-backend-ops" test -b "$device" -o HEX_ATTN,HEX_COMMIT \
            -p "${HEXKV_GPU_SANITIZE:-$filter}" > "$out" 2>&1 || status=$?
        rows+=("$(awk -f "$awk" -v what=sanitize -v tool="$tool" -v status="$status" "$out")")
        say "${rows[-1]}"
        case $status in 0) ;; 124|137) bad "$tool: cut off before its end; set HEXKV_GPU_SECONDS=0" ;; *) bad "$tool: exit code $status; see $out" ;; esac
        case ${rows[-1]} in *'"passed": 0,'*) bad "$tool: no test ran" ;; esac
        result sanitize "[$(IFS=,; echo "${rows[*]}")]"
    done
    at_most=
}

# ---- report: everything that steps have found so far, in one file, and the tables of it

write_report() {
    local name out=$report/report.json md=$report/report.md
    {
        printf '{\n  "gpu": %s,\n  "driver": %s,\n  "clocks_max_sm_mem_mhz": %s,\n  "power_limit_w": %s,\n  "commit": %s,\n  "layers": %s' \
            "$(json_string "$(machine name)")" "$(json_string "$(machine driver_version)")" "$(json_string "$(machine clocks.max.sm,clocks.max.mem)")" \
            "$(json_string "$(machine power.limit)")" "$(json_string "$(git describe --always --dirty --exclude '*' 2> /dev/null || cat "$packed/commit" 2> /dev/null || echo unknown)")" "$layers"
        for name in "${all[@]}"; do
            [ ! -s "$report/$name.state" ] || printf ',\n  "step_%s": %s' "$name" "$(json_string "$(cat "$report/$name.state")")"
        done
        for name in ops logits tier bandwidth clocks perf bench memory sanitize; do
            [ ! -s "$report/$name.json" ] || printf ',\n  "%s": %s' "$name" "$(cat "$report/$name.json")"
        done
        printf '\n}\n'
    } > "$out.tmp"
    mv "$out.tmp" "$out"
    awk -f "$awk" -v what=markdown "$out" > "$md"
    say "report: $out, $md"
}

# What became of the step, and the report; also when a step ends the script.
end_step() {
    local state=$1
    { printf '%s in %s s' "$state" $((SECONDS - began)); sed 's/^/; /' "$report/$step.failed" "$report/$step.notes" 2> /dev/null || true; } | tr -d '\n' > "$report/$step.state" # of two files one may be missing
    write_report
    step=
}
at_exit() {
    stop_samples
    [ -z "$step" ] || end_step "$([ -s "$report/$step.failed" ] && echo FAILED || echo 'ended early')"
}
trap at_exit EXIT

for step in "${steps[@]}"; do
    rm -f "$report/$step.failed" "$report/$step.notes" "$report/$step.json"
    echo 'not run' > "$report/$step.state"
done
for i in "${!steps[@]}"; do
    step=${steps[i]}
    set_deadline "$i"
    say "step $step"
    began=$SECONDS
    if [ "$(share "$step")" != 0 ] && [ "$(left)" -lt 2 ]; then
        bad 'not run: the time is over (HEXKV_GPU_SECONDS)'
    else
        "step_$step"
    fi
    end_step "$([ -s "$report/$step.failed" ] && echo FAILED || echo done)"
done
[ "$failed" = 0 ] || die "a test failed or something did not run; see $report/report.md"
