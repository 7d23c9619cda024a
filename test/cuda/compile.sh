#!/usr/bin/env bash
# Compiles csrc/cuda/*.cu and the patched files of ggml-cuda for the architectures that kernels differ on; one line per
# check, as test/e2e.sh, and the registers of each kernel. Skipped where nvcc is missing; `make cuda-toolkit` installs it.
#
#   test/cuda/compile.sh [ARCH...]     default: 75 80 90
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
archs=("$@")
[ $# -gt 0 ] || archs=(75 80 90)

nvcc=$BUILD/cuda-toolkit/bin/nvcc
[ -x "$nvcc" ] || nvcc=$(command -v nvcc || true)
if [ -z "$nvcc" ]; then
    echo 'skip CUDA sources compile: nvcc is missing; make cuda-toolkit installs it'
    exit 0
fi
make_tmp
ggml=$LLAMA/ggml
fails=0
# check NAME FILE [FLAG...]: no error and no warning. What ptxas says of its own accord goes to $TMP/ptxas.
check() {
    local name=$1 file=$2
    shift 2
    if "$nvcc" -std=c++17 -use_fast_math -extended-lambda -I"$ROOT/csrc" -I"$ggml/include" -I"$ggml/src" \
            -DGGML_CUDA_USE_GRAPHS -Xcompiler -Wno-pedantic "$@" -o "$TMP/out" "$file" > "$TMP/all" 2>&1 &&
            { grep -E "$informs" "$TMP/all" > "$TMP/ptxas" || true; } && ! grep -vE "$informs" "$TMP/all" > "$TMP/log"; then
        echo "ok $name"
    else
        echo "FAIL $name: $(grep -vE "$informs" "$TMP/all" | head -c 2000)"
        fails=$((fails + 1))
    fi
}
informs='^ptxas info|^ +[0-9]+ bytes stack frame|^$'

# The most bytes that an attending kernel may spill, stores and loads: what the worst of them does today. The tensor cores of Turing
# take half a product at a time, with its fragments in more registers.
spills() { case $1 in 75) echo 172 352 ;; 90) echo 4 4 ;; *) echo 0 0 ;; esac; }
# resources ARCH: a line per kernel of $TMP/ptxas, and a check of those that attend. Shared memory is dynamic: what is told here comes
# on top of it; test_cuda_attn prints that of a block.
resources() {
    local arch=$1 stores loads bad
    read -r stores loads < <(spills "$arch")
    { if have c++filt; then c++filt; else cat; fi; } < "$TMP/ptxas" | awk '
        /Compiling entry function/ { name = $0; sub(/^[^\047]*\047(void )?/, "", name); sub(/(\(|\047).*/, "", name); shared = 0 }
        /spill stores/ { s = $5; l = $9 }
        /: Used / {
            for (i = 1; i <= NF; i++) { if ($i ~ /^registers/) r = $(i - 1); if ($i ~ /^smem/) shared = $(i - 2) }
            printf "   %s: %d registers, %d bytes of static shared memory, %d and %d bytes of spill stores and loads\n", name, r, shared, s, l
        }' > "$TMP/resources"
    cat "$TMP/resources"
    grep -q attend "$TMP/resources" || return 0
    bad=$(awk -v s="$stores" -v l="$loads" '/attend/ && ($(NF - 8) > s || $(NF - 6) > l)' "$TMP/resources")
    if [ -z "$bad" ]; then
        echo "ok kernels that attend spill at most $stores and $loads bytes for sm_$arch"
    else
        echo "FAIL kernels that attend spill at most $stores and $loads bytes for sm_$arch: $bad"
        fails=$((fails + 1))
    fi
}
exact=$(sed -n 's/^set(HEXKV_CUDA_EXACT \(.*\))$/\1/p' "$ROOT/cmake/sources.cmake")
[ -n "$exact" ] || die "cmake/sources.cmake sets no HEXKV_CUDA_EXACT; this script takes the flags of hex_commit.cu from it"

for arch in "${archs[@]}"; do
    for file in "$ROOT"/csrc/cuda/*.cu; do
        flags=()
        case $file in */hex_commit.cu) read -ra flags <<< "$exact" ;; esac
        check "$(basename "$file") for sm_$arch" "$file" -c -arch="sm_$arch" -Xptxas -v "${flags[@]}"
        resources "$arch"
    done
done
# every file of ggml-cuda that a patch touches, to PTX: its own code is short
while read -r file; do
    for arch in "${archs[@]}"; do
        check "$(basename "$file") to PTX for compute_$arch" "$LLAMA/$file" -ptx -arch="compute_$arch"
    done
done < <(sed -n 's/^+++ b\/\(ggml\/src\/ggml-cuda\/.*\.cu\)$/\1/p' "$ROOT"/patches/0*.patch | sort -u)

check 'bandwidth.cu of the GPU script' "$ROOT/test/gpu/bandwidth.cu" -c -arch=sm_80

# the encoder's arithmetic is IEEE, with one rounding per operation: nothing is fused, flushed or approximated
read -ra flags <<< "$exact"
inexact='\.ftz|fma\.rn\.f32|\.approx|div\.full'
for arch in "${archs[@]}"; do
    check "hex_commit.cu to PTX for compute_$arch" "$ROOT/csrc/cuda/hex_commit.cu" -ptx -arch="compute_$arch" "${flags[@]}"
    if grep -qE "$inexact" "$TMP/out"; then
        echo "FAIL hex_commit.cu rounds as the CPU does on compute_$arch: $(grep -E "$inexact" "$TMP/out" | sort | uniq -c | head -n 5)"
        fails=$((fails + 1))
    else
        echo "ok hex_commit.cu rounds as the CPU does on compute_$arch"
    fi
done
[ "$fails" = 0 ]
