#!/usr/bin/env bash
# Installs nvcc and what it needs into build/cuda-toolkit, from the wheels of scripts/cuda-toolkit.pin: enough to compile
# csrc/cuda and ggml-cuda on a machine without a GPU. Does nothing when that set is there. HEXKV_CUDA_WHEELS names a
# directory of wheels, for machines without a network.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
read_pin "$ROOT/scripts/cuda-toolkit.pin"

[ $# = 0 ] || die "unknown argument '$1'; usage: scripts/cuda-toolkit.sh"
root=$BUILD/cuda-toolkit
if [ "$(cat "$root/.wheels" 2>/dev/null)" = "$CUDA_WHEELS" ]; then
    say "the CUDA toolkit is $root"
    exit 0
fi
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || die "the wheels are for Linux on x86-64; install CUDA 13 from NVIDIA and pass -DGGML_CUDA=ON to CMake"
have python3 && python3 -m pip --version > /dev/null 2>&1 ||
    die "pip is missing and the CUDA toolkit is fetched with it; install python3-pip, or CUDA 13 from NVIDIA"
free=$(mkdir -p "$BUILD" && df -Pk "$BUILD" | awk 'NR == 2 { print int($4 / 1024) }')
[ "$free" -ge 2000 ] || die "only $free MB are free in $BUILD; the CUDA toolkit needs 2,000 MB while it is installed"

from=()
if [ -n "${HEXKV_CUDA_WHEELS:-}" ]; then
    [ -d "$HEXKV_CUDA_WHEELS" ] || die "HEXKV_CUDA_WHEELS=$HEXKV_CUDA_WHEELS is no directory; name one that holds the wheels of scripts/cuda-toolkit.pin"
    from=(--no-index --find-links "$HEXKV_CUDA_WHEELS")
fi
make_tmp
say "installing the CUDA toolkit ($CUDA_SIZE)"
# shellcheck disable=SC2086
quiet python3 -m pip --disable-pip-version-check --no-input install -q --no-deps --only-binary :all: --no-compile --no-cache-dir \
    "${from[@]}" --target "$TMP/site" $CUDA_WHEELS ||
    die "the CUDA wheels could not be installed (pip install failed); check the network, or set HEXKV_CUDA_WHEELS to a directory of wheels (details: $BUILD/fetch.log)"
[ -x "$TMP/site/nvidia/cu13/bin/nvcc" ] || die "the CUDA wheels hold no nvidia/cu13/bin/nvcc; check scripts/cuda-toolkit.pin"

# What an installed toolkit has and the wheels lack: lib64, unversioned names, and the driver's library to link with.
mv "$TMP/site/nvidia/cu13" "$TMP/tree"
ln -s lib "$TMP/tree/lib64"
for lib in cudart cublas cublasLt; do
    found=$(cd "$TMP/tree/lib" && ls lib$lib.so.* 2>/dev/null | head -n 1)
    [ -n "$found" ] || die "the CUDA wheels hold no lib$lib.so; check scripts/cuda-toolkit.pin"
    ln -sf "$found" "$TMP/tree/lib/lib$lib.so"
done
echo "$CUDA_WHEELS" > "$TMP/tree/.wheels"
echo 'int main() { return 0; }' > "$TMP/a.cu"
quiet "$TMP/tree/bin/nvcc" -arch=sm_80 -c "$TMP/a.cu" -o "$TMP/a.o" ||
    die "nvcc of the wheels does not compile an empty program; install gcc 9 to 15 (package build-essential) (details: $BUILD/fetch.log)"
rm -rf "$root"
mv "$TMP/tree" "$root"
say "the CUDA toolkit is $root ($("$root/bin/nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/nvcc \1/p'))"
