// Products with codes on NEON. `smlal` multiplies eight int16 by one of another register, so codes are widened once per tile,
// and queries and weights need no limbs. A K tile is turned until a register holds one sample of eight cells; a V row is as it
// comes. ARMv8.2's dot products of bytes are not used.
#include "hex_attn_kernels.h"

#if defined(__aarch64__)

#include "../core/hex_codec_impl.h"
#include "hex_decoder_neon.h"

#include <math.h>
#include <stdbool.h>

#define I16_MAX 32767.0f
#define TINY    1e-30f // weights below this cannot be told from none beside a probability of 1

// Eight floats times f, rounded.
INLINE int16x8_t to_words(const float * x, float f) {
    return vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x), f))),
                        vqmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4), f))));
}

// limbs: int16 [n_blocks][64].
static void query(const float * q, int n_blocks, int8_t * limbs, float * scale, int32_t * offset) {
    for (int b = 0; b < n_blocks; b++, q += HEX_BLOCK, limbs += 2*HEX_BLOCK) {
        float32x4_t most = vdupq_n_f32(0);
        for (int i = 0; i < HEX_BLOCK; i += 4) {
            most = vmaxq_f32(most, vabsq_f32(vld1q_f32(q + i))); // keeps NaN
        }
        const float all  = vmaxvq_f32(most), amax = all <= 3e38f ? all : NAN;
        const bool  none = !(amax >= 1e-34f); // or not finite: the scale says so
        for (int i = 0; i < HEX_BLOCK; i += 8) {
            vst1q_s16((int16_t *) (void *) limbs + i, none ? vdupq_n_s16(0) : to_words(q + i, I16_MAX/amax));
        }
        scale[b]  = none ? amax - amax : amax/I16_MAX; // 0, or NaN
        offset[b] = 0;
    }
}

INLINE void unpack_scales(int k, const char * const * rows, int n, int n_blocks, float * scales) {
    for (int b = 0; b < n_blocks; b++) {
        for (int j = 0; j < (n + 15)/16*16; j++) {
            scales[b*HEX_TILE + j] = hex_block_scale(k, rows[j] + (size_t) b*hex_block_size(k));
        }
    }
}

// Byte i of r[j] becomes byte j of r[i], in each half.
INLINE void turn(int8x16_t r[8]) {
#define TURN(type, a, b) { \
        const type##_t x = vreinterpretq_##a(r[i]), y = vreinterpretq_##a(r[i + step]); \
        r[i]        = vreinterpretq_s8_##b(vtrn1q_##b(x, y)); \
        r[i + step] = vreinterpretq_s8_##b(vtrn2q_##b(x, y)); }
    for (int i = 0; i < 8; i += 2) {
        const int8x16_t x = r[i], y = r[i + 1];
        r[i]     = vtrn1q_s8(x, y);
        r[i + 1] = vtrn2q_s8(x, y);
    }
    for (int i = 0; i < 8; i += (i & 1) ? 3 : 1) {
        const int step = 2;
        TURN(int16x8, s16_s8, s16)
    }
    for (int i = 0; i < 4; i++) {
        const int step = 4;
        TURN(int32x4, s32_s8, s32)
    }
#undef TURN
}

// K tile: [n_blocks][8][64][8] words: for each block and eight cells, each sample of all of them.
INLINE void unpack_rows_k(int k, const char * const * rows, int n, int n_blocks, uint8_t * tile, float * scales) {
    const tables t = load_tables(k);
    unpack_scales(k, rows, n, n_blocks, scales);
    for (int j = 0; j < (n + 15)/16*16; j += 8) {
        for (int b = 0; b < n_blocks; b++) {
            int8x16_t v[8][4];
            for (int i = 0; i < 8; i++) {
                unpack(k, t, rows[j + i] + (size_t) b*hex_block_size(k), v[i]);
            }
            int16_t * to = (int16_t *) (void *) tile + ((size_t) b*8 + (size_t) j/8)*512;
            for (int c = 0; c < 4; c++, to += 128) {
                int8x16_t r[8] = { v[0][c], v[1][c], v[2][c], v[3][c], v[4][c], v[5][c], v[6][c], v[7][c] };
                turn(r);
                for (int i = 0; i < 8; i++) {
                    vst1q_s16(to + 8*i,      vmovl_s8(vget_low_s8(r[i])));
                    vst1q_s16(to + 64 + 8*i, vmovl_high_s8(r[i]));
                }
            }
        }
    }
}

