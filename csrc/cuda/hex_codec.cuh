// The trellis encoder on the device: a warp searches one block of 64 samples at one scale. The bits are those of
// csrc/core/hex_codec.c, so files that include this are compiled without contraction and without fast-math
// (cmake/sources.cmake). Lane i holds samples i and i + 32.
#pragma once

#include "hex_cuda.cuh"
#include "hex_scale.cuh"

#define HEX_SEARCH_WORDS (64 + 2*HEX_STATES/2 + 8*HEX_WARP) // of shared memory, per warp: samples, metrics, branches

struct hex_code {
    float    energy;   // that the code holds; 0: the zero block
    uint32_t word;     // scale word
    uint32_t w[2];     // windows of the lane's samples
};

static __device__ __forceinline__ int32_t hex_value(int k, uint32_t w) {
    return hex_table_a[k][w & 15] + hex_table_b[k][w >> 4];
}

static __device__ __forceinline__ float hex_warp_max(float x) {
    for (int i = HEX_WARP/2; i > 0; i /= 2) {
        x = fmaxf(x, __shfl_xor_sync(HEX_ALL, x, i));
    }
    return x;
}

static __device__ __forceinline__ int32_t hex_warp_sum(int32_t x) {
    for (int i = HEX_WARP/2; i > 0; i /= 2) {
        x += __shfl_xor_sync(HEX_ALL, x, i);
    }
    return x;
}

static __device__ __forceinline__ uint32_t hex_warp_min(uint32_t x) {
    for (int i = HEX_WARP/2; i > 0; i /= 2) {
        x = min(x, __shfl_xor_sync(HEX_ALL, x, i));
    }
    return x;
}

static __device__ __forceinline__ int32_t hex_clamp16(int32_t v) {
    return max(-32768, min(32767, v));
}

// RMS of the block, 0 for a zero block.
static __device__ float hex_measure(const float x[2]) {
    const float a0 = isfinite(x[0]) ? fabsf(x[0]) : 0.0f, a1 = isfinite(x[1]) ? fabsf(x[1]) : 0.0f;
    const float amax = hex_warp_max(fmaxf(a0, a1));
    if (amax < HEX_TINY) {
        return 0.0f;
    }
    const float unit = HEX_MEASURE/amax;
    int32_t sum = 0;
    for (int j = 0; j < 2; j++) {
        const int32_t v = isfinite(x[j]) ? (int32_t) lrintf(x[j]*unit) : 0;
        sum += v*v;
    }
    return hex_sigma(amax, hex_warp_sum(sum));
}

// N words from an address that is a multiple of their size.
template<int N>
static __device__ __forceinline__ void hex_load_words(uint32_t v[N], const uint32_t * p) {
    if (N == 2) {
        const uint2 x = *(const uint2 *) p;
        v[0] = x.x, v[1] = x.y;
    }
#pragma unroll
    for (int i = 0; i + 4 <= N; i += 4) {
        const uint4 x = *(const uint4 *) (p + i);
        v[i] = x.x, v[i + 1] = x.y, v[i + 2] = x.z, v[i + 3] = x.w;
    }
}

