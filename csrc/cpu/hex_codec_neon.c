// The decoder with NEON. Same bits as core/hex_codec.c; the encoder is the reference's.
#include "hex_codec_cpu.h"

#if HEX_ARM

#include "../core/hex_codec_impl.h"
#include "hex_decoder_neon.h"

INLINE void unpack_block(int k, const void * block, int8_t * out) {
    int8x16_t v[4];
    unpack(k, load_tables(k), block, v);
    for (int q = 0; q < 4; q++) {
        vst1q_s8(out + 16*q, v[q]);
    }
}

INLINE float32x4_t scaled(int16x4_t v, float scale) {
    return vmulq_n_f32(vcvtq_f32_s32(vmovl_s16(v)), scale);
}

INLINE void dequantize(int k, const void * blocks, float * y, int64_t n) {
    const tables t = load_tables(k);
    const char * block = (const char *) blocks;
    for (; n > 0; n -= HEX_BLOCK, y += HEX_BLOCK, block += hex_block_size(k)) {
        const float scale = hex_block_scale(k, block);
        int8x16_t v[4];
        unpack(k, t, block, v);
        for (int q = 0; q < 4; q++) {
            const int16x8_t a = vmovl_s8(vget_low_s8(v[q])), b = vmovl_high_s8(v[q]);
            vst1q_f32(y + 16*q,      scaled(vget_low_s16(a),  scale));
            vst1q_f32(y + 16*q + 4,  scaled(vget_high_s16(a), scale));
            vst1q_f32(y + 16*q + 8,  scaled(vget_low_s16(b),  scale));
            vst1q_f32(y + 16*q + 12, scaled(vget_high_s16(b), scale));
        }
    }
}

void hex_block_unpack_neon(int k, const void * block, int8_t out[HEX_BLOCK]) {
    HEX_FOR_K(k, unpack_block, block, out);
}

void hex_dequantize_neon(int k, const void * blocks, float * y, int64_t n) {
    HEX_FOR_K(k, dequantize, blocks, y, n);
}

#endif
