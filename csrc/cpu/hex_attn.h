// HEX_ATTN on the CPU: what ggml_hex_attn (csrc/ggml/hex_ops.h) computes.
#pragma once

#include "hex_cache.h"
#include "hex_isa.h"

#ifdef __cplusplus
extern "C" {
#endif

struct hex_attn {
    struct hex_cache  cache;
    int32_t           n_head;
    float             scale, max_bias, softcap;
    struct hex_tensor q;    // F32 [head_k, n_tps, n_head, n_stream]
    struct hex_tensor mask; // F16 [n_kv, n_tps, 1, n_stream]; data NULL: everything is visible
    const float *     sinks;// [n_head] or NULL
    float *           out;  // [n_stream][n_tps][n_head][head_v]
    float *           mass; // [n_stream][n_head_kv][n_ring + n_heavy + n_tps + n_heavy], NULL: not wanted
};

// The definition, row by row: no tiles, no quantised queries, no split. One thread (the others return at once).
void   hex_attn_ref(const struct hex_attn * a, void * work, int ith);
size_t hex_attn_ref_work(const struct hex_attn * a);

// The fast path on the ISA of hex_isa_get(): threads ith = 0..nth-1 call it together and share work.
void   hex_attn_run(const struct hex_attn * a, void * work, int ith, int nth, hex_barrier barrier, void * barrier_ctx);
size_t hex_attn_work(const struct hex_attn * a, int nth);

#ifdef __cplusplus
}
#endif
