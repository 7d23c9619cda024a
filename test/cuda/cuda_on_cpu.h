// Runs CUDA kernels on the CPU, for tests without a GPU: one fiber per CUDA thread, one block at a time. Sources of
// csrc/cuda are compiled as C++ with HEX_CUDA_ON_CPU and find this header by csrc/cuda/hex_cuda.cuh.
//
// A thread runs until it meets a barrier, so nothing happens in lockstep: a kernel that relies on warps being
// synchronous without __syncwarp() fails, and so does one whose result depends on the order of threads, which changes
// from launch to launch. Shared memory is filled with rubbish before each block and ends where it was said to end.
// What is not here: __CUDA_ARCH__ is not defined, so plain twins run in place of tensor cores and asynchronous copies.
#pragma once

#if !defined(__x86_64__)
#    error "the switch of fibers is written for x86-64"
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct uint2 { unsigned x, y; };
struct float2 { float x, y; };
struct uint4 { unsigned x, y, z, w; };
typedef void * cudaStream_t;

namespace cuda_on_cpu {

enum status { READY, WAITS_WARP, WAITS_BLOCK, DONE };

struct fiber {
    void * sp;
    std::vector<char> stack;
    dim3     tid;
    unsigned lane, warp;
    status   st;
};

struct warp {
    unsigned n_live, n_waiting, turn;
    uint32_t value[2][32][6]; // of the shuffle that is under way and of the one before
};

struct machine {
    std::vector<fiber> fibers;
    std::vector<warp>  warps;
    fiber * current;
    void *  sp; // of the scheduler
    dim3    block_idx, block_dim, grid_dim;
    unsigned n_live, n_waiting, turn;
    int      votes[2];
    char *   shared;
    unsigned order; // changes with every launch
    std::function<void()> kernel;
};

inline machine m;

// Saves the callee's registers on the stack, leaves its address in *from, and goes on with `to`.
__attribute__((naked, noinline)) inline void switch_stack(void ** /*from*/, void * /*to*/) {
    __asm__("push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
            "mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
            "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret");
}

inline void to_scheduler() { switch_stack(&m.current->sp, m.sp); }

inline void release_warp(unsigned w) {
    m.warps[w].n_waiting = 0;
    m.warps[w].turn ^= 1;
    for (unsigned i = 32*w; i < std::min<size_t>(32*(w + 1), m.fibers.size()); i++) {
        if (m.fibers[i].st == WAITS_WARP) { m.fibers[i].st = READY; }
    }
}

inline void release_block() {
    m.n_waiting = 0;
    m.turn ^= 1;
    m.votes[m.turn] = 0;
    for (fiber & f : m.fibers) {
        if (f.st == WAITS_BLOCK) { f.st = READY; }
    }
}

inline void wait_warp() {
    warp & w = m.warps[m.current->warp];
    if (++w.n_waiting == w.n_live) { release_warp(m.current->warp); return; }
    m.current->st = WAITS_WARP;
    to_scheduler();
}

inline void wait_block() {
    if (++m.n_waiting == m.n_live) { release_block(); return; }
    m.current->st = WAITS_BLOCK;
    to_scheduler();
}

inline void fiber_main() {
    m.kernel();
    fiber & f = *m.current;
    f.st = DONE;
    warp & w = m.warps[f.warp];
    if (--w.n_live > 0 && w.n_waiting == w.n_live) { release_warp(f.warp); }
    if (--m.n_live > 0 && m.n_waiting == m.n_live) { release_block(); }
    to_scheduler();
    abort();
}

inline void run_block() {
    const unsigned n = m.block_dim.x*m.block_dim.y*m.block_dim.z;
    if (m.fibers.size() != n) { m.fibers = std::vector<fiber>(n); }
    m.warps.assign((n + 31)/32, {});
    for (unsigned i = 0; i < n; i++) {
        fiber & f = m.fibers[i];
        if (f.stack.empty()) { f.stack.resize(1 << 18); }
        f.tid  = dim3(i % m.block_dim.x, i/m.block_dim.x % m.block_dim.y, i/m.block_dim.x/m.block_dim.y);
        f.lane = i % 32;
        f.warp = i/32;
        f.st   = READY;
        m.warps[f.warp].n_live++;
        void ** sp = (void **) (((uintptr_t) (f.stack.data() + f.stack.size()) & ~(uintptr_t) 15) - 8);
        *--sp = (void *) fiber_main;
        f.sp = sp - 6;
    }
    m.n_live = n;
    m.n_waiting = m.turn = 0;
    m.votes[0] = m.votes[1] = 0;
    // All threads in turns, or a warp for as long as it can; forwards or backwards. Warps far apart find barriers of the
    // block that are missing, threads far apart those of the warp.
    const bool whole_warps = m.order >> 31 != 0, backwards = (m.order >> 30 & 1) != 0;
    const unsigned group = whole_warps ? 32 : n;
    for (unsigned done = 0, before = 1; done < n;) {
        if (before == 0) {
            fprintf(stderr, "cuda_on_cpu: threads of a block wait for each other at different barriers\n");
            abort();
        }
        before = 0; // switches in this round
        for (unsigned i = 0; i < n; i += group) {
            const unsigned first = backwards ? n - std::min(n, i + group) : i, end = std::min(n, first + group);
            for (unsigned ran = 1; ran > 0; before += ran) {
                ran = 0;
                for (unsigned j = first; j < end; j++) {
                    fiber & f = m.fibers[backwards ? first + end - 1 - j : j];
                    if (f.st != READY) { continue; }
                    ran++;
                    m.current = &f;
                    switch_stack(&m.sp, f.sp);
                    done += f.st == DONE;
                }
            }
        }
    }
}

template<typename F>
void launch(dim3 grid, dim3 block, size_t shared, F kernel) {
    if (grid.x - 1 >= 0x7fffffffu || grid.y - 1 >= 65535 || grid.z - 1 >= 65535) {
        fprintf(stderr, "cuda_on_cpu: a grid of %u x %u x %u blocks\n", grid.x, grid.y, grid.z);
        abort();
    }
    m.order     = m.order*1664525u + 1013904223u;
    m.kernel    = kernel;
    m.grid_dim  = grid;
    m.block_dim = block;
    std::vector<char> memory(shared + 128);
    for (unsigned z = 0; z < grid.z; z++) {
        for (unsigned y = 0; y < grid.y; y++) {
            for (unsigned x = 0; x < grid.x; x++) {
                // an exact end, so that the address sanitizer sees overruns
                m.shared = (char *) (((uintptr_t) memory.data() + 15) & ~(uintptr_t) 15);
                memset(m.shared, 0xc9, shared);
                m.block_idx = dim3(x, y, z);
                run_block();
            }
        }
    }
}

inline uint32_t shuffle(uint32_t v, unsigned from) {
    warp & w = m.warps[m.current->warp];
    const unsigned turn = w.turn;
    w.value[turn][m.current->lane][0] = v;
    wait_warp();
    return w.value[turn][from & 31][0];
}

// What a matrix instruction sees: six words of every lane, until the warp's next shuffle but one.
inline const uint32_t (*exchange(const uint32_t v[6]))[6] {
    warp & w = m.warps[m.current->warp];
    const unsigned turn = w.turn;
    memcpy(w.value[turn][m.current->lane], v, sizeof(w.value[turn][0]));
    wait_warp();
    return w.value[turn];
}

template<typename T>
T shuffle_any(unsigned mask, T v, unsigned from) {
    static_assert(sizeof(T) == 4, "only 32-bit values");
    if (mask != 0xffffffffu) { fprintf(stderr, "cuda_on_cpu: only whole warps shuffle\n"); abort(); }
    uint32_t u;
    memcpy(&u, &v, 4);
    u = shuffle(u, from);
    memcpy(&v, &u, 4);
    return v;
}

} // namespace cuda_on_cpu

