// The inner loops of HEX_ATTN, one table per ISA. Generic source: hex_attn_kernels.inc.
//
// Two shapes. "Row": one query row against a tile of cells (decode). "Lanes": `lanes` query rows side by side, one per
// SIMD lane, against a tile (prefill, a small GEMM).
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HEX_TILE      64 // cells per tile
#define HEX_MAX_LANES 32

struct hex_attn_kernels {
    int lanes;

    // s[j] = dot(q, k[j]), j < n; k [n][d], d a multiple of 64.
    void (*row_qk)(const float * q, const float * k, float * s, int n, int d);
    // out[i] += sum_j p[j] * v[j][i], j < n; v [n][d].
    void (*row_pv)(const float * p, const float * v, float * out, int n, int d);
    // x[j] = softcap*tanh(x[j]*scale/softcap) or x[j]*scale without soft-cap.
    void (*scale)(float * x, int n, float scale, float softcap);
    // x[j] = exp(x[j] - max), exactly 0 for -inf; returns their sum.
    float (*row_exp)(float * x, int n, float max);

    // s[j][r] = dot(q[.][r], k[j]), j < n; q [d][lanes], k [n][d], s [n][lanes].
    void (*lanes_qk)(const float * q, const float * k, float * s, int n, int d);
    // out[i][r] += sum_j p[j][r] * v[j][i]; p [n][lanes], v [n][d], out [d][lanes].
    void (*lanes_pv)(const float * p, const float * v, float * out, int n, int d);
    // max[r] = max(max[r], s[j][r])
    void (*lanes_max)(const float * s, float * max, int n);
    // s[j][r] = exp(s[j][r] - max[r]), sum[r] += s[j][r]
    void (*lanes_exp)(float * s, const float * max, float * sum, int n);

    // Straight from hexk rows, without a tile of floats between; NULL: there is no such path. rows [n], all of d samples.
    // s[g*stride + j] = dot(q[g], row j)
    void (*codes_qk)(int k, const char * const * rows, int n, int d, const float * const * q, int group, float * s, int stride);
    // out[g*out_stride + i] += sum_j p[g*stride + j] * row_j[i]
    void (*codes_pv)(int k, const char * const * rows, int n, int d, const float * p, int stride, int group, float * out, int out_stride);
};

extern const struct hex_attn_kernels hex_attn_kernels_generic;
#if defined(__x86_64__) || defined(_M_X64)
extern const struct hex_attn_kernels hex_attn_kernels_avx2;
extern const struct hex_attn_kernels hex_attn_kernels_avx512;

// codes_qk and codes_pv of AVX-512
void hex_codes_qk_avx512(int k, const char * const * rows, int n, int d, const float * const * q, int group, float * s, int stride);
void hex_codes_pv_avx512(int k, const char * const * rows, int n, int d, const float * p, int stride, int group, float * out, int out_stride);
#endif

#ifdef __cplusplus
}
#endif
