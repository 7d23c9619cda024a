#include "hex_commit.h"

#include "../core/hex_codec.h"
#include "../core/hex_score.h"
#include "../ggml/hex_meta.h"
#include "../ggml/hex_state.h"

#include <math.h>
#include <string.h>

// Phase A, one thread per (stream, KV head): means, scores, competition. It decides which slots each row gets.
// Phase B, one task per (stream, KV head, row, K or V): base codes and residuals. The slots that A copied from are free by then,
// and no two rows write to one place, whatever meta says: of rows with one cell, or one ring slot, the last one has it.

struct rank_heap { // the weakest heavy slot on top; equal scores: the lower slot
    int32_t   n;
    int32_t * slot;  // NULL: no heap, where few tokens compete
    float   * score; // by slot
};

static bool weaker(const struct rank_heap * h, int32_t a, int32_t b) {
    return h->score[a] < h->score[b] || (h->score[a] == h->score[b] && a < b);
}

static void sift_down(struct rank_heap * h, int32_t i) {
    for (;;) {
        int32_t m = i;
        for (int32_t k = 2*i + 1; k <= 2*i + 2 && k < h->n; k++) {
            if (weaker(h, h->slot[k], h->slot[m])) {
                m = k;
            }
        }
        if (m == i) {
            return;
        }
        const int32_t t = h->slot[i];
        h->slot[i] = h->slot[m];
        h->slot[m] = t;
        i = m;
    }
}

#define ROW_DROPPED (-2) // row_ring of a row that is not stored
#define FEW_ROWS    4    // up to here the weakest slot is looked for, not kept on top of a heap

// Work of one (stream, head).
struct head_work {
    int32_t  * heap;     // [n_heavy] slots
    int32_t  * slot_row; // [n_heavy] row of the ubatch that took the heavy slot, -1: none
    int32_t  * row_slot; // [n_tps] heavy slot of the row, -1: none
    int32_t  * row_ring; // [n_tps] ring slot of the row, -1: none
    uint32_t * cells;    // bitmap of n_ctx: cells of the rows, then those that ring and heavy slots hold as well
    uint32_t * slots;    // bitmap of n_ring: slots that rows take, then those that held a token before
};

static size_t bitmap_words(int32_t n_bits) {
    return ((size_t) n_bits + 31)/32;
}

static size_t head_work_size(const struct hex_cache * c) {
    return sizeof(int32_t)*(2*(size_t) c->n_heavy + 2*(size_t) c->n_tps + bitmap_words(c->n_ctx) + bitmap_words(c->n_ring));
}

size_t hex_commit_work(const struct hex_commit * c) {
    return head_work_size(&c->cache)*(size_t) c->cache.n_head_kv*(size_t) c->cache.n_stream;
}

static struct head_work head_work_of(const struct hex_cache * c, void * work, int32_t s, int32_t h) {
    struct head_work w;
    w.heap     = (int32_t *) ((char *) work + head_work_size(c)*(size_t) (s*c->n_head_kv + h));
    w.slot_row = w.heap + c->n_heavy;
    w.row_slot = w.slot_row + c->n_heavy;
    w.row_ring = w.row_slot + c->n_tps;
    w.cells    = (uint32_t *) (w.row_ring + c->n_tps);
    w.slots    = w.cells + bitmap_words(c->n_ctx);
    return w;
}

static void bit_set(uint32_t * bits, int32_t i) {
    bits[i >> 5] |= 1u << (i & 31);
}

static bool cell_ok(const struct hex_cache * c, int32_t cell) {
    return cell >= 0 && cell < c->n_kv;
}

static bool ring_ok(const struct hex_cache * c, int32_t slot) {
    return slot >= 0 && slot < c->n_ring;
}

static int32_t static_slot(const struct hex_cache * c, int32_t head, int32_t cell) {
    if (c->n_static == 0) {
        return -1;
    }
    const int32_t slot = hex_graph_slot(&c->graph, c->pair0 + head, cell);
    return slot >= 0 && slot < c->n_static ? c->n_ring + c->n_heavy + slot : -1;
}

