// Products with codes on AVX-512 VNNI. `vpdpbusd` multiplies 64 pairs of unsigned and signed bytes and adds them up by
// fours, so a K tile is turned until a register holds four samples of 16 cells, and a V tile until it holds 16 samples of
// four cells: nothing is left to be summed across lanes.
#include "hex_attn_kernels.h"

#if defined(__x86_64__) || defined(_M_X64)

#include "../core/hex_codec_impl.h"
#include "hex_decoder_avx512.h"

#include <math.h>
#include <stdbool.h>

#define Q_MAX 16256.0f // 127*128: 15 bits, limbs of 8 and 7
#define P_MAX 65535.0f
#define P_MAX_COARSE 255.0f
#define UNROLL _Pragma("GCC unroll 16")
#define TINY  1e-30f   // weights below this cannot be told from none beside a probability of 1

INLINE __m512i bytes(const void * p)             { return _mm512_load_si512(p); }
INLINE __m512i four(const void * p)              { int32_t x; memcpy(&x, p, 4); return _mm512_set1_epi32(x); }

// _mm512_dpbusd_epi32; GCC 12 copies the accumulators of the intrinsic from register to register in every loop.
INLINE __m512i dot(__m512i acc, __m512i u, __m512i s) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u), "v"(s));
    return acc;
}

AVX512 static void query(const float * q, int n_blocks, int8_t * limbs, float * scale, int32_t * offset) {
    for (int b = 0; b < n_blocks; b++, q += HEX_BLOCK, limbs += 2*HEX_BLOCK) {
        float amax = 0;
        for (int i = 0; i < HEX_BLOCK; i += 16) {
            const __m512 x = _mm512_abs_ps(_mm512_loadu_ps(q + i));
            const float  m = _mm512_cmp_ps_mask(x, _mm512_set1_ps(3e38f), _CMP_NLE_UQ) ? NAN : _mm512_reduce_max_ps(x);
            amax = amax == amax && !(m <= amax) ? m : amax; // NaN stays
        }
        const bool none = !(amax >= 1e-34f); // or not finite: the scale says so
        const __m512 inv = _mm512_set1_ps(none ? 0 : Q_MAX/amax);
        __m512i sum = _mm512_setzero_si512(), high = sum;
        for (int i = 0; i < HEX_BLOCK; i += 16) {
            const __m512i x  = none ? _mm512_setzero_si512() : _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(q + i), inv));
            const __m512i hi = _mm512_srai_epi32(_mm512_add_epi32(x, _mm512_set1_epi32(64)), 7);
            const __m512i lo = _mm512_sub_epi32(x, _mm512_slli_epi32(hi, 7));
            _mm_storeu_si128((__m128i *) (limbs + i),             _mm512_cvtepi32_epi8(hi));
            _mm_storeu_si128((__m128i *) (limbs + HEX_BLOCK + i), _mm512_cvtepi32_epi8(lo));
            sum  = _mm512_add_epi32(sum, x);
            high = _mm512_add_epi32(high, hi);
        }
        scale[b]  = none ? amax - amax : amax/Q_MAX; // 0, or NaN
        offset[2*b]     = 128*_mm512_reduce_add_epi32(sum); // for both limbs
        offset[2*b + 1] = 128*_mm512_reduce_add_epi32(high);
    }
}

// hex_block_scale of 16 blocks.
INLINE __m512 scales_of(int k, const uint16_t words[16]) {
    const __m512i e    = _mm512_srli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *) words)), (unsigned) (8 - k));
    const __m512i step = _mm512_slli_epi32(_mm512_and_si512(e, _mm512_set1_epi32((1 << (3 + k)) - 1)), (unsigned) (4 - k)); // 7 bits
    __m512i m[4]; // of each 32 table entries
    for (int i = 0; i < 4; i++) {
        m[i] = _mm512_permutex2var_epi32(_mm512_loadu_si512(hex_scale_mantissa + 32*i), step, _mm512_loadu_si512(hex_scale_mantissa + 32*i + 16));
    }
    const __mmask16 bit5 = _mm512_test_epi32_mask(step, _mm512_set1_epi32(32)), bit6 = _mm512_test_epi32_mask(step, _mm512_set1_epi32(64));
    const __m512i low  = _mm512_mask_blend_epi32(bit5, m[0], m[1]), high = _mm512_mask_blend_epi32(bit5, m[2], m[3]);
    const __m512i octave = _mm512_slli_epi32(_mm512_add_epi32(_mm512_srli_epi32(e, (unsigned) (3 + k)), _mm512_set1_epi32(127 - 24)), 23);
    const __m512i s = _mm512_or_si512(octave, _mm512_mask_blend_epi32(bit6, low, high));
    return _mm512_castsi512_ps(_mm512_maskz_mov_epi32(_mm512_test_epi32_mask(e, e), s));
}

