#!/usr/bin/env bash
# The codec and the CPU kernels on 64-bit ARM: cross-compiled, and run by qemu's user mode on the NEON path and on the reference.
#
#   test/neon.sh     exit code 77: no cross compiler or no emulator
#
# Debian has them as gcc-aarch64-linux-gnu, g++-aarch64-linux-gnu and qemu-user. CC, CXX and QEMU name others.
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"

skip() { echo "skip neon: $*"; exit 77; }
: "${CC:=aarch64-linux-gnu-gcc}" "${CXX:=aarch64-linux-gnu-g++}"
have "$CC" && have "$CXX" || skip "$CC or $CXX is missing; install gcc-aarch64-linux-gnu and g++-aarch64-linux-gnu"
[ -n "${QEMU:-}" ] || for QEMU in qemu-aarch64 qemu-aarch64-static; do if have $QEMU; then break; fi; done
have "$QEMU" || skip "qemu-aarch64 is missing; install qemu-user"

make_tmp
cd "$ROOT/csrc"
warnings=(-Wall -Wextra -Wcast-qual -Wpointer-arith -Wno-unused-function)
objects=()
for file in core/*.c cpu/*.c ggml/hex_types.c; do
    contract=off
    case $file in # flags and files as in cmake/sources.cmake; hex_ops_cpu.c alone needs ggml
        *_avx2.c|*_avx512.c|cpu/hex_ops_cpu.c) continue ;;
        cpu/hex_attn_*.c) contract=fast ;;
    esac
    object=$TMP/$(basename "$file" .c).o
    "$CC" -std=gnu11 -O2 "${warnings[@]}" -I. -ffp-contract=$contract -c "$file" -o "$object"
    objects+=("$object")
done

bad=0
for file in core/test_bytes.c core/test_codec.c core/test_config.c core/test_graph.c ops/test_commit.cpp ops/test_kernels.cpp; do
    name=$(basename "${file%.*}") compile=("$CXX" -std=gnu++17)
    case $file in *.c) compile=("$CC" -std=gnu11) ;; esac
    "${compile[@]}" -O2 "${warnings[@]}" -I. -I"$ROOT/test" -DHEX_TEST_WITHOUT_GGML -DHEX_TEST_FEW_CASES "$ROOT/test/$file" "${objects[@]}" \
        -static -pthread -lm -o "$TMP/$name"
    for isa in neon ref; do
        if HEXKV_ISA=$isa "$QEMU" "$TMP/$name" > "$TMP/log" 2>&1; then
            echo "ok   $name, $isa"
        else
            echo "FAIL $name, $isa"; tail -n 20 "$TMP/log"; bad=1
        fi
    done
done
exit $bad