// The search. State w = g << K | h; best[g] is the least metric of the states whose high part is g (hex_codec.c says
// more), here 16 times that, so that a branch fits below it and one minimum finds both. A lane owns the groups lane, lane + 32, ...; with K = 4 there are 16, and two lanes share one, half of its
// branches each. Returns the best last group; w: the windows of the lane's samples on the best path.
template<int K>
static __device__ uint32_t hex_search(const int32_t * x, uint32_t * best, uint32_t * from, uint32_t w[2]) {
    constexpr int G = HEX_STATES >> K, H = 1 << K;
    constexpr int NG = G >= HEX_WARP ? G/HEX_WARP : 1; // groups of a lane
    constexpr int NH = G >= HEX_WARP ? H : H*G/HEX_WARP; // branches of a group that it looks at
    const int lane = threadIdx.x % HEX_WARP;
    const int g0 = lane % G, h0 = lane/G*NH;

    int32_t  level[NG][NH];
    uint32_t next[NG];
#pragma unroll
    for (int j = 0; j < NG; j++) {
#pragma unroll
        for (int h = 0; h < NH; h++) {
            level[j][h] = hex_value(K, (uint32_t) (g0 + j*HEX_WARP) << K | (uint32_t) (h0 + h))*(HEX_UNIT << hex_search_shift(K));
        }
        best[g0 + j*HEX_WARP] = 0;
    }
    __syncwarp();

    for (int i0 = 0; i0 < HEX_BLOCK; i0 += HEX_NORMALISE) {
        uint32_t branches = 0; // four bits per step, whatever K is
#pragma unroll
        for (int i1 = 0; i1 < HEX_NORMALISE; i1++) {
            const int32_t xi = hex_clamp16(x[i0 + i1]*(1 << hex_search_shift(K)));
            const uint32_t * src = best + (i1 & 1)*G;
            uint32_t       * dst = best + (~i1 & 1)*G;
#pragma unroll
            for (int j = 0; j < NG; j++) {
                uint32_t before[NH], least = 0xffffffffu; // the lowest branch of equals wins
                hex_load_words<NH>(before, src + ((((g0 + j*HEX_WARP) << K) + h0) & (G - 1)));
#pragma unroll
                for (int h = 0; h < NH; h++) {
                    const int32_t  d = hex_clamp16(xi - level[j][h]);
                    const uint32_t m = ((uint32_t) (d*d + (1 << 14)) >> 15) << 4 | (uint32_t) (h0 + h);
                    least = min(least, min(before[h] + m, 0xffff0u | (uint32_t) (h0 + h)));
                }
                if (NH < H) {
                    least = min(least, __shfl_xor_sync(HEX_ALL, least, G));
                }
                next[j] = least & ~15u;
                branches |= (least & (H - 1)) << (4*i1 + (NG > 1 ? K*j : 0));
            }
            if (i1 == HEX_NORMALISE - 1) {
                uint32_t off = next[0];
                for (int j = 1; j < NG; j++) {
                    off = min(off, next[j]);
                }
                off = hex_warp_min(off);
                for (int j = 0; j < NG; j++) {
                    next[j] -= off;
                }
            }
#pragma unroll
            for (int j = 0; j < NG; j++) {
                if (h0 == 0) {
                    dst[g0 + j*HEX_WARP] = next[j];
                }
            }
            __syncwarp();
        }
        from[i0/HEX_NORMALISE*HEX_WARP + lane] = branches;
    }

    uint32_t last = 0;
    for (int j = NG - 1; j >= 0; j--) { // the lowest group of those with the least metric, which is 0
        const uint32_t zero = __ballot_sync(HEX_ALL, next[j] == 0);
        last = zero != 0 ? (uint32_t) (j*HEX_WARP + __ffs((int) zero) - 1) : last;
    }
    __syncwarp();
    uint32_t g = last;
    for (int i = HEX_BLOCK - 1; i >= 0; i--) {
        const uint32_t word = from[i/HEX_NORMALISE*HEX_WARP + g % HEX_WARP];
        const uint32_t h    = word >> (4*(i % HEX_NORMALISE) + (NG > 1 ? K*(g/HEX_WARP) : 0)) & (H - 1);
        const uint32_t wi   = g << K | h;
        if (i % HEX_WARP == lane) {
            w[i/HEX_WARP] = wi;
        }
        g = wi & (G - 1);
    }
    return last;
}

