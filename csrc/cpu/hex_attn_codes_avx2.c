// Products with codes on AVX2. `vpmaddwd` multiplies 16 pairs of int16 and adds up neighbours, so codes are widened once per
// tile, and queries and weights need no limbs. (`vpmaddubsw` takes bytes, but saturates at 16 bits: with two limbs and their
// widening it comes to half as many instructions again.) A K tile is turned until a register holds two samples of eight cells,
// a V tile until it holds eight samples of two cells: nothing is left to be summed across lanes.
#include "hex_attn_kernels.h"

#if defined(__x86_64__) || defined(_M_X64)

#include "../core/hex_codec_impl.h"
#include "hex_decoder_avx2.h"

#include <math.h>
#include <stdbool.h>

#define I16_MAX 32767.0f
#define UNROLL _Pragma("GCC unroll 16")
#define TINY   1e-30f // weights below this cannot be told from none beside a probability of 1

INLINE __m256i load(const void * p)             { return _mm256_load_si256((const __m256i *) p); }
INLINE void    store(void * p, __m256i v)       { _mm256_store_si256((__m256i *) p, v); }
INLINE __m256i pair(const int16_t * p)          { int32_t x; memcpy(&x, p, 4); return _mm256_set1_epi32(x); }

// Loads once: GCC would read the memory again for each use.
INLINE __m256i held(const void * p) {
    __m256i v = load(p);
    __asm__("" : "+x"(v));
    return v;
}

// acc + _mm256_madd_epi16(a, b); GCC 12 moves the accumulators of the intrinsic to memory and back in every loop.
INLINE __m256i dot(__m256i acc, __m256i a, __m256i b) {
    __asm__("vpaddd %1, %0, %0" : "+x"(acc) : "x"(_mm256_madd_epi16(a, b)));
    return acc;
}

INLINE float largest(__m256 v) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

// 16 floats times f, rounded, in order.
INLINE __m256i to_words(const __m256 x[2], float f) {
    const __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(x[0], _mm256_set1_ps(f)));
    const __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(x[1], _mm256_set1_ps(f)));
    return _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
}

