#include "hex_attn.h"

#include "hex_attn_kernels.h"

#include "../core/hex_fp16.h"
#include "../ggml/hex_meta.h"
#include "../ggml/hex_state.h"

#include <math.h>
#include <string.h>

// A tile is 64 cells of the cache or, behind them, 64 rows of the ubatch. It is decoded once, residuals included, for all
// query rows of an item. Few query rows: an item is (stream, KV head, row, chunk of tiles), merged by log-sum-exp. Many:
// an item is (stream, KV head, block of query rows), one per SIMD lane, over all tiles. Items do not depend on the number
// of threads, so neither does the result.

#define CHUNK_TILES  8 // 512 cells
#define ROW_MODE_MAX 4 // query rows per stream, up to which "few" pays

#define F16_NEG_INF 0xfc00

static int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

struct layout {
    int32_t group, n_tiles, n_raw, n_chunk, n_block, n_slots, n_ranked, n_mass, head;
    int64_t n_sh, n_items;
    bool    row_mode;

    // offsets into the shared work buffer, in bytes
    size_t entries;    // struct hex_entry [n_sh][n_slots], sorted by tile
    size_t tile_start; // int32 [n_sh][n_tiles + 1]
    size_t part;       // row mode: float [n_items][group][2 + head_v]: max, sum, output
    size_t probs;      // row mode: float [n_sh][n_tps][n_slots + n_tps][group]
    size_t mass;       // lanes mode: float [n_items][n_mass]
    size_t tile;       // floats of one decoded tile
    size_t thread;     // per-thread scratch
    size_t thread_size;
    size_t total;
};

static size_t reserve(size_t * at, size_t size) {
    const size_t here = *at;
    *at += (size + 63) & ~(size_t) 63;
    return here;
}

static const struct hex_attn_kernels * kernels_now(void) {
#if defined(__x86_64__) || defined(_M_X64)
    switch (hex_isa_get()) {
        case HEX_ISA_AVX512: return &hex_attn_kernels_avx512;
        case HEX_ISA_AVX2:   return &hex_attn_kernels_avx2;
        case HEX_ISA_REF:    break;
    }
#endif
    return &hex_attn_kernels_generic;
}

static struct layout make_layout(const struct hex_attn * a, int nth, int lanes) {
    const struct hex_cache * c = &a->cache;
    struct layout l = {0};

    l.group    = a->n_head/c->n_head_kv;
    l.n_tiles  = (c->n_kv + HEX_TILE - 1)/HEX_TILE;
    l.n_raw    = (c->n_tps + HEX_TILE - 1)/HEX_TILE;
    l.n_slots  = c->n_ring + c->n_heavy + c->n_static;
    l.n_ranked = c->n_ring + c->n_heavy;
    l.n_mass   = l.n_ranked + c->n_tps + c->n_heavy;
    l.head     = c->head_k > c->head_v ? c->head_k : c->head_v;
    l.n_sh     = (int64_t) c->n_stream*c->n_head_kv;
    l.row_mode = c->n_tps <= ROW_MODE_MAX;
    l.n_chunk  = (l.n_tiles + l.n_raw + CHUNK_TILES - 1)/CHUNK_TILES;
    l.n_block  = (c->n_tps*l.group + lanes - 1)/lanes;
    l.n_items  = l.row_mode ? l.n_sh*c->n_tps*l.n_chunk : l.n_sh*l.n_block;

    size_t at = 0;
    l.entries    = reserve(&at, sizeof(struct hex_entry)*(size_t) (l.n_sh*l.n_slots));
    l.tile_start = reserve(&at, sizeof(int32_t)*(size_t) (l.n_sh*(l.n_tiles + 1)));
    if (l.row_mode) {
        l.part  = reserve(&at, sizeof(float)*(size_t) (l.n_items*l.group*(2 + c->head_v)));
        l.probs = reserve(&at, a->mass ? sizeof(float)*(size_t) (l.n_sh*c->n_tps*(l.n_slots + c->n_tps)*l.group) : 0);
    } else {
        l.mass  = reserve(&at, a->mass ? sizeof(float)*(size_t) (l.n_items*l.n_mass) : 0);
    }
    l.thread = at;

