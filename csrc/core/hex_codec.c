// Reference codec: plain C, one step after the other. The SIMD paths must give the same bits (hex_codec_impl.h).
#include "hex_codec_impl.h"

const float hex_code_noise[5] = { 0, 268.0f, 73.9f, 20.3f, 5.43f };

static void value_table(int k, int8_t value[HEX_STATES]) {
    for (int w = 0; w < HEX_STATES; w++) {
        value[w] = (int8_t) (hex_table_a[k][w & 15] + hex_table_b[k][w >> 4]);
    }
}

// ---- decoder ----

float hex_scale_decode(int k, uint16_t word) {
    uint8_t block[34] = { 0 };
    hex_put_scale_word(block, k, word);
    return hex_block_scale(k, block);
}

void hex_block_unpack_ref(int k, const void * block, int8_t out[HEX_BLOCK]) {
    const uint8_t * bytes = (const uint8_t *) block;
    for (int i = 0; i < HEX_BLOCK; i++) {
        const int at = i*k;
        const uint32_t w = ((uint32_t) bytes[at / 8] | (uint32_t) bytes[at / 8 + 1] << 8) >> at % 8 & 255;
        out[i] = (int8_t) (hex_table_a[k][w & 15] + hex_table_b[k][w >> 4]);
    }
}

void hex_dequantize_ref(int k, const void * blocks, float * y, int64_t n) {
    const char * block = (const char *) blocks;
    for (; n > 0; n -= HEX_BLOCK, y += HEX_BLOCK, block += hex_block_size(k)) {
        int8_t v[HEX_BLOCK];
        hex_block_unpack_ref(k, block, v);
        const float scale = hex_block_scale(k, block);
        for (int i = 0; i < HEX_BLOCK; i++) {
            y[i] = scale * (float) v[i];
        }
    }
}

// ---- encoder ----

// RMS of the block, 0 for a zero block.
static float measure(const float * x) {
    float amax = 0.0f;
    for (int i = 0; i < HEX_BLOCK; i++) {
        const float a = fabsf(x[i]);
        amax = isfinite(a) && a > amax ? a : amax;
    }
    if (amax < HEX_TINY) {
        return 0.0f;
    }
    const float unit = HEX_MEASURE / amax;
    int32_t sum_squares = 0;
    for (int i = 0; i < HEX_BLOCK; i++) {
        const int32_t v = isfinite(x[i]) ? (int32_t) lrintf(x[i] * unit) : 0;
        sum_squares += v * v;
    }
    return hex_sigma(amax, sum_squares);
}

static int32_t clamp16(int32_t v) {
    return v < -32768 ? -32768 : v > 32767 ? 32767 : v;
}

static void scale_samples(const float * x, float scale, int16_t out[HEX_BLOCK]) {
    const float unit = HEX_UNIT / scale;
    for (int i = 0; i < HEX_BLOCK; i++) {
        const float v = isfinite(x[i]) ? x[i] * unit : 0.0f;
        out[i] = (int16_t) lrintf(v < -32767.0f ? -32767.0f : v > 32767.0f ? 32767.0f : v);
    }
}

// Squared distance of two int16 as a uint16, both rounded and saturated as SIMD does it.
static int32_t distance(int32_t a, int32_t b) {
    const int32_t d = clamp16(a - b);
    return (d*d + (1 << 14)) >> 15;
}