// limbs: int16 [n_blocks][64], of each four samples those in the order 0, 2, 1, 3, as the K tile has them.
AVX2 static void query(const float * q, int n_blocks, int8_t * limbs, float * scale, int32_t * offset) {
    const __m256i order = _mm256_broadcastsi128_si256(_mm_set_epi8(15, 14, 11, 10, 13, 12, 9, 8, 7, 6, 3, 2, 5, 4, 1, 0));
    const __m256  sign  = _mm256_set1_ps(-0.0f);
    for (int b = 0; b < n_blocks; b++, q += HEX_BLOCK, limbs += 2*HEX_BLOCK) {
        __m256 most = _mm256_setzero_ps(), odd = _mm256_setzero_ps(); // odd: not finite
        for (int i = 0; i < HEX_BLOCK; i += 8) {
            const __m256 x = _mm256_andnot_ps(sign, _mm256_loadu_ps(q + i));
            odd  = _mm256_or_ps(odd, _mm256_cmp_ps(x, _mm256_set1_ps(3e38f), _CMP_NLE_UQ));
            most = _mm256_max_ps(most, x);
        }
        const float amax = _mm256_movemask_ps(odd) ? NAN : largest(most);
        const bool  none = !(amax >= 1e-34f); // or not finite: the scale says so
        for (int i = 0; i < HEX_BLOCK; i += 16) {
            const __m256  x[2] = { _mm256_loadu_ps(q + i), _mm256_loadu_ps(q + i + 8) };
            const __m256i w    = none ? _mm256_setzero_si256() : to_words(x, I16_MAX/amax);
            _mm256_storeu_si256((__m256i *) (limbs + 2*i), _mm256_shuffle_epi8(w, order));
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

// Four bytes in each 32 bits become samples 0 and 2, and 1 and 3.
INLINE __m256i even_samples(__m256i x) { return _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8); }
INLINE __m256i odd_samples (__m256i x) { return _mm256_srai_epi16(x, 8); }

// K tile: [n_blocks][8][32][16] words: for each block and eight cells, register i holds two samples of each cell.
INLINE void unpack_rows_k(int k, const char * const * rows, int n, int n_blocks, uint8_t * tile, float * scales) {
    const tables t = load_tables(k);
    int8_t flat[8][HEX_BLOCK] __attribute__((aligned(32)));
    unpack_scales(k, rows, n, n_blocks, scales);
    for (int j = 0; j < (n + 15)/16*16; j += 8) {
        for (int b = 0; b < n_blocks; b++) {
            UNROLL for (int i = 0; i < 8; i++) {
                __m256i v[2];
                unpack(k, t, rows[j + i] + (size_t) b*hex_block_size(k), v);
                store(flat[i],      v[0]);
                store(flat[i] + 32, v[1]);
            }
            uint8_t * to = tile + ((size_t) b*8 + (size_t) j/8)*1024;
            UNROLL for (int c = 0; c < 4; c++, to += 256) { // 16 samples: cells 0 to 3 below, 4 to 7 above
                __m256i r[4];
                UNROLL for (int i = 0; i < 4; i++) {
                    r[i] = _mm256_set_m128i(_mm_load_si128((const __m128i *) (flat[i + 4] + 16*c)),
                                            _mm_load_si128((const __m128i *) (flat[i]     + 16*c)));
                }
                const __m256i p = _mm256_unpacklo_epi32(r[0], r[1]), q = _mm256_unpacklo_epi32(r[2], r[3]);
                const __m256i u = _mm256_unpackhi_epi32(r[0], r[1]), w = _mm256_unpackhi_epi32(r[2], r[3]);
                const __m256i x[4] = { _mm256_unpacklo_epi64(p, q), _mm256_unpackhi_epi64(p, q),
                                       _mm256_unpacklo_epi64(u, w), _mm256_unpackhi_epi64(u, w) };
                UNROLL for (int i = 0; i < 4; i++) {
                    store(to + 64*i,      even_samples(x[i]));
                    store(to + 64*i + 32, odd_samples(x[i]));
                }
            }
        }
    }
}

// V tile: [n_blocks][32][64][2] words: for each block and two cells, the samples of both side by side.
INLINE void unpack_rows_v(int k, const char * const * rows, int n, int n_blocks, uint8_t * tile, float * scales) {
    const tables t = load_tables(k);
    unpack_scales(k, rows, n, n_blocks, scales);
    for (int j = 0; j < n; j += 2) {
        for (int b = 0; b < n_blocks; b++) {
            uint8_t * to = tile + ((size_t) b*32 + (size_t) j/2)*256;
            __m256i x[2], y[2];
            unpack(k, t, rows[j]     + (size_t) b*hex_block_size(k), x);
            unpack(k, t, rows[j + 1] + (size_t) b*hex_block_size(k), y);
            UNROLL for (int half = 0; half < 2; half++, to += 128) {
                const __m256i p = _mm256_unpacklo_epi8(x[half], y[half]), q = _mm256_unpackhi_epi8(x[half], y[half]);
                store(to,      _mm256_cvtepi8_epi16(_mm256_castsi256_si128(p)));
                store(to + 32, _mm256_cvtepi8_epi16(_mm256_castsi256_si128(q)));
                store(to + 64, _mm256_cvtepi8_epi16(_mm256_extracti128_si256(p, 1)));
                store(to + 96, _mm256_cvtepi8_epi16(_mm256_extracti128_si256(q, 1)));
            }
        }
    }
}

AVX2 static void unpack_k(int k, const char * const * rows, int n, int n_blocks, uint8_t * tile, float * scales) {
    HEX_FOR_K(k, unpack_rows_k, rows, n, n_blocks, tile, scales);
}
AVX2 static void unpack_v(int k, const char * const * rows, int n, int n_blocks, uint8_t * tile, float * scales) {
    HEX_FOR_K(k, unpack_rows_v, rows, n, n_blocks, tile, scales);
}

// nq queries, a constant, against 16 cells.
INLINE void qk_some(int nq, const uint8_t * tile, const float * scales, int n_blocks, const int16_t * words, const float * scale,
                    float * s, int stride) {
    __m256 sum[4][2] = {0};
    for (int b = 0; b < n_blocks; b++, tile += 8192, scales += HEX_TILE) {
        __m256i acc[4][2];
        for (int q = 0; q < nq; q++) {
            acc[q][0] = acc[q][1] = _mm256_setzero_si256();
        }
        for (int i = 0; i < 32; i++) {
            const __m256i c0 = held(tile + 32*i), c1 = held(tile + 1024 + 32*i);
            for (int q = 0; q < nq; q++) {
                const __m256i w = pair(words + ((size_t) q*n_blocks + b)*HEX_BLOCK + 2*i);
                acc[q][0] = dot(acc[q][0], c0, w);
                acc[q][1] = dot(acc[q][1], c1, w);
            }
        }
        for (int q = 0; q < nq; q++) {
            const __m256 f = _mm256_set1_ps(scale[q*n_blocks + b]);
            for (int j = 0; j < 2; j++) {
                const __m256 w = _mm256_mul_ps(f, _mm256_load_ps(scales + 8*j));
                sum[q][j] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[q][j]), w, sum[q][j]);
            }
        }
    }
    for (int q = 0; q < nq; q++) {
        _mm256_storeu_ps(s + (size_t) q*stride,     sum[q][0]);
        _mm256_storeu_ps(s + (size_t) q*stride + 8, sum[q][1]);
    }
}

