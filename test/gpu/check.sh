#!/usr/bin/env bash
# What can be checked of run.sh and bundle.sh without a GPU: one line per check, as test/e2e.sh. The programs that run.sh
# starts are stand-ins here that print what the real ones do, or rubbish. test/scripts.sh runs it.
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
# shellcheck disable=SC2086
unset ${!HEXKV_GPU@}
make_tmp
fails=0
ok()   { echo "ok $1"; }
fail() { echo "FAIL $1: $2"; fails=$((fails + 1)); }
# has NAME TEXT FILE
has() { if grep -qF -- "$2" "$3" 2> /dev/null; then ok "$1"; else fail "$1" "'$2' is not in it: $(tail -c 600 "$3" 2>&1)"; fi; }

# the bundle holds what CMake configures
head -c 110000000 /dev/zero | tr '\0' 'x' > "$TMP/model.gguf"
if bash "$ROOT/test/gpu/bundle.sh" -o "$TMP/packed" "$TMP/model.gguf" > "$TMP/out" 2>&1; then ok 'the bundle is packed'; else fail 'the bundle is packed' "$(tail -n 2 "$TMP/out")"; fi
if [ -z "$(find "$TMP/packed" -size +60M)" ]; then ok 'none of its files is above 60 MiB'; else fail 'none of its files is above 60 MiB' "$(cat "$TMP/out")"; fi
mkdir "$TMP/sources" && tar -xzf "$TMP/packed/sources.tar.gz" -C "$TMP/sources"
if HEXKV_NO_PATCH=1 cmake -S "$ROOT" -B "$TMP/configured" -G Ninja -DHEXKV_LLAMA_DIR="$TMP/sources/llama.cpp" > "$TMP/out" 2>&1; then ok 'CMake configures from the bundle'
else fail 'CMake configures from the bundle' "$(grep -m 3 -A 3 'Error' "$TMP/out")"
fi
# the same for a GPU, as run.sh does; what it links with is named, not built
nvcc=$BUILD/cuda-toolkit/bin/nvcc
[ -x "$nvcc" ] || nvcc=$(command -v nvcc || true)
if [ -z "$nvcc" ]; then echo 'skip CMake configures for CUDA: nvcc is missing; make cuda-toolkit installs it'
else
    root=$(cd "$(dirname "$nvcc")/.." && pwd) flags=(-DGGML_CUDA=ON -DCMAKE_CUDA_COMPILER="$nvcc" -DCUDAToolkit_ROOT="$root" -DCMAKE_CUDA_ARCHITECTURES=90-real)
    # the wheels lack the driver's library, which only a machine with a GPU needs
    touch "$TMP/libcuda.so"
    flags+=(-DCUDA_cuda_driver_LIBRARY="$TMP/libcuda.so")
    if HEXKV_NO_PATCH=1 cmake -S "$ROOT" -B "$TMP/cuda" -G Ninja -DHEXKV_LLAMA_DIR="$TMP/sources/llama.cpp" "${flags[@]}" \
        -DGGML_CUDA_FA_QUANTS='f16-f16;q8_0-q8_0;q4_0-q4_0' -DGGML_RPC=OFF -DHEXKV_TESTS=ON > "$TMP/out" 2>&1; then ok 'CMake configures for CUDA'
    else fail 'CMake configures for CUDA' "$(grep -m 3 -A 3 'Error' "$TMP/out")"
    fi
    has '... HEX kernels for sm_90'       'arch=compute_90,code=[sm_90]' "$TMP/cuda/build.ninja"
    has '... hex_attn.cu'                 'csrc/cuda/hex_attn.cu' "$TMP/cuda/build.ninja"
    has '... the driver to link with'     "$TMP/libcuda.so" "$TMP/cuda/build.ninja"
    for target in test-backend-ops test-save-load-state llama-bench llama-perplexity random_gguf; do
        has "... the target $target"      "build $target: phony" "$TMP/cuda/build.ninja"
    done
fi