// State w = g << k | h of sample i-1 leads to the 2^k states whose low part is g. So the best way into a state depends
// on g alone: best[g] is the least metric over h, and from[i][g] the h that has it (the lowest of equals). All 8 bits
// of the first window are free, hence best starts at zero. Returns the g of the best last state.
static uint32_t search(int k, const int16_t x[HEX_BLOCK], const int8_t value[HEX_STATES], uint8_t * from) {
    const int groups = HEX_STATES >> k, branches = 1 << k, shift = hex_search_shift(k);
    int32_t best[HEX_STATES / 2] = { 0 };
    int32_t level[HEX_STATES]; // [h][g], so that the inner loop below is one that compilers vectorise
    for (int w = 0; w < HEX_STATES; w++) {
        level[w % branches * groups + w / branches] = value[w] * (HEX_UNIT << shift);
    }
    for (int i = 0; i < HEX_BLOCK; i++, from += groups) {
        const int32_t xi = clamp16(x[i] * (1 << shift));
        int32_t next[HEX_STATES / 2], branch[HEX_STATES / 2];
        for (int g = 0; g < groups; g++) {
            next[g]   = INT32_MAX;
            branch[g] = 0;
        }
        for (int h = 0; h < branches; h++) {
            for (int g = 0; g < groups; g++) {
                const int32_t sum = best[(g << k | h) & (groups - 1)] + distance(xi, level[h*groups + g]);
                const int32_t m   = sum > 65535 ? 65535 : sum;
                branch[g] = m < next[g] ? h : branch[g];
                next[g]   = m < next[g] ? m : next[g];
            }
        }
        int32_t least = next[0];
        for (int g = 0; g < groups; g++) {
            from[g] = (uint8_t) branch[g];
            least = next[g] < least ? next[g] : least;
        }
        const int32_t off = i % HEX_NORMALISE == HEX_NORMALISE - 1 ? least : 0;
        for (int g = 0; g < groups; g++) {
            best[g] = next[g] - off;
        }
    }
    uint32_t last = 0;
    while (best[last] != 0) { // the last step subtracted the least metric
        last++;
    }
    return last;
}

// Walks back from group `last` of the last step. Returns the sums that the scale is fitted from.
static void walk_back(int k, const int16_t x[HEX_BLOCK], const int8_t value[HEX_STATES], const uint8_t * from, uint32_t last,
                      uint8_t w[HEX_BLOCK], int32_t * xc, int32_t * cc) {
    const uint32_t groups = HEX_STATES >> k;
    uint32_t g = last;
    *xc = *cc = 0; // |xc| <= 64 * 2^15 * 2^7
    for (int i = HEX_BLOCK - 1; i >= 0; i--) {
        const uint32_t window = g << k | from[(uint32_t) i * groups + g];
        const int32_t  c = value[window];
        w[i] = (uint8_t) window;
        *xc += x[i] * c;
        *cc += c * c;
        g    = window & (groups - 1);
    }
}

void hex_quantize_ref(int k, const float * x, void * blocks, int64_t n) {
    int8_t value[HEX_STATES];
    value_table(k, value);
    char * block = (char *) blocks;
    for (; n > 0; n -= HEX_BLOCK, x += HEX_BLOCK, block += hex_block_size(k)) {
        const float sigma = measure(x);
        float kept = 0.0f;
        memset(block, 0, hex_block_size(k)); // unless something fits better
        for (int attempt = 0; sigma > 0.0f && attempt < hex_tries(k); attempt++) {
            int16_t xi[HEX_BLOCK];
            uint8_t from[HEX_BLOCK * HEX_STATES / 2];
            const float scale = hex_try_scale(k, attempt, sigma);
            scale_samples(x, scale, xi);
            const uint32_t last = search(k, xi, value, from);
            uint8_t w[HEX_BLOCK];
            int32_t xc, cc;
            walk_back(k, xi, value, from, last, w, &xc, &cc);
            hex_keep_better(k, w, scale, xc, cc, &kept, block);
        }
    }
}

void hex_unbias(int k, const float * x, void * blocks, int64_t n, float share) {
    char * block = (char *) blocks;
    for (; n > 0; n -= HEX_BLOCK, x += HEX_BLOCK, block += hex_block_size(k)) {
        const float scale = hex_block_scale(k, block);
        int8_t v[HEX_BLOCK];
        float  xx[16] = { 0 }, xv[16] = { 0 }; // in units of the scale; a fixed order, whatever the vectors of the machine
        if (scale == 0.0f) {
            continue;
        }
        hex_block_unpack(k, block, v);
        const float unit = 1.0f / scale;
        for (int i = 0; i < HEX_BLOCK; i++) {
            const float u = isfinite(x[i]) ? x[i] * unit : 0.0f;
            xx[i % 16] += u * u;
            xv[i % 16] += u * (float) v[i];
        }
        for (int i = 1; i < 16; i++) {
            xx[0] += xx[i];
            xv[0] += xv[i];
        }
        const float gain = xx[0] / xv[0], limit = 2.0f; // outliers that the code cannot follow do not lift the others
        const float grow = 1.0f + share * ((gain <= limit ? fmaxf(gain, 1.0f) : gain > limit ? limit : 1.0f) - 1.0f);
        const uint32_t low = hex_get_scale_word(block, k) & ((1u << (8 - k)) - 1);
        hex_put_scale_word(block, k, hex_scale_encode(k, scale * grow) << (8 - k) | low);
    }
}
