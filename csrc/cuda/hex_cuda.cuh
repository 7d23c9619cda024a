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
#    include <mutex>
#    include <vector>
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

// Blocks of a kernel that a multiprocessor holds at once. Lets it ask for that much shared memory, too: more than 48 KB are
// not to be had otherwise. CUDA is asked once for each kernel, device and size.
#if defined(HEX_CUDA_ON_CPU)
static inline int hex_prepare(const void * kernel, int threads, size_t bytes) {
    (void) kernel;
    (void) bytes;
    return threads <= 128 ? 3 : 1;
}
#else
static inline int hex_prepare(const void * kernel, int threads, size_t bytes) {
    struct entry { const void * kernel; int device; size_t bytes; int blocks; };
    static std::mutex mutex;
    static std::vector<entry> known;
    int device = 0;
    cudaGetDevice(&device);
    const std::lock_guard<std::mutex> lock(mutex);
    size_t most = 48*1024; // asked for so far
    for (const entry & e : known) {
        if (e.kernel == kernel && e.device == device) {
            if (e.bytes == bytes) {
                return e.blocks;
            }
            most = e.bytes > most ? e.bytes : most;
        }
    }
    if (bytes > most) {
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int) bytes);
    }
    int blocks = 0;
    if (cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, bytes) != cudaSuccess || blocks < 1) {
        blocks = 1; // a launch that cannot be says so itself
    }
    known.push_back({ kernel, device, bytes, blocks });
    return blocks;
}
#endif

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
