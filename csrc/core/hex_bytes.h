// Exact byte accounting of a cache for a model shape and a context.
#pragma once

#include "hex_config.h"

#ifdef __cplusplus
extern "C" {
#endif

struct hex_shape {
    int32_t n_layer;   // layers that own a cache
    int32_t n_head_kv;
    int32_t head_k;    // head size of K, a multiple of 64
    int32_t head_v;
    int32_t n_stream;
};

struct hex_bytes {
    uint64_t base_k;
    uint64_t base_v;
    uint64_t refined;  // residual pool
    uint64_t state;    // maps, scores, means
    uint64_t total;
    double   bits_per_element; // all of total over n_layer * n_head_kv * (head_k + head_v) * n_ctx * n_stream
};

// Bytes per slot and KV head in the residual pool: K row then V row.
size_t hex_slot_size(enum hex_refine refine, int32_t head_k, int32_t head_v);

// State of one (stream, KV head), in 32-bit words: see csrc/ggml/hex_state.h for the layout.
size_t hex_state_words(const struct hex_plan * plan, const struct hex_params * p, int32_t head_k);

// A disabled p counts as f16, llama.cpp's default.
void hex_bytes_of(struct hex_bytes * out, const struct hex_params * p, const struct hex_plan * plan,
                  const struct hex_shape * shape);

// A stock cache of `bits` bits per element (16 f16, 8.5 q8_0, 4.5 q4_0) of the same shape.
uint64_t hex_bytes_stock(const struct hex_shape * shape, int32_t n_ctx, double bits);

#ifdef __cplusplus
}
#endif