# stand-ins
gpu=$TMP/gpu
mkdir -p "$TMP/bin" "$gpu/bin" "$gpu/models"
cat > "$TMP/bin/nvidia-smi" <<'X'
#!/bin/sh
while [ $# -gt 0 ] && [ "$1" != -i ] && [ "$1" != -L ]; do query="$query $1"; shift; done # -i may be first or last
index=$2
[ "$1" != -i ] || shift 2
set -- "$query $*"
case "$*" in
*-lms*) while :; do echo "1980, 2619, 400.5, 50, ${USED:-9000}"; sleep 0.02; done ;;
*driver_version*) echo 580.1 ;; *memory.used*) echo 500 ;; *clocks*) echo "1980, 2619" ;; *power.limit*) echo 700 ;; *compute_cap*) echo 9.0 ;; *) echo "GPU number $index" ;;
esac
X
cat > "$TMP/bin/compute-sanitizer" <<'X'
#!/bin/sh
[ "$WRONG" != sanitize ] || { echo "========= ERROR SUMMARY: 3 errors"; exit 99; }
case "$WRONG $*" in 'slow-memcheck '*memcheck*) sleep 600 ;; esac
echo "  198/198 tests passed"; echo "========= ERROR SUMMARY: 0 errors"
X
cat > "$gpu/bin/test-backend-ops" <<'X'
#!/bin/sh
[ "$WRONG" != slow ] || sleep 600
if [ "$1" = perf ]; then
    a='hsk=128,hsv=128,nh=8,nr23=[4,1],kv=32768,nb=1,mask=1,sinks=0,max_bias=0.000000,logit_softcap=0.000000,prec=f32'
    h='type_k=hex4,type_v=hex2,refine=4,hsk=128,hsv=128,nh=8,nr=4,kv=32768,nb=1,ns=1,n_ring=256,n_heavy=2048,graph=0'
    chain=',caches=6,ops=10'
    [ "$WRONG" != l2 ] || chain=,caches=2,ops=10
    echo "  FLASH_ATTN_EXT($a,type_K=f16,type_V=f16,permute=[0,2,1,3]$chain):   1000 runs -   1000.00 us/run - 1 GFLOP/run - 2 TFLOPS"
    echo "  FLASH_ATTN_EXT($a,type_K=q8_0,type_V=q8_0,permute=[0,2,1,3]$chain): 1000 runs -   1200.00 us/run - 1 GFLOP/run - 2 TFLOPS"
    echo "  HEX_ATTN($h$chain): 1000 runs -    250.00 us/run - 1 GFLOP/run - 2 TFLOPS"
    echo "  HEX_COMMIT($h): 1000 runs -     1.00 us/run - 1 GFLOP/run - 2 TFLOPS"
elif [ "$WRONG" = refused ]; then
    echo "  $6(hsk=64): not supported [CUDA0]"; echo "  0/0 tests passed"; echo "Backend CUDA0: OK"
else
    echo "  $6(hsk=64): OK"; echo "  $6(hsk=192): not supported [CUDA0]"; echo "  312/312 tests passed"; echo "Backend CUDA0: OK"
fi
X
cat > "$gpu/bin/llama-perplexity" <<'X'
#!/bin/sh
kl=0.004100 top=93.346
case "$*" in *"--hex balanced"*) [ "$WRONG" != logits ] || kl=3.1 top=2.100 ;; esac
case "$*" in *"-ub 8 "*) kl=0.005000; [ "$WRONG" != decode ] || kl=1.5 ;; esac
case "$*" in *"--hex balanced"*-nkvo*) [ "$WRONG" != nkvo ] || kl=2.2 ;; *"-c 8192 "*"--hex balanced"*) [ "$WRONG" != long ] || kl=1.1 ;; esac
[ "$WRONG" != nan ] || kl=nan
case "$*" in
*--kl-divergence-base*--kl-divergence*) ;;
*--kl-divergence-base*) # writes the predictions
    bits=same
    [ "$WRONG" != graphs ] || [ -z "$GGML_CUDA_DISABLE_GRAPHS" ] || bits=others
    while [ "$1" != --kl-divergence-base ]; do shift; done
    echo "$bits" > "$2" ;;