AVX2 static void qk(const uint8_t * tile, const float * scales, int n, int n_blocks, const int8_t * limbs, const float * scale,
                    const int32_t * offset, int n_q, float * s, int stride, bool coarse) {
    (void) offset;
    (void) coarse;
    const int16_t * words = (const int16_t *) (const void *) limbs;
#define QK(NQ) qk_some(NQ, tile + 128*j, scales + j, n_blocks, words + (size_t) q*n_blocks*HEX_BLOCK, scale + q*n_blocks, \
                       s + (size_t) q*stride + j, stride)
    for (int q = 0; q < n_q; q += 4) {
        for (int j = 0; j < n; j += 16) {
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
    int16_t w[HEX_MAX_QUERIES][HEX_TILE] __attribute__((aligned(32)));
    float   unit[HEX_MAX_QUERIES]; // what one is worth, 0: all are zero
};

INLINE void make_weights(struct weights * to, const float * scales, int n, const float * p, int stride, int n_q) {
    const __m256i iota = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
    const int n8 = (n + 15)/16*2;
    for (int q = 0; q < n_q; q++, p += stride) {
        __m256 x[8], most = _mm256_setzero_ps();
        for (int i = 0; i < n8; i++) {
            const __m256i some = _mm256_cmpgt_epi32(_mm256_set1_epi32(n - 8*i), iota);
            const __m256  v    = _mm256_mul_ps(_mm256_maskload_ps(p + 8*i, some), _mm256_load_ps(scales + 8*i));
            x[i] = v;
            most = _mm256_max_ps(most, v);
        }
        const float max = largest(most);
        const float inv = max > TINY ? I16_MAX/max : 0;
        to->unit[q] = max > TINY ? max*(1/I16_MAX) : 0;
        for (int i = 0; i < n8; i += 2) {
            store(to->w[q] + 8*i, to_words(x + i, inv));
        }
    }
}

// nq queries from q0 on, a constant, and one block.
INLINE void pv_some(int nq, const struct weights * w, int q0, const uint8_t * tile, int n, float * out, int out_stride) {
    bool any = false;
    for (int q = 0; q < nq; q++) {
        any = any || w->unit[q0 + q] > 0;
    }
    if (!any) {
        return;
    }
    for (int c = 0; c < HEX_BLOCK; c += 16, tile += 64, out += 16) {
        __m256i acc[4][2];
        for (int q = 0; q < nq; q++) {
            acc[q][0] = acc[q][1] = _mm256_setzero_si256();
        }
        const uint8_t * at = tile;
        for (int j = 0; j < n; j += 2, at += 256) {
            const __m256i c0 = held(at), c1 = held(at + 32);
            for (int q = 0; q < nq; q++) {
                const __m256i x = pair(w->w[q0 + q] + j);
                acc[q][0] = dot(acc[q][0], c0, x);
                acc[q][1] = dot(acc[q][1], c1, x);
            }
        }
        for (int q = 0; q < nq; q++) {
            const __m256 u = _mm256_set1_ps(w->unit[q0 + q]);
            float * o = out + (size_t) q*out_stride;
            for (int m = 0; m < 2; m++) {
                _mm256_storeu_ps(o + 8*m, _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[q][m]), u, _mm256_loadu_ps(o + 8*m)));
            }
        }
    }
}

AVX2 static void pv(const uint8_t * tile, const float * scales, int n, int n_blocks, const float * p, int stride, int n_q,
                    float * out, int out_stride, bool coarse) {
    (void) coarse;
    struct weights w;
    for (int b = 0; b < n_blocks; b++, tile += 8192, scales += HEX_TILE, out += HEX_BLOCK) {
        make_weights(&w, scales, n, p, stride, n_q);
        for (int q = 0; q < n_q; q += 4) {
            float * to = out + (size_t) q*out_stride;
            switch (n_q - q) {
                case 1:  pv_some(1, &w, q, tile, n, to, out_stride); break;
                case 2:  pv_some(2, &w, q, tile, n, to, out_stride); break;
                case 3:  pv_some(3, &w, q, tile, n, to, out_stride); break;
                default: pv_some(4, &w, q, tile, n, to, out_stride); break;
            }
        }
    }
}

const struct hex_codes_kernels hex_codes_kernels_avx2 = {
    .query = query, .unpack_k = unpack_k, .unpack_v = unpack_v, .qk = qk, .pv = pv,
};

#endif
