// The codec with AVX-512 (F, BW, DQ, VL, VBMI, VNNI). Same bits as core/hex_codec.c.
#include "hex_codec_cpu.h"

#if HEX_X86

#include "../core/hex_codec_impl.h"
#include "hex_decoder_avx512.h"
#include "hex_vec_dot.h"

#include <float.h>

INLINE __m512i lookup(__m512i a, __m512i b, __m512i w) {
    const __m512i low = _mm512_set1_epi8(15);
    return _mm512_add_epi8(_mm512_shuffle_epi8(a, _mm512_and_si512(w, low)),
                           _mm512_shuffle_epi8(b, _mm512_and_si512(_mm512_srli_epi16(w, 4), low)));
}

// ---- decoder ----

INLINE void unpack_block(int k, const void * block, int8_t * out) {
    const decoder d = decoder_init(k);
    _mm512_storeu_si512(out, unpack(&d, block));
}

INLINE void store_scaled(float * y, __m512 scale, __m128i v) {
    _mm512_storeu_ps(y, _mm512_mul_ps(scale, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(v))));
}

INLINE void dequantize(int k, const void * blocks, float * y, int64_t n) {
    const decoder d = decoder_init(k);
    const char * block = (const char *) blocks;
    for (; n > 0; n -= HEX_BLOCK, y += HEX_BLOCK, block += hex_block_size(k)) {
        const __m512i v     = unpack(&d, block);
        const __m512  scale = _mm512_set1_ps(hex_block_scale(k, block));
        store_scaled(y,      scale, _mm512_castsi512_si128(v));
        store_scaled(y + 16, scale, _mm512_extracti32x4_epi32(v, 1));
        store_scaled(y + 32, scale, _mm512_extracti32x4_epi32(v, 2));
        store_scaled(y + 48, scale, _mm512_extracti32x4_epi32(v, 3));
    }
}

AVX512 void hex_block_unpack_avx512(int k, const void * block, int8_t out[HEX_BLOCK]) {
    HEX_FOR_K(k, unpack_block, block, out);
}

AVX512 void hex_dequantize_avx512(int k, const void * blocks, float * y, int64_t n) {
    HEX_FOR_K(k, dequantize, blocks, y, n);
}

// Sums of 4 products, those of the first 32 samples in the lower half. The multiplier wants one unsigned side, so v is
// raised by 128 and 128 times the sum of y taken off again.
INLINE __m512i dot64(__m512i v, const hex_block_q8_0 y[2]) {
    const __m512i q    = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *) y[0].qs)),
                                            _mm256_loadu_si256((const __m256i *) y[1].qs), 1);
    const __m512i bias = _mm512_set1_epi8((char) 128), zero = _mm512_setzero_si512();
    return _mm512_sub_epi32(_mm512_dpbusd_epi32(zero, _mm512_xor_si512(v, bias), q),
                            _mm512_dpbusd_epi32(zero, bias, q));
}

INLINE void vec_dot(int k, int64_t n, float * s, const void * x, const void * y) {
    const decoder d = decoder_init(k);
    const char * block = (const char *) x;
    const hex_block_q8_0 * q = (const hex_block_q8_0 *) y;
    __m512 sum = _mm512_setzero_ps();
    for (; n > 0; n -= HEX_BLOCK, block += hex_block_size(k), q += 2) {
        const float  scale = hex_block_scale(k, block);
        const __m512 both  = _mm512_mask_mov_ps(_mm512_set1_ps(scale * _cvtsh_ss(q[0].d)), 0xff00,
                                                _mm512_set1_ps(scale * _cvtsh_ss(q[1].d)));
        sum = _mm512_fmadd_ps(both, _mm512_cvtepi32_ps(dot64(unpack(&d, block), q)), sum);
    }
    *s = _mm512_reduce_add_ps(sum);
}

