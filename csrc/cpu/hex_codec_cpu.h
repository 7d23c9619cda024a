// The codec of each instruction set, as hex_isa.c chooses between them. Internal; the contract is core/hex_codec.h.
#pragma once

#include "../core/hex_codec.h"

#if (defined(__x86_64__) || defined(_M_X64)) && defined(__GNUC__)
#    define HEX_X86 1
#else
#    define HEX_X86 0
#endif

// Before a loop of constant length whose index picks registers: it must be unrolled completely.
#ifdef __clang__
#    define HEX_UNROLL _Pragma("unroll")
#else
#    define HEX_UNROLL _Pragma("GCC unroll 16")
#endif

// Calls hex_<name>_<isa>(...).
#if HEX_X86
#    define HEX_DISPATCH(name, ...)                                       \
        switch (hex_isa_get()) {                                          \
            case HEX_ISA_AVX512: hex_##name##_avx512(__VA_ARGS__); break; \
            case HEX_ISA_AVX2:   hex_##name##_avx2  (__VA_ARGS__); break; \
            case HEX_ISA_REF:    hex_##name##_ref   (__VA_ARGS__); break; \
        }
#else
#    define HEX_DISPATCH(name, ...) hex_##name##_ref(__VA_ARGS__)
#endif

#if HEX_X86

void hex_block_unpack_avx2(int k, const void * block, int8_t out[HEX_BLOCK]);
void hex_dequantize_avx2  (int k, const void * blocks, float * y, int64_t n);
void hex_quantize_avx2    (int k, const float * x, void * blocks, int64_t n);
void hex_vec_dot_avx2     (int k, int64_t n, float * s, const void * x, const void * y);

void hex_block_unpack_avx512(int k, const void * block, int8_t out[HEX_BLOCK]);
void hex_dequantize_avx512  (int k, const void * blocks, float * y, int64_t n);
void hex_quantize_avx512    (int k, const float * x, void * blocks, int64_t n);
void hex_vec_dot_avx512     (int k, int64_t n, float * s, const void * x, const void * y);

#endif
