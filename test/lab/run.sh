#!/usr/bin/env bash
# Measures every table and plot of docs/quality.md. Hours on two cores; what is finished is kept in build/lab, so it may be
# interrupted.
#
#   test/lab/run.sh [EXPERIMENT,...]   all, or some (test/lab/experiments.go); "report" measures nothing and writes the document
#
# Variables: HEXKV_TEXT   WikiText-2's wiki.test.raw   THREADS   of hexrun, default 0: as it chooses
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
cd "$ROOT"
read_pin scripts/models.pin
text=${HEXKV_TEXT:-../shared/data/wikitext2/wiki.test.raw}
[ -f "$text" ] || die "$text is missing; set HEXKV_TEXT to WikiText-2's wiki.test.raw"
mkdir -p "$BUILD/lab"

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
exec "$BUILD/lab/lab" -hexrun "$BUILD/bin/hexrun" -text "$text" -work "$BUILD/lab" -docs docs -threads "${THREADS:-0}" \
    -f32 "$f32" -q4_1 "$BUILD/models/$MODEL_FILE" -gemma "$BUILD/models/gemma-3-270m.Q4_K_M.gguf" "${only[@]}"