// r[i] lane j becomes r[j] lane i.
INLINE void turn(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i]     = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) { // r[i + c]: lane c of each 128 bits, of rows i to i + 3
        r[i]     = _mm512_unpacklo_epi64(t[i],     t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i],     t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int c = 0; c < 4; c++) {
        const __m512i a = _mm512_shuffle_i32x4(r[c],     r[4 + c],  0x88), b = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88);
        const __m512i d = _mm512_shuffle_i32x4(r[c],     r[4 + c],  0xdd), e = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
        t[c]      = _mm512_shuffle_i32x4(a, b, 0x88);
        t[8 + c]  = _mm512_shuffle_i32x4(a, b, 0xdd);
        t[4 + c]  = _mm512_shuffle_i32x4(d, e, 0x88);
        t[12 + c] = _mm512_shuffle_i32x4(d, e, 0xdd);
    }
    for (int i = 0; i < 16; i++) {
        r[i] = t[i];
    }
}

// Scale words are put aside, and decoded when the tile is done: reading them back at once would wait for the stores.
INLINE void unpack_scales(int k, uint16_t words[4][HEX_TILE], int n, int n_blocks, float * scales) {
    for (int b = 0; b < n_blocks; b++) {
        for (int j = 0; j < n; j += 16) {
            _mm512_store_ps(scales + b*HEX_TILE + j, scales_of(k, words[b] + j));
        }
    }
}

// K tile: [n_blocks][4][16][64], for each block and 16 cells: register i holds samples 4i to 4i+3, plus 128.
INLINE void unpack_rows_k(int k, const char * const * rows, int n, int n_blocks, uint8_t * tile, float * scales) {
    decoder d = decoder_init(k);
    d.a = _mm512_xor_si512(d.a, _mm512_set1_epi8((char) 0x80));
    uint16_t words[HEX_MAX_BLOCKS][HEX_TILE];
    for (int j = 0; j < n; j += 16) {
        for (int b = 0; b < n_blocks; b++) {
            __m512i r[16];
            UNROLL for (int i = 0; i < 16; i++) {
                const char * block = rows[j + i] + (size_t) b*hex_block_size(k);
                memcpy(&words[b][j + i], block + 8*k, 2);
                r[i] = unpack(&d, block);
            }
            turn(r);
            uint8_t * to = tile + ((size_t) b*4 + (size_t) j/16)*1024;
            UNROLL for (int i = 0; i < 16; i++) {
                _mm512_store_si512(to + 64*i, r[i]);
            }
        }
    }
    unpack_scales(k, words, n, n_blocks, scales);
}

// V tile: [n_blocks][16][4][64], for each block and four cells: register m holds, in 128-bit part l, samples 16l + 4m to
// 16l + 4m + 3, each of the four cells.
INLINE void unpack_rows_v(int k, const char * const * rows, int n, int n_blocks, uint8_t * tile, float * scales) {
    const decoder d = decoder_init(k);
    uint16_t words[HEX_MAX_BLOCKS][HEX_TILE];
    for (int b = 0; b < n_blocks; b++) {
        for (int j = 0; j < n; j += 16) {
            UNROLL for (int i = 0; i < 16; i += 4) {
                __m512i r[4];
                UNROLL for (int m = 0; m < 4; m++) {
                    const char * block = rows[j + i + m] + (size_t) b*hex_block_size(k);
                    memcpy(&words[b][j + i + m], block + 8*k, 2);
                    r[m] = unpack(&d, block);
                }
                const __m512i a = _mm512_unpacklo_epi8(r[0], r[1]), c = _mm512_unpacklo_epi8(r[2], r[3]);
                const __m512i e = _mm512_unpackhi_epi8(r[0], r[1]), f = _mm512_unpackhi_epi8(r[2], r[3]);
                uint8_t * to = tile + ((size_t) b*16 + (size_t) (j + i)/4)*256;
                _mm512_store_si512(to,       _mm512_unpacklo_epi16(a, c));
                _mm512_store_si512(to + 64,  _mm512_unpackhi_epi16(a, c));
                _mm512_store_si512(to + 128, _mm512_unpacklo_epi16(e, f));
                _mm512_store_si512(to + 192, _mm512_unpackhi_epi16(e, f));
            }
        }
    }
    unpack_scales(k, words, n, n_blocks, scales);
}