    // scratch: bitmap and unsorted entries; or tile, logits and, in lanes mode, q, output, max, sum
    const size_t setup  = sizeof(uint32_t)*(size_t) ((c->n_ctx + 31)/32) + sizeof(struct hex_entry)*(size_t) l.n_slots;
    const size_t n_cols = (size_t) (l.row_mode ? l.group : lanes);
    const size_t n_rows = (size_t) HEX_TILE*(size_t) (l.row_mode ? CHUNK_TILES : l.n_tiles + l.n_raw);
    l.tile = (size_t) HEX_TILE*(size_t) (l.head > l.group ? l.head : l.group); // also [group][HEX_TILE]
    const size_t item   = sizeof(float)*(l.tile + n_rows*n_cols +
                                         (l.row_mode ? (size_t) l.group + 2 : (size_t) lanes*(size_t) (c->head_k + c->head_v + 2)))
                        + sizeof(float *)*(l.row_mode ? (size_t) l.group : 0);
    l.thread_size = (setup > item ? setup : item) + 64;
    l.thread_size = (l.thread_size + 63) & ~(size_t) 63;
    l.total = at + l.thread_size*(size_t) nth;
    return l;
}

size_t hex_attn_work(const struct hex_attn * a, int nth) {
    // room for either kernel width: the path can be forced after the graph was planned
    const size_t narrow = make_layout(a, nth, 16).total;
    const size_t wide   = make_layout(a, nth, HEX_MAX_LANES).total;
    return (narrow > wide ? narrow : wide) + 64;
}

struct run {
    const struct hex_attn * a;
    const struct hex_cache * c;
    const struct hex_attn_kernels * k;
    struct layout l;
    char * work;
    char * scratch; // of this thread
};

static struct hex_entry * entries_of(const struct run * r, int64_t sh) {
    return (struct hex_entry *) (r->work + r->l.entries) + sh*r->l.n_slots;
}
static int32_t * tile_start_of(const struct run * r, int64_t sh) {
    return (int32_t *) (r->work + r->l.tile_start) + sh*(r->l.n_tiles + 1);
}

// The refined cells of (stream, head), sorted by tile and within a tile by slot.
static void list_entries(const struct run * r, int64_t sh) {
    const struct hex_cache * c = r->c;
    uint32_t * seen = (uint32_t *) r->scratch;
    struct hex_entry * found  = (struct hex_entry *) (seen + (c->n_ctx + 31)/32);
    struct hex_entry * sorted = entries_of(r, sh);
    int32_t * start = tile_start_of(r, sh);

    const int32_t n = hex_refined_entries(c, (int32_t) (sh/c->n_head_kv), (int32_t) (sh % c->n_head_kv), seen, found);
    memset(start, 0, sizeof(int32_t)*(size_t) (r->l.n_tiles + 1));
    for (int32_t e = 0; e < n; e++) {
        start[found[e].cell/HEX_TILE + 1]++;
    }
    for (int32_t t = 0; t < r->l.n_tiles; t++) {
        start[t + 1] += start[t];
    }
    for (int32_t e = 0; e < n; e++) {
        sorted[start[found[e].cell/HEX_TILE]++] = found[e];
    }
    for (int32_t t = r->l.n_tiles; t > 0; t--) {
        start[t] = start[t - 1];
    }
    start[0] = 0;
}

//
// tiles
//

static int32_t tile_cells(const struct run * r, int32_t tile) {
    const int32_t left = tile < r->l.n_tiles ? r->c->n_kv - tile*HEX_TILE : r->c->n_tps - (tile - r->l.n_tiles)*HEX_TILE;
    return left < HEX_TILE ? left : HEX_TILE;
}

// Mask column of element j of a tile, -1: no cell of the cache.
static int32_t tile_column(const struct run * r, int32_t s, int32_t tile, int32_t j) {
    if (tile < r->l.n_tiles) {
        return tile*HEX_TILE + j;
    }
    const int32_t cell = hex_meta_rows(hex_meta(r->c, s))[(tile - r->l.n_tiles)*HEX_TILE + j].cell;
    return cell >= 0 && cell < r->c->n_kv ? cell : -1;
}

static const uint16_t * mask_row(const struct run * r, int32_t s, int32_t row) {
    const struct hex_tensor * m = &r->a->mask;
    return m->data ? (const uint16_t *) (m->data + row*m->nb[1] + s*m->nb[3]) : NULL;
}

