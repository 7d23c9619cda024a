// Scales of blocks from their scale words, where those are not in a block's own memory (else hex_block_scale).
#pragma once

#include "../core/hex_codec_impl.h"

static __device__ __forceinline__ float hex_word_scale(int k, uint32_t word) {
    const uint32_t e = word >> (8 - k), octave = e >> (3 + k), step = e & ((1u << (3 + k)) - 1);
    return e == 0 ? 0.0f : hex_bits_float((octave + 127 - 24) << 23 | hex_scale_mantissa[step << (4 - k)]);
}
