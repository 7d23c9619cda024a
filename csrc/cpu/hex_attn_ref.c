#include "hex_attn.h"

#include "../core/hex_codec_impl.h"
#include "../core/hex_fp16.h"
#include "../ggml/hex_meta.h"
#include "../ggml/hex_state.h"

#include <math.h>
#include <string.h>

// Work: one row of logits, one K or V row, the entries and their bitmap, and the slot of each cell.
struct ref_work {
    float            * logits; // [n_kv + n_tps]
    float            * row;    // [max(head_k, head_v)]
    uint32_t         * seen;
    struct hex_entry * entries;
    int32_t          * slot_of; // [n_kv], -1: not refined
};

static int32_t ref_head(const struct hex_cache * c) {
    return c->head_k > c->head_v ? c->head_k : c->head_v;
}

static size_t ref_carve(const struct hex_cache * c, char * work, struct ref_work * w) {
    const size_t n_slots = (size_t) c->n_ring + (size_t) c->n_heavy + (size_t) c->n_static;
    size_t at = 0;
    w->logits  = (void *) (work + at); at += sizeof(float)*(size_t) (c->n_kv + c->n_tps);
    w->row     = (void *) (work + at); at += sizeof(float)*(size_t) ref_head(c);
    w->seen    = (void *) (work + at); at += sizeof(uint32_t)*(size_t) ((c->n_ctx + 31)/32);
    w->slot_of = (void *) (work + at); at += sizeof(int32_t)*(size_t) c->n_kv;
    w->entries = (void *) (work + at); at += sizeof(struct hex_entry)*n_slots;
    return at;
}

size_t hex_attn_ref_work(const struct hex_attn * a) {
    static char origin[1];
    struct ref_work w;
    return ref_carve(&a->cache, origin, &w);
}

static float alibi_slope(const struct hex_attn * a, int32_t head) {
    if (a->max_bias <= 0) {
        return 1;
    }
    const int   n_log2 = 1 << (int) floorf(log2f((float) a->n_head));
    const float m0 = powf(2, -a->max_bias/(float) n_log2);
    const float m1 = powf(2, -a->max_bias/2/(float) n_log2);
    return head < n_log2 ? powf(m0, (float) (head + 1)) : powf(m1, (float) (2*(head - n_log2) + 1));
}

static float dot(const float * x, const float * y, int32_t n) {
    double sum = 0;
    for (int32_t i = 0; i < n; i++) {
        sum += (double) x[i]*(double) y[i];
    }
    return (float) sum;
}

// What the coding noise of a cell without residual adds to the mean of its exponential (hex_ops.h), before the scale.
static float noise_bias(const struct hex_attn * a, int32_t s, int32_t h, int32_t cell, const float * q) {
    const struct hex_cache * c = &a->cache;
    uint64_t kept = 0;
    if (hex_has_channels(c)) {
        hex_channel_masks(c, cell, 1, &kept);
    }
    const char * block = hex_row_base(&c->k_base, s, h, cell);
    double sum = 0;
    for (int32_t b = 0; b < c->head_k/HEX_BLOCK; b++, block += hex_block_size(c->bits_k)) {
        const double d = (double) hex_block_scale(c->bits_k, block);
        sum += d*d*(double) dot(q + b*HEX_BLOCK, q + b*HEX_BLOCK, HEX_BLOCK); // finite for |q| to 1e18
    }
    const double left = 1 - (double) __builtin_popcountll(kept)/HEX_BLOCK; // channels that are coded
    return (float) (0.5*(double) (a->cache.unbias*a->scale*hex_code_noise[c->bits_k])*left*sum);
}

// K or V of a cell in the best precision that the cache holds.
static void cache_row(const struct hex_cache * c, const struct ref_work * w, int32_t s, int32_t h, int32_t cell, bool is_v) {
    const int32_t * state = hex_state(c, s, h);
    const int32_t   n     = is_v ? c->head_v : c->head_k;
    const float   * mean  = !is_v && state[HEX_STATE_FROZEN] ? (const float *) state + HEX_STATE_MEAN : NULL;

    hex_base_row(is_v ? c->bits_v : c->bits_k, hex_row_base(is_v ? &c->v_base : &c->k_base, s, h, cell), mean, w->row, n);
    if (w->slot_of[cell] >= 0) {
        const char * slot = hex_slot(c, s, h, w->slot_of[cell]);
        hex_residual_add(c->refine, is_v ? slot + hex_residual_size(c->refine, c->head_k) : slot, w->row, n);
    } else if (hex_has_channels(c)) {
        uint64_t mask;
        hex_channel_masks(c, cell, 1, &mask);
        hex_channels_add(hex_channel_row(c, s, h, cell, is_v), mask, w->row, n);
    }
}