esac
echo "Mean    KLD:   $kl ±   0.000168"; echo "Same top p: $top ± 1.104 %"
X
cat > "$gpu/bin/test-save-load-state" <<'X'
#!/bin/sh
[ "$WRONG" != state ] || exit 1
[ "$WRONG" = no-hex ] || [ "$LLAMA_ARG_HEX" != balanced ] || echo "log_plan: refined (hex4) per KV head: 32 sinks and recent"
echo "All tests passed"
X
cat > "$gpu/bin/llama-bench" <<'X'
#!/bin/sh
hex=off kv=4096.00 tps=90
case "$*" in *"--hex balanced"*) hex=balanced kv=1100.00 tps=120; echo "llama_hex_attach: KV cache 1290.00 MiB, 4.9 bits per element: ..." >&2 ;; esac
echo "load_tensors:        CUDA0 model buffer size =  4300.00 MiB" >&2
echo "llama_kv_cache:      CUDA0 KV buffer size =  $kv MiB" >&2
echo "sched_reserve:      CUDA0 compute buffer size =   304.00 MiB" >&2
for d in 4096 32768; do echo "{\"type_k\": \"f16\", \"hex\": \"$hex\", \"n_prompt\": 0, \"n_gen\": 64, \"n_depth\": $d, \"avg_ts\": $tps.0, \"stddev_ts\": 0.1}"; done
sleep 0.1
X
printf '#!/bin/sh\necho model > "$1"\n' > "$gpu/bin/random_gguf"
printf '#!/bin/sh\necho "{\\"measured_gb_s\\": 3000, \\"nominal_gb_s\\": 3350, \\"l2_bytes\\": 52428800}"\n' > "$gpu/bin/bandwidth"
chmod +x "$TMP"/bin/* "$gpu"/bin/*
run() { PATH="$TMP/bin:$PATH" HEXKV_GPU_BUILD=$gpu HEXKV_GPU_PACKED=$TMP/packed HEXKV_GPU_ROUNDS=2 "$@" > "$TMP/out" 2>&1; }
steps=(models ops logits tier perf bench sanitize)

# a run without faults
if run bash "$ROOT/test/gpu/run.sh" "${steps[@]}"; then ok 'all steps pass'; else fail 'all steps pass' "$(cat "$TMP/out")"; fi
if cmp -s "$gpu/models/model.gguf" "$TMP/model.gguf"; then ok 'the parts of a model are joined'; else fail 'the parts of a model are joined' "$(ls "$gpu/models")"; fi
md=$gpu/report/report.md json=$gpu/report/report.json
has 'report: what passed'          '| `HEX_ATTN` | 312 | 0 | 1 |' "$md"
has 'report: logits'               '| model.gguf | balanced | 64 | 0.004100 | 93.346 | ok |' "$md"
has 'report: logits of decoding'   '| model.gguf | balanced | 8 | 0.005000 | 93.346 | ok |' "$md"
has 'report: logits of a long context' '| model.gguf with 8192 tokens | balanced | 512 | 0.004100 | 93.346 | ok |' "$md"
has 'report: states of the tier'   '| states are saved and restored | - | - | ok |' "$md"
has 'report: CUDA graphs'          '| the same bits without CUDA graphs | - | - | ok |' "$md"
has 'report: a cache on the CPU'   '| -nkvo against the whole on the GPU | 0.004100 | 93.346 | ok |' "$md"
has 'report: layers on the CPU'    '| -ngl 15 against the whole on the GPU | 0.004100 | 93.346 | ok |' "$md"
has 'report: which GPU'            '# HEX on GPU number 0' "$md"
has 'report: ratios, bandwidth'    '| 25 | 25 | 25 | 4.000 | 4.800 | - | 1193.' "$md"
has 'report: goal of the op'       '| decode op, 32768 cells, 1 sequences: 3x f16 | 4.000 | yes |' "$md"
has 'report: clocks while measuring' 'SM 1980 to 1980 MHz' "$md"
has 'report: whole model'          '| hex:balanced | 32768 | decode | 120 | 120 | 120 | 1.333 |' "$md"
has 'report: share of the commit'  '| commit under 3 % of decode time at 32768 | 0.38 % | yes |' "$md"
has 'report: a depth without its op' '| commit under 3 % of decode time at 4096 | - | not judged' "$md"
has 'report: memory'               '| hex:balanced | 1290.00 | 304.00 | 5894.00 | 8500 | 2806.0 | 0.0 |' "$md"
has 'report: sanitizers'           '| racecheck | 198 | ERROR SUMMARY: 0 errors |' "$md"
if have python3; then
    if python3 -m json.tool "$json" > /dev/null 2> "$TMP/err"; then ok 'report.json is JSON'; else fail 'report.json is JSON' "$(cat "$TMP/err")"; fi
fi

# faults: the run fails, and the report says what did
for fault in 'refused ops|HEX_ATTN: no test passed' 'logits logits|balanced, ubatches of 64: KL above 0.041' 'decode logits|balanced, ubatches of 8: nothing to compare with' 'nan logits|no figures' \
        'long logits|with 8192 tokens, balanced, ubatches of 512: KL above' 'state tier|restored: exit code 1' 'no-hex tier|the log shows no HEX cache' \
        'graphs tier|without CUDA graphs: they differ' 'nkvo tier|-nkvo against the whole on the GPU: KL above 0.05' 'sanitize sanitize|memcheck: exit code 99'; do
    read -r wrong step <<< "${fault%|*}"
    if run env WRONG="$wrong" bash "$ROOT/test/gpu/run.sh" "$step"; then fail "$wrong: the run fails" 'it passed'; else has "$wrong: the run fails" "${fault#*|}" "$md"; fi
done
if run env WRONG=slow HEXKV_GPU_SECONDS=8 bash "$ROOT/test/gpu/run.sh" ops logits; then fail 'slow: the run fails' 'it passed'; else has 'slow: the run fails' 'cut off after its time' "$md"; fi
has 'slow: the next step still runs' '| logits | done' "$md"
if run env WRONG=slow-memcheck HEXKV_GPU_SECONDS=12 bash "$ROOT/test/gpu/run.sh" sanitize; then fail 'a slow memcheck fails' 'it passed'; else has 'a slow memcheck fails' 'memcheck: cut off before its end' "$md"; fi
has '... and racecheck has its half' '| racecheck | 198 | ERROR SUMMARY: 0 errors |' "$md"
if run env WRONG=l2 bash "$ROOT/test/gpu/run.sh" perf; then has 'bytes that may sit in L2: no goal is judged' '| decode op, 32768 cells, 1 sequences | - | not judged' "$md"; else fail 'bytes that may sit in L2: no goal is judged' "$(tail -n 3 "$TMP/out")"; fi
if run env HEXKV_GPU_DEVICE=CUDA3 bash "$ROOT/test/gpu/run.sh" ops; then has 'the GPU that the device names' '# HEX on GPU number 3' "$md"; else fail 'the GPU that the device names' "$(tail -n 3 "$TMP/out")"; fi
if run env HEXKV_GPU_MODELS="$TMP/none.gguf" bash "$ROOT/test/gpu/run.sh" logits; then fail 'a model that is missing fails' 'it passed'; else has 'a model that is missing fails' 'none.gguf in HEXKV_GPU_MODELS does not exist' "$md"; fi
mv "$gpu/models" "$TMP/models"
if run bash "$ROOT/test/gpu/run.sh" logits; then fail 'no model at all fails' 'it passed'; else has 'no model at all fails' 'not run: there is no model' "$md"; fi
mv "$TMP/models" "$gpu/models"
rm "$TMP/bin/compute-sanitizer"
if have compute-sanitizer; then echo 'skip a missing compute-sanitizer fails: it is here'
elif run bash "$ROOT/test/gpu/run.sh" sanitize; then fail 'a missing compute-sanitizer fails' 'it passed'
else has 'a missing compute-sanitizer fails' 'not run: it is missing' "$md"; has '... and the step says so' '| sanitize | FAILED' "$md"
fi

# the build: sources are unpacked, again when the archive is another one, and a failure is in the report
cat > "$TMP/bin/cmake" <<'X'
#!/bin/sh
[ "$WRONG" != cmake ] || { echo "CMake Error: no compiler"; exit 1; }
echo "CMAKE_CUDA_COMPILER:FILEPATH=true" > "$HEXKV_GPU_BUILD/CMakeCache.txt"
X
chmod +x "$TMP/bin/cmake"
build() { run env HEXKV_BUILD="$TMP/other" HEXKV_GPU_SOURCES="$TMP/archive.tar.gz" "$@"; }
archive() { mkdir -p "$TMP/made/llama.cpp"; echo same > "$TMP/made/llama.cpp/same"; echo "$1" > "$TMP/made/llama.cpp/changes"; tar -czf "$TMP/archive.tar.gz" -C "$TMP/made" llama.cpp; }
archive one
if build bash "$ROOT/test/gpu/run.sh" build; then ok 'sources are unpacked'; else fail 'sources are unpacked' "$(cat "$TMP/out")"; fi
touch -d 2001-01-01 "$TMP"/other/llama.cpp/*
build bash "$ROOT/test/gpu/run.sh" build
if [ "$TMP/other/llama.cpp/changes" -ot "$ROOT/LICENSE" ]; then ok 'the same archive is not unpacked again'; else fail 'the same archive is not unpacked again' "$(ls -l "$TMP/other/llama.cpp")"; fi
archive two
build bash "$ROOT/test/gpu/run.sh" build
has 'another archive is unpacked again' two "$TMP/other/llama.cpp/changes"
if [ "$TMP/other/llama.cpp/same" -ot "$ROOT/LICENSE" ] && [ "$TMP/other/llama.cpp/changes" -nt "$ROOT/LICENSE" ]; then ok 'what is the same keeps its time'
else fail 'what is the same keeps its time' "$(ls -l "$TMP/other/llama.cpp")"
fi
if build env WRONG=cmake bash "$ROOT/test/gpu/run.sh" build ops; then fail 'a build that fails is in the report' 'it passed'
else has 'a build that fails is in the report' '| build | FAILED' "$md"; has '... and what did not run' '| ops | not run |' "$md"
fi

[ "$fails" = 0 ]