// Which rows are stored, and which of them have a ring slot.
static void place_rows(const struct hex_cache * c, const struct head_work * w, int32_t s) {
    const struct hex_meta_row * rows = hex_meta_rows(hex_meta(c, s));

    memset(w->cells, 0, sizeof(uint32_t)*bitmap_words(c->n_ctx));
    memset(w->slots, 0, sizeof(uint32_t)*bitmap_words(c->n_ring));
    for (int32_t i = c->n_tps - 1; i >= 0; i--) {
        const struct hex_meta_row * r = &rows[i];
        w->row_slot[i] = -1;
        w->row_ring[i] = ROW_DROPPED;
        if (!cell_ok(c, r->cell) || hex_bit_get(w->cells, r->cell)) {
            continue;
        }
        bit_set(w->cells, r->cell);
        w->row_ring[i] = -1;
        if (ring_ok(c, r->ring_slot) && !hex_bit_get(w->slots, r->ring_slot)) {
            bit_set(w->slots, r->ring_slot);
            w->row_ring[i] = r->ring_slot;
        }
    }
}

//
// means
//

// Where a row is stored.
struct target {
    char     * base;
    char     * residual; // NULL: not refined
    uint16_t * channels; // NULL: no CHANNELS backbone
    uint64_t   mask;     // of channels
};

// Codes n samples of x, less `mean` (may be NULL). unbias: as hex_unbias, 0 for K, whose logits HEX_ATTN corrects.
static void encode(const struct hex_cache * c, int bits, const float * x, const float * mean, float unbias, int32_t n, const struct target * to) {
    float y[HEX_BLOCK], z[HEX_BLOCK];
    const size_t base_size     = hex_block_size(bits);
    const size_t residual_size = hex_residual_size(c->refine, HEX_BLOCK);

    for (int32_t b = 0; b < n/HEX_BLOCK; b++) {
        for (int i = 0; i < HEX_BLOCK; i++) {
            y[i] = mean ? x[b*HEX_BLOCK + i] - mean[b*HEX_BLOCK + i] : x[b*HEX_BLOCK + i];
        }
        char * block = to->base + b*base_size;
        hex_quantize(bits, y, block, HEX_BLOCK);
        if (unbias > 0) {
            hex_unbias(bits, y, block, HEX_BLOCK, unbias);
        }
        if (!to->residual && !to->channels) {
            continue;
        }
        hex_dequantize(bits, block, z, HEX_BLOCK);
        for (int i = 0; i < HEX_BLOCK; i++) {
            z[i] = y[i] - z[i];
            if (to->channels && to->mask >> i & 1) {
                to->channels[b*HEX_BLOCK + i] = hex_residual_fp16(z[i]);
            }
        }
        if (to->residual) {
            hex_residual_quantize(c->refine, z, to->residual + b*residual_size, HEX_BLOCK);
        }
    }
}

static struct target target_of(const struct hex_cache * c, int32_t s, int32_t h, int32_t cell, char * slot, bool is_v) {
    struct target to = {
        .base     = hex_row_base(is_v ? &c->v_base : &c->k_base, s, h, cell),
        .residual = slot && is_v ? slot + hex_residual_size(c->refine, c->head_k) : slot,
    };
    if (hex_has_channels(c)) {
        to.channels = hex_channel_row(c, s, h, cell, is_v);
        hex_channel_masks(c, cell, 1, &to.mask);
    }
    return to;
}