// Which elements of the tile hold something that can be read at all.
static uint64_t tile_valid(const struct run * r, int32_t s, int32_t tile) {
    const int32_t n = tile_cells(r, tile);
    uint64_t bits = 0;
    if (tile < r->l.n_tiles) {
        const uint32_t * valid = hex_meta_bitmap(hex_meta(r->c, s), r->c->n_tps, r->c->n_ring);
        const int32_t last = (r->c->n_ctx + 31)/32 - 1;
        bits = valid[2*tile];
        bits |= 2*tile + 1 <= last ? (uint64_t) valid[2*tile + 1] << 32 : 0;
    } else {
        for (int32_t j = 0; j < n; j++) {
            bits |= (uint64_t) (tile_column(r, s, tile, j) >= 0) << j;
        }
    }
    return n < HEX_TILE ? bits & ((UINT64_C(1) << n) - 1) : bits;
}

// Which elements row `row` sees; *biased is set when one of them has a mask value other than 0.
static uint64_t tile_visible(const struct run * r, int32_t s, int32_t tile, int32_t row, uint64_t valid, bool * biased) {
    const uint16_t * m = mask_row(r, s, row);
    if (!m || !valid) {
        return valid;
    }
    const int32_t n = tile_cells(r, tile);
    uint64_t hidden = 0;
    uint32_t any = 0;
    if (tile < r->l.n_tiles) {
        m += tile*HEX_TILE;
        if (n == HEX_TILE) { // nearly every tile is seen whole or not at all
            uint64_t ones = 0, same = 0, word;
            for (int32_t j = 0; j < HEX_TILE/4; j++) {
                memcpy(&word, m + 4*j, sizeof(word));
                ones |= word;
                same |= word ^ UINT64_C(0xfc00fc00fc00fc00);
            }
            if (ones == 0 || same == 0) {
                return ones == 0 ? valid : 0;
            }
        }
        for (int32_t j = 0; j < n; j++) {
            hidden |= (uint64_t) (m[j] == F16_NEG_INF) << j;
            any    |= m[j] == F16_NEG_INF ? 0u : m[j];
        }
    } else {
        for (int32_t j = 0; j < n; j++) {
            const int32_t  col = tile_column(r, s, tile, j);
            const uint16_t v   = col < 0 ? F16_NEG_INF : m[col];
            hidden |= (uint64_t) (v == F16_NEG_INF) << j;
            any    |= v == F16_NEG_INF ? 0u : v;
        }
    }
    *biased |= any != 0;
    return valid & ~hidden;
}

// Decodes the elements in `want` (others become zero) to x [n][head].
static void load_tile(const struct run * r, int64_t sh, int32_t tile, uint64_t want, bool is_v, const float * mean, float * x) {
    const struct hex_cache * c = r->c;
    const int32_t s = (int32_t) (sh/c->n_head_kv), h = (int32_t) (sh % c->n_head_kv);
    const int32_t n = tile_cells(r, tile), d = is_v ? c->head_v : c->head_k;

    if (tile >= r->l.n_tiles) {
        const int64_t token = (int64_t) s*c->n_tps + (tile - r->l.n_tiles)*HEX_TILE;
        for (int32_t j = 0; j < n; j++) {
            if (want >> j & 1) {
                memcpy(x + (size_t) j*d, hex_row_cur(is_v ? &c->v_cur : &c->k_cur, h, token + j), sizeof(float)*(size_t) d);
            } else { // may hold anything, and 0 times NaN is not 0
                memset(x + (size_t) j*d, 0, sizeof(float)*(size_t) d);
            }
        }
        return;
    }

    const struct hex_tensor * base = is_v ? &c->v_base : &c->k_base;
    for (int32_t j = 0; j < n; j++) {
        if (want >> j & 1) {
            hex_base_row(is_v ? c->bits_v : c->bits_k, hex_row_base(base, s, h, tile*HEX_TILE + j), mean, x + (size_t) j*d, d);
        } else {
            memset(x + (size_t) j*d, 0, sizeof(float)*(size_t) d);
        }
    }
    const int32_t * start = tile_start_of(r, sh);
    const size_t offset = is_v ? hex_residual_size(c->refine, c->head_k) : 0;
    uint64_t refined = 0;
    for (int32_t e = start[tile]; e < start[tile + 1]; e++) {
        const struct hex_entry * entry = entries_of(r, sh) + e;
        const int32_t j = entry->cell - tile*HEX_TILE;
        refined |= UINT64_C(1) << j;
        if (want >> j & 1) {
            hex_residual_add(c->refine, hex_slot(c, s, h, entry->slot) + offset, x + (size_t) j*d, d);
        }
    }
    if (hex_has_channels(c)) {
        uint64_t masks[HEX_TILE];
        hex_channel_masks(c, tile*HEX_TILE, n, masks);
        for (int32_t j = 0; j < n; j++) {
            if ((want & ~refined) >> j & 1) {
                hex_channels_add(hex_channel_row(c, s, h, tile*HEX_TILE + j, is_v), masks[j], x + (size_t) j*d, d);
            }
        }
    }
}

