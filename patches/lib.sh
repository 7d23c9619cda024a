# Shared by apply.sh and regenerate.sh. Sourced, not run.
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
read_pin "$ROOT/patches/PIN"
STATE=$LLAMA/.git/hexkv   # two lines: the hash of patches/ and the commit that they produced
NO_EDITS='run patches/regenerate.sh to turn commits into patches, or patches/apply.sh --force to drop them, or set HEXKV_NO_PATCH=1 to build the tree as it is'

llama_git() { git -C "$LLAMA" "$@"; }

# The patches in order, and one hash of them all.
patch_files() { find "$ROOT/patches" -maxdepth 1 -name '[0-9]*.patch' | LC_ALL=C sort; }
patches_hash() {
    local f
    { echo "$TREE"; patch_files | while read -r f; do basename "$f"; cat "$f"; done; } > "$LLAMA/.git/hexkv.tmp"
    sha256 "$LLAMA/.git/hexkv.tmp"
    rm -f "$LLAMA/.git/hexkv.tmp"
}
write_state() { printf '%s\n%s\n' "$1" "$2" > "$STATE.new" && mv "$STATE.new" "$STATE"; }
