#include "hex_vec_dot.h"

#include "../core/hex_codec_impl.h"
#include "hex_codec_cpu.h"
#include "hex_isa.h"

static float half_to_float(uint16_t h) {
    const int   exponent = h >> 10 & 31;
    const float fraction = (float) (h & 1023);
    const float a = exponent == 0  ? ldexpf(fraction, -24)
                  : exponent == 31 ? (fraction == 0.0f ? INFINITY : NAN)
                  :                  ldexpf(fraction + 1024.0f, exponent - 25);
    return h & 0x8000 ? -a : a;
}

void hex_vec_dot_ref(int k, int64_t n, float * s, const void * x, const void * y) {
    const char * block = (const char *) x;
    const hex_block_q8_0 * q = (const hex_block_q8_0 *) y;
    float sum = 0.0f;
    for (; n > 0; n -= HEX_BLOCK, block += hex_block_size(k), q += 2) {
        int8_t v[HEX_BLOCK];
        hex_block_unpack_ref(k, block, v);
        int32_t dot[2] = { 0 };
        for (int i = 0; i < HEX_BLOCK; i++) {
            dot[i / 32] += v[i] * q[i / 32].qs[i % 32];
        }
        sum += hex_block_scale(k, block)
             * (half_to_float(q[0].d) * (float) dot[0] + half_to_float(q[1].d) * (float) dot[1]);
    }
    *s = sum;
}

void hex_vec_dot(int k, int64_t n, float * s, const void * x, const void * y) {
    HEX_DISPATCH(vec_dot, k, n, s, x, y);
}

#define CPU_TRAITS(N)                                                                                       \
    void ggml_vec_dot_hex##N##_q8_0(int n, float * s, size_t bs, const void * vx, size_t bx, const void * vy, \
                                    size_t by, int nrc) {                                                   \
        (void) bs, (void) bx, (void) by, (void) nrc;                                                        \
        hex_vec_dot(N, n, s, vx, vy);                                                                       \
    }                                                                                                       \
    void quantize_row_hex##N(const float * x, void * y, int64_t k) { hex_quantize(N, x, y, k); }
CPU_TRAITS(1)
CPU_TRAITS(2)
CPU_TRAITS(3)
CPU_TRAITS(4)
