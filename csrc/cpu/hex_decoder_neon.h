// Decoding one block in registers with NEON (ARMv8.0).
#pragma once

#include "../core/hex_codec.h"

#include <arm_neon.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline)) // k is a constant in every copy

typedef struct { int8x16_t a, b; } tables;

INLINE tables load_tables(int k) {
    return (tables) { vld1q_s8(hex_table_a[k]), vld1q_s8(hex_table_b[k]) };
}

INLINE int8x16_t values(tables t, uint8x16_t low, uint8x16_t high) {
    return vaddq_s8(vqtbl1q_s8(t.a, low), vqtbl1q_s8(t.b, high));
}

INLINE uint8x16_t low_nibbles (uint8x16_t w) { return vandq_u8(w, vdupq_n_u8(15)); }
INLINE uint8x16_t high_nibbles(uint8x16_t w) { return vshrq_n_u8(w, 4); }

// k = 4: a window is two neighbouring nibbles.
INLINE void unpack_nibbles(tables t, const void * block, int8x16_t out[4]) {
    for (int half = 0; half < 2; half++) {
        const uint8_t  * p    = (const uint8_t *) block + 16*half;
        const uint8x16_t x    = vld1q_u8(p), next = low_nibbles(vld1q_u8(p + 1));
        const int8x16_t  even = values(t, low_nibbles(x), high_nibbles(x)), odd = values(t, high_nibbles(x), next);
        out[2*half]     = vzip1q_s8(even, odd);
        out[2*half + 1] = vzip2q_s8(even, odd);
    }
}

// k < 4: each 16-bit lane takes the two bytes that hold a sample's window, and moves it down. 16 samples are 2k whole bytes.
#define HEX_AT(k, i)   (k)*(i)/8, (k)*(i)/8 + 1
#define HEX_ATS(k, i)  { HEX_AT(k, i), HEX_AT(k, i + 2), HEX_AT(k, i + 4), HEX_AT(k, i + 6), \
                         HEX_AT(k, i + 8), HEX_AT(k, i + 10), HEX_AT(k, i + 12), HEX_AT(k, i + 14) }
#define HEX_BY(k, i)   -((k)*(i) % 8)
#define HEX_BYS(k, i)  { HEX_BY(k, i), HEX_BY(k, i + 2), HEX_BY(k, i + 4), HEX_BY(k, i + 6), \
                         HEX_BY(k, i + 8), HEX_BY(k, i + 10), HEX_BY(k, i + 12), HEX_BY(k, i + 14) }
static const uint8_t hex_window_at[4][2][16] = { { { 0 } }, { HEX_ATS(1, 0), HEX_ATS(1, 1) }, { HEX_ATS(2, 0), HEX_ATS(2, 1) },
                                                 { HEX_ATS(3, 0), HEX_ATS(3, 1) } };
static const int16_t hex_window_by[4][2][8]  = { { { 0 } }, { HEX_BYS(1, 0), HEX_BYS(1, 1) }, { HEX_BYS(2, 0), HEX_BYS(2, 1) },
                                                 { HEX_BYS(3, 0), HEX_BYS(3, 1) } };

INLINE uint16x8_t windows_of(int k, uint8x16_t bytes, int first, int odd) {
    const uint8x16_t at = vaddq_u8(vld1q_u8(hex_window_at[k][odd]), vdupq_n_u8((uint8_t) first));
    return vshlq_u16(vreinterpretq_u16_u8(vqtbl1q_u8(bytes, at)), vld1q_s16(hex_window_by[k][odd]));
}

// Samples 0 to 15, 16 to 31 and so on.
INLINE void unpack(int k, tables t, const void * block, int8x16_t out[4]) {
    if (k == 4) {
        unpack_nibbles(t, block, out);
        return;
    }
    for (int q = 0; q < 4; q++) {
        const int from = k == 1 ? 0 : 2*k*q < 8*k - 14 ? 2*k*q : 8*k - 14; // 16 bytes that end with the block
        uint8_t small[16] = { 0 };
        if (k == 1) {
            memcpy(small, block, 10);
        }
        const uint8x16_t bytes = vld1q_u8(k == 1 ? small : (const uint8_t *) block + from);
        const uint16x8_t even  = vandq_u16(windows_of(k, bytes, 2*k*q - from, 0), vdupq_n_u16(255));
        const uint8x16_t w     = vreinterpretq_u8_u16(vsliq_n_u16(even, windows_of(k, bytes, 2*k*q - from, 1), 8));
        out[q] = values(t, low_nibbles(w), high_nibbles(w));
    }
}
