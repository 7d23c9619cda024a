// What every .cu file of this folder includes first: CUDA itself, or in tests without a GPU a CPU that plays its part
// (test/cuda/cuda_on_cpu.h). Kernels use no other interface than this, so that both can compile them.
#pragma once

#if defined(HEX_CUDA_ON_CPU)
#    include "cuda_on_cpu.h"
#    define HEX_LAUNCH(kernel, grid, block, shared, stream, ...) \
        ((void) (stream), cuda_on_cpu::launch(grid, block, shared, [=] { kernel(__VA_ARGS__); }))
#    define HEX_SHARED(name) char * name = cuda_on_cpu::m.shared
#else
#    include <cuda_runtime.h>
#    include <cuda_fp16.h>
#    define HEX_LAUNCH(kernel, grid, block, shared, stream, ...) kernel<<<grid, block, shared, stream>>>(__VA_ARGS__)
#    define HEX_SHARED(name) extern __shared__ __align__(16) char name[]
#endif

#include "../core/hex_bytes.h"
#include "../core/hex_fp16.h"
#include "../core/hex_graph_impl.h"
#include "../cpu/hex_cache.h"
#include "../ggml/hex_meta.h"
#include "../ggml/hex_state.h"

#define HEX_WARP 32
#define HEX_ALL  0xffffffffu // lanes of a shuffle

// What the kernels need to know about a device. Turing or later.
struct hex_cuda_device {
    int    n_sm;   // multiprocessors
    size_t shared; // bytes of shared memory that a block can ask for
};

// More than 48 KB of shared memory have to be asked for.
template<typename F>
static inline void hex_allow_shared(F kernel, size_t bytes) {
#if defined(HEX_CUDA_ON_CPU)
    (void) kernel;
    (void) bytes;
#else
    if (bytes > 48*1024) {
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int) bytes);
    }
#endif
}

static inline void hex_clear(void * p, size_t n, cudaStream_t stream) {
#if defined(HEX_CUDA_ON_CPU)
    (void) stream;
    memset(p, 0, n);
#else
    cudaMemsetAsync(p, 0, n, stream);
#endif
}

// The kernels read codes and residuals at even addresses; on the CPU they may lie anywhere.
static inline bool hex_cuda_aligned(const struct hex_cache & c) {
    const struct hex_tensor * tensors[] = { &c.k_base, &c.v_base, &c.pool };
    for (const struct hex_tensor * t : tensors) {
        if ((uintptr_t) t->data % 2 != 0 || t->nb[1] % 2 != 0 || t->nb[2] % 2 != 0 || t->nb[3] % 2 != 0) {
            return false;
        }
    }
    return true;
}
