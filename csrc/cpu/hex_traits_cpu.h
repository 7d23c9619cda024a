// Table entries that ggml-cpu.c includes for the types hex1..hex4.
#pragma once

#include "hex_vec_dot.h"

#define HEX_TYPE_TRAIT_CPU(N)                                      \
    [GGML_TYPE_HEX##N] = {                                         \
        .from_float   = (ggml_from_float_t) quantize_row_hex##N,   \
        .vec_dot      = ggml_vec_dot_hex##N##_q8_0,                \
        .vec_dot_type = GGML_TYPE_Q8_0,                            \
        .nrows        = 1,                                         \
    },
#define HEX_TYPE_TRAITS_CPU HEX_TYPE_TRAIT_CPU(1) HEX_TYPE_TRAIT_CPU(2) HEX_TYPE_TRAIT_CPU(3) HEX_TYPE_TRAIT_CPU(4)
