// Decoding one block in registers, for the AVX-512 files (F, BW, DQ, VL, VBMI, VNNI).
#pragma once

#include "../core/hex_codec.h"

#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni,bmi,fma,f16c")))
#define INLINE static inline __attribute__((always_inline)) AVX512 // k is a constant in every copy

#define BYTES_0_TO_7 0x0706050403020100

// `shift` cuts the eight windows, `high` what is four bits further on. vpermb looks at six bits of an index, so a table
// that is repeated four times needs no mask.
typedef struct { __m512i a, b, spread, shift, high; __mmask64 bytes; } decoder;

// Eight samples need 7k+8 <= 36 bits from byte k*q on: qword q takes the bytes k*q to k*q+7, and the multishift cuts
// its eight windows.
INLINE decoder decoder_init(int k) {
    const long long step = k * 0x0101010101010101;
    const __m512i shift = _mm512_set1_epi64(BYTES_0_TO_7 * k);
    return (decoder) {
        .a      = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *) hex_table_a[k])),
        .b      = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *) hex_table_b[k])),
        .spread = _mm512_add_epi64(_mm512_set1_epi64(BYTES_0_TO_7),
                      _mm512_set_epi64(7*step, 6*step, 5*step, 4*step, 3*step, 2*step, step, 0)),
        .shift  = shift,
        .high   = _mm512_add_epi8(shift, _mm512_set1_epi8(4)),
        .bytes  = (1ull << (8*k + 2)) - 1,
    };
}

INLINE __m512i unpack(const decoder * d, const void * block) {
    const __m512i bits = _mm512_permutexvar_epi8(d->spread, _mm512_maskz_loadu_epi8(d->bytes, block));
    return _mm512_add_epi8(_mm512_permutexvar_epi8(_mm512_multishift_epi64_epi8(d->shift, bits), d->a),
                           _mm512_permutexvar_epi8(_mm512_multishift_epi64_epi8(d->high,  bits), d->b));
}
