#!/usr/bin/env bash
# What `make demo` shows once everything is built: the caches side by side, then an answer on a HEX cache.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
read_pin "$ROOT/scripts/models.pin"
hexrun=$BUILD/bin/hexrun model=$BUILD/models/$MODEL_FILE
[ -x "$hexrun" ] || die "$hexrun is missing; run make"

show() { printf '\n$ %s\n' "$(command_line "$@")"; "$@" < /dev/null; } # hexrun reads a pipe after -p
[ -t 2 ] || printf '\nFive caches read 2,048 tokens, a minute or two on an idle machine; the table comes when all are done.\n'
show "$hexrun" compare -m "$model" -c 2048
show "$hexrun" run -m "$model" --hex balanced --temp 0 -n 96 -p 'Why is the sky blue? Answer in two sentences.'
printf '\nNext: %s chat -m %s --hex balanced\n' "${hexrun#"$ROOT/"}" "${model#"$ROOT/"}"
