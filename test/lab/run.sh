#!/usr/bin/env bash
# Measures every table and plot of docs/quality.md. Hours on two cores; what is finished is kept in build/lab, so it may be
# interrupted.
#
#   test/lab/run.sh [EXPERIMENT,...]   all, or some (test/lab/experiments.go); "report" measures nothing and writes the document
#
# Variables: HEXKV_TEXT    WikiText-2's wiki.test.raw
#            HEXKV_RULER   folder of RULER's niah_multikey_3_4096.jsonl
#            THREADS       of hexrun, default 0: as it chooses
#            KEEP=1        keeps results of another build, which otherwise move to build/lab/before, and measures what has none
#
# docs/quality.md is written when every experiment has results, build/lab/quality.md always.
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
cd "$ROOT"
read_pin scripts/models.pin
text=${HEXKV_TEXT:-../shared/data/wikitext2/wiki.test.raw}
ruler=${HEXKV_RULER:-../shared/data/ruler}
[ -f "$text" ] || die "$text is missing; set HEXKV_TEXT to WikiText-2's wiki.test.raw"
mkdir -p "$BUILD/lab"

# what another engine measured is put aside
engine=$(sha256sum < "$BUILD/lib/libhexkv.a")
if [ "${1:-}" != report ] && [ -z "${KEEP:-}" ] && [ "$(cat "$BUILD/lab/engine" 2> /dev/null)" != "$engine" ]; then
    mkdir -p "$BUILD/lab/before"
    find "$BUILD/lab" -maxdepth 1 \( -name '*.records' -o -name '*.json' \) -exec mv -t "$BUILD/lab/before" {} +
    printf '%s\n' "$engine" > "$BUILD/lab/engine"
fi

# a copy of the default model whose weights are not quantized: a lower floor
f32=$BUILD/lab/smollm2-f32.gguf
if [ ! -f "$f32" ]; then
    "$BUILD/bin/llama-quantize" --allow-requantize "$BUILD/models/$MODEL_FILE" "$f32.part" F32 > "$BUILD/lab/quantize.log" 2>&1 ||
        die "the F32 copy of the model could not be made; details in $BUILD/lab/quantize.log"
    mv "$f32.part" "$f32"
fi
bash scripts/gemma.sh

only=() # all of them
case ${1:-} in
    '') ;;
    report) only=(-report) ;;
    *) only=(-only "$1") ;;
esac
(cd test/lab && go build -o "$BUILD/lab/lab" .)
keep=()
[ -z "${KEEP:-}" ] || keep=(-keep)
exec "$BUILD/lab/lab" "${keep[@]}" -hexrun "$BUILD/bin/hexrun" -text "$text" -ruler "$ruler" -watched cmd/hexrun/testdata/presets.json -work "$BUILD/lab" -docs docs -threads "${THREADS:-0}" \
    -f32 "$f32" -q4_1 "$BUILD/models/$MODEL_FILE" -gemma "$BUILD/models/gemma-3-270m.Q4_K_M.gguf" "${only[@]}"