static const float * mean_of(const struct hex_cache * c, int64_t sh) {
    const int32_t * state = hex_state(c, (int32_t) (sh/c->n_head_kv), (int32_t) (sh % c->n_head_kv));
    return state[HEX_STATE_FROZEN] ? (const float *) state + HEX_STATE_MEAN : NULL;
}

static float slope_of(const struct hex_attn * a, int32_t head) {
    if (a->max_bias <= 0) {
        return 1;
    }
    const int   n_log2 = 1 << (int) floorf(log2f((float) a->n_head));
    const float m0 = powf(2, -a->max_bias/(float) n_log2);
    const float m1 = powf(2, -a->max_bias/2/(float) n_log2);
    return head < n_log2 ? powf(m0, (float) (head + 1)) : powf(m1, (float) (2*(head - n_log2) + 1));
}

static const float * q_row(const struct hex_attn * a, int32_t s, int32_t row, int32_t head) {
    return (const float *) (a->q.data + row*a->q.nb[1] + head*a->q.nb[2] + s*a->q.nb[3]);
}

static float * out_row(const struct hex_attn * a, int32_t s, int32_t row, int32_t head) {
    return a->out + (((int64_t) s*a->cache.n_tps + row)*a->n_head + head)*a->cache.head_v;
}

//
// few query rows
//

static float * part_of(const struct run * r, int64_t item) {
    return (float *) (r->work + r->l.part) + item*r->l.group*(2 + r->c->head_v);
}
static float * probs_of(const struct run * r, int64_t sh, int32_t row) {
    const int64_t n = (int64_t) (r->l.n_slots + r->c->n_tps)*r->l.group;
    return (float *) (r->work + r->l.probs) + (sh*r->c->n_tps + row)*n;
}

// Whether the kernels read this cache's codes directly: base and residuals both have to be hexN.
static bool fused(const struct run * r) {
    return r->k->codes_qk && !hex_has_channels(r->c) && (int) r->c->refine <= HEX_REFINE_HEX4;
}

// Rows of a tile of the cache, and of the refined cells among them: base rows [n], then residual rows and their cells.
struct tile_rows {
    const char * base[HEX_TILE];
    const char * residual[HEX_TILE];
    int32_t      at[HEX_TILE]; // cell of residual i, in the tile
    int32_t      n_residual;
};

static void find_rows(const struct run * r, int64_t sh, int32_t tile, bool is_v, struct tile_rows * t) {
    const struct hex_cache * c = r->c;
    const int32_t s = (int32_t) (sh/c->n_head_kv), h = (int32_t) (sh % c->n_head_kv);
    const int32_t n = tile_cells(r, tile);
    for (int32_t j = 0; j < n; j++) {
        t->base[j] = hex_row_base(is_v ? &c->v_base : &c->k_base, s, h, tile*HEX_TILE + j);
    }
    const int32_t * start = tile_start_of(r, sh);
    const size_t offset = is_v ? hex_residual_size(c->refine, c->head_k) : 0;
    t->n_residual = start[tile + 1] - start[tile];
    for (int32_t i = 0; i < t->n_residual; i++) {
        const struct hex_entry * e = entries_of(r, sh) + start[tile] + i;
        t->residual[i] = hex_slot(c, s, h, e->slot) + offset;
        t->at[i]       = e->cell - tile*HEX_TILE;
    }
}

// Logits of one tile for all query heads of the group, before scale: l[g*stride + j].
static void tile_qk(const struct run * r, int64_t sh, int32_t tile, uint64_t seen, const float * const * q, float * x, float * l, int32_t stride) {
    const struct hex_cache * c = r->c;
    const int32_t n = tile_cells(r, tile);
    if (tile >= r->l.n_tiles || !fused(r)) {
        load_tile(r, sh, tile, seen, false, NULL, x);
        for (int32_t g = 0; g < r->l.group; g++) {
            r->k->row_qk(q[g], x, l + (size_t) g*stride, n, c->head_k);
        }
        return;
    }
    struct tile_rows t;
    find_rows(r, sh, tile, false, &t);
    r->k->codes_qk(c->bits_k, t.base, n, c->head_k, q, r->l.group, l, stride);
    if (t.n_residual > 0) {
        r->k->codes_qk((int) c->refine, t.residual, t.n_residual, c->head_k, q, r->l.group, x, HEX_TILE);
        for (int32_t g = 0; g < r->l.group; g++) {
            for (int32_t i = 0; i < t.n_residual; i++) {
                l[(size_t) g*stride + t.at[i]] += x[(size_t) g*HEX_TILE + i];
            }
        }
    }
}

