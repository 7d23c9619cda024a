// Table entries and cases that ggml.c includes for the types hex1..hex4.
#pragma once

#include "../core/hex_codec.h"
#include "hex_types.h"

#define HEX_TYPE_TRAIT(N)                                                        \
    [GGML_TYPE_HEX##N] = {                                                       \
        .type_name      = "hex" #N,                                              \
        .blck_size      = HEX_BLOCK,                                             \
        .type_size      = sizeof(block_hex##N),                                  \
        .is_quantized   = true,                                                  \
        .to_float       = (ggml_to_float_t) dequantize_row_hex##N,               \
        .from_float_ref = (ggml_from_float_t) quantize_row_hex##N##_ref,         \
    },
#define HEX_TYPE_TRAITS HEX_TYPE_TRAIT(1) HEX_TYPE_TRAIT(2) HEX_TYPE_TRAIT(3) HEX_TYPE_TRAIT(4)

// Inside ggml_quantize_chunk, with its local names.
#define HEX_QUANTIZE_CHUNK_CASE(N) \
        case GGML_TYPE_HEX##N: result = quantize_hex##N(src + start, (char *) dst + start_row*row_size, nrows, n_per_row, imatrix); break;
#define HEX_QUANTIZE_CHUNK_CASES \
    HEX_QUANTIZE_CHUNK_CASE(1) HEX_QUANTIZE_CHUNK_CASE(2) HEX_QUANTIZE_CHUNK_CASE(3) HEX_QUANTIZE_CHUNK_CASE(4)
