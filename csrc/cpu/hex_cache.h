// Plain view of one HEX op's tensors for the CPU kernels: pointers, strides in bytes, sizes. No ggml in sight.
#pragma once

#include "../core/hex_config.h"
#include "../core/hex_graph.h"
#include "../core/hex_hd.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct hex_tensor {
    char *  data;
    size_t  nb[4];
};

struct hex_cache {
    int32_t head_k, head_v, n_head_kv;
    int32_t n_tps;    // rows of the ubatch per stream
    int32_t n_stream;
    int32_t n_kv;     // cells looked at
    int32_t n_ctx;    // cells per stream
    int32_t bits_k, bits_v;
    int32_t n_ring, n_heavy, n_static;
    int32_t n_mean, half_life;
    float   unbias;
    int32_t pair0;
    enum hex_refine  refine;
    size_t           slot_size;
    struct hex_graph graph;

    struct hex_tensor k_cur;  // F32 [head_k, n_head_kv, n_tps*n_stream]
    struct hex_tensor v_cur;
    struct hex_tensor k_base; // hexN [head_k, n_head_kv, n_kv, n_stream]
    struct hex_tensor v_base;
    struct hex_tensor pool;   // I8 [slot_size, n_slots, n_head_kv, n_stream]
    struct hex_tensor state;  // I32 [words, n_head_kv, n_stream]
    struct hex_tensor meta;   // I32 [words, n_stream]
};

// Synchronises the threads of one op; ctx is the caller's.
typedef void (*hex_barrier)(void * ctx);

HEX_HD const float * hex_row_cur(const struct hex_tensor * t, int32_t head, int64_t token) {
    return (const float *) (t->data + head*t->nb[1] + token*t->nb[2]);
}
HEX_HD char * hex_row_base(const struct hex_tensor * t, int32_t stream, int32_t head, int64_t cell) {
    return t->data + head*t->nb[1] + cell*t->nb[2] + stream*t->nb[3];
}
HEX_HD char * hex_slot(const struct hex_cache * c, int32_t stream, int32_t head, int32_t slot) {
    return c->pool.data + slot*c->pool.nb[1] + head*c->pool.nb[2] + stream*c->pool.nb[3];
}
HEX_HD int32_t * hex_state(const struct hex_cache * c, int32_t stream, int32_t head) {
    return (int32_t *) (c->state.data + head*c->state.nb[1] + stream*c->state.nb[2]);
}
HEX_HD const int32_t * hex_meta(const struct hex_cache * c, int32_t stream) {
    return (const int32_t *) (c->meta.data + stream*c->meta.nb[1]);
}

// Bytes of a residual row of n samples.
size_t hex_residual_size(enum hex_refine refine, int32_t n);
// Residual rows of n samples (a multiple of 64): quantize, and y[i] += residual.
void   hex_residual_quantize(enum hex_refine refine, const float * x, void * row, int32_t n);
uint16_t hex_residual_fp16(float x); // one value, never infinite
void   hex_residual_add     (enum hex_refine refine, const void * row, float * y, int32_t n);

// A refined cell: residual slot and cell index.
struct hex_entry {
    int32_t slot;
    int32_t cell;
};

// Lists the refined cells of (stream, head) that hold a valid token below n_kv, each once, in slot order.
// seen: scratch bitmap of (n_ctx + 31)/32 words. entries: room for n_ring + n_heavy + n_static. Returns their number.
int32_t hex_refined_entries(const struct hex_cache * c, int32_t stream, int32_t head,
                            uint32_t * seen, struct hex_entry * entries);

// The CHANNELS backbone (the paper's own mask): every cell keeps some channels of each 64 in f16, in the static slot of
// its block; sample i of that row belongs to the one cell of the block that keeps channel i % 64.
HEX_HD bool hex_has_channels(const struct hex_cache * c) {
    return c->n_static > 0 && c->graph.kind == HEX_BACKBONE_CHANNELS;
}
// masks[i]: the channels (bits) that cell0 + i keeps.
void hex_channel_masks(const struct hex_cache * c, int32_t cell0, int32_t n, uint64_t * masks);
// The f16 row that holds the channels of `cell`: K's, or V's behind it.
uint16_t * hex_channel_row(const struct hex_cache * c, int32_t stream, int32_t head, int32_t cell, bool is_v);
// y[i] += row[i] where the mask has channel i % 64.
void hex_channels_add(const uint16_t * row, uint64_t mask, float * y, int32_t n);

// Base codes of n samples at `cell`, plus the mean when K is centred (mean may be NULL), as floats.
void hex_base_row(int bits, const void * row, const float * mean, float * y, int32_t n);

#ifdef __cplusplus
}
#endif
