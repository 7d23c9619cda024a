#!/usr/bin/env bash
# Brings build/llama.cpp to the pin plus patches/*.patch, one commit per patch. Does nothing when that is so already.
# Only files whose content changes are written, so that a rebuild is short.
# Refuses when the tree holds edits or commits that patches/ does not hold; --force drops them (kept under refs/saved).
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

force=
case ${1:-} in
    '') ;;
    --force) force=1 ;;
    *) die "unknown argument '$1'; usage: patches/apply.sh [--force]" ;;
esac
[ -d "$LLAMA/.git" ] || die "$LLAMA is missing; run scripts/llama.sh first"

want=$(patches_hash)
have_hash= have_head=
if [ -f "$STATE" ]; then { read -r have_hash; read -r have_head; } < "$STATE"; fi
[ -n "$have_head" ] || have_head=$(llama_git rev-parse pin)
if [ "$want" = "$have_hash" ] && [ -z "$force" ]; then
    exit 0 # applied; edits on top are the developer's
fi

# The new commits, made in an index of their own: the work tree is not touched yet.
make_tmp
export GIT_INDEX_FILE=$TMP/index
export GIT_AUTHOR_DATE='2000-01-01T00:00:00Z' GIT_COMMITTER_DATE='2000-01-01T00:00:00Z'
llama_git read-tree pin
head=$(llama_git rev-parse pin)
n=0
while read -r file; do
    llama_git mailinfo "$TMP/message" "$TMP/diff" < "$file" > "$TMP/info" 2>/dev/null ||
        die "$file is not a patch; restore it from the repository"
    quiet git -C "$LLAMA" apply --cached --whitespace=nowarn "$file" ||
        die "$(basename "$file") does not apply to llama.cpp $RELEASE; apply it by hand in $LLAMA and run patches/regenerate.sh (details: $BUILD/fetch.log)"
    { sed -n 's/^Subject: //p' "$TMP/info"; echo; cat "$TMP/message"; } > "$TMP/full"
    head=$(llama_git commit-tree -p "$head" -F "$TMP/full" "$(llama_git write-tree)")
    n=$((n + 1))
done < <(patch_files)
unset GIT_INDEX_FILE

old=$(llama_git rev-parse HEAD)
dirty=$(llama_git status --porcelain)
if [ -z "$force" ] && { [ -n "$dirty" ] || [ "$old" != "$have_head" ]; }; then
    # harmless when the tree is, file by file, what the patches make
    if [ -n "$dirty" ] || ! llama_git diff --quiet "$old" "$head"; then
        die "$LLAMA has edits or commits that patches/ does not hold; $NO_EDITS"
    fi
fi
if [ -n "$force" ] && { [ -n "$dirty" ] || [ "$old" != "$have_head" ]; }; then
    saved=$(llama_git stash create || true)
    llama_git update-ref "refs/saved/$(date +%Y%m%d-%H%M%S)" "${saved:-$old}"
    say "what was in $LLAMA is kept as $(llama_git for-each-ref --format='%(refname)' refs/saved | tail -n 1)"
fi
llama_git checkout -q --detach
llama_git reset -q --hard "$head"
llama_git checkout -q -B hexkv "$head"
write_state "$want" "$head"
say "llama.cpp $RELEASE: $n patches applied"
