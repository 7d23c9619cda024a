// The trellis codec (hex1..hex4): 64 samples of k bits each and one 16-bit scale word.
//
// A block is a bit stream of 64*k + (8-k) bits, little-endian: qs[8*k] bytes, continued by the low 8-k bits of the
// scale word, which follows it in memory. Sample i is selected by the 8-bit window w_i = bits [i*k, i*k + 8) of the
// stream: value = scale * (A[w & 15] + B[w >> 4]), with A and B the int8 tables of hex_codec_tables.c.
// The high 8+k bits e of the scale word are a logarithmic scale: 0 for zero, else 2^(e / 2^(3+k) - 24).
#pragma once

#include "hex_hd.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HEX_BLOCK 64 // samples per block

typedef struct { uint8_t qs[ 8]; uint16_t d; } block_hex1; // 10 bytes, 1.25 bits per sample
typedef struct { uint8_t qs[16]; uint16_t d; } block_hex2; // 18 bytes
typedef struct { uint8_t qs[24]; uint16_t d; } block_hex3; // 26 bytes
typedef struct { uint8_t qs[32]; uint16_t d; } block_hex4; // 34 bytes

HEX_HD size_t hex_block_size(int k) { return (size_t) 8*k + 2; }

// int8 tables, 16 + 16 entries for each k (index 1..4); value of a window in units of the scale. CUDA has its own copies
// (hex_codec_impl.h).
#if !defined(__CUDACC__)
extern const int8_t hex_table_a[5][16];
extern const int8_t hex_table_b[5][16];
#endif

// Mean squared error of a coded sample of Gaussian rows, in units of the squared scale (index 1..4); measured, see test_codec.
extern const float hex_code_noise[5];

// Scale of a block from its scale word. Exact and identical on every CPU path.
float hex_scale_decode(int k, uint16_t word);

// Integer values of one block: out[i] = A[w_i & 15] + B[w_i >> 4], without the scale.
void hex_block_unpack_ref(int k, const void * block, int8_t out[HEX_BLOCK]);

// n samples (a multiple of 64): y[i] = scale * value. Reference.
void hex_dequantize_ref(int k, const void * blocks, float * y, int64_t n);

// n samples (a multiple of 64) to blocks: Viterbi search with integer path metrics, least-squares scale. Reference;
// non-finite samples are treated as zero. SIMD encoders give the same bits.
void hex_quantize_ref(int k, const float * x, void * blocks, int64_t n);

// Raises the scale of coded blocks so that x . y = x . x for the y that they decode to, or by `share` of that. Least squares
// makes y the best guess of x, which is too short by the share of energy that coding loses; in a sum over many rows, as
// of V, the rest of the errors cancels and the shortness does not.
void hex_unbias(int k, const float * x, void * blocks, int64_t n, float share);

// The fastest path of this machine (see cpu/hex_isa.h); same results as the references, bit for bit.
void hex_block_unpack(int k, const void * block, int8_t out[HEX_BLOCK]);
void hex_dequantize  (int k, const void * blocks, float * y, int64_t n);
void hex_quantize    (int k, const float * x, void * blocks, int64_t n);

#ifdef __cplusplus
}
#endif
