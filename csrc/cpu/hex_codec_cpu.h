// The codec of each instruction set, as hex_isa.c chooses between them. Internal; the contract is core/hex_codec.h.
#pragma once

#include "../core/hex_codec.h"

#if (defined(__x86_64__) || defined(_M_X64)) && defined(__GNUC__)
#    define HEX_X86 1
#else
#    define HEX_X86 0
#endif

#if defined(__aarch64__)
#    define HEX_ARM 1
#else
#    define HEX_ARM 0
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

// The same for what NEON has as well.
#if HEX_ARM
#    define HEX_DISPATCH_DECODER(name, ...)                                           \
        if (hex_isa_get() == HEX_ISA_NEON) { hex_##name##_neon(__VA_ARGS__); }        \
        else                               { hex_##name##_ref (__VA_ARGS__); }
#else
#    define HEX_DISPATCH_DECODER(name, ...) HEX_DISPATCH(name, __VA_ARGS__)
#endif

// Back through the best windows by group, from[size*a + i*groups + g], of one or two attempts. Each step waits for the load
// of the one before, so the attempts go side by side.
static inline __attribute__((always_inline)) void hex_walk_back(int k, int attempts, const uint8_t * from, uint32_t size,
                                                                const uint32_t last[2], uint8_t w[2][HEX_BLOCK]) {
    const uint32_t groups = 256u >> k;
    uint32_t g[2] = { last[0], last[1] };
    for (uint32_t i = HEX_BLOCK; i-- > 0;) {
        HEX_UNROLL for (int a = 0; a < attempts; a++) {
            w[a][i] = from[(uint32_t) a*size + i*groups + g[a]];
            g[a]    = w[a][i] & (groups - 1);
        }
    }
}

#if HEX_ARM
void hex_block_unpack_neon(int k, const void * block, int8_t out[HEX_BLOCK]);
void hex_dequantize_neon  (int k, const void * blocks, float * y, int64_t n);
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
