#!/usr/bin/env bash
# Decode time against the length of the cache: build/scaling.json, and docs/decode.svg drawn from it. Ten minutes on an idle machine.
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/lib.sh"
cd "$ROOT"
"$BUILD/bin/hexkv-bench" --ops decode --cells 1024,2048,4096,8192,16384,32768,65536,131072 -t "${THREADS:-2}" -o json > "$BUILD/scaling.json"
(cd test/lab && go build -o "$BUILD/lab/scaling" ./scaling)
"$BUILD/lab/scaling" -o docs/decode.svg < "$BUILD/scaling.json"
