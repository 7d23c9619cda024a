#include "hex_types.h"

#include "../core/hex_codec.h"

#define TYPE_FUNCTIONS(N)                                                                                           \
    void quantize_row_hex##N##_ref(const float * x, void * y, int64_t k) { hex_quantize_ref(N, x, y, k); }          \
    void dequantize_row_hex##N    (const void * x, float * y, int64_t k) { hex_dequantize(N, x, y, k); }            \
    size_t quantize_hex##N(const float * src, void * dst, int64_t nrows, int64_t n_per_row, const float * imatrix) { \
        (void) imatrix;                                                                                             \
        hex_quantize(N, src, dst, nrows * n_per_row);                                                               \
        return (size_t) nrows * (size_t) (n_per_row / HEX_BLOCK) * hex_block_size(N);                               \
    }
TYPE_FUNCTIONS(1)
TYPE_FUNCTIONS(2)
TYPE_FUNCTIONS(3)
TYPE_FUNCTIONS(4)
