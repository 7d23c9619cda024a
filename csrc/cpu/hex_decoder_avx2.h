// Decoding one block in registers, for the AVX2 files.
#pragma once

#include "../core/hex_codec.h"

#include <immintrin.h>
#include <string.h>

#define AVX2   __attribute__((target("avx2,fma,f16c,bmi")))
#define INLINE static inline __attribute__((always_inline)) AVX2 // k is a constant in every copy

typedef struct { __m256i a, b; } tables;

INLINE tables load_tables(int k) {
    return (tables) { _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) hex_table_a[k])),
                      _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) hex_table_b[k])) };
}

INLINE __m256i low_nibbles (__m256i w) { return _mm256_and_si256(w, _mm256_set1_epi8(15)); }
INLINE __m256i high_nibbles(__m256i w) { return low_nibbles(_mm256_srli_epi16(w, 4)); }

INLINE __m256i lookup(tables t, __m256i w) {
    return _mm256_add_epi8(_mm256_shuffle_epi8(t.a, low_nibbles(w)), _mm256_shuffle_epi8(t.b, high_nibbles(w)));
}

// k = 4: a window is two neighbouring nibbles, so each nibble is looked up once as a low and once as a high one.
INLINE void unpack_nibbles(tables t, const void * block, __m256i out[2]) {
    const __m256i x = _mm256_loadu_si256((const __m256i *) block);
    const __m256i y = _mm256_loadu_si256((const __m256i *) ((const char *) block + 1));
    const __m256i low = low_nibbles(x), high = high_nibbles(x), next = low_nibbles(y);
    const __m256i even = _mm256_add_epi8(_mm256_shuffle_epi8(t.a, low),  _mm256_shuffle_epi8(t.b, high));
    const __m256i odd  = _mm256_add_epi8(_mm256_shuffle_epi8(t.a, high), _mm256_shuffle_epi8(t.b, next));
    const __m256i p = _mm256_unpacklo_epi8(even, odd), q = _mm256_unpackhi_epi8(even, odd);
    out[0] = _mm256_permute2x128_si256(p, q, 0x20);
    out[1] = _mm256_permute2x128_si256(p, q, 0x31);
}

// k < 4: sample i's window begins in byte k*i/8. Of 16 bytes that hold the windows of 32 samples, each 16-bit lane takes
// the two bytes of one sample's window, and a multiplication moves it to the lane's high byte: even samples first, odd ones next.
#define HEX_FROM(k, half)   ((half) == 0 || (k) == 1 ? 0 : 8*(k) - 14) // first of the 16 bytes; they end with the block
#define HEX_AT(k, half, i)  ((k)*(32*(half) + (i))/8 - HEX_FROM(k, half)), ((k)*(32*(half) + (i))/8 - HEX_FROM(k, half) + 1)
#define HEX_BYTES(k, half, i) \
    HEX_AT(k, half, i),     HEX_AT(k, half, i + 2),  HEX_AT(k, half, i + 4),  HEX_AT(k, half, i + 6),  \
    HEX_AT(k, half, i + 8), HEX_AT(k, half, i + 10), HEX_AT(k, half, i + 12), HEX_AT(k, half, i + 14)
#define HEX_HALF(k, half)   { { HEX_BYTES(k, half, 0), HEX_BYTES(k, half, 16) }, { HEX_BYTES(k, half, 1), HEX_BYTES(k, half, 17) } }
#define HEX_UP(k, i)        (1 << (8 - (k)*(i) % 8))
#define HEX_UPS(k, i)       HEX_UP(k, i), HEX_UP(k, i + 2), HEX_UP(k, i + 4), HEX_UP(k, i + 6) // 8 samples are whole bytes

static const int8_t  hex_window_bytes[4][2][2][32] = { { { { 0 } } }, { HEX_HALF(1, 0), HEX_HALF(1, 1) },
                                                       { HEX_HALF(2, 0), HEX_HALF(2, 1) }, { HEX_HALF(3, 0), HEX_HALF(3, 1) } };
static const int16_t hex_window_up[4][2][4] = { { { 0 } }, { { HEX_UPS(1, 0) }, { HEX_UPS(1, 1) } },
                                                { { HEX_UPS(2, 0) }, { HEX_UPS(2, 1) } }, { { HEX_UPS(3, 0) }, { HEX_UPS(3, 1) } } };

INLINE __m256i windows_of(int k, __m256i bytes, int half, int odd) {
    int64_t up;
    memcpy(&up, hex_window_up[k][odd], 8);
    const __m256i at = _mm256_loadu_si256((const __m256i *) hex_window_bytes[k][half][odd]);
    return _mm256_mullo_epi16(_mm256_shuffle_epi8(bytes, at), _mm256_set1_epi64x(up));
}

// Samples 0 to 31 and 32 to 63.
INLINE void unpack(int k, tables t, const void * block, __m256i out[2]) {
    if (k == 4) {
        unpack_nibbles(t, block, out);
        return;
    }
    for (int half = 0; half < 2; half++) {
        const char * p = (const char *) block + HEX_FROM(k, half);
        __m128i x;
        if (k == 1) { // 10 bytes
            uint16_t last;
            memcpy(&last, p + 8, 2);
            x = _mm_insert_epi16(_mm_loadl_epi64((const __m128i *) p), last, 4);
        } else {
            x = _mm_loadu_si128((const __m128i *) p);
        }
        const __m256i bytes = _mm256_broadcastsi128_si256(x);
        const __m256i even  = _mm256_srli_epi16(windows_of(k, bytes, half, 0), 8);
        const __m256i odd   = _mm256_and_si256(windows_of(k, bytes, half, 1), _mm256_set1_epi16((short) 0xff00));
        out[half] = lookup(t, _mm256_or_si256(even, odd));
    }
}
