#!/usr/bin/env bash
# Packs what a GPU machine without a network lacks, in files of at most 50 MiB each, for machines to which little can be
# copied at a time: the patched llama.cpp (10 MB), and models in parts that test/gpu/run.sh joins.
#
#   test/gpu/bundle.sh [-o FOLDER] [MODEL.gguf...]     default: build/gpu, where run.sh looks
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
out=$BUILD/gpu
if [ "${1:-}" = -o ]; then
    [ $# -ge 2 ] || die "-o needs a folder"
    out=$2
    shift 2
fi
for model in "$@"; do
    [ -f "$model" ] || die "$model does not exist; name GGUF files"
done
[ -d "$LLAMA/.git" ] || die "$LLAMA is missing; run make configure first"
mkdir -p "$out"
rm -f "$out"/*.part-* "$out"/sources.tar.gz
git -C "$ROOT" describe --always --dirty --exclude '*' > "$out/commit" 2> /dev/null || rm -f "$out/commit" # the other machine may get the repository without .git

# what cmake/llama.cmake and cmake/products.cmake configure; test/scripts.sh checks that nothing is missing
git -C "$LLAMA" archive --format=tar --prefix=llama.cpp/ HEAD CMakeLists.txt LICENSE cmake common examples/speculative-simple ggml \
    include models/templates scripts src tests tools vendor | gzip -9 > "$out/sources.tmp"
mv "$out/sources.tmp" "$out/sources.tar.gz"

size=$((50 << 20))
for model in "$@"; do
    n=$((($(wc -c < "$model") + size - 1)/size)) hash=$(sha256 "$model")
    for ((i = 1; i <= n; i++)); do # the name says what belongs together
        tail -c +$(((i - 1)*size + 1)) "$model" | head -c "$size" > "$out/$(basename "$model").part-$i-of-$n-${hash:0:16}" || true # tail meets a closed pipe
    done
done
for file in "$out"/*; do
    say "$file: $(($(wc -c < "$file") >> 20)) MiB"
done