AVX512 static void unpack_k(int k, const char * const * rows, int n, int n_blocks, uint8_t * tile, float * scales) {
    HEX_FOR_K(k, unpack_rows_k, rows, n, n_blocks, tile, scales);
}
AVX512 static void unpack_v(int k, const char * const * rows, int n, int n_blocks, uint8_t * tile, float * scales) {
    HEX_FOR_K(k, unpack_rows_v, rows, n, n_blocks, tile, scales);
}

// nq queries against g sixteens of cells; both are constants.
INLINE void qk_some(int nq, int g, const uint8_t * tile, const float * scales, int n_blocks, const int8_t * limbs,
                    const float * scale, const int32_t * offset, float * s, int stride) {
    __m512 sum[4][2] = {0};
    for (int b = 0; b < n_blocks; b++, tile += 4096, scales += HEX_TILE) {
        __m512i hi[4][2], lo[4][2];
        for (int q = 0; q < nq; q++) {
            for (int j = 0; j < g; j++) {
                hi[q][j] = lo[q][j] = _mm512_setzero_si512();
            }
        }
        UNROLL for (int i = 0; i < 16; i++) {
            __m512i c[2];
            for (int j = 0; j < g; j++) {
                c[j] = bytes(tile + 1024*j + 64*i);
            }
            for (int q = 0; q < nq; q++) {
                const int8_t * l = limbs + ((size_t) q*n_blocks + b)*2*HEX_BLOCK + 4*i;
                const __m512i  h = four(l), m = four(l + HEX_BLOCK);
                for (int j = 0; j < g; j++) {
                    hi[q][j] = dot(hi[q][j], c[j], h);
                    lo[q][j] = dot(lo[q][j], c[j], m);
                }
            }
        }
        for (int q = 0; q < nq; q++) {
            const __m512i o = _mm512_set1_epi32(offset[2*(q*n_blocks + b)]);
            const __m512  f = _mm512_set1_ps(scale[q*n_blocks + b]);
            for (int j = 0; j < g; j++) {
                const __m512i t = _mm512_sub_epi32(_mm512_add_epi32(_mm512_slli_epi32(hi[q][j], 7), lo[q][j]), o);
                const __m512  w = _mm512_mul_ps(f, _mm512_load_ps(scales + 16*j));
                sum[q][j] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(t), w, sum[q][j]);
            }
        }
    }
    for (int q = 0; q < nq; q++) {
        for (int j = 0; j < g; j++) {
            _mm512_storeu_ps(s + (size_t) q*stride + 16*j, sum[q][j]);
        }
    }
}

// The same with the high limb alone.
INLINE void qk_coarse(int nq, int g, const uint8_t * tile, const float * scales, int n_blocks, const int8_t * limbs,
                      const float * scale, const int32_t * offset, float * s, int stride) {
    for (int b = 0; b < n_blocks; b++, tile += 4096, scales += HEX_TILE) {
        __m512i sum[8][2];
        for (int q = 0; q < nq; q++) {
            for (int j = 0; j < g; j++) {
                sum[q][j] = _mm512_setzero_si512();
            }
        }
        UNROLL for (int i = 0; i < 16; i++) {
            __m512i c[2];
            for (int j = 0; j < g; j++) {
                c[j] = bytes(tile + 1024*j + 64*i);
            }
            for (int q = 0; q < nq; q++) {
                const __m512i h = four(limbs + ((size_t) q*n_blocks + b)*2*HEX_BLOCK + 4*i);
                for (int j = 0; j < g; j++) {
                    sum[q][j] = dot(sum[q][j], c[j], h);
                }
            }
        }
        for (int q = 0; q < nq; q++) {
            const __m512i o = _mm512_set1_epi32(offset[2*(q*n_blocks + b) + 1]);
            const __m512  f = _mm512_set1_ps(128*scale[q*n_blocks + b]);
            for (int j = 0; j < g; j++) {
                float * to = s + (size_t) q*stride + 16*j;
                const __m512 t = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum[q][j], o)), w = _mm512_mul_ps(f, _mm512_load_ps(scales + 16*j));
                _mm512_storeu_ps(to, b == 0 ? _mm512_mul_ps(t, w) : _mm512_fmadd_ps(t, w, _mm512_loadu_ps(to)));
            }
        }
    }
}

