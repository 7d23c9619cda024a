// 16 x 16 fragments of f16 in a warp and their product, m16n8k16 with f32 sums: tensor cores, and for
// tests on the CPU a plain twin with the same layouts. Devices before Turing are refused. They are those of PTX, lane = 4*g + t:
//
//   16 x 16 fragment r[4]:  r[0] (g, 2t..2t+1), r[1] (g + 8, ..), r[2] (g, 2t + 8..), r[3] (g + 8, 2t + 8..)
//   16 x 8  sums     c[4]:  c[0] (g, 2t), c[1] (g, 2t + 1), c[2] (g + 8, 2t), c[3] (g + 8, 2t + 1)
#pragma once

#include "hex_cuda.cuh"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 750
#    define HEX_TENSOR_CORES
#endif

// What f16 can hold: an infinite value would spoil a whole tile. What is not a number stays so, which fmaxf alone would hide.
static __device__ __forceinline__ float hex_saturated(float x) {
    return x != x ? x : fminf(fmaxf(x, -65504.0f), 65504.0f);
}

// Two floats to f16, saturated.
static __device__ __forceinline__ uint32_t hex_f16x2(float x, float y) {
#if defined(HEX_CUDA_ON_CPU)
    return (uint32_t) hex_fp32_to_fp16(hex_saturated(x)) | (uint32_t) hex_fp32_to_fp16(hex_saturated(y)) << 16;
#else
    const __half2 h = __floats2half2_rn(hex_saturated(x), hex_saturated(y));
    return *(const uint32_t *) &h;
#endif
}

static __device__ __forceinline__ float2 hex_f32x2(uint32_t h) {
#if defined(HEX_CUDA_ON_CPU)
    return { hex_fp16_to_fp32((uint16_t) h), hex_fp16_to_fp32((uint16_t) (h >> 16)) };
#else
    return __half22float2(*(const __half2 *) &h);
#endif
}

static __device__ __forceinline__ uint32_t hex_f16x2_mul(uint32_t a, uint32_t b) {
#if defined(HEX_CUDA_ON_CPU)
    const float2 x = hex_f32x2(a), y = hex_f32x2(b);
    return (uint32_t) hex_fp32_to_fp16(x.x*y.x) | (uint32_t) hex_fp32_to_fp16(x.y*y.y) << 16;
#else
    const __half2 h = __hmul2(*(const __half2 *) &a, *(const __half2 *) &b);
    return *(const uint32_t *) &h;
#endif
}

// The fragment at (row, col) of a tile in shared memory. stride: samples of a row, a multiple of 8.
static __device__ __forceinline__ void hex_load_frag(uint32_t r[4], const uint16_t * tile, int stride, int row, int col) {
    const int lane = threadIdx.x % HEX_WARP;
#if defined(HEX_TENSOR_CORES)
    const uint16_t * p = tile + (row + lane % 16)*stride + col + lane/16*8;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
        : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"((uint32_t) __cvta_generic_to_shared(p)) : "memory");
#else
    const uint16_t * p = tile + (row + lane/4)*stride + col + lane % 4*2;
    for (int i = 0; i < 4; i++) {
        r[i] = *(const uint32_t *) (p + i % 2*8*stride + i/2*8);
    }
#endif
}

// The same 16 x 16 values, each 8 x 8 quarter transposed.
static __device__ __forceinline__ void hex_load_frag_trans(uint32_t r[4], const uint16_t * tile, int stride, int row, int col) {
    const int lane = threadIdx.x % HEX_WARP;
#if defined(HEX_TENSOR_CORES)
    const uint16_t * p = tile + (row + lane % 16)*stride + col + lane/16*8;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
        : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"((uint32_t) __cvta_generic_to_shared(p)) : "memory");
#else
    const uint16_t * p = tile + (row + lane % 4*2)*stride + col + lane/4;
    for (int i = 0; i < 4; i++) {
        const uint16_t * q = p + i % 2*8*stride + i/2*8;
        r[i] = (uint32_t) q[0] | (uint32_t) q[stride] << 16;
    }
#endif
}

// c += a*b; a: 16 x 16 (rows x k), b0 and b1: k 0..7 and 8..15 of 8 columns.
static __device__ __forceinline__ void hex_mma(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
#if defined(HEX_TENSOR_CORES) && __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#elif defined(HEX_TENSOR_CORES)
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(b0));
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[2]), "r"(a[3]), "r"(b1));
#elif defined(HEX_CUDA_ON_CPU)
    const int lane = threadIdx.x % HEX_WARP, g = lane/4, t = lane % 4;
    const uint32_t mine[6] = { a[0], a[1], a[2], a[3], b0, b1 };
    const uint32_t (*all)[6] = cuda_on_cpu::exchange(mine);
    for (int i = 0; i < 8; i++) { // k = 2i, 2i + 1
        const float2 lo = hex_f32x2(all[4*g + i % 4][i/4*2]),  hi = hex_f32x2(all[4*g + i % 4][i/4*2 + 1]);
        const float2 x  = hex_f32x2(all[8*t + i % 4][4 + i/4]), y = hex_f32x2(all[8*t + 4 + i % 4][4 + i/4]);
        c[0] += lo.x*x.x + lo.y*x.y;
        c[1] += lo.x*y.x + lo.y*y.y;
        c[2] += hi.x*x.x + hi.y*x.y;
        c[3] += hi.x*y.x + hi.y*y.y;
    }
#else
    __trap(); // devices before Turing are refused
#endif
}

// Copies to shared memory that go on while the warp computes (Ampere and later).
static __device__ __forceinline__ void hex_copy_word(uint32_t * to, const uint32_t * from) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" :: "r"((uint32_t) __cvta_generic_to_shared(to)), "l"(from) : "memory");
#else
    *to = *from;
#endif
}

// Closes a group of copies; and waits until at most the last one is still under way.
static __device__ __forceinline__ void hex_copy_commit() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

static __device__ __forceinline__ void hex_copy_wait() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group 1;" ::: "memory");
#endif
}