// One attempt at a block whose RMS is sigma > 0. scratch: HEX_SEARCH_WORDS of the warp.
template<int K>
static __device__ hex_code hex_attempt(const float x[2], float sigma, int attempt, int32_t * scratch) {
    const int   lane  = threadIdx.x % HEX_WARP;
    const float scale = hex_try_scale(K, attempt, sigma), unit = HEX_UNIT/scale;
    int32_t   * xi    = scratch;
    int32_t     mine[2];

    __syncwarp(); // the scratch of an earlier attempt is read to its end
    for (int j = 0; j < 2; j++) {
        const float v = isfinite(x[j]) ? x[j]*unit : 0.0f;
        mine[j] = (int32_t) lrintf(v < -32767.0f ? -32767.0f : v > 32767.0f ? 32767.0f : v);
        xi[lane + j*HEX_WARP] = mine[j];
    }
    hex_code code = { 0.0f, 0, { 0, 0 } };
    const uint32_t last = hex_search<K>(xi, (uint32_t *) scratch + 64, (uint32_t *) scratch + 64 + HEX_STATES, code.w);

    int32_t xc = 0, cc = 0;
    for (int j = 0; j < 2; j++) {
        const int32_t c = hex_value(K, code.w[j]);
        xc += mine[j]*c;
        cc += c*c;
    }
    xc = hex_warp_sum(xc);
    cc = hex_warp_sum(cc);
    const float fit    = cc > 0 ? scale*((float) xc/(float) (HEX_UNIT*cc)) : 0.0f;
    const float energy = fit*(scale*(float) xc);
    if (fit >= 0x1p-25f && energy > 0.0f) { // below half the least scale, zero is nearer
        code.energy = energy;
        code.word   = hex_scale_encode(K, fit) << (8 - K) | last;
    } else {
        code.w[0] = code.w[1] = 0;
    }
    return code;
}

// What the lane's samples decode to.
template<int K>
static __device__ void hex_decode_own(const hex_code & code, float y[2]) {
    const float scale = hex_word_scale(K, code.word);
    for (int j = 0; j < 2; j++) {
        y[j] = scale*(float) hex_value(K, code.w[j]);
    }
}

// hex_unbias of csrc/core/hex_codec.c: the same operations in the same order. Returns the scale word.
template<int K>
static __device__ uint32_t hex_unbiased_word(const hex_code & code, const float x[2], float share) {
    const float scale = hex_word_scale(K, code.word);
    if (scale == 0.0f) {
        return code.word;
    }
    const float unit  = 1.0f/scale;
    float xx[2], xv[2];
    for (int j = 0; j < 2; j++) {
        const float u = isfinite(x[j]) ? x[j]*unit : 0.0f;
        xx[j] = u*u;
        xv[j] = u*(float) hex_value(K, code.w[j]);
    }
    // lane i < 16 adds samples i, i + 16, i + 32, i + 48; then all add the 16 sums
    const int other = (threadIdx.x % HEX_WARP + 16) % HEX_WARP;
    float sxx = xx[0], sxv = xv[0];
    sxx += __shfl_sync(HEX_ALL, xx[0], other);
    sxv += __shfl_sync(HEX_ALL, xv[0], other);
    sxx += xx[1];
    sxv += xv[1];
    sxx += __shfl_sync(HEX_ALL, xx[1], other);
    sxv += __shfl_sync(HEX_ALL, xv[1], other);
    float all_xx = __shfl_sync(HEX_ALL, sxx, 0), all_xv = __shfl_sync(HEX_ALL, sxv, 0);
    for (int i = 1; i < 16; i++) {
        all_xx += __shfl_sync(HEX_ALL, sxx, i);
        all_xv += __shfl_sync(HEX_ALL, sxv, i);
    }
    const float gain = all_xx/all_xv, limit = 2.0f;
    const float grow = 1.0f + share*((gain <= limit ? fmaxf(gain, 1.0f) : gain > limit ? limit : 1.0f) - 1.0f);
    return hex_scale_encode(K, scale*grow) << (8 - K) | (code.word & ((1u << (8 - K)) - 1));
}

// Writes the block: byte b of the stream begins inside the window of sample 8*b/K.
template<int K>
static __device__ void hex_put_block(const hex_code & code, char * block) {
    const int lane = threadIdx.x % HEX_WARP;
    const int b = min(lane, 8*K - 1), i = 8*b/K, r = 8*b - i*K;
    uint32_t w[2];
    for (int j = 0; j < 2; j++) {
        const int at = min(i + j, HEX_BLOCK - 1); // the shift leaves nothing of what is beyond
        const uint32_t lo = __shfl_sync(HEX_ALL, code.w[0], at % HEX_WARP), hi = __shfl_sync(HEX_ALL, code.w[1], at % HEX_WARP);
        w[j] = at < HEX_WARP ? lo : hi;
    }
    if (lane < 8*K) {
        block[b] = (char) ((w[0] | w[1] >> (8 - K) << 8) >> r);
    }
    if (lane == 0) {
        hex_put_scale_word(block, K, code.word);
    }
}