AVX512 void hex_vec_dot_avx512(int k, int64_t n, float * s, const void * x, const void * y) {
    HEX_FOR_K(k, vec_dot, n, s, x, y);
}

// ---- encoder ----
//
// The 256 metrics are 8 registers of 32 words in the order [h][g] for state w = g << k | h, so that the minimum over h
// is vertical; word permutes then spread the minima over the next states.
//
// With k = 4 a row of h is half a register: register r holds h = r below and h = r + 8 above, so that the lower h stays
// on the left, and wins ties, at every level of the minimum.

enum { REGS = 8 };

// First row of a register.
INLINE int row_of(int k, int r) { return k >= 3 ? r : r >> (3 - k); }

typedef struct {
    __m512i value[REGS];  // of the states, in the units of the search
    __m512i spread[REGS]; // by row: where their minima come from, modulo 64
    __m256i window[REGS]; // w itself, as bytes
    __m512i a, b;         // tables
} encoder;

INLINE void encoder_init(int k, encoder * e) {
    const __m128i a = _mm_loadu_si128((const __m128i *) hex_table_a[k]);
    const __m128i b = _mm_loadu_si128((const __m128i *) hex_table_b[k]);
    e->a = _mm512_broadcast_i32x4(a);
    e->b = _mm512_broadcast_i32x4(b);
    // Position p = h << (8-k) | g is the state w rotated right by k.
    const __m256i iota = _mm256_set_epi8(31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16,
                                         15, 14, 13, 12, 11, 10,  9,  8,  7,  6,  5,  4,  3,  2,  1,  0);
    const __m256i halves = _mm256_set_epi64x(0x7070707070707070, 0x7070707070707070, 0, 0); // 16 more are in iota
    for (int r = 0; r < REGS; r++) {
        const __m256i p = k == 4 ? _mm256_add_epi8(_mm256_add_epi8(iota, halves), _mm256_set1_epi8((char) (16*r)))
                                 : _mm256_add_epi8(iota, _mm256_set1_epi8((char) (32*r)));
        const __m512i wide  = _mm512_cvtepu8_epi16(p);
        const __m512i w     = _mm512_and_si512(_mm512_or_si512(_mm512_slli_epi16(wide, (unsigned) k),
                                  _mm512_srli_epi16(wide, (unsigned) (8 - k))), _mm512_set1_epi16(255));
        const __m512i value = lookup(e->a, e->b, w);
        const unsigned up   = (unsigned) (7 + hex_search_shift(k)); // HEX_UNIT << shift, from the top: sign extended
        e->window[r] = _mm512_cvtepi16_epi8(w);
        e->value[r] = _mm512_srai_epi16(_mm512_slli_epi16(value, 8), 8 - up);
        e->spread[row_of(k, r)] = _mm512_and_si512(w, _mm512_set1_epi16((short) ((HEX_STATES >> k) - 1)));
    }
}

// Step 1. Loads the samples, the non-finite ones as zero. Returns the RMS, 0 for a zero block.
INLINE float measure(const float * x, __m512 v[4]) {
    __m512 most = _mm512_setzero_ps();
    for (int i = 0; i < 4; i++) {
        v[i] = _mm512_loadu_ps(x + 16*i);
        const __mmask16 finite = _mm512_cmp_ps_mask(_mm512_abs_ps(v[i]), _mm512_set1_ps(FLT_MAX), _CMP_LE_OQ);
        v[i] = _mm512_maskz_mov_ps(finite, v[i]);
        most = _mm512_max_ps(most, _mm512_abs_ps(v[i]));
    }
    const float amax = _mm512_reduce_max_ps(most);
    if (amax < HEX_TINY) {
        return 0.0f;
    }
    const __m512 unit = _mm512_set1_ps(HEX_MEASURE / amax);
    __m512i squares = _mm512_setzero_si512();
    for (int i = 0; i < 4; i++) {
        const __m512i m = _mm512_abs_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(v[i], unit)));
        squares = _mm512_add_epi32(squares, _mm512_madd_epi16(m, m));
    }
    return hex_sigma(amax, _mm512_reduce_add_epi32(squares));
}

