// hex1..hex4 as ggml types: the functions that ggml's type traits and ggml_quantize_chunk call.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// The reference encoder, the fast decoder (same bits as its reference), whole matrices (imatrix is not used).
#define HEX_TYPE_FUNCTIONS(N)                                                                                \
    void   quantize_row_hex##N##_ref(const float * x, void * y, int64_t k);                                  \
    void   dequantize_row_hex##N    (const void * x, float * y, int64_t k);                                  \
    size_t quantize_hex##N(const float * src, void * dst, int64_t nrows, int64_t n_per_row, const float * imatrix);
HEX_TYPE_FUNCTIONS(1)
HEX_TYPE_FUNCTIONS(2)
HEX_TYPE_FUNCTIONS(3)
HEX_TYPE_FUNCTIONS(4)
#undef HEX_TYPE_FUNCTIONS

#ifdef __cplusplus
}
#endif
