// Decode kernels that read codes: a block is unpacked in registers and used at once for all query heads of the group.
#include "hex_attn_kernels.h"

#if defined(__x86_64__) || defined(_M_X64)

#include "../core/hex_codec_impl.h"
#include "hex_decoder_avx512.h"

#define ROWS 16 // cells per step: their sums fill one register

// Lane j of the result is the sum of the lanes of a[j].
INLINE __m512 sum_rows(const __m512 a[ROWS]) {
    __m512 r[ROWS/2], s[ROWS/4];
    for (int i = 0; i < 8; i++) { // pairs of lanes
        r[i] = _mm512_add_ps(_mm512_unpacklo_ps(a[2*i], a[2*i + 1]), _mm512_unpackhi_ps(a[2*i], a[2*i + 1]));
    }
    for (int i = 0; i < 4; i++) { // quads: row 4*i + {0, 1, 2, 3} in each 128-bit part
        s[i] = _mm512_add_ps(
            _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(r[2*i]), _mm512_castps_pd(r[2*i + 1]))),
            _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(r[2*i]), _mm512_castps_pd(r[2*i + 1]))));
    }
    const __m512 lo = _mm512_add_ps(_mm512_shuffle_f32x4(s[0], s[1], 0x88), _mm512_shuffle_f32x4(s[0], s[1], 0xdd));
    const __m512 hi = _mm512_add_ps(_mm512_shuffle_f32x4(s[2], s[3], 0x88), _mm512_shuffle_f32x4(s[2], s[3], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(lo, hi, 0x88), _mm512_shuffle_f32x4(lo, hi, 0xdd));
}

INLINE void unpack_ps(const decoder * d, const void * block, __m512 v[4]) {
    const __m512i c = unpack(d, block);
    v[0] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm512_castsi512_si128(c)));
    v[1] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm512_extracti32x4_epi32(c, 1)));
    v[2] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm512_extracti32x4_epi32(c, 2)));
    v[3] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm512_extracti32x4_epi32(c, 3)));
}

INLINE void qk(int k, int group, const char * const * rows, int n, int n_blocks, const float * const * q, float * s, int stride) {
    const decoder d = decoder_init(k);
    for (int j = 0; j < n; j += ROWS) {
        const int m = n - j < ROWS ? n - j : ROWS;
        __m512 acc[4][ROWS];
        for (int b = 0; b < n_blocks; b++) {
            __m512 qb[4][4];
            for (int g = 0; g < group; g++) {
                for (int i = 0; i < 4; i++) {
                    qb[g][i] = _mm512_loadu_ps(q[g] + b*HEX_BLOCK + 16*i);
                }
            }
            for (int r = 0; r < m; r++) {
                const char * block = rows[j + r] + (size_t) b*hex_block_size(k);
                const __m512 scale = _mm512_set1_ps(hex_block_scale(k, block));
                __m512 v[4];
                unpack_ps(&d, block, v);
                for (int g = 0; g < group; g++) {
                    const __m512 t = _mm512_fmadd_ps(v[3], qb[g][3], _mm512_fmadd_ps(v[2], qb[g][2],
                                     _mm512_fmadd_ps(v[1], qb[g][1], _mm512_mul_ps(v[0], qb[g][0]))));
                    acc[g][r] = b == 0 ? _mm512_mul_ps(scale, t) : _mm512_fmadd_ps(scale, t, acc[g][r]);
                }
            }
        }
        for (int g = 0; g < group; g++) {
            for (int r = m; r < ROWS; r++) {
                acc[g][r] = _mm512_setzero_ps();
            }
            _mm512_mask_storeu_ps(s + (size_t) g*stride + j, (__mmask16) ((1u << m) - 1), sum_rows(acc[g]));
        }
    }
}

INLINE void pv(int k, int group, const char * const * rows, int n, int n_blocks, const float * p, int stride, float * out, int out_stride) {
    const decoder d = decoder_init(k);
    for (int b = 0; b < n_blocks; b++) {
        __m512 acc[4][4];
        for (int g = 0; g < group; g++) {
            for (int i = 0; i < 4; i++) {
                acc[g][i] = _mm512_loadu_ps(out + (size_t) g*out_stride + b*HEX_BLOCK + 16*i);
            }
        }
        for (int r = 0; r < n; r++) {
            const char * block = rows[r] + (size_t) b*hex_block_size(k);
            const float  scale = hex_block_scale(k, block);
            __m512 v[4];
            unpack_ps(&d, block, v);
            for (int g = 0; g < group; g++) {
                const __m512 w = _mm512_set1_ps(scale*p[(size_t) g*stride + r]);
                for (int i = 0; i < 4; i++) {
                    acc[g][i] = _mm512_fmadd_ps(w, v[i], acc[g][i]);
                }
            }
        }
        for (int g = 0; g < group; g++) {
            for (int i = 0; i < 4; i++) {
                _mm512_storeu_ps(out + (size_t) g*out_stride + b*HEX_BLOCK + 16*i, acc[g][i]);
            }
        }
    }
}

// One copy per number of bits and of query heads, so that both are constants.
#define BY_GROUP(k, f, group, ...)             \
    switch (group) {                           \
        case 1:  f(k, 1, __VA_ARGS__); break;  \
        case 2:  f(k, 2, __VA_ARGS__); break;  \
        case 3:  f(k, 3, __VA_ARGS__); break;  \
        default: f(k, 4, __VA_ARGS__); break;  \
    }

#define QK(k, group, ...) BY_GROUP(k, qk, group, __VA_ARGS__)
#define PV(k, group, ...) BY_GROUP(k, pv, group, __VA_ARGS__)

AVX512 void hex_codes_qk_avx512(int k, const char * const * rows, int n, int d, const float * const * q, int group, float * s, int stride) {
    for (int g = 0; g < group; g += 4) {
        const int some = group - g < 4 ? group - g : 4;
        HEX_FOR_K(k, QK, some, rows, n, d/HEX_BLOCK, q + g, s + (size_t) g*stride, stride);
    }
}

AVX512 void hex_codes_pv_avx512(int k, const char * const * rows, int n, int d, const float * p, int stride, int group, float * out, int out_stride) {
    for (int g = 0; g < group; g += 4) {
        const int some = group - g < 4 ? group - g : 4;
        HEX_FOR_K(k, PV, some, rows, n, d/HEX_BLOCK, p + (size_t) g*stride, stride, out + (size_t) g*out_stride, out_stride);
    }
}

#endif
