#include "hex_bytes.h"

#include "hex_codec.h"
#include "../ggml/hex_state.h"

// Bytes of a row of n samples, a multiple of 64, in the base code of k bits.
static size_t base_row_size(int32_t k, int32_t n) {
    return hex_block_size(k) * (size_t) (n / HEX_BLOCK);
}

static size_t refine_row_size(enum hex_refine refine, int32_t n) {
    switch (refine) {
        case HEX_REFINE_NONE: return 0;
        case HEX_REFINE_HEX1:
        case HEX_REFINE_HEX2:
        case HEX_REFINE_HEX3:
        case HEX_REFINE_HEX4: return hex_block_size((int) refine) * (size_t) (n / HEX_BLOCK);
        case HEX_REFINE_Q8_0: return 34 * (size_t) (n / 32); // ggml: 32 int8 and an f16 scale
        case HEX_REFINE_F16:  return 2 * (size_t) n;
    }
    return 0;
}

size_t hex_slot_size(enum hex_refine refine, int32_t head_k, int32_t head_v) {
    return refine_row_size(refine, head_k) + refine_row_size(refine, head_v);
}

size_t hex_state_words(const struct hex_plan * plan, const struct hex_params * p, int32_t head_k) {
    if (!p->enabled) {
        return 0;
    }
    // The mean is there even when n_mean is 0: one layout, 0.002 bits per element at 8k cells.
    return hex_state_size(head_k, plan->n_ring, plan->n_heavy);
}

void hex_bytes_of(struct hex_bytes * out, const struct hex_params * p, const struct hex_plan * plan,
                  const struct hex_shape * shape) {
    const uint64_t heads = (uint64_t) shape->n_layer * (uint64_t) shape->n_head_kv * (uint64_t) shape->n_stream;
    const uint64_t rows  = heads * (uint64_t) plan->n_ctx;
    const uint64_t elements = rows * (uint64_t) (shape->head_k + shape->head_v);

    *out = (struct hex_bytes) { 0 };
    if (p->enabled) {
        out->base_k  = rows * base_row_size(p->base_k, shape->head_k);
        out->base_v  = rows * base_row_size(p->base_v, shape->head_v);
        out->refined = heads * (uint64_t) plan->n_slots * hex_slot_size(p->refine, shape->head_k, shape->head_v);
        out->state   = heads * hex_state_words(plan, p, shape->head_k) * sizeof(uint32_t);
    } else {
        out->base_k = rows * (uint64_t) shape->head_k * 2; // f16, llama.cpp's default
        out->base_v = rows * (uint64_t) shape->head_v * 2;
    }
    out->total = out->base_k + out->base_v + out->refined + out->state;
    out->bits_per_element = elements ? 8.0 * (double) out->total / (double) elements : 0.0;
}

uint64_t hex_bytes_stock(const struct hex_shape * shape, int32_t n_ctx, double bits) {
    const double elements = (double) shape->n_layer * shape->n_head_kv * shape->n_stream * n_ctx
                          * (shape->head_k + shape->head_v);
    return (uint64_t) (elements * bits / 8.0);
}
