// The inner loops of HEX_ATTN, one table per ISA. Generic source: hex_attn_kernels.inc.
//
// Two shapes. "Row": one query row against a tile of cells (decode). "Lanes": `lanes` query rows side by side, one per
// SIMD lane, against a tile (prefill, a small GEMM).
#pragma once

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HEX_TILE      64 // cells per tile
#define HEX_MAX_LANES 32
#define HEX_F16_NEG_INF 0xfc00
#define HEX_MAX_BLOCKS  16 // of a row, for the codes kernels
#define HEX_MAX_QUERIES 64 // likewise, of one call

// Products with codes as they are, in integers. Queries and probabilities become integers of 15 or 16 bits, of 8 where they
// may be coarse, and that rounding is the error. A tile is up to 64 rows of n_blocks blocks of one hexk type.
struct hex_codes_kernels {
    // qk and pv have a form whose queries and weights are of 8 bits, at half of the price; tables without one take no notice.
    bool coarse;

    // q[64*b + i] = scale[b] * integer; the integers go to limbs, 128 bytes per block, and offset [2*n_blocks] to what qk makes
    // of them: each table has its own form.
    void (*query)(const float * q, int n_blocks, int8_t * limbs, float * scale, int32_t * offset);

    // Unpacks rows [n] into tile (at most 2*64*64*n_blocks bytes) and scales [n_blocks][64]; K and V tiles differ in layout. rows has
    // pointers to the next multiple of 16, any valid ones.
    void (*unpack_k)(int k, const char * const * rows, int n, int n_blocks, uint8_t * tile, float * scales);
    void (*unpack_v)(int k, const char * const * rows, int n, int n_blocks, uint8_t * tile, float * scales);

    // s[i*stride + j] = dot(q_i, row_j) for n_q <= HEX_MAX_QUERIES queries; writes whole sixteens of columns.
    void (*qk)(const uint8_t * tile, const float * scales, int n, int n_blocks, const int8_t * limbs, const float * scale,
               const int32_t * offset, int n_q, float * s, int stride, bool coarse);
    // out[i*out_stride + c] += sum_j p[i*stride + j] * row_j[c]; p >= 0.
    void (*pv)(const uint8_t * tile, const float * scales, int n, int n_blocks, const float * p, int stride, int n_q,
               float * out, int out_stride, bool coarse);
};

struct hex_attn_kernels {
    int lanes;

    // s[j] = dot(q, k[j]), j < n; k [n][d], d a multiple of 64.
    void (*row_qk)(const float * q, const float * k, float * s, int n, int d);
    // out[i] += sum_j p[j] * v[j][i], j < n; v [n][d].
    void (*row_pv)(const float * p, const float * v, float * out, int n, int d);
    // The same for n_q rows p and out.
    void (*rows_pv)(const float * p, int stride, const float * v, float * out, int out_stride, int n_q, int n, int d);
    // x[j] = (x[j] + add + sum_b w[b]*y[b*stride + j])*scale, j < n, b < n_y; returns the largest, -inf for none, 0 for NaN only.
    float (*row_bias)(float * x, int n, float add, const float * w, const float * y, int n_y, int stride, float scale);
    // y[j] = x[j]^2, j < n.
    void (*row_square)(const float * x, int n, float * y);
    // x[j] = softcap*tanh(x[j]*scale/softcap) or x[j]*scale without soft-cap.
    void (*scale)(float * x, int n, float scale, float softcap);
    // What a mask's HEX_TILE elements (f16) are: 0 all zero, 1 all -inf, -1 neither.
    int (*mask_kind)(const uint16_t * mask);
    // Largest of n, -inf for none, 0 where no number is above -inf and one is NaN.
    float (*row_max)(const float * x, int n);
    // x[j] = exp(x[j] - max), exactly 0 for -inf; returns their sum.
    float (*row_exp)(float * x, int n, float max);

    // s[j][r] = dot(q[.][r], k[j]), j < n; q [d][lanes], k [n][d], s [n][lanes].
    void (*lanes_qk)(const float * q, const float * k, float * s, int n, int d);
    // out[i][r] += sum_j p[j][r] * v[j][i]; p [n][lanes], v [n][d], out [d][lanes].
    void (*lanes_pv)(const float * p, const float * v, float * out, int n, int d);
    // s[j][r] += sum_b w[b][r]*y[b*stride + j], j < n, b < n_y.
    void (*lanes_bias)(float * s, int n, const float * w, const float * y, int n_y, int stride);
    // max[r] = max(max[r], s[j][r])
    void (*lanes_max)(const float * s, float * max, int n);
    // s[j][r] = exp(s[j][r] - max[r]), sum[r] += s[j][r]
    void (*lanes_exp)(float * s, const float * max, float * sum, int n);

    const struct hex_codes_kernels * codes; // NULL: there are none
};

extern const struct hex_attn_kernels hex_attn_kernels_generic;
#if defined(__x86_64__) || defined(_M_X64)
extern const struct hex_attn_kernels hex_attn_kernels_avx2;
extern const struct hex_attn_kernels hex_attn_kernels_avx512;
extern const struct hex_codes_kernels hex_codes_kernels_avx2;
extern const struct hex_codes_kernels hex_codes_kernels_avx512;
#endif
#if defined(__aarch64__)
extern const struct hex_attn_kernels hex_attn_kernels_neon;
extern const struct hex_codes_kernels hex_codes_kernels_neon;
#endif

#ifdef __cplusplus
}
#endif