// Codes every stored K row again, now centred. Most of these rows are still refined, so this loses next to nothing.
static void recode(const struct hex_cache * c, int32_t s, int32_t h, const float * mean) {
    const int32_t  * meta  = hex_meta(c, s);
    const uint32_t * valid = hex_meta_bitmap(meta, c->n_tps, c->n_ring);
    const int32_t  * ring  = hex_meta_ring(meta, c->n_tps);
    const int32_t  * heavy = hex_state(c, s, h) + hex_state_heavy_cell(c->head_k, c->n_ring);

    float row[HEX_BLOCK];
    for (int32_t cell = 0; cell < c->n_kv; cell++) {
        if (!hex_bit_get(valid, cell)) {
            continue;
        }
        int32_t slot = static_slot(c, h, cell);
        for (int32_t i = 0; slot < 0 && i < c->n_ring; i++) {
            slot = ring[i] == cell ? i : -1;
        }
        for (int32_t i = 0; slot < 0 && i < c->n_heavy; i++) {
            slot = heavy[i] == cell + 1 ? c->n_ring + i : -1;
        }
        struct target to = target_of(c, s, h, cell, slot >= 0 ? hex_slot(c, s, h, slot) : NULL, false);
        for (int32_t b = 0; b < c->head_k/HEX_BLOCK; b++) {
            hex_dequantize(c->bits_k, to.base, row, HEX_BLOCK);
            if (to.residual) {
                hex_residual_add(c->refine, to.residual, row, HEX_BLOCK);
            } else if (to.channels) {
                hex_channels_add(to.channels, to.mask, row, HEX_BLOCK);
            }
            encode(c, c->bits_k, row, mean + b*HEX_BLOCK, 0, HEX_BLOCK, &to);
            to.base     += hex_block_size(c->bits_k);
            to.residual += to.residual ? hex_residual_size(c->refine, HEX_BLOCK) : 0;
            to.channels += to.channels ? HEX_BLOCK : 0;
        }
        // a backbone cell can hold a ring slot as well: both read the same residual
        const int32_t fixed = static_slot(c, h, cell);
        for (int32_t i = 0; fixed >= 0 && i < c->n_ring; i++) {
            if (ring[i] == cell) {
                memcpy(hex_slot(c, s, h, i), hex_slot(c, s, h, fixed), hex_residual_size(c->refine, c->head_k));
            }
        }
    }
}

// Sums rows until n_mean of them are in, then freezes their mean. Sinks are left out: their keys are outliers.
static void update_mean(const struct hex_cache * c, const struct head_work * w, int32_t s, int32_t h) {
    int32_t * state = hex_state(c, s, h);
    if (c->n_mean == 0 || state[HEX_STATE_FROZEN]) {
        return;
    }
    const struct hex_meta_row * rows = hex_meta_rows(hex_meta(c, s));
    float * mean = (float *) state + HEX_STATE_MEAN;

    for (int32_t i = 0; i < c->n_tps && state[HEX_STATE_ROWS] < c->n_mean; i++) {
        if (w->row_ring[i] == ROW_DROPPED || rows[i].is_sink) {
            continue;
        }
        const float * k = hex_row_cur(&c->k_cur, h, (int64_t) s*c->n_tps + i);
        for (int32_t d = 0; d < c->head_k; d++) {
            mean[d] += k[d];
        }
        state[HEX_STATE_ROWS]++;
    }
    if (state[HEX_STATE_ROWS] < c->n_mean) {
        return;
    }
    for (int32_t d = 0; d < c->head_k; d++) {
        mean[d] /= (float) c->n_mean;
        mean[d]  = isfinite(mean[d]) ? mean[d] : 0;
    }
    recode(c, s, h, mean);
    state[HEX_STATE_FROZEN] = 1;
}

//
// scores
//

// Moving averages of n heavy slots; without a cell (0) a slot is weaker than any token.
static void heavy_scores(float * restrict score, const int32_t * restrict cells, const float * restrict mass, const float * restrict n_seen,
                         int32_t n, int32_t half_life) {
    for (int32_t i = 0; i < n;) {
        const float seen = n_seen[i], keep = seen > 0 ? hex_score_keep(seen, half_life) : 1;
        int32_t end = i + 1; // nearly always the number of queries is that of all slots
        while (end < n && n_seen[end] == seen) {
            end++;
        }
        for (; i < end; i++) {
            const float now = seen > 0 ? hex_score_update(score[i], mass[i], seen, keep) : hex_finite_or_0(score[i]);
            score[i] = cells[i] > 0 ? now : -1;
        }
    }
}

