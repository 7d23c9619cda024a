#!/usr/bin/env bash
# Writes patches/*.patch from the commits on top of the pin in build/llama.cpp: one commit, one patch. Stable output:
# the same commits give the same bytes on every machine and at every time.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ -d "$LLAMA/.git" ] || die "$LLAMA is missing; run make first"
[ -z "$(llama_git status --porcelain)" ] ||
    die "$LLAMA has uncommitted edits; commit them there (git commit --fixup and git rebase -i --autosquash pin keep one commit per patch)"
llama_git merge-base --is-ancestor pin HEAD || die "HEAD of $LLAMA does not descend from the pin; rebase your commits onto the tag pin"
[ -z "$(llama_git rev-list --merges pin..HEAD)" ] || die "$LLAMA holds merge commits; run git rebase pin there"

make_tmp
mkdir "$TMP/new"
llama_git -c diff.renames=false format-patch -q -o "$TMP/new" --no-numbered --zero-commit --no-signature --no-stat \
    --no-renames --no-attach --no-thread --no-cover-letter --no-base --full-index -U3 --diff-algorithm=myers \
    --src-prefix=a/ --dst-prefix=b/ --filename-max-length=64 pin..HEAD
for file in "$TMP"/new/*.patch; do
    [ -e "$file" ] || continue
    # names and dates in the mail header, up to the first empty line
    sed -e '1,/^$/ s/^From: .*/From: hexkv authors <hexkv@localhost>/' \
        -e '1,/^$/ s/^Date: .*/Date: Sat, 1 Jan 2000 00:00:00 +0000/' "$file" > "$file.tmp" && mv "$file.tmp" "$file"
done

patch_files | while read -r file; do
    [ -e "$TMP/new/$(basename "$file")" ] || { rm "$file"; say "removed $(basename "$file")"; }
done
for file in "$TMP"/new/*.patch; do
    [ -e "$file" ] || continue
    cmp -s "$file" "$ROOT/patches/$(basename "$file")" && continue
    cp "$file" "$ROOT/patches/" && say "wrote $(basename "$file")"
done
write_state "$(patches_hash)" "$(llama_git rev-parse HEAD)"