// out[g*out_stride + d] += sum_j p[g*stride + j] * v_j[d] over one tile.
static void tile_pv(const struct run * r, int64_t sh, int32_t tile, uint64_t seen, const float * p, int32_t stride, float * x, float * out, int32_t out_stride) {
    const struct hex_cache * c = r->c;
    const int32_t n = tile_cells(r, tile);
    if (tile >= r->l.n_tiles || !fused(r)) {
        load_tile(r, sh, tile, seen, true, NULL, x);
        for (int32_t g = 0; g < r->l.group; g++) {
            r->k->row_pv(p + (size_t) g*stride, x, out + (size_t) g*out_stride, n, c->head_v);
        }
        return;
    }
    struct tile_rows t;
    find_rows(r, sh, tile, true, &t);
    r->k->codes_pv(c->bits_v, t.base, n, c->head_v, p, stride, r->l.group, out, out_stride);
    if (t.n_residual > 0) {
        for (int32_t g = 0; g < r->l.group; g++) {
            for (int32_t i = 0; i < t.n_residual; i++) {
                x[(size_t) g*HEX_TILE + i] = p[(size_t) g*stride + t.at[i]];
            }
        }
        r->k->codes_pv((int) c->refine, t.residual, t.n_residual, c->head_v, x, HEX_TILE, r->l.group, out, out_stride);
    }
}

static void row_item(const struct run * r, int64_t item) {
    const struct hex_attn  * a = r->a;
    const struct hex_cache * c = r->c;
    const int32_t group = r->l.group;
    const int32_t chunk = (int32_t) (item % r->l.n_chunk);
    const int32_t row   = (int32_t) (item/r->l.n_chunk % c->n_tps);
    const int64_t sh    = item/r->l.n_chunk/c->n_tps;
    const int32_t s = (int32_t) (sh/c->n_head_kv), h0 = (int32_t) (sh % c->n_head_kv)*group;
    const int32_t tile0 = chunk*CHUNK_TILES;
    const int32_t tile1 = (int32_t) min64(tile0 + CHUNK_TILES, r->l.n_tiles + r->l.n_raw);

    float * x      = (float *) r->scratch;                 // [tile][head]
    float * logits = x + r->l.tile;                         // [group][CHUNK_TILES*HEX_TILE], visible tiles only
    float * shift  = logits + (size_t) group*CHUNK_TILES*HEX_TILE; // [group]: q . mean
    const float ** q = (const float **) (shift + (group + 1)/2*2);  // [group]
    const size_t stride = CHUNK_TILES*HEX_TILE;
    uint64_t visible[CHUNK_TILES];
    int32_t  at[CHUNK_TILES], n_cols = 0;

    const float * mean = mean_of(c, sh);
    for (int32_t g = 0; g < group; g++) {
        q[g] = q_row(a, s, row, h0 + g);
        if (mean) {
            r->k->row_qk(q[g], mean, &shift[g], 1, c->head_k);
        }
    }
    for (int32_t t = tile0; t < tile1; t++) {
        bool biased = false;
        const uint64_t seen = tile_visible(r, s, t, row, tile_valid(r, s, t), &biased);
        visible[t - tile0] = seen;
        at[t - tile0]      = n_cols;
        if (!seen) {
            continue;
        }
        const int32_t n = tile_cells(r, t);
        tile_qk(r, sh, t, seen, q, x, logits + n_cols, (int32_t) stride);
        const uint16_t * mask = mask_row(r, s, row);
        for (int32_t g = 0; g < group; g++) {
            float * l = logits + g*stride + n_cols;
            for (int32_t j = 0; j < n && mean && t < r->l.n_tiles; j++) {
                l[j] += shift[g];
            }
            r->k->scale(l, n, a->scale, a->softcap);
            const float slope = biased ? slope_of(a, h0 + g) : 0;
            for (int32_t j = 0; j < n && (biased || n < HEX_TILE || ~seen); j++) {
                l[j] = !(seen >> j & 1) ? -INFINITY : biased ? l[j] + slope*hex_fp16_to_fp32(mask[tile_column(r, s, t, j)]) : l[j];
            }
        }
        n_cols += n;
    }

    float * part = part_of(r, item);
    for (int32_t g = 0; g < group; g++) {
        float * l = logits + g*stride, max = -INFINITY;
        for (int32_t j = 0; j < n_cols; j++) {
            max = l[j] > max ? l[j] : max;
        }
        part[g*(2 + c->head_v)]     = max;
        part[g*(2 + c->head_v) + 1] = max == -INFINITY ? 0 : r->k->row_exp(l, n_cols, max);
        memset(part + g*(2 + c->head_v) + 2, 0, sizeof(float)*(size_t) c->head_v);
    }

    float * probs = a->mass ? probs_of(r, sh, row) : NULL;
    const int32_t * start = tile_start_of(r, sh);
    for (int32_t t = tile0; t < tile1; t++) {
        const bool    raw  = t >= r->l.n_tiles;
        const int32_t n    = tile_cells(r, t), col = at[t - tile0];
        const uint64_t seen = visible[t - tile0];
        if (seen) {
            tile_pv(r, sh, t, seen, logits + col, (int32_t) stride, x, part + 2, 2 + c->head_v);
        }
        // probabilities of refined cells and of the ubatch's rows, for the mass
        const int32_t e0 = raw ? 0 : start[t], e1 = raw ? n : start[t + 1];
        for (int32_t e = e0; probs && e < e1; e++) {
            const int32_t j = raw ? e : entries_of(r, sh)[e].cell - t*HEX_TILE;
            float * p = probs + (int64_t) (raw ? r->l.n_slots + (t - r->l.n_tiles)*HEX_TILE + j : e)*group;
            for (int32_t g = 0; g < group; g++) {
                p[g] = seen >> j & 1 ? logits[g*stride + col + j] : -1; // -1: hidden
            }
        }
    }
}