// A score is attention mass per query that could see the token. Ring slots sum it; heavy slots hold its exponential
// moving average over queries, so that old fame fades.
static void update_scores(const struct hex_cache * c, const struct head_work * w, const float * mass, int32_t s, int32_t h) {
    const int32_t  * meta  = hex_meta(c, s);
    const int32_t  * table = hex_meta_ring(meta, c->n_tps);
    const uint32_t * valid = hex_meta_bitmap(meta, c->n_tps, c->n_ring);
    int32_t * state = hex_state(c, s, h);
    float   * ring  = (float *) state + hex_state_ring_score(c->head_k);
    int32_t * cells = state + hex_state_heavy_cell(c->head_k, c->n_ring);
    float   * score = (float *) state + hex_state_heavy_score(c->head_k, c->n_ring, c->n_heavy);

    // a cell is held once: by a row, else the first ring slot that names it, else the first heavy slot
    memset(w->slots, 0, sizeof(uint32_t)*bitmap_words(c->n_ring));
    for (int32_t i = 0; i < c->n_ring; i++) {
        if (cell_ok(c, table[i]) && hex_bit_get(valid, table[i]) && !hex_bit_get(w->cells, table[i])) {
            bit_set(w->cells, table[i]);
            bit_set(w->slots, i);
        }
    }
    for (int32_t i = 0; i < c->n_ring; i++) {
        ring[i] = hex_finite_or_0(ring[i] + mass[i]);
    }
    for (int32_t i = 0; i < c->n_heavy; i++) {
        const int32_t cell = cells[i] > 0 && cells[i] <= c->n_ctx ? cells[i] - 1 : 0;
        const bool    held = cells[i] == cell + 1 && hex_bit_get(valid, cell) && !hex_bit_get(w->cells, cell);
        w->cells[cell >> 5] |= (uint32_t) held << (cell & 31);
        cells[i] = held ? cells[i] : 0; // empty, or the token is gone
    }
    heavy_scores(score, cells, mass + c->n_ring, mass + c->n_ring + c->n_heavy + c->n_tps, c->n_heavy, c->half_life);
}

static int32_t weakest(const struct rank_heap * h) {
    if (h->slot) {
        return h->slot[0];
    }
    enum { W = 16 }; // as many minima side by side: one alone would wait for itself
    float side[W], least = INFINITY;
    for (int32_t j = 0; j < W; j++) {
        side[j] = INFINITY;
    }
    int32_t i = 0;
    for (; i + W <= h->n; i += W) {
        for (int32_t j = 0; j < W; j++) {
            side[j] = h->score[i + j] < side[j] ? h->score[i + j] : side[j];
        }
    }
    for (; i < h->n; i++) {
        least = h->score[i] < least ? h->score[i] : least;
    }
    for (int32_t j = 0; j < W; j++) {
        least = side[j] < least ? side[j] : least;
    }
    int32_t slot = 0;
    while (h->score[slot] != least) {
        slot++;
    }
    return slot;
}

// Lets a token compete for a heavy slot; returns the slot or -1.
static int32_t compete(struct rank_heap * heap, int32_t * cells, int32_t cell, float score) {
    const int32_t slot = heap->n > 0 ? weakest(heap) : -1;
    if (slot < 0 || !(score > heap->score[slot])) {
        return -1;
    }
    cells[slot]       = cell + 1;
    heap->score[slot] = score;
    if (heap->slot) {
        sift_down(heap, 0);
    }
    return slot;
}

static void update_heavy(const struct hex_commit * cm, const struct head_work * w, int32_t s, int32_t h) {
    const struct hex_cache * c = &cm->cache;
    const int32_t             * meta  = hex_meta(c, s);
    const struct hex_meta_row * rows  = hex_meta_rows(meta);
    const int32_t             * table = hex_meta_ring(meta, c->n_tps);

    int32_t * state = hex_state(c, s, h);
    float   * ring  = (float *) state + hex_state_ring_score(c->head_k);
    int32_t * cells = state + hex_state_heavy_cell(c->head_k, c->n_ring);
    const float * mass = cm->mass + ((int64_t) s*c->n_head_kv + h)*(c->n_ring + 2*c->n_heavy + c->n_tps);

    update_scores(c, w, mass, s, h);

    struct rank_heap heap = {
        .n     = c->n_heavy,
        .slot  = c->n_tps > FEW_ROWS ? w->heap : NULL,
        .score = (float *) state + hex_state_heavy_score(c->head_k, c->n_ring, c->n_heavy),
    };
    for (int32_t i = 0; i < c->n_heavy; i++) {
        w->slot_row[i] = -1;
    }
    for (int32_t i = 0; heap.slot && i < c->n_heavy; i++) {
        heap.slot[i] = i;
    }
    for (int32_t i = c->n_heavy/2 - 1; heap.slot && i >= 0; i--) {
        sift_down(&heap, i);
    }

    // tokens that leave the ring: their residual moves
    for (int32_t i = 0; i < c->n_tps; i++) {
        const int32_t slot_old = w->row_ring[i], cell = rows[i].evict_cell;
        if (slot_old < 0 || !hex_bit_get(w->slots, slot_old) || table[slot_old] != cell || static_slot(c, h, cell) >= 0) {
            continue;
        }
        const float score = ring[slot_old]/(float) (rows[i].evict_seen > 0 ? rows[i].evict_seen : 1);
        const int32_t slot = compete(&heap, cells, cell, score);
        if (slot >= 0) {
            memcpy(hex_slot(c, s, h, c->n_ring + slot), hex_slot(c, s, h, slot_old), c->slot_size);
        }
    }

    // rows that the ring has no room for; a later one can displace an earlier one, so encode when all have competed
    const float * row_mass = mass + c->n_ring + c->n_heavy;
    for (int32_t i = 0; i < c->n_tps; i++) {
        const struct hex_meta_row * r = &rows[i];
        if (w->row_ring[i] >= 0) {
            ring[w->row_ring[i]] = hex_finite_or_0(row_mass[i]);
        } else if (w->row_ring[i] != ROW_DROPPED && static_slot(c, h, r->cell) < 0) {
            const int32_t slot = compete(&heap, cells, r->cell, hex_finite_or_0(row_mass[i])/(float) (r->n_seen > 0 ? r->n_seen : 1));
            if (slot < 0) {
                continue;
            }
            if (w->slot_row[slot] >= 0) {
                w->row_slot[w->slot_row[slot]] = -1;
            }
            w->slot_row[slot] = i;
            w->row_slot[i]    = slot;
        }
    }
}