#define threadIdx (cuda_on_cpu::m.current->tid)
#define blockIdx  (cuda_on_cpu::m.block_idx)
#define blockDim  (cuda_on_cpu::m.block_dim)
#define gridDim   (cuda_on_cpu::m.grid_dim)

inline void __syncthreads() { cuda_on_cpu::wait_block(); }
inline void __syncwarp() { cuda_on_cpu::wait_warp(); }
inline int  __syncthreads_or(int p) {
    const unsigned turn = cuda_on_cpu::m.turn;
    cuda_on_cpu::m.votes[turn] |= p != 0;
    cuda_on_cpu::wait_block();
    return cuda_on_cpu::m.votes[turn];
}
template<typename T> T __shfl_sync(unsigned mask, T v, int lane)     { return cuda_on_cpu::shuffle_any(mask, v, (unsigned) lane); }
template<typename T> T __shfl_xor_sync(unsigned mask, T v, int lane) { return cuda_on_cpu::shuffle_any(mask, v, cuda_on_cpu::m.current->lane ^ (unsigned) lane); }
inline unsigned __ballot_sync(unsigned mask, int p) {
    unsigned res = 0;
    const unsigned turn = cuda_on_cpu::m.warps[cuda_on_cpu::m.current->warp].turn;
    cuda_on_cpu::shuffle_any(mask, p != 0 ? 1u : 0u, 0);
    const cuda_on_cpu::warp & w = cuda_on_cpu::m.warps[cuda_on_cpu::m.current->warp];
    for (unsigned i = 0; i < 32; i++) { res |= w.value[turn][i][0] << i; }
    return res;
}
inline int __any_sync(unsigned mask, int p) { return __ballot_sync(mask, p) != 0; }

inline int atomicMin(int * p, int v) { const int old = *p; *p = std::min(old, v); return old; }
inline int atomicMax(int * p, int v) { const int old = *p; *p = std::max(old, v); return old; }
inline unsigned atomicOr(unsigned * p, unsigned v) { const unsigned old = *p; *p |= v; return old; }

inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned n) { return (unsigned) (((uint64_t) hi << 32 | lo) >> (n & 31)); }
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned s) {
    const uint64_t v = (uint64_t) b << 32 | a;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) { r |= (unsigned) (v >> 8*(s >> 4*i & 7) & 255) << 8*i; }
    return r;
}
inline int   min(int a, int b) { return a < b ? a : b; }
inline int   max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline float __expf(float x) { return expf(x); }
inline float __fdividef(float a, float b) { return a/b; }
