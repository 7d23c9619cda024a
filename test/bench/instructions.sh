#!/usr/bin/env bash
# Counts the instructions of the kernels under valgrind, which does not depend on how busy the machine is, and compares them
# with instructions.md. usage: instructions.sh PROGRAM [--update]; exit code 77: skipped.
# valgrind knows no AVX-512, so the portable path and AVX2 are counted.
set -euo pipefail
program=$1
table=$(dirname "${BASH_SOURCE[0]}")/instructions.md
most=${HEXKV_INSTRUCTIONS_MOST:-5} # per cent more than in the table that is no regression

skip() { echo "skip instructions: $*"; exit 77; }
command -v valgrind > /dev/null || skip "valgrind is not installed"
compiler=$("$program" --compiler)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

count() { # ISA CASE
    HEXKV_ISA=$1 valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect=measured "$program" "$2" > "$tmp/log" 2>&1 || {
        echo "FAIL instructions: $2 on $1 does not run under valgrind" >&2; tail -n 5 "$tmp/log" >&2; exit 1; }
    awk '/Collected *:/ { print $NF; n++ } END { exit n != 1 }' "$tmp/log"
}

if [ "${2:-}" = --update ]; then
    {
        sed '/^| kernel /,$d' "$table" | sed "s/^Compiler: .*/Compiler: $compiler/"
        echo '| kernel | ref | avx2 |'
        echo '|---|--:|--:|'
        for name in $("$program" --list); do
            echo "| $name | $(count ref "$name") | $(count avx2 "$name") |"
        done
    } > "$tmp/table"
    cp "$tmp/table" "$table"
    exit
fi

wanted=$(sed -n 's/^Compiler: //p' "$table")
[ "$compiler" = "$wanted" ] || skip "the table was made with $wanted, this is $compiler"
grep -q -w avx2 /proc/cpuinfo || skip "this CPU has no AVX2"
bad=0
for name in $("$program" --list); do
    read -r ref avx2 < <(awk -F'|' -v name="$name" '{ gsub(/ /, "") } $2 == name { print $3, $4 }' "$table") || {
        echo "FAIL $name is not in $table; run this with --update"; bad=1; continue; }
    for isa in ref avx2; do
        now=$(count $isa "$name") was=${!isa}
        change=$(((now - was)*1000/was)) # per mille
        line="$name on $isa: $now instructions, $was in the table"
        if [ $change -gt $((most*10)) ]; then
            echo "FAIL $line"; bad=1
        elif [ $change -lt -$((most*10)) ]; then
            echo "ok   $line; better: run this with --update"
        else
            echo "ok   $line"
        fi
    done
done
exit $bad