//
// rows
//

// Stores K or V of a row.
static void store_row(const struct hex_cache * c, void * work, int32_t s, int32_t h, int32_t i, bool is_v) {
    const struct hex_meta_row * r = hex_meta_rows(hex_meta(c, s)) + i;
    const struct head_work      w = head_work_of(c, work, s, h);
    if (w.row_ring[i] == ROW_DROPPED) {
        return;
    }
    const int32_t * state = hex_state(c, s, h);
    const float   * mean  = state[HEX_STATE_FROZEN] ? (const float *) state + HEX_STATE_MEAN : NULL;
    const int64_t   token = (int64_t) s*c->n_tps + i;

    const int32_t slots[3] = {
        w.row_ring[i],
        w.row_slot[i] >= 0 ? c->n_ring + w.row_slot[i] : -1,
        static_slot(c, h, r->cell),
    };
    char * slot = NULL;
    for (int i_slot = 0; i_slot < 3 && !slot; i_slot++) {
        slot = slots[i_slot] >= 0 ? hex_slot(c, s, h, slots[i_slot]) : NULL;
    }
    const struct target to = target_of(c, s, h, r->cell, slot, is_v);
    if (is_v) {
        encode(c, c->bits_v, hex_row_cur(&c->v_cur, h, token), NULL, c->unbias, c->head_v, &to);
    } else {
        encode(c, c->bits_k, hex_row_cur(&c->k_cur, h, token), mean, 0, c->head_k, &to);
    }
    for (int i_slot = 0; i_slot < 3; i_slot++) {
        char * other = slots[i_slot] >= 0 ? hex_slot(c, s, h, slots[i_slot]) : slot;
        if (other != slot) {
            memcpy(other + (to.residual - slot), to.residual, hex_residual_size(c->refine, is_v ? c->head_v : c->head_k));
        }
    }
}

void hex_commit_run(const struct hex_commit * cm, void * work, int ith, int nth, hex_barrier barrier, void * barrier_ctx) {
    const struct hex_cache * c = &cm->cache;
    const int32_t n_heads = c->n_stream*c->n_head_kv;

    for (int32_t t = ith; t < n_heads; t += nth) {
        const int32_t s = t/c->n_head_kv, h = t % c->n_head_kv;
        const struct head_work w = head_work_of(c, work, s, h);
        place_rows(c, &w, s);
        update_mean(c, &w, s, h);
        if (c->n_heavy > 0) {
            update_heavy(cm, &w, s, h);
        }
    }
    barrier(barrier_ctx);

    const int64_t n_tasks = (int64_t) n_heads*c->n_tps*2;
    for (int64_t t = n_tasks*ith/nth; t < n_tasks*(ith + 1)/nth; t++) {
        const int32_t sh = (int32_t) (t/2/c->n_tps);
        store_row(c, work, sh/c->n_head_kv, sh % c->n_head_kv, (int32_t) (t/2 % c->n_tps), t % 2);
    }
}