AVX512 static void qk(const uint8_t * tile, const float * scales, int n, int n_blocks, const int8_t * limbs, const float * scale,
                      const int32_t * offset, int n_q, float * s, int stride, bool coarse) {
#define QK_OF(F, NQ, G) F(NQ, G, tile + 64*j, scales + j, n_blocks, limbs + (size_t) q*n_blocks*2*HEX_BLOCK, scale + q*n_blocks, \
                          offset + 2*q*n_blocks, s + (size_t) q*stride + j, stride)
#define QK(NQ, G) QK_OF(qk_some, NQ, G)
    int q = 0;
    for (; coarse && q + 8 <= n_q; q += 8) {
        for (int j = 0; j < n; j += 32) {
            if (n - j > 16) { QK_OF(qk_coarse, 8, 2); } else { QK_OF(qk_coarse, 8, 1); }
        }
    }
    for (; q < n_q; q += 4) { // few are left: as precisely as they come
        for (int j = 0; j < n; j += 32) {
            const bool two = n - j > 16;
            switch (n_q - q) {
                case 1:  if (two) { QK(1, 2); } else { QK(1, 1); } break;
                case 2:  if (two) { QK(2, 2); } else { QK(2, 1); } break;
                case 3:  if (two) { QK(3, 2); } else { QK(3, 1); } break;
                default: if (two) { QK(4, 2); } else { QK(4, 1); } break;
            }
        }
    }
#undef QK
#undef QK_OF
}

// Probabilities times row scales of one block as integers of 16 bits, limbs apart.
struct weights {
    uint8_t hi[HEX_MAX_QUERIES][HEX_TILE] __attribute__((aligned(64)));
    uint8_t lo[HEX_MAX_QUERIES][HEX_TILE] __attribute__((aligned(64)));
    float   unit[HEX_MAX_QUERIES]; // what one is worth, 0: all are zero
};

INLINE void make_weights(struct weights * to, const float * scales, int n, const float * p, int stride, int n_q, bool coarse) {
    const float unit = coarse ? P_MAX_COARSE : P_MAX;
    __mmask16 m[4];
    __m512 scale[4];
    UNROLL for (int i = 0; i < 4; i++) {
        m[i]     = n >= 16*i + 16 ? 0xffff : n <= 16*i ? 0 : (__mmask16) ((1u << (n - 16*i)) - 1);
        scale[i] = _mm512_maskz_load_ps(m[i], scales + 16*i);
    }
    for (int q = 0; q < n_q; q++, p += stride) {
        __m512 w[4];
        UNROLL for (int i = 0; i < 4; i++) {
            w[i] = _mm512_mul_ps(_mm512_maskz_loadu_ps(m[i], p + 16*i), scale[i]);
        }
        const float most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(w[0], w[1]), _mm512_max_ps(w[2], w[3])));
        const float inv  = most > TINY ? unit/most : 0;
        to->unit[q] = most > TINY ? most*(1/unit) : 0;
        UNROLL for (int i = 0; i < 4; i++) {
            const __m512i x = _mm512_cvtps_epi32(_mm512_mul_ps(w[i], _mm512_set1_ps(inv)));
            _mm_store_si128((__m128i *) (to->lo[q] + 16*i), _mm512_cvtepi32_epi8(x));
            if (!coarse) {
                _mm_store_si128((__m128i *) (to->hi[q] + 16*i), _mm512_cvtepi32_epi8(_mm512_srli_epi32(x, 8)));
            }
        }
    }
}