// Merges the chunks of one (stream, head): outputs, then mass.
static void row_merge(const struct run * r, int64_t sh) {
    const struct hex_attn  * a = r->a;
    const struct hex_cache * c = r->c;
    const int32_t group = r->l.group, n_chunk = r->l.n_chunk;
    const int32_t s = (int32_t) (sh/c->n_head_kv), h0 = (int32_t) (sh % c->n_head_kv)*group;
    float * mass = a->mass ? a->mass + sh*r->l.n_mass : NULL;
    const int32_t * start = tile_start_of(r, sh);

    if (mass) {
        memset(mass, 0, sizeof(float)*(size_t) r->l.n_mass);
    }
    for (int32_t row = 0; row < c->n_tps; row++) {
        for (int32_t g = 0; g < group; g++) {
            float * part = part_of(r, (sh*c->n_tps + row)*n_chunk) + g*(2 + c->head_v);
            const size_t next = (size_t) group*(2 + c->head_v);
            float max = a->sinks ? a->sinks[h0 + g] : -INFINITY, sum = 0;
            for (int32_t k = 0; k < n_chunk; k++) {
                max = part[k*next] > max ? part[k*next] : max;
            }
            for (int32_t k = 0; k < n_chunk; k++) {
                sum += part[k*next] == -INFINITY ? 0 : part[k*next + 1]*expf(part[k*next] - max);
            }
            sum += a->sinks ? expf(a->sinks[h0 + g] - max) : 0;

            float * out = out_row(a, s, row, h0 + g);
            memset(out, 0, sizeof(float)*(size_t) c->head_v);
            for (int32_t k = 0; k < n_chunk; k++) {
                const float f = part[k*next] == -INFINITY ? 0 : expf(part[k*next] - max)/sum;
                part[k*next + 1] = f; // from here on: the chunk's factor
                for (int32_t d = 0; d < c->head_v && f != 0; d++) {
                    out[d] += f*part[k*next + 2 + d];
                }
            }
        }

        const float * probs = mass ? probs_of(r, sh, row) : NULL;
        const float * parts = part_of(r, (sh*c->n_tps + row)*n_chunk);
        for (int32_t i = 0; probs && i < start[r->l.n_tiles] + c->n_tps; i++) {
            const int32_t j    = i - start[r->l.n_tiles]; // row of the ubatch
            const int32_t slot = j < 0 ? entries_of(r, sh)[i].slot : -1;
            const int32_t tile = j < 0 ? entries_of(r, sh)[i].cell/HEX_TILE : r->l.n_tiles + j/HEX_TILE;
            const float * p    = probs + (int64_t) (j < 0 ? i : r->l.n_slots + j)*group;
            if (slot >= r->l.n_ranked || p[0] < 0) {
                continue;
            }
            float m = 0;
            for (int32_t g = 0; g < group; g++) {
                m += p[g]*parts[(size_t) (tile/CHUNK_TILES*group + g)*(2 + c->head_v) + 1];
            }
            mass[j < 0 ? slot : r->l.n_ranked + j] += m;
            if (slot >= c->n_ring) {
                mass[r->l.n_ranked + c->n_tps + slot - c->n_ring] += 1;
            }
        }
    }
}