// V tile: [n_blocks][64][64] words: the rows.
INLINE void unpack_rows_v(int k, const char * const * rows, int n, int n_blocks, uint8_t * tile, float * scales) {
    const tables t = load_tables(k);
    unpack_scales(k, rows, n, n_blocks, scales);
    for (int j = 0; j < (n + 7)/8*8; j++) {
        for (int b = 0; b < n_blocks; b++) {
            int16_t * to = (int16_t *) (void *) tile + ((size_t) b*HEX_TILE + (size_t) j)*HEX_BLOCK;
            int8x16_t v[4];
            unpack(k, t, rows[j] + (size_t) b*hex_block_size(k), v);
            for (int c = 0; c < 4; c++) {
                vst1q_s16(to + 16*c,     vmovl_s8(vget_low_s8(v[c])));
                vst1q_s16(to + 16*c + 8, vmovl_high_s8(v[c]));
            }
        }
    }
}

static void unpack_k(int k, const char * const * rows, int n, int n_blocks, uint8_t * tile, float * scales) {
    HEX_FOR_K(k, unpack_rows_k, rows, n, n_blocks, tile, scales);
}
static void unpack_v(int k, const char * const * rows, int n, int n_blocks, uint8_t * tile, float * scales) {
    HEX_FOR_K(k, unpack_rows_v, rows, n, n_blocks, tile, scales);
}

// acc[q] += x[l][8] * w[q][l], for eight registers x, `step` words apart.
INLINE void products(int nq, int32x4_t acc[4][2], const int16_t * x, size_t step, const int16x8_t w[4]) {
#define LANE(l) { \
        const int16x8_t c = vld1q_s16(x + (l)*step); \
        for (int q = 0; q < nq; q++) { \
            acc[q][0] = vmlal_laneq_s16(acc[q][0], vget_low_s16(c), w[q], l); \
            acc[q][1] = vmlal_high_laneq_s16(acc[q][1], c, w[q], l); \
        } }
    LANE(0) LANE(1) LANE(2) LANE(3) LANE(4) LANE(5) LANE(6) LANE(7)
#undef LANE
}

// nq queries, a constant, against eight cells.
INLINE void qk_some(int nq, const int16_t * tile, const float * scales, int n_blocks, const int16_t * words, const float * scale,
                    float * s, int stride) {
    float32x4_t sum[4][2] = {0};
    for (int b = 0; b < n_blocks; b++, tile += 4096, scales += HEX_TILE) {
        int32x4_t acc[4][2] = {0};
        for (int d = 0; d < HEX_BLOCK; d += 8) {
            int16x8_t w[4];
            for (int q = 0; q < nq; q++) {
                w[q] = vld1q_s16(words + ((size_t) q*n_blocks + b)*HEX_BLOCK + d);
            }
            products(nq, acc, tile + 8*d, 8, w);
        }
        for (int q = 0; q < nq; q++) {
            for (int h = 0; h < 2; h++) {
                const float32x4_t f = vmulq_n_f32(vld1q_f32(scales + 4*h), scale[q*n_blocks + b]);
                sum[q][h] = vfmaq_f32(sum[q][h], vcvtq_f32_s32(acc[q][h]), f);
            }
        }
    }
    for (int q = 0; q < nq; q++) {
        vst1q_f32(s + (size_t) q*stride,     sum[q][0]);
        vst1q_f32(s + (size_t) q*stride + 4, sum[q][1]);
    }
}