// out [64] += unit*t; 128-bit parts: t[m] has part l for samples 16l + 4m.
INLINE void add_block(float * out, float unit, const __m512i t[4]) {
    const __m512  u = _mm512_set1_ps(unit);
    const __m512i a = _mm512_shuffle_i32x4(t[0], t[1], 0x44), b = _mm512_shuffle_i32x4(t[2], t[3], 0x44);
    const __m512i c = _mm512_shuffle_i32x4(t[0], t[1], 0xee), d = _mm512_shuffle_i32x4(t[2], t[3], 0xee);
    const __m512i x[4] = { _mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd),
                           _mm512_shuffle_i32x4(c, d, 0x88), _mm512_shuffle_i32x4(c, d, 0xdd) };
    for (int l = 0; l < 4; l++) {
        _mm512_storeu_ps(out + 16*l, _mm512_fmadd_ps(_mm512_cvtepi32_ps(x[l]), u, _mm512_loadu_ps(out + 16*l)));
    }
}

// Queries q0 to q0 + nq - 1 of one block; nq is a constant.
INLINE void pv_some(int nq, const struct weights * w, int q0, const uint8_t * tile, int n, float * out, int out_stride) {
    bool any = false;
    for (int q = 0; q < nq; q++) {
        any = any || w->unit[q0 + q] > 0;
    }
    if (!any) {
        return;
    }
    __m512i high[3][4], low[3][4];
    for (int q = 0; q < nq; q++) {
        for (int m = 0; m < 4; m++) {
            high[q][m] = low[q][m] = _mm512_setzero_si512();
        }
    }
    for (int j = 0; j < n; j += 4, tile += 256) {
        __m512i h[3], l[3];
        for (int q = 0; q < nq; q++) {
            h[q] = four(w->hi[q0 + q] + j);
            l[q] = four(w->lo[q0 + q] + j);
        }
        for (int m = 0; m < 4; m++) {
            const __m512i c = bytes(tile + 64*m);
            for (int q = 0; q < nq; q++) {
                high[q][m] = dot(high[q][m], h[q], c);
                low[q][m]  = dot(low[q][m],  l[q], c);
            }
        }
    }
    for (int q = 0; q < nq; q++) {
        __m512i t[4];
        for (int m = 0; m < 4; m++) {
            t[m] = _mm512_add_epi32(_mm512_slli_epi32(high[q][m], 8), low[q][m]);
        }
        add_block(out + (size_t) q*out_stride, w->unit[q0 + q], t);
    }
}

// The same with weights of 8 bits.
INLINE void pv_coarse(int nq, const struct weights * w, int q0, const uint8_t * tile, int n, float * out, int out_stride) {
    __m512i sum[4][4];
    for (int q = 0; q < nq; q++) {
        for (int m = 0; m < 4; m++) {
            sum[q][m] = _mm512_setzero_si512();
        }
    }
    for (int j = 0; j < n; j += 4, tile += 256) {
        __m512i l[4];
        for (int q = 0; q < nq; q++) {
            l[q] = four(w->lo[q0 + q] + j);
        }
        for (int m = 0; m < 4; m++) {
            const __m512i c = bytes(tile + 64*m);
            for (int q = 0; q < nq; q++) {
                sum[q][m] = dot(sum[q][m], l[q], c);
            }
        }
    }
    for (int q = 0; q < nq; q++) {
        add_block(out + (size_t) q*out_stride, w->unit[q0 + q], sum[q]);
    }
}

AVX512 static void pv(const uint8_t * tile, const float * scales, int n, int n_blocks, const float * p, int stride, int n_q,
                      float * out, int out_stride, bool coarse) {
    struct weights w;
    coarse = coarse && n_q % 4 == 0;
    for (int b = 0; b < n_blocks; b++, tile += 4096, scales += HEX_TILE, out += HEX_BLOCK) {
        make_weights(&w, scales, n, p, stride, n_q, coarse);
        int q = 0;
        for (; coarse && q < n_q; q += 4) {
            pv_coarse(4, &w, q, tile, n, out + (size_t) q*out_stride, out_stride);
        }
        while (q < n_q) {
            float * o = out + (size_t) q*out_stride;
            switch (n_q - q) {
                case 1:  pv_some(1, &w, q, tile, n, o, out_stride); q += 1; break;
                case 3:  pv_some(3, &w, q, tile, n, o, out_stride); q += 3; break; // as many as registers hold
                default: pv_some(2, &w, q, tile, n, o, out_stride); q += 2; break;
            }
        }
    }
}

const struct hex_codes_kernels hex_codes_kernels_avx512 = {
    .coarse = true, .query = query, .unpack_k = unpack_k, .unpack_v = unpack_v, .qk = qk, .pv = pv,
};

#endif
