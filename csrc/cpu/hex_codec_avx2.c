// The codec with AVX2. Same bits as core/hex_codec.c.
#include "hex_codec_cpu.h"

#if HEX_X86

#include "../core/hex_codec_impl.h"
#include "hex_decoder_avx2.h"
#include "hex_vec_dot.h"

#include <float.h>

// ---- decoder ----

INLINE void unpack_block(int k, const void * block, int8_t * out) {
    __m256i v[2];
    unpack(k, load_tables(k), block, v);
    _mm256_storeu_si256((__m256i *)  out,       v[0]);
    _mm256_storeu_si256((__m256i *) (out + 32), v[1]);
}

INLINE void store_scaled(float * y, __m256 scale, __m128i v) {
    _mm256_storeu_ps(y,     _mm256_mul_ps(scale, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v))));
    _mm256_storeu_ps(y + 8, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(v, 8)))));
}

INLINE void dequantize(int k, const void * blocks, float * y, int64_t n) {
    const tables t = load_tables(k);
    const char * block = (const char *) blocks;
    for (; n > 0; n -= HEX_BLOCK, y += HEX_BLOCK, block += hex_block_size(k)) {
        const __m256 scale = _mm256_set1_ps(hex_block_scale(k, block));
        __m256i v[2];
        unpack(k, t, block, v);
        for (int half = 0; half < 2; half++) {
            store_scaled(y + 32*half,      scale, _mm256_castsi256_si128(v[half]));
            store_scaled(y + 32*half + 16, scale, _mm256_extracti128_si256(v[half], 1));
        }
    }
}

AVX2 void hex_block_unpack_avx2(int k, const void * block, int8_t out[HEX_BLOCK]) {
    HEX_FOR_K(k, unpack_block, block, out);
}

AVX2 void hex_dequantize_avx2(int k, const void * blocks, float * y, int64_t n) {
    HEX_FOR_K(k, dequantize, blocks, y, n);
}

// |y| is unsigned and v takes its sign: 2 * 128 * 127 fits the 16 bits of maddubs.
INLINE __m256 dot32(__m256i v, const hex_block_q8_0 * y) {
    const __m256i q   = _mm256_loadu_si256((const __m256i *) y->qs);
    const __m256i p16 = _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(v, q));
    return _mm256_cvtepi32_ps(_mm256_madd_epi16(p16, _mm256_set1_epi16(1)));
}

INLINE void vec_dot(int k, int64_t n, float * s, const void * x, const void * y) {
    const tables t = load_tables(k);
    const char * block = (const char *) x;
    const hex_block_q8_0 * q = (const hex_block_q8_0 *) y;
    __m256 sum0 = _mm256_setzero_ps(), sum1 = _mm256_setzero_ps();
    for (; n > 0; n -= HEX_BLOCK, block += hex_block_size(k), q += 2) {
        const float scale = hex_block_scale(k, block);
        __m256i v[2];
        unpack(k, t, block, v);
        sum0 = _mm256_fmadd_ps(_mm256_set1_ps(scale * _cvtsh_ss(q[0].d)), dot32(v[0], q),     sum0);
        sum1 = _mm256_fmadd_ps(_mm256_set1_ps(scale * _cvtsh_ss(q[1].d)), dot32(v[1], q + 1), sum1);
    }
    sum0 = _mm256_add_ps(sum0, sum1);
    __m128 m = _mm_add_ps(_mm256_castps256_ps128(sum0), _mm256_extractf128_ps(sum0, 1));
    m  = _mm_add_ps(m, _mm_movehl_ps(m, m));
    *s = _mm_cvtss_f32(_mm_add_ss(m, _mm_movehdup_ps(m)));
}

AVX2 void hex_vec_dot_avx2(int k, int64_t n, float * s, const void * x, const void * y) {
    HEX_FOR_K(k, vec_dot, n, s, x, y);
}

// ---- encoder ----
//
// The 256 metrics in the order [h][g] for state w = g << k | h are 16 registers of 16 words, so that the minimum over h
// is vertical. They never exist all at once: each is made, compared with the best so far, and dropped.

enum { REGS = 16 };

typedef struct {
    __m256i value[REGS]; // of the states, in the units of the search
    __m256i window[REGS]; // the states themselves
} encoder;

