#!/usr/bin/env bash
# Packs the patched llama.cpp for a GPU machine without a network: 10 MB, to be copied there beside a clone of this
# repository. test/gpu/run.sh takes it as HEXKV_GPU_SOURCES.
#
#   test/gpu/bundle.sh [FILE]     default: build/gpu-sources.tar.gz
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
[ -d "$LLAMA/.git" ] || die "$LLAMA is missing; run make configure first"
out=${1:-$BUILD/gpu-sources.tar.gz}
git -C "$LLAMA" archive --format=tar --prefix=llama.cpp/ HEAD CMakeLists.txt LICENSE cmake common ggml include models/templates scripts src tests tools vendor |
    gzip -9 > "$out.tmp"
mv "$out.tmp" "$out"
say "$out: $(du -h "$out" | cut -f1)"
