#!/usr/bin/env bash
# Counts the instructions of the kernels, which does not depend on how busy the machine is, and compares them with
# instructions.md. usage: instructions.sh PROGRAM [--update]; exit code 77: skipped.
# valgrind counts the portable path and AVX2. It knows no AVX-512: there the program steps through itself, which is slow, so
# only its short cases are counted.
set -euo pipefail
program=$1
table=$(dirname "${BASH_SOURCE[0]}")/instructions.md
most=${HEXKV_INSTRUCTIONS_MOST:-5} # per cent more or less than in the table that are the same
paths=(ref avx2 avx512)

skip() { echo "skip instructions: $*"; exit 77; }
command -v valgrind > /dev/null || skip "valgrind is not installed"
compiler=$("$program" --compiler)
best=$("$program" --isa)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

has() { # PATH: does this CPU have it?
    case $1 in ref) ;; avx2) [ "$best" != ref ] ;; avx512) [ "$best" = avx512 ] ;; esac
}

# No count is printed where there is none to be had.
count() { # PATH CASE short|''
    local status=0
    if [ "$1" = avx512 ]; then
        [ "$3" = short ] || return 0
        # copies and fills by `rep`, which counts its turns, are other instructions on other CPUs
        HEXKV_ISA=$1 GLIBC_TUNABLES=glibc.cpu.x86_rep_movsb_threshold=1073741824:glibc.cpu.x86_rep_stosb_threshold=1073741824 \
            "$program" --step "$2" || status=$?
        if [ $status != 0 ] && [ $status != 77 ]; then echo "FAIL instructions: $2 on $1 cannot be stepped through" >&2; exit 1; fi
        return 0
    fi
    HEXKV_ISA=$1 valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect=measured "$program" "$2" > "$tmp/log" 2>&1 || {
        echo "FAIL instructions: $2 on $1 does not run under valgrind" >&2; tail -n 5 "$tmp/log" >&2; exit 1; }
    awk '/Collected *:/ { print $NF; n++ } END { exit n != 1 }' "$tmp/log" || {
        echo "FAIL instructions: valgrind counted nothing for $2 on $1" >&2; exit 1; }
}

in_table() { # PATH CASE
    awk -F'|' -v path="$1" -v name="$2" '{ gsub(/ /, "") } $2 == "kernel" { for (i = 3; i <= NF; i++) if ($i == path) col = i }
        $2 == name && col { print $col }' "$table"
}

if [ "${2:-}" = --update ]; then
    {
        sed '/^| kernel /,$d' "$table" | sed "s/^Compiler: .*/Compiler: $compiler/"
        echo "| kernel |$(printf ' %s |' "${paths[@]}")"
        echo "|---|$(printf -- '--:|%.0s' "${paths[@]}")"
        while read -r name short; do
            line="| $name |"
            for path in "${paths[@]}"; do
                now=
                if has "$path"; then now=$(count "$path" "$name" "$short"); else now=$(in_table "$path" "$name"); fi # which stays as it was
                line+=" ${now:--} |"
            done
            echo "$line"
        done < <("$program" --list)
    } > "$tmp/table"
    cp "$tmp/table" "$table"
    for path in "${paths[@]}"; do
        has "$path" || echo "instructions: this CPU has no $path, whose counts are the old ones" >&2
    done
    exit
fi

wanted=$(sed -n 's/^Compiler: //p' "$table")
[ "$compiler" = "$wanted" ] || skip "the table was made with $wanted, this is $compiler"
bad=0
for path in "${paths[@]}"; do
    has "$path" || echo "skip instructions: this CPU has no $path"
done
while read -r name short; do
    for path in "${paths[@]}"; do
        has "$path" || continue
        was=$(in_table "$path" "$name")
        if [ "$path" = avx512 ] && [ "$short" != short ]; then continue; fi
        case $was in ''|*[!0-9]*) echo "FAIL $name on $path is not in $table; run this with --update"; bad=1; continue ;; esac
        now=$(count "$path" "$name" "$short" < /dev/null)
        if [ -z "$now" ]; then echo "skip $name on $path: this machine lets no program step through another"; continue; fi
        change=$(((now - was)*1000/was)) # per mille
        line="$name on $path: $now instructions, $was in the table"
        if [ $change -gt $((most*10)) ]; then
            echo "FAIL $line"; bad=1
        elif [ $change -lt -$((most*10)) ]; then
            echo "FAIL $line; it is better: run this with --update, or the old count hides what is lost later"; bad=1
        else
            echo "ok   $line"
        fi
    done
done < <("$program" --list)
exit $bad