//
// many query rows
//

static void lanes_item(const struct run * r, int64_t item) {
    const struct hex_attn  * a = r->a;
    const struct hex_cache * c = r->c;
    const int32_t lanes = r->k->lanes, group = r->l.group;
    const int64_t sh = item/r->l.n_block;
    const int32_t s  = (int32_t) (sh/c->n_head_kv), h0 = (int32_t) (sh % c->n_head_kv)*group;
    const int32_t r0 = (int32_t) (item % r->l.n_block)*lanes; // query row: token*group + head of the group
    const int32_t nr = (int32_t) min64(lanes, (int64_t) c->n_tps*group - r0);
    const int32_t t0 = r0/group, t1 = (r0 + nr - 1)/group;    // tokens
    const int32_t n_tiles = r->l.n_tiles + r->l.n_raw;

    float * x      = (float *) r->scratch;
    float * q      = x + r->l.tile;
    float * out    = q + (size_t) c->head_k*lanes;
    float * max    = out + (size_t) c->head_v*lanes;
    float * sum    = max + lanes;
    float * logits = sum + lanes; // [visible tiles][HEX_TILE][lanes]

    for (int32_t i = 0; i < lanes; i++) {
        const float * src = i < nr ? q_row(a, s, (r0 + i)/group, h0 + (r0 + i) % group) : NULL;
        for (int32_t d = 0; d < c->head_k; d++) {
            q[(size_t) d*lanes + i] = src ? src[d] : 0;
        }
        max[i] = a->sinks && i < nr ? a->sinks[h0 + (r0 + i) % group] : -INFINITY;
        sum[i] = 0;
    }

    const float * mean = mean_of(c, sh);
    float * l = logits;
    for (int32_t t = 0; t < n_tiles; t++) {
        const uint64_t valid = tile_valid(r, s, t);
        const int32_t  n     = tile_cells(r, t);
        const uint64_t full  = n < HEX_TILE ? (UINT64_C(1) << n) - 1 : ~UINT64_C(0);
        uint64_t any = 0, all = full;
        bool biased = false;
        for (int32_t row = t0; row <= t1; row++) {
            const uint64_t seen = tile_visible(r, s, t, row, valid, &biased);
            any |= seen;
            all &= seen;
        }
        if (!any) {
            continue;
        }
        load_tile(r, sh, t, any, false, t < r->l.n_tiles ? mean : NULL, x);
        r->k->lanes_qk(q, x, l, n, c->head_k);
        r->k->scale(l, n*lanes, a->scale, a->softcap);
        if (biased || all != full) {
            for (int32_t i = 0; i < nr; i++) {
                const int32_t row = (r0 + i)/group;
                const uint16_t * mask = mask_row(r, s, row);
                const uint64_t seen   = tile_visible(r, s, t, row, valid, &biased);
                const float slope     = biased ? slope_of(a, h0 + (r0 + i) % group) : 0;
                for (int32_t j = 0; j < n; j++) {
                    float * y = l + (size_t) j*lanes + i;
                    *y = !(seen >> j & 1) ? -INFINITY : biased ? *y + slope*hex_fp16_to_fp32(mask[tile_column(r, s, t, j)]) : *y;
                }
            }
        }
        r->k->lanes_max(l, max, n);
        l += (size_t) n*lanes;
    }

    for (int32_t i = 0; i < lanes; i++) {
        max[i] = max[i] == -INFINITY ? 0 : max[i]; // nothing visible: every weight is 0
    }
    memset(out, 0, sizeof(float)*(size_t) c->head_v*(size_t) lanes);

    float * mass = a->mass ? (float *) (r->work + r->l.mass) + item*r->l.n_mass : NULL;
    if (mass) {
        memset(mass, 0, sizeof(float)*(size_t) r->l.n_mass);
        r->k->lanes_exp(logits, max, sum, (int) ((l - logits)/lanes));
        for (int32_t i = 0; i < nr; i++) {
            sum[i] += a->sinks ? expf(a->sinks[h0 + (r0 + i) % group] - max[i]) : 0;
        }
    }

    const int32_t * start = tile_start_of(r, sh);
    l = logits;
    for (int32_t t = 0; t < n_tiles; t++) {
        const uint64_t valid = tile_valid(r, s, t);
        const int32_t  n     = tile_cells(r, t);
        uint64_t any = 0, seen[HEX_MAX_LANES]; // by token of the item
        bool biased = false;
        for (int32_t row = t0; row <= t1; row++) {
            seen[row - t0] = tile_visible(r, s, t, row, valid, &biased);
            any |= seen[row - t0];
        }
        if (!any) {
            continue;
        }
        if (!mass) {
            r->k->lanes_exp(l, max, sum, n);
        }
        load_tile(r, sh, t, any, true, NULL, x);
        r->k->lanes_pv(l, x, out, n, c->head_v);

        const bool raw = t >= r->l.n_tiles;
        const int32_t e0 = raw ? 0 : start[t], e1 = raw ? n : start[t + 1];
        for (int32_t e = e0; mass && e < e1; e++) {
            const int32_t slot = raw ? -1 : entries_of(r, sh)[e].slot;
            if (slot >= r->l.n_ranked) {
                continue;
            }
            const int32_t j = raw ? e : entries_of(r, sh)[e].cell - t*HEX_TILE;
            const float * p = l + (size_t) j*lanes;
            float m = 0;
            for (int32_t i = 0; i < nr; i++) {
                m += sum[i] > 0 ? p[i]/sum[i] : 0;
            }
            mass[raw ? r->l.n_ranked + (t - r->l.n_tiles)*HEX_TILE + j : slot] = m;
            if (slot >= c->n_ring) {
                float n_seen = 0;
                for (int32_t row = (r0 + group - 1)/group; row <= t1; row++) { // tokens whose first head is in this item
                    n_seen += (float) (seen[row - t0] >> j & 1);
                }
                mass[r->l.n_ranked + c->n_tps + slot - c->n_ring] = n_seen;
            }
        }
        l += (size_t) n*lanes;
    }

    for (int32_t i = 0; i < nr; i++) {
        const float total = sum[i] + (a->sinks && !mass ? expf(a->sinks[h0 + (r0 + i) % group] - max[i]) : 0);
        const float inv   = total > 0 ? 1/total : 0;
        float * dst = out_row(a, s, (r0 + i)/group, h0 + (r0 + i) % group);
        for (int32_t d = 0; d < c->head_v; d++) {
            dst[d] = out[(size_t) d*lanes + i]*inv;
        }
    }
}