// Step 2.
INLINE void scale_samples(const __m512 v[4], float scale, int16_t out[HEX_BLOCK]) {
    const __m512 unit  = _mm512_set1_ps(HEX_UNIT / scale);
    const __m512 least = _mm512_set1_ps(-32767.0f), most = _mm512_set1_ps(32767.0f);
    for (int i = 0; i < 4; i++) {
        const __m512 s = _mm512_max_ps(least, _mm512_min_ps(most, _mm512_mul_ps(v[i], unit)));
        _mm256_storeu_si256((__m256i *) (out + 16*i), _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(s)));
    }
}

// Metrics, and the window that each came by. The right one wins only where it is strictly less.
typedef struct { __m512i metric; __m256i w; } choice;

INLINE choice better(choice left, choice right) {
    const __mmask32 m = _mm512_cmplt_epu16_mask(right.metric, left.metric);
    return (choice) { _mm512_min_epu16(left.metric, right.metric), _mm256_mask_blend_epi8(m, left.w, right.w) };
}

INLINE void subtract_least(__m512i best[4], int n) {
    __m512i all = best[0];
    HEX_UNROLL for (int r = 1; r < n; r++) {
        all = _mm512_min_epu16(all, best[r]);
    }
    const __m256i y = _mm256_min_epu16(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
    const __m128i x = _mm_min_epu16(_mm256_castsi256_si128(y), _mm256_extracti128_si256(y, 1));
    const __m512i least = _mm512_broadcastw_epi16(_mm_minpos_epu16(x));
    HEX_UNROLL for (int r = 0; r < n; r++) {
        best[r] = _mm512_sub_epi16(best[r], least);
    }
}

// One sample: from the minima of the last to those of this one, and the best window by its high part g.
INLINE void step(int k, __m512i x, const encoder * e, __m512i best[4], uint8_t * from) {
    choice c[REGS];
    HEX_UNROLL for (int r = 0; r < REGS; r++) {
        const __m512i at = e->spread[row_of(k, r)];
        const __m512i m  = k == 1 ? _mm512_permutex2var_epi16(best[r % 2 * 2], at, best[r % 2 * 2 + 1])
                         : k == 2 ? _mm512_permutex2var_epi16(best[0], at, best[1])
                         :          _mm512_permutexvar_epi16(at, best[0]);
        const __m512i d  = _mm512_subs_epi16(x, e->value[r]);
        c[r].metric = _mm512_adds_epu16(m, _mm512_mulhrs_epi16(d, d));
        c[r].w      = e->window[r];
    }
    const int rows = k == 4 ? 8 : 1 << k, stride = REGS / rows; // stride: registers per row
    HEX_UNROLL for (int span = 1; span < rows; span *= 2) {
        HEX_UNROLL for (int r = 0; r < REGS; r++) {
            if (r / stride % (2*span) == 0) {
                c[r] = better(c[r], c[r + span*stride]);
            }
        }
    }
    if (k == 4) {
        const __m512i swapped = _mm512_shuffle_i64x2(c[0].metric, c[0].metric, 0x4e);
        const __mmask16 m = (__mmask16) _mm512_cmplt_epu16_mask(swapped, c[0].metric);
        best[0] = _mm512_min_epu16(c[0].metric, swapped);
        _mm_storeu_si128((__m128i *) from, _mm_mask_blend_epi8(m, _mm256_castsi256_si128(c[0].w),
                                                               _mm256_extracti128_si256(c[0].w, 1)));
    } else {
        HEX_UNROLL for (int r = 0; r < stride; r++) {
            best[r] = c[r].metric;
            _mm256_storeu_si256((__m256i *) (from + 32*r), c[r].w);
        }
    }
}

enum { FROM = HEX_BLOCK * HEX_STATES / 2 };

// Step 3, see search() of the reference. A step is a long chain of few instructions, so the attempts go side by side.
INLINE void search(int k, int attempts, int16_t x[][HEX_BLOCK], const encoder * e, uint8_t from[][FROM],
                   uint32_t * last) {
    const int groups = HEX_STATES >> k, n_best = k == 4 ? 1 : groups / 32;
    __m512i best[2][4];
    HEX_UNROLL for (int a = 0; a < attempts; a++) {
        HEX_UNROLL for (int r = 0; r < 4; r++) {
            best[a][r] = _mm512_setzero_si512();
        }
    }
    for (int i = 0; i < HEX_BLOCK; i++) {
        HEX_UNROLL for (int a = 0; a < attempts; a++) {
            const __m512i xi = _mm512_set1_epi16(x[a][i]);
            step(k, hex_search_shift(k) ? _mm512_adds_epi16(xi, xi) : xi, e, best[a], from[a] + i*groups);
            if (i % HEX_NORMALISE == HEX_NORMALISE - 1) {
                subtract_least(best[a], n_best);
            }
        }
    }
    HEX_UNROLL for (int a = 0; a < attempts; a++) {
        HEX_UNROLL for (int r = n_best - 1; r >= 0; r--) { // the least metric is zero now
            const uint32_t zero = _mm512_cmpeq_epi16_mask(best[a][r], _mm512_setzero_si512());
            last[a] = zero ? (uint32_t) (32*r + __builtin_ctz(zero)) : last[a];
        }
    }
}

// Sums of samples times values and of squared values.
INLINE void fit(const encoder * e, const int16_t x[HEX_BLOCK], const uint8_t w[HEX_BLOCK], int32_t * xc, int32_t * cc) {
    const __m512i v  = lookup(e->a, e->b, _mm512_loadu_si512(w));
    const __m512i v0 = _mm512_cvtepi8_epi16(_mm512_castsi512_si256(v)), v1 = _mm512_cvtepi8_epi16(_mm512_extracti64x4_epi64(v, 1));
    *xc = _mm512_reduce_add_epi32(_mm512_add_epi32(_mm512_madd_epi16(v0, _mm512_loadu_si512(x)),
                                                   _mm512_madd_epi16(v1, _mm512_loadu_si512(x + 32))));
    *cc = _mm512_reduce_add_epi32(_mm512_add_epi32(_mm512_madd_epi16(v0, v0), _mm512_madd_epi16(v1, v1)));
}

INLINE void quantize(int k, const float * x, void * blocks, int64_t n) {
    encoder e;
    encoder_init(k, &e);
    char * block = (char *) blocks;
    for (; n > 0; n -= HEX_BLOCK, x += HEX_BLOCK, block += hex_block_size(k)) {
        __m512 v[4];
        const float sigma = measure(x, v);
        float kept = 0.0f;
        memset(block, 0, hex_block_size(k)); // unless something fits better
        if (sigma == 0.0f) {
            continue;
        }
        int16_t xi[2][HEX_BLOCK];
        uint8_t from[2][FROM];
        uint8_t w[2][HEX_BLOCK];
        uint32_t last[2] = { 0 };
        for (int a = 0; a < hex_tries(k); a++) {
            scale_samples(v, hex_try_scale(k, a, sigma), xi[a]);
        }
        search(k, hex_tries(k), xi, &e, from, last);
        hex_walk_back(k, hex_tries(k), from[0], FROM, last, w);
        for (int a = 0; a < hex_tries(k); a++) {
            int32_t xc, cc;
            fit(&e, xi[a], w[a], &xc, &cc);
            hex_keep_better(k, w[a], hex_try_scale(k, a, sigma), xc, cc, &kept, block);
        }
    }
}

AVX512 void hex_quantize_avx512(int k, const float * x, void * blocks, int64_t n) {
    HEX_FOR_K(k, quantize, x, blocks, n);
}

#endif