INLINE void encoder_init(int k, encoder * e) {
    const tables t = load_tables(k);
    // Position p = h << (8-k) | g is the state w rotated right by k.
    const __m256i iota = _mm256_set_epi16(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    for (int r = 0; r < REGS; r++) {
        const __m256i p = _mm256_add_epi16(iota, _mm256_set1_epi16((short) (16*r)));
        const __m256i w = _mm256_and_si256(_mm256_or_si256(_mm256_slli_epi16(p, k), _mm256_srli_epi16(p, 8 - k)),
                                           _mm256_set1_epi16(255));
        const int up = 7 + hex_search_shift(k); // HEX_UNIT << shift, from the top: sign extended
        e->window[r] = w;
        e->value[r]  = _mm256_srai_epi16(_mm256_slli_epi16(lookup(t, w), 8), 8 - up);
    }
}

INLINE __m256 absolute(__m256 v) {
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v);
}

INLINE float largest(__m256 v) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

INLINE int32_t sum(__m256i v) {
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

// Step 1. Loads the samples, the non-finite ones as zero. Returns the RMS, 0 for a zero block.
INLINE float measure(const float * x, __m256 v[8]) {
    __m256 most = _mm256_setzero_ps();
    for (int i = 0; i < 8; i++) {
        v[i] = _mm256_loadu_ps(x + 8*i);
        v[i] = _mm256_and_ps(v[i], _mm256_cmp_ps(absolute(v[i]), _mm256_set1_ps(FLT_MAX), _CMP_LE_OQ));
        most = _mm256_max_ps(most, absolute(v[i]));
    }
    const float amax = largest(most);
    if (amax < HEX_TINY) {
        return 0.0f;
    }
    const __m256 unit = _mm256_set1_ps(HEX_MEASURE / amax);
    __m256i squares = _mm256_setzero_si256();
    for (int i = 0; i < 8; i++) {
        const __m256i m = _mm256_abs_epi32(_mm256_cvtps_epi32(_mm256_mul_ps(v[i], unit)));
        squares = _mm256_add_epi32(squares, _mm256_madd_epi16(m, m));
    }
    return hex_sigma(amax, sum(squares));
}

// Step 2.
INLINE void scale_samples(const __m256 v[8], float scale, int16_t out[HEX_BLOCK]) {
    const __m256 unit  = _mm256_set1_ps(HEX_UNIT / scale);
    const __m256 least = _mm256_set1_ps(-32767.0f), most = _mm256_set1_ps(32767.0f);
    __m256i s[8];
    for (int i = 0; i < 8; i++) {
        s[i] = _mm256_cvtps_epi32(_mm256_max_ps(least, _mm256_min_ps(most, _mm256_mul_ps(v[i], unit))));
    }
    for (int i = 0; i < 8; i += 2) {
        const __m256i words = _mm256_packs_epi32(s[i], s[i + 1]);
        _mm256_storeu_si256((__m256i *) (out + 8*i), _mm256_permute4x64_epi64(words, 0xd8));
    }
}

// What the next metrics need of the minima best[g]: the term of row h, register j is best[(16*j + lane) << k | h], the
// index modulo the number of minima. Up to 8 registers.
INLINE void spread(int k, const __m256i best[8], __m256i out[8]) {
    if (k == 4) { // each minimum to a whole row: copied to both lanes
        out[0] = _mm256_permute2x128_si256(best[0], best[0], 0x00);
        out[1] = _mm256_permute2x128_si256(best[0], best[0], 0x11);
    }
    if (k == 3) { // rows of 8 to columns of 4: two columns per lane
        const __m128i r0 = _mm256_castsi256_si128(best[0]), r1 = _mm256_extracti128_si256(best[0], 1);
        const __m128i r2 = _mm256_castsi256_si128(best[1]), r3 = _mm256_extracti128_si256(best[1], 1);
        const __m128i a0 = _mm_unpacklo_epi16(r0, r1), a1 = _mm_unpackhi_epi16(r0, r1);
        const __m128i b0 = _mm_unpacklo_epi16(r2, r3), b1 = _mm_unpackhi_epi16(r2, r3);
        out[0] = _mm256_castsi128_si256(_mm_unpacklo_epi32(a0, b0));
        out[1] = _mm256_castsi128_si256(_mm_unpackhi_epi32(a0, b0));
        out[2] = _mm256_castsi128_si256(_mm_unpacklo_epi32(a1, b1));
        out[3] = _mm256_castsi128_si256(_mm_unpackhi_epi32(a1, b1));
    }
    if (k == 2) { // every fourth: pairs to 32-bit words, then a transpose of those
        const __m256i pairs = _mm256_broadcastsi128_si256(
            _mm_set_epi8(15, 14, 7, 6, 13, 12, 5, 4, 11, 10, 3, 2, 9, 8, 1, 0));
        const __m256i m0 = _mm256_shuffle_epi8(best[0], pairs), m1 = _mm256_shuffle_epi8(best[1], pairs);
        const __m256i m2 = _mm256_shuffle_epi8(best[2], pairs), m3 = _mm256_shuffle_epi8(best[3], pairs);
        const __m256i p = _mm256_permute2x128_si256(m0, m2, 0x20), q = _mm256_permute2x128_si256(m0, m2, 0x31);
        const __m256i r = _mm256_permute2x128_si256(m1, m3, 0x20), s = _mm256_permute2x128_si256(m1, m3, 0x31);
        const __m256i pq0 = _mm256_unpacklo_epi32(p, q), pq1 = _mm256_unpackhi_epi32(p, q);
        const __m256i rs0 = _mm256_unpacklo_epi32(r, s), rs1 = _mm256_unpackhi_epi32(r, s);
        out[0] = _mm256_unpacklo_epi64(pq0, rs0);
        out[1] = _mm256_unpackhi_epi64(pq0, rs0);
        out[2] = _mm256_unpacklo_epi64(pq1, rs1);
        out[3] = _mm256_unpackhi_epi64(pq1, rs1);
    }
    if (k == 1) { // even and odd
        const __m256i parity = _mm256_broadcastsi128_si256(
            _mm_set_epi8(15, 14, 11, 10, 7, 6, 3, 2, 13, 12, 9, 8, 5, 4, 1, 0));
        for (int j = 0; j < 4; j++) {
            const __m256i m0 = _mm256_shuffle_epi8(best[2*j], parity), m1 = _mm256_shuffle_epi8(best[2*j + 1], parity);
            out[j]     = _mm256_permute4x64_epi64(_mm256_unpacklo_epi64(m0, m1), 0xd8);
            out[j + 4] = _mm256_permute4x64_epi64(_mm256_unpackhi_epi64(m0, m1), 0xd8);
        }
    }
}

INLINE __m256i term(int k, const __m256i spreaded[8], int h, int j) {
    switch (k) {
        case 1:  return spreaded[4*h + j % 4];
        case 2:  return spreaded[h];
        case 3:  return h % 2 ? _mm256_permute4x64_epi64(spreaded[h / 2], 0x55) : _mm256_broadcastq_epi64(
                                    _mm256_castsi256_si128(spreaded[h / 2]));
        default: return _mm256_shuffle_epi8(spreaded[h / 8], _mm256_set1_epi16((short) (0x0100 + 0x0202*(h % 8))));
    }
}

INLINE void subtract_least(__m256i best[8], int n) {
    __m256i all = best[0];
    for (int j = 1; j < n; j++) {
        all = _mm256_min_epu16(all, best[j]);
    }
    const __m128i x = _mm_min_epu16(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
    const __m256i least = _mm256_broadcastw_epi16(_mm_minpos_epu16(x));
    for (int j = 0; j < n; j++) {
        best[j] = _mm256_sub_epi16(best[j], least);
    }
}

enum { FROM = HEX_BLOCK * HEX_STATES / 2 };

// Step 3, see search() of the reference; `from` holds whole windows.
INLINE uint32_t search(int k, const int16_t x[HEX_BLOCK], const encoder * e, uint8_t * from) {
    const int groups = HEX_STATES >> k, n_best = groups / 16, branches = 1 << k;
    __m256i best[8], next[8];
    HEX_UNROLL for (int j = 0; j < n_best; j++) {
        best[j] = _mm256_setzero_si256();
    }
    for (int i = 0; i < HEX_BLOCK; i++, from += groups) {
        __m256i xi = _mm256_set1_epi16(x[i]);
        if (hex_search_shift(k)) {
            xi = _mm256_adds_epi16(xi, xi);
        }
        spread(k, best, next);
        __m256i branch[8];
        HEX_UNROLL for (int j = 0; j < n_best; j++) {
            HEX_UNROLL for (int h = 0; h < branches; h++) {
                const __m256i d = _mm256_subs_epi16(xi, e->value[h*n_best + j]);
                const __m256i m = _mm256_adds_epu16(term(k, next, h, j), _mm256_mulhrs_epi16(d, d));
                if (h == 0) {
                    best[j]   = m;
                    branch[j] = e->window[j];
                } else {
                    const __m256i least = _mm256_min_epu16(best[j], m);
                    const __m256i keep  = _mm256_cmpeq_epi16(least, best[j]); // of equals, the lower h
                    branch[j] = _mm256_blendv_epi8(e->window[h*n_best + j], branch[j], keep);
                    best[j]   = least;
                }
            }
        }
        if (k == 4) {
            const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packus_epi16(branch[0], branch[0]), 0xd8);
            _mm_storeu_si128((__m128i *) from, _mm256_castsi256_si128(bytes));
        } else {
            HEX_UNROLL for (int j = 0; j < n_best; j += 2) {
                const __m256i bytes = _mm256_packus_epi16(branch[j], branch[j + 1]);
                _mm256_storeu_si256((__m256i *) (from + 16*j), _mm256_permute4x64_epi64(bytes, 0xd8));
            }
        }
        if (i % HEX_NORMALISE == HEX_NORMALISE - 1) {
            subtract_least(best, n_best);
        }
    }
    uint32_t last = 0;
    for (int j = n_best - 1; j >= 0; j--) { // the least metric is zero now
        const int zero = _mm256_movemask_epi8(_mm256_cmpeq_epi16(best[j], _mm256_setzero_si256()));
        last = zero ? (uint32_t) (16*j + __builtin_ctz((unsigned) zero) / 2) : last;
    }
    return last;
}

// Sums of samples times values and of squared values.
INLINE void fit(tables t, const int16_t x[HEX_BLOCK], const uint8_t w[HEX_BLOCK], int32_t * xc, int32_t * cc) {
    __m256i xv = _mm256_setzero_si256(), vv = _mm256_setzero_si256();
    for (int i = 0; i < HEX_BLOCK; i += 16) {
        const __m256i v = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(lookup(t, _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *) (w + i))))));
        xv = _mm256_add_epi32(xv, _mm256_madd_epi16(v, _mm256_loadu_si256((const __m256i *) (x + i))));
        vv = _mm256_add_epi32(vv, _mm256_madd_epi16(v, v));
    }
    *xc = sum(xv);
    *cc = sum(vv);
}

