#include "hex_cache.h"

#include "../core/hex_bytes.h"
#include "../core/hex_codec.h"
#include "../core/hex_fp16.h"
#include "../core/hex_graph_impl.h"
#include "../ggml/hex_meta.h"
#include "../ggml/hex_state.h"

#include <math.h>
#include <string.h>

#define Q8_BLOCK 32
#define HEX_FP16_MAX 65504.0f

struct q8_block { // ggml's block_q8_0
    uint16_t d;
    int8_t   qs[Q8_BLOCK];
};

size_t hex_residual_size(enum hex_refine refine, int32_t n) {
    return hex_slot_size(refine, n, 0);
}

// What a residual of either format can hold: one infinite value in a row would spoil every attention that reads it.
static float storable(float x, float most) {
    return !isfinite(x) ? 0 : x > most ? most : x < -most ? -most : x;
}

uint16_t hex_residual_fp16(float x) {
    return hex_fp32_to_fp16(storable(x, HEX_FP16_MAX));
}

static void q8_quantize(const float * x, struct q8_block * y, int32_t n) {
    for (int32_t i = 0; i < n/Q8_BLOCK; i++, x += Q8_BLOCK) {
        float amax = 0;
        for (int j = 0; j < Q8_BLOCK; j++) {
            amax = fmaxf(amax, fabsf(storable(x[j], 127*HEX_FP16_MAX)));
        }
        const float d  = amax/127;
        const float id = d > 0 ? 1/d : 0;
        y[i].d = hex_fp32_to_fp16(d);
        for (int j = 0; j < Q8_BLOCK; j++) {
            y[i].qs[j] = (int8_t) roundf(storable(x[j], amax)*id);
        }
    }
}

void hex_residual_quantize(enum hex_refine refine, const float * x, void * row, int32_t n) {
    switch (refine) {
        case HEX_REFINE_NONE:
            break;
        case HEX_REFINE_HEX1:
        case HEX_REFINE_HEX2:
        case HEX_REFINE_HEX3:
        case HEX_REFINE_HEX4:
            hex_quantize((int) refine, x, row, n);
            break;
        case HEX_REFINE_Q8_0:
            q8_quantize(x, row, n);
            break;
        case HEX_REFINE_F16:
            for (int32_t i = 0; i < n; i++) {
                ((uint16_t *) row)[i] = hex_residual_fp16(x[i]);
            }
            break;
    }
}

void hex_residual_add(enum hex_refine refine, const void * row, float * y, int32_t n) {
    float tmp[HEX_BLOCK];
    switch (refine) {
        case HEX_REFINE_NONE:
            break;
        case HEX_REFINE_HEX1:
        case HEX_REFINE_HEX2:
        case HEX_REFINE_HEX3:
        case HEX_REFINE_HEX4:
            for (int32_t b = 0; b < n/HEX_BLOCK; b++) {
                hex_dequantize((int) refine, (const char *) row + b*hex_block_size((int) refine), tmp, HEX_BLOCK);
                for (int i = 0; i < HEX_BLOCK; i++) {
                    y[b*HEX_BLOCK + i] += tmp[i];
                }
            }
            break;
        case HEX_REFINE_Q8_0:
            for (int32_t i = 0; i < n; i++) {
                const struct q8_block * b = (const struct q8_block *) row + i/Q8_BLOCK;
                y[i] += hex_fp16_to_fp32(b->d)*b->qs[i % Q8_BLOCK];
            }
            break;
        case HEX_REFINE_F16:
            for (int32_t i = 0; i < n; i++) {
                y[i] += hex_fp16_to_fp32(((const uint16_t *) row)[i]);
            }
            break;
    }
}

// Lists the slot's cell if there is one to be listed; returns how many are.
static inline int32_t list_cell(int32_t cell, int32_t slot, int32_t n_kv, uint32_t * seen, struct hex_entry * entries, int32_t n) {
    if ((uint32_t) cell >= (uint32_t) n_kv || !hex_bit_get(seen, cell)) {
        return n;
    }
    seen[cell >> 5] &= ~(1u << (cell & 31));
    entries[n] = (struct hex_entry) { slot, cell };
    return n + 1;
}

int32_t hex_refined_entries(const struct hex_cache * c, int32_t stream, int32_t head,
                            uint32_t * seen, struct hex_entry * entries) {
    const int32_t  * meta  = hex_meta(c, stream);
    const int32_t  * state = hex_state(c, stream, head);
    const int32_t  * ring  = hex_meta_ring(meta, c->n_tps);
    const int32_t  * heavy = state + hex_state_heavy_cell(c->head_k, c->n_ring);

    // start from the cells that hold a token, then cross out what is listed
    const uint32_t * valid = hex_meta_bitmap(meta, c->n_tps, c->n_ring);
    memcpy(seen, valid, sizeof(uint32_t)*(size_t) ((c->n_ctx + 31)/32));

    int32_t n = 0, slot = 0;
    for (int32_t i = 0; i < c->n_ring; i++) {
        n = list_cell(ring[i], slot++, c->n_kv, seen, entries, n);
    }
    for (int32_t i = 0; i < c->n_heavy; i++) {
        n = list_cell(heavy[i] - 1, slot++, c->n_kv, seen, entries, n);
    }
    for (int32_t i = 0; i < c->n_static; i++) {
        n = list_cell(hex_graph_cell(&c->graph, c->pair0 + head, i), slot++, c->n_kv, seen, entries, n);
    }
    return n;
}

void hex_channel_masks(const struct hex_cache * c, int32_t cell0, int32_t n, uint64_t * masks) {
    const struct hex_graph * g = &c->graph;
    memset(masks, 0, sizeof(uint64_t)*(size_t) n);
    for (int32_t block = cell0/g->period; block <= (cell0 + n - 1)/g->period; block++) {
        for (int32_t channel = 0; channel < HEX_BLOCK; channel++) {
            const int32_t i = block*g->period + hex_graph_offset(g, channel, block) - cell0;
            if (i >= 0 && i < n) {
                masks[i] |= UINT64_C(1) << channel;
            }
        }
    }
}

uint16_t * hex_channel_row(const struct hex_cache * c, int32_t stream, int32_t head, int32_t cell, bool is_v) {
    char * slot = hex_slot(c, stream, head, c->n_ring + c->n_heavy + cell/c->graph.period);
    return (uint16_t *) (is_v ? slot + hex_residual_size(c->refine, c->head_k) : slot);
}

void hex_channels_add(const uint16_t * row, uint64_t mask, float * y, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        if (mask >> (i % HEX_BLOCK) & 1) {
            y[i] += hex_fp16_to_fp32(row[i]);
        }
    }
}

void hex_base_row(int bits, const void * row, const float * mean, float * y, int32_t n) {
    hex_dequantize(bits, row, y, n);
    if (mean) {
        for (int32_t i = 0; i < n; i++) {
            y[i] += mean[i];
        }
    }
}
