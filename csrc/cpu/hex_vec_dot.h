// Dot products of hexN rows with q8_0 rows, and row encoders: what ggml-cpu's type traits want.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// The layout of ggml's block_q8_0. The scale is an IEEE half.
typedef struct { uint16_t d; int8_t qs[32]; } hex_block_q8_0;

// s = x . y over n samples, a multiple of 64; x hexk, y q8_0. Same integer sums on every path, other float order.
void hex_vec_dot_ref(int k, int64_t n, float * s, const void * x, const void * y);
void hex_vec_dot    (int k, int64_t n, float * s, const void * x, const void * y); // the fastest path

// ggml_vec_dot_t (nrc is 1, bs, bx and by are not used) and ggml_from_float_t.
#define HEX_CPU_TRAITS(N)                                                                                   \
    void ggml_vec_dot_hex##N##_q8_0(int n, float * s, size_t bs, const void * vx, size_t bx, const void * vy, \
                                    size_t by, int nrc);                                                    \
    void quantize_row_hex##N(const float * x, void * y, int64_t k);
HEX_CPU_TRAITS(1)
HEX_CPU_TRAITS(2)
HEX_CPU_TRAITS(3)
HEX_CPU_TRAITS(4)
#undef HEX_CPU_TRAITS

#ifdef __cplusplus
}
#endif