static void attn_row(const struct hex_attn * a, const struct ref_work * w, int32_t s, int32_t h, int32_t row, int32_t qh) {
    const struct hex_cache    * c     = &a->cache;
    const int32_t             * meta  = hex_meta(c, s);
    const struct hex_meta_row * rows  = hex_meta_rows(meta);
    const uint32_t            * valid = hex_meta_bitmap(meta, c->n_tps, c->n_ring);
    const float               * q     = (const float *) (a->q.data + row*a->q.nb[1] + qh*a->q.nb[2] + s*a->q.nb[3]);
    const uint16_t            * mask  = a->mask.data ? (const uint16_t *) (a->mask.data + row*a->mask.nb[1] + s*a->mask.nb[3]) : NULL;

    const float slope = alibi_slope(a, qh);
    const int32_t n   = c->n_kv + c->n_tps;

    float max = -INFINITY;
    for (int32_t i = 0; i < n; i++) {
        const int32_t j    = i - c->n_kv; // row of the ubatch
        const int32_t cell = j < 0 ? i : rows[j].cell;
        const bool    ok   = cell >= 0 && cell < c->n_kv && (j >= 0 || hex_bit_get(valid, cell));
        const float   bias = !ok ? -INFINITY : mask ? slope*hex_fp16_to_fp32(mask[cell]) : 0;
        if (bias == -INFINITY) {
            w->logits[i] = -INFINITY;
            continue;
        }
        if (j < 0) {
            cache_row(c, w, s, h, cell, false);
        }
        const float * k = j < 0 ? w->row : hex_row_cur(&c->k_cur, h, (int64_t) s*c->n_tps + j);
        float x = dot(q, k, c->head_k);
        if (j < 0 && w->slot_of[cell] < 0) {
            x += noise_bias(a, s, h, cell, q);
        }
        x *= a->scale;
        if (a->softcap != 0) {
            x = a->softcap*tanhf(x/a->softcap);
        }
        w->logits[i] = x + bias;
        max = fmaxf(max, w->logits[i]);
    }

    if (a->sinks) {
        max = fmaxf(max, a->sinks[qh]);
    }
    double sum = a->sinks ? (double) expf(a->sinks[qh] - max) : 0;
    for (int32_t i = 0; i < n; i++) {
        w->logits[i] = w->logits[i] == -INFINITY ? 0 : expf(w->logits[i] - max);
        sum += (double) w->logits[i];
    }

    const float inv = sum > 0 ? (float) (1/sum) : 0;
    float * out = a->out + (((int64_t) s*c->n_tps + row)*a->n_head + qh)*c->head_v;
    memset(out, 0, sizeof(float)*(size_t) c->head_v);
    for (int32_t i = 0; i < n; i++) {
        const float p = w->logits[i] *= inv;
        if (p == 0) {
            continue;
        }
        if (i < c->n_kv) {
            cache_row(c, w, s, h, i, true);
        }
        const float * v = i < c->n_kv ? w->row : hex_row_cur(&c->v_cur, h, (int64_t) s*c->n_tps + i - c->n_kv);
        for (int32_t d = 0; d < c->head_v; d++) {
            out[d] += p*v[d];
        }
    }
}

// Adds the probabilities of one query row to the mass of slots and rows.
static void add_mass(const struct hex_attn * a, const struct ref_work * w, int32_t n_entries, int32_t s, int32_t h, int32_t row, bool first) {
    const struct hex_cache * c = &a->cache;
    const int32_t n_ranked = c->n_ring + c->n_heavy;
    float * mass = a->mass + ((int64_t) s*c->n_head_kv + h)*(n_ranked + c->n_tps + c->n_heavy);

    for (int32_t e = 0; e < n_entries && w->entries[e].slot < n_ranked; e++) {
        const int32_t cell = w->entries[e].cell;
        mass[w->entries[e].slot] += w->logits[cell];
        if (first && w->entries[e].slot >= c->n_ring) {
            const uint16_t * mask = a->mask.data ? (const uint16_t *) (a->mask.data + row*a->mask.nb[1] + s*a->mask.nb[3]) : NULL;
            if (!mask || mask[cell] != 0xfc00) {
                mass[n_ranked + c->n_tps + w->entries[e].slot - c->n_ring] += 1;
            }
        }
    }
    for (int32_t j = 0; j < c->n_tps; j++) {
        mass[n_ranked + j] += w->logits[c->n_kv + j];
    }
}

void hex_attn_ref(const struct hex_attn * a, void * work, int ith) {
    if (ith != 0) {
        return;
    }
    const struct hex_cache * c = &a->cache;
    const int32_t group = a->n_head/c->n_head_kv;
    struct ref_work w;
    ref_carve(c, work, &w);

    if (a->mass) {
        memset(a->mass, 0, sizeof(float)*(size_t) c->n_stream*(size_t) c->n_head_kv*(size_t) (c->n_ring + 2*c->n_heavy + c->n_tps));
    }
    for (int32_t s = 0; s < c->n_stream; s++) {
        for (int32_t h = 0; h < c->n_head_kv; h++) {
            const int32_t n_entries = hex_refined_entries(c, s, h, w.seen, w.entries);
            memset(w.slot_of, 0xff, sizeof(int32_t)*(size_t) c->n_kv);
            for (int32_t e = 0; e < n_entries; e++) {
                w.slot_of[w.entries[e].cell] = w.entries[e].slot;
            }
            for (int32_t row = 0; row < c->n_tps; row++) {
                for (int32_t g = 0; g < group; g++) {
                    attn_row(a, &w, s, h, row, h*group + g);
                    if (a->mass) {
                        add_mass(a, &w, n_entries, s, h, row, g == 0);
                    }
                }
            }
        }
    }
}
