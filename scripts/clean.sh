#!/usr/bin/env bash
# Removes what was compiled; with `all` also the fetched sources and models, unless build/llama.cpp holds unsaved work.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[ -d "$BUILD" ] || exit 0
case ${1:-} in
    '') find "$BUILD" -mindepth 1 -maxdepth 1 ! -name llama.cpp ! -name models ! -name cuda-toolkit -exec rm -rf {} + ;;
    all)
        if [ -d "$LLAMA/.git" ] && [ -z "${FORCE:-}" ]; then
            head=$(sed -n 2p "$LLAMA/.git/hexkv" 2>/dev/null || true)
            [ -z "$(git -C "$LLAMA" status --porcelain)" ] && [ "$(git -C "$LLAMA" rev-parse HEAD)" = "${head:-none}" ] ||
                die "$LLAMA has edits or commits that patches/ does not hold; run patches/regenerate.sh, or FORCE=1 make distclean to drop them"
        fi
        rm -rf "$BUILD" ;;
    *) die "usage: scripts/clean.sh [all]" ;;
esac