static void lanes_merge(const struct run * r, int64_t sh) {
    float * mass = r->a->mass + sh*r->l.n_mass;
    const float * part = (const float *) (r->work + r->l.mass) + sh*r->l.n_block*r->l.n_mass;
    memcpy(mass, part, sizeof(float)*(size_t) r->l.n_mass);
    for (int32_t b = 1; b < r->l.n_block; b++) {
        for (int32_t i = 0; i < r->l.n_mass; i++) {
            mass[i] += part[(size_t) b*r->l.n_mass + i];
        }
    }
}

void hex_attn_run(const struct hex_attn * a, void * work, int ith, int nth, hex_barrier barrier, void * barrier_ctx) {
    struct run r = { .a = a, .c = &a->cache, .k = kernels_now() };
    r.l    = make_layout(a, nth, r.k->lanes);
    r.work = (char *) (((uintptr_t) work + 63) & ~(uintptr_t) 63);
    r.scratch = r.work + r.l.thread + r.l.thread_size*(size_t) ith;

    for (int64_t sh = ith; sh < r.l.n_sh; sh += nth) {
        list_entries(&r, sh);
    }
    barrier(barrier_ctx);
    for (int64_t i = ith; i < r.l.n_items; i += nth) {
        if (r.l.row_mode) {
            row_item(&r, i);
        } else {
            lanes_item(&r, i);
        }
    }
    if (!r.l.row_mode && !a->mass) {
        return;
    }
    barrier(barrier_ctx);
    for (int64_t sh = ith; sh < r.l.n_sh; sh += nth) {
        if (r.l.row_mode) {
            row_merge(&r, sh);
        } else {
            lanes_merge(&r, sh);
        }
    }
}