INLINE void quantize(int k, const float * x, void * blocks, int64_t n) {
    const tables t = load_tables(k);
    encoder e;
    encoder_init(k, &e);
    char * block = (char *) blocks;
    for (; n > 0; n -= HEX_BLOCK, x += HEX_BLOCK, block += hex_block_size(k)) {
        __m256 v[8];
        const float sigma = measure(x, v);
        float kept = 0.0f;
        memset(block, 0, hex_block_size(k)); // unless something fits better
        if (sigma == 0.0f) {
            continue;
        }
        int16_t xi[2][HEX_BLOCK];
        uint8_t from[2][FROM], w[2][HEX_BLOCK];
        uint32_t last[2] = { 0 };
        for (int a = 0; a < hex_tries(k); a++) {
            scale_samples(v, hex_try_scale(k, a, sigma), xi[a]);
            last[a] = search(k, xi[a], &e, from[a]);
        }
        hex_walk_back(k, hex_tries(k), from[0], FROM, last, w);
        for (int a = 0; a < hex_tries(k); a++) {
            int32_t xc, cc;
            fit(t, xi[a], w[a], &xc, &cc);
            hex_keep_better(k, w[a], hex_try_scale(k, a, sigma), xc, cc, &kept, block);
        }
    }
}

AVX2 void hex_quantize_avx2(int k, const float * x, void * blocks, int64_t n) {
    HEX_FOR_K(k, quantize, x, blocks, n);
}

#endif