static void qk(const uint8_t * tile, const float * scales, int n, int n_blocks, const int8_t * limbs, const float * scale,
               const int32_t * offset, int n_q, float * s, int stride, bool coarse) {
    (void) offset;
    (void) coarse;
    const int16_t * words = (const int16_t *) (const void *) limbs, * cells = (const int16_t *) (const void *) tile;
#define QK(NQ) qk_some(NQ, cells + 64*j, scales + j, n_blocks, words + (size_t) q*n_blocks*HEX_BLOCK, scale + q*n_blocks, \
                       s + (size_t) q*stride + j, stride)
    for (int q = 0; q < n_q; q += 4) {
        for (int j = 0; j < (n + 15)/16*16; j += 8) {
            switch (n_q - q) {
                case 1:  QK(1); break;
                case 2:  QK(2); break;
                case 3:  QK(3); break;
                default: QK(4); break;
            }
        }
    }
#undef QK
}

// Probabilities times row scales of one block as integers of 15 bits.
struct weights {
    int16_t w[HEX_MAX_QUERIES][HEX_TILE];
    float   unit[HEX_MAX_QUERIES]; // what one is worth, 0: all are zero
};

static void make_weights(struct weights * to, const float * scales, int n, const float * p, int stride, int n_q) {
    for (int q = 0; q < n_q; q++, p += stride) {
        float x[HEX_TILE] = {0}, max = 0;
        for (int j = 0; j < n; j++) {
            x[j] = p[j]*scales[j];
            max  = x[j] > max ? x[j] : max;
        }
        to->unit[q] = max > TINY ? max*(1/I16_MAX) : 0;
        for (int j = 0; j < n; j += 8) {
            vst1q_s16(to->w[q] + j, to_words(x + j, max > TINY ? I16_MAX/max : 0));
        }
    }
}

// nq queries from q0 on, a constant, and one block.
INLINE void pv_some(int nq, const struct weights * to, int q0, const int16_t * tile, int n, float * out, int out_stride) {
    bool any = false;
    for (int q = 0; q < nq; q++) {
        any = any || to->unit[q0 + q] > 0;
    }
    for (int c = 0; any && c < HEX_BLOCK; c += 8) {
        int32x4_t acc[4][2] = {0};
        for (int j = 0; j < n; j += 8) {
            int16x8_t w[4];
            for (int q = 0; q < nq; q++) {
                w[q] = vld1q_s16(to->w[q0 + q] + j);
            }
            products(nq, acc, tile + (size_t) j*HEX_BLOCK + c, HEX_BLOCK, w);
        }
        for (int q = 0; q < nq; q++) {
            float * o = out + (size_t) q*out_stride + c;
            vst1q_f32(o,     vfmaq_n_f32(vld1q_f32(o),     vcvtq_f32_s32(acc[q][0]), to->unit[q0 + q]));
            vst1q_f32(o + 4, vfmaq_n_f32(vld1q_f32(o + 4), vcvtq_f32_s32(acc[q][1]), to->unit[q0 + q]));
        }
    }
}

static void pv(const uint8_t * tile, const float * scales, int n, int n_blocks, const float * p, int stride, int n_q,
               float * out, int out_stride, bool coarse) {
    (void) coarse;
    const int16_t * rows = (const int16_t *) (const void *) tile;
    struct weights w;
    for (int b = 0; b < n_blocks; b++, rows += HEX_TILE*HEX_BLOCK, scales += HEX_TILE, out += HEX_BLOCK) {
        make_weights(&w, scales, n, p, stride, n_q);
        for (int q = 0; q < n_q; q += 4) {
            float * to = out + (size_t) q*out_stride;
            switch (n_q - q) {
                case 1:  pv_some(1, &w, q, rows, n, to, out_stride); break;
                case 2:  pv_some(2, &w, q, rows, n, to, out_stride); break;
                case 3:  pv_some(3, &w, q, rows, n, to, out_stride); break;
                default: pv_some(4, &w, q, rows, n, to, out_stride); break;
            }
        }
    }
}

const struct hex_codes_kernels hex_codes_kernels_neon = {
    .query = query, .unpack_k = unpack_k, .unpack_v = unpack_v, .qk = qk, .pv = pv,
};

#endif
