// The parts of the codec that the reference and the SIMD paths share. Internal.
//
// Every decision about a bit is made in integers, or by one correctly rounded float operation at a time that nothing
// can be contracted with, so all encoders agree bit for bit whatever the compiler and its flags (short of -ffast-math):
//
//   1. measure   largest |x|, then the exact sum of squares of the samples rounded to 12 bits  -> sigma
//   and for each of one or two scales:
//   2. scale     samples to int16, HEX_UNIT per table unit                                      -> x
//   3. search    Viterbi over 256 states with uint16 path metrics (the part worth vectorising)  -> from, last
//   4. finish    walk back, refit the scale by least squares in integers, keep the better code  -> block
#pragma once

#include "hex_codec.h"

#include <math.h>
#include <string.h>

#define HEX_UNIT       128     // int16 sample units per table unit: 8 sigma fit, all that a block of 64 can hold
#define HEX_MEASURE    4095.0f // largest sample in step 1: 64 squares still fit 31 bits
#define HEX_TINY       0x1p-32f // blocks below this are zero; above it no operation meets a denormal
#define HEX_STATES     256
#define HEX_NORMALISE  8       // steps between subtractions of the least path metric

// 2^(j/128), mantissa bits only.
#if defined(__CUDACC__)
#    define HEX_TABLE static __device__ // of each .cu file that includes this one
#    include "hex_codec_tables.c"
#else
extern const uint32_t hex_scale_mantissa[128];
#endif

// Samples are left-shifted by this, saturating, for the search: the finer cost matters where the error is small.
HEX_DEVICE_FN int hex_search_shift(int k) { return k == 1 ? 0 : 1; }

HEX_DEVICE_FN uint32_t hex_float_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof(u));
    return u;
}

HEX_DEVICE_FN float hex_bits_float(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof(f));
    return f;
}

// Scale number e, 1 .. 2^(8+k)-1, nearest to s > 0.
HEX_DEVICE_FN uint32_t hex_scale_encode(int k, float s) {
    const uint32_t n = 1u << (3 + k), last = (1u << (8 + k)) - 1;
    const uint32_t bits = hex_float_bits(s), m = bits & 0x7fffff;
    const int octave = (int) (bits >> 23) - 127 + 24;
    if (octave < 0)  { return 1; }
    if (octave > 31) { return last; }

    // log2(1 + f) is f + 0.344 f (1 - f) to one step; the loops make it exact.
    const uint32_t f = m >> 7;
    uint32_t j = ((f + (((f * (0x10000 - f)) >> 16) * 22544 >> 16)) * n) >> 16;
    const uint32_t * mantissa = hex_scale_mantissa;
    const int stride = 4 - k;
    while (j > 0     && mantissa[j << stride] > m)        { j--; }
    while (j + 1 < n && mantissa[(j + 1) << stride] <= m) { j++; }
    const uint32_t below = mantissa[j << stride], above = j + 1 < n ? mantissa[(j + 1) << stride] : 0x800000;
    j += above - m < m - below;

    const uint32_t e = (uint32_t) octave * n + j;
    return e < 1 ? 1 : e > last ? last : e;
}

// RMS of a block, from step 1. amax >= HEX_TINY.
HEX_DEVICE_FN float hex_sigma(float amax, int32_t sum_squares) {
    return amax * (sqrtf((float) sum_squares) / (8 * HEX_MEASURE));
}

// Fine codes are searched at two scales: the better of two nearly independent codes has 6 % less error with 4 bits and
// 4 % with 3, but 1.4 % with 2 and 0.2 % with 1. The factors minimise the error on Gaussian blocks; the tables have 32
// units per sigma.
HEX_DEVICE_FN int hex_tries(int k) { return k >= 3 ? 2 : 1; }

HEX_DEVICE_FN float hex_try_scale(int k, int attempt, float sigma) {
    const float scale = sigma * (k < 3 ? 1.0f/32 : attempt == 0 ? 0.93f/32 : 1.02f/32);
    const float least = 0x1p-24f, most = 0x1.fep7f; // about what a scale word can hold
    return scale < least ? least : scale < most ? scale : most;
}

HEX_DEVICE_FN void hex_put_scale_word(void * block, int k, uint32_t word) {
    uint8_t * p = (uint8_t *) block + 8*k;
    p[0] = (uint8_t) word;
    p[1] = (uint8_t) (word >> 8);
}

HEX_DEVICE_FN uint32_t hex_get_scale_word(const void * block, int k) {
    const uint8_t * p = (const uint8_t *) block + 8*k;
    return (uint32_t) p[0] | (uint32_t) p[1] << 8;
}

// Scale of a block; its scale word may be at an odd address.
HEX_DEVICE_FN float hex_block_scale(int k, const void * block) {
    const uint32_t e = hex_get_scale_word(block, k) >> (8 - k);
    const uint32_t octave = e >> (3 + k), step = e & ((1u << (3 + k)) - 1);
    return e == 0 ? 0.0f : hex_bits_float((octave + 127 - 24) << 23 | hex_scale_mantissa[step << (4 - k)]);
}

// Step 4. w are the windows of the best path, xc and cc the sums of samples times values and of squared values. Writes the
// block if this code holds more of the energy of the samples than *kept, what the block holds so far.
HEX_DEVICE_FN void hex_keep_better(int k, const uint8_t w[HEX_BLOCK], float scale, int32_t xc, int32_t cc, float * kept,
                                   void * block) {
    const float fit    = cc > 0 ? scale * ((float) xc / (float) (HEX_UNIT * cc)) : 0.0f;
    const float energy = fit * (scale * (float) xc);
    if (!(fit >= 0x1p-25f && energy > *kept)) { // below half the least scale, zero is nearer
        return;
    }
    *kept = energy;
    for (int run = 0; run < HEX_BLOCK/8; run++) { // 8 samples are k whole bytes: ones, twos and fours of them move together
        uint64_t x;
        memcpy(&x, w + 8*run, 8);
        x &= UINT64_C(0x0101010101010101) * ((1u << k) - 1);
        x  = (x | x >> (8 - k))    & UINT64_C(0x0001000100010001) * ((1u << 2*k) - 1);
        x  = (x | x >> (16 - 2*k)) & UINT64_C(0x0000000100000001) * ((1u << 4*k) - 1);
        x  =  x | x >> (32 - 4*k);
        memcpy((uint8_t *) block + k*run, &x, (size_t) k);
    }
    hex_put_scale_word(block, k, hex_scale_encode(k, fit) << (8 - k) | (uint32_t) w[HEX_BLOCK - 1] >> k);
}

// Calls f with k as a constant, so that one source gives four specialised copies.
#define HEX_FOR_K(k, f, ...)              \
    switch (k) {                          \
        case 1: f(1, __VA_ARGS__); break; \
        case 2: f(2, __VA_ARGS__); break; \
        case 3: f(3, __VA_ARGS__); break; \
        case 4: f(4, __VA_ARGS__); break; \
    }
