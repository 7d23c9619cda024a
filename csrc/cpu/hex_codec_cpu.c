// The codec on the fastest path of this machine.
#include "hex_codec_cpu.h"

#include "hex_isa.h"

#if HEX_X86
#    define DISPATCH(name, ...)                                               \
        switch (hex_isa_get()) {                                              \
            case HEX_ISA_AVX512: hex_##name##_avx512(__VA_ARGS__); break;     \
            case HEX_ISA_AVX2:   hex_##name##_avx2  (__VA_ARGS__); break;     \
            case HEX_ISA_REF:    hex_##name##_ref   (__VA_ARGS__); break;     \
        }
#else
#    define DISPATCH(name, ...) hex_##name##_ref(__VA_ARGS__)
#endif

void hex_block_unpack(int k, const void * block, int8_t out[HEX_BLOCK]) {
    DISPATCH(block_unpack, k, block, out);
}

void hex_dequantize(int k, const void * blocks, float * y, int64_t n) {
    DISPATCH(dequantize, k, blocks, y, n);
}

void hex_quantize(int k, const float * x, void * blocks, int64_t n) {
    DISPATCH(quantize, k, x, blocks, n);
}
