// What llama.cpp's public API gains: the `hex` field of llama_context_params (struct hex_params) and these calls.
#pragma once

#include "../core/hex_config.h"

#ifdef __cplusplus
extern "C" {
#endif

struct llama_context;
struct llama_model;

struct llama_hex_stats {
    bool     enabled;          // false: a stock cache; the byte fields below still hold
    int32_t  n_ctx;            // cells, all streams
    int32_t  n_used;           // cells in use
    uint64_t base_k_bytes;     // allocated, all layers and streams
    uint64_t base_v_bytes;
    uint64_t refined_bytes;    // residual pools
    uint64_t state_bytes;      // maps, scores, means
    uint64_t total_bytes;
    double   bits_per_element; // total over the elements of K and V
    uint64_t swa_bytes;        // K and V of the sliding-window cache, 0 without one; not in the total
    uint64_t refined_ring;     // (layer, KV head, cell) entries refined by sinks and recent tokens
    uint64_t refined_heavy;    // ... by heavy hitters
    uint64_t refined_static;   // ... by the backbone
    uint64_t n_entries;        // all (layer, KV head, cell) entries in use
};

// Statistics of the KV cache of ctx (its full-attention part). Reads device memory; not for hot loops.
// Returns false when the context has no KV cache.
bool llama_hex_get_stats(const struct llama_context * ctx, struct llama_hex_stats * out);

// Why this model cannot use HEX (one sentence in buf), or true when it can.
bool llama_hex_supported(const struct llama_model * model, char * buf, size_t buf_size);

#ifdef __cplusplus
}
#endif
