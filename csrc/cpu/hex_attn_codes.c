// HEX_ATTN on codes as they are: base codes and residual codes of a refined cell are two rows, whose products add up. The
// cache passes in units of a few tiles: logits, then the usual running maximum and sum, then outputs. The ubatch's own
// rows are floats. Few query rows: an item is a chunk of the cache, one unit. Many: an item is a block of query rows
// against the whole cache; there the products with base rows are most of the work, so those with cells that have no
// residual are coarse where the kernels can. Refined cells then have columns of their own behind the others, where the
// products with their base rows, gathered, and residual rows are precise; their columns among the others are hidden.
#include "hex_attn_impl.h"

#include "../core/hex_fp16.h"

#define ROWS       HEX_MAX_QUERIES // query rows of an item, at most
#define FEW_ROWS   32 // of an item where there are few, for more items
#define FEW        8 // below it, query rows go one by one through the ubatch's own rows
#define UNIT_TILES CHUNK_TILES
#define UNIT_COLS  (UNIT_TILES*HEX_TILE)
#define STRIDE     (UNIT_COLS + UNIT_COLS/2 + 16) // columns of refined cells, fewer than half; qk writes whole sixteens

// Tiles of the unit that some row sees; column of its first element.
struct unit_tile {
    int32_t  tile, n, col;
    int32_t  refined, n_refined; // coarse: columns of its refined cells
    bool     biased;
    uint64_t seen[ROWS]; // by token of the item
    uint64_t all;        // seen by every token whose first head is in the item
};

// Up to a tile of a unit's refined cells, for the mass.
struct batch {
    int32_t n, unit;
    int32_t slots[HEX_TILE];
    float   n_seen[HEX_TILE]; // tokens that see it, of those whose first head is in the item
};

struct item {
    const run_t * r;
    int64_t sh, index;
    int32_t s, h0, block, tile0, tile1;
    int32_t row0, n_rows, token0, n_tokens; // query row: token*group + head of the group
    int32_t token[ROWS];                    // of the item's rows, from token0 on
    int32_t blocks_k, blocks_v;
    bool    coarse; // refined cells of the unit have columns of their own, and products with the others are coarse

    // scratch
    int8_t *  limbs;   // [n_rows][head_k][2]
    float *   scale;   // [n_rows][blocks_k]
    int32_t * offset;  // [n_rows][blocks_k][2]
    float *   shift;   // [n_rows]: q . mean
    float *   weight;  // [n_rows][blocks_k + 1], of the noise
    float *   noise;   // [blocks_k + 1][STRIDE], of the unit's columns; at last, -inf hides one
    float *   max;     // [n_rows]
    float *   sum;
    float *   out;     // [n_rows][head_v]
    float *   logits;  // [n_rows][STRIDE], then probabilities
    float *   some;    // [n_rows][HEX_TILE], of residuals
    float *   scales;  // of the rows of a tile, [blocks][HEX_TILE]
    uint8_t * codes;   // a tile of codes
    float *   x;       // a tile of floats
    float *   lanes_q; // [ROWS/lanes][head_k][lanes], of FEW query rows or more
    float *   lanes_s; // [HEX_TILE][lanes]
    struct batch * batches; // not split: those of all units
    float *   probs;   // not split: their probabilities, relative to the unit's maximum, [batches][n_rows][HEX_TILE], 0: hidden
    float *   raw;     // not split: the same of the ubatch's rows, [raw tiles][n_rows][HEX_TILE]
    float *   unit_max;// [units][n_rows]: the maximum at the unit
    int32_t * unit_of; // [tiles]

    int32_t unit, n_batches;
    int32_t n_tiles, n_cols, n_cached, n_coded; // of the unit: tiles, columns, those of cells, those of products with codes
    struct unit_tile tiles[UNIT_TILES];

    bool    plain;     // split: of each tile of the chunk some row sees something, so its entries are those that are listed here
    int32_t n_refined; // of the unit's cells, in the order of their tiles: column, cell, slot
    int32_t cols[UNIT_COLS], cells[UNIT_COLS], slots[UNIT_COLS];
};

void hex_attn_codes_shape(struct hex_attn_layout * l, const struct hex_cache * c) {
    const int64_t rows = (int64_t) c->n_tps*l->group;
    l->split   = rows <= FEW_ROWS;
    l->n_rows  = l->split ? (int32_t) rows : rows < 8*ROWS ? FEW_ROWS : ROWS;
    l->n_block = (int32_t) ((rows + l->n_rows - 1)/l->n_rows);
    l->n_chunk = l->split ? (l->n_tiles + l->n_raw + CHUNK_TILES - 1)/CHUNK_TILES : 1;
    l->tile    = (size_t) HEX_TILE*(size_t) l->head;
}

#define PLACE(p, bytes) it->p = (void *) ((uintptr_t) base + work_reserve(at, bytes))
// The item's query rows in the kernels' form. Items of a split share those of their block.
static void place_queries(struct item * it, const struct hex_attn_layout * l, const struct hex_cache * c, char * base, size_t * at) {
    const size_t rows = (size_t) l->n_rows, blocks = (size_t) c->head_k/64;
    PLACE(limbs,  rows*2*(size_t) c->head_k);
    PLACE(scale,  rows*blocks*4);
    PLACE(offset, rows*blocks*8);
    PLACE(shift,  rows*4);
    PLACE(weight, rows*(blocks + 1)*4);
}
#undef PLACE

static void lay_out(struct item * it, const struct hex_attn_layout * l, const struct hex_cache * c, char * base, size_t * size) {
    const size_t rows = (size_t) l->n_rows, blocks = (size_t) l->head/64, units = (size_t) (l->n_tiles + l->n_raw)/UNIT_TILES + 1;
    const size_t batches = (size_t) l->n_slots/HEX_TILE + units + 1; // the last of a unit need not be full; one is empty
    size_t at = 0;
#define PLACE(p, bytes) it->p = (void *) ((uintptr_t) base + work_reserve(&at, bytes))
    if (!l->split) {
        place_queries(it, l, c, base, &at);
    }
    PLACE(noise,  (blocks + 1)*4*STRIDE);
    PLACE(max,    rows*4);
    PLACE(sum,    rows*4);
    PLACE(out,    rows*4*(size_t) c->head_v);
    PLACE(logits, rows*4*STRIDE);
    PLACE(some,   rows*4*HEX_TILE);
    PLACE(scales, blocks*4*HEX_TILE);
    PLACE(codes,  l->tile*2);
    PLACE(x,      l->tile*4);
    PLACE(lanes_q, rows < FEW ? 0 : (size_t) c->head_k*ROWS*4);
    PLACE(lanes_s, rows < FEW ? 0 : (size_t) HEX_TILE*HEX_MAX_LANES*4);
    PLACE(batches,  l->split ? 0 : batches*sizeof(struct batch));
    PLACE(probs,    l->split ? 0 : batches*rows*HEX_TILE*4);
    PLACE(raw,      l->split ? 0 : (size_t) l->n_raw*rows*HEX_TILE*4);
    PLACE(unit_max, l->split ? 0 : units*rows*4);
    PLACE(unit_of,  l->split ? 0 : (size_t) (l->n_tiles + l->n_raw)*4);
    *size = at;
}
#undef PLACE

size_t hex_attn_codes_queries(const struct hex_attn_layout * l, const struct hex_cache * c) {
    struct item it;
    size_t size = 0;
    place_queries(&it, l, c, NULL, &size);
    return size;
}

size_t hex_attn_codes_scratch(const struct hex_attn_layout * l, const struct hex_cache * c) {
    struct item it;
    size_t size;
    lay_out(&it, l, c, NULL, &size);
    return size;
}

// A head's part of a row is a few dozen bytes, between those of other heads: too little for the CPU's prefetcher, and
// prefetch instructions gain nothing here. Reading the chunk's rows once in order does: it comes at the speed of memory.
static void read_chunk(const struct item * it) {
    const struct hex_cache * c = it->r->c;
    const int32_t cell1 = (int32_t) min64((int64_t) (it->tile0 + CHUNK_TILES)*HEX_TILE, c->n_kv);
    for (int is_v = 0; is_v < 2; is_v++) {
        const struct hex_tensor * base = is_v ? &c->v_base : &c->k_base;
        const int64_t n_rows = (int64_t) cell1 - it->tile0*HEX_TILE - 1; // the last one may end the buffer
        if (n_rows > 0 && base->nb[1] < base->nb[2]) {
            hex_read_ahead(hex_row_base(base, it->s, 0, it->tile0*HEX_TILE), base->nb[2]*(size_t) n_rows);
        }
    }
}

static const float * query_row(const struct item * it, int32_t i) {
    const int32_t group = it->r->l.group;
    return q_row(it->r->a, it->s, (it->row0 + i)/group, it->h0 + (it->row0 + i) % group);
}

static void find_queries(struct item * it) {
    const run_t * r = it->r;
    size_t at = 0;
    place_queries(it, &r->l, r->c, r->work + r->l.queries + (size_t) (it->sh*r->l.n_block + it->block)*r->l.query_size, &at);
}

static void code_queries(const struct item * it) {
    const run_t * r = it->r;
    const int32_t head_k = r->c->head_k;
    const float * mean = mean_of(r->c, it->sh);
    for (int32_t i = 0; i < it->n_rows; i++) {
        const float * q = query_row(it, i);
        r->k->codes->query(q, it->blocks_k, it->limbs + (size_t) i*2*(size_t) head_k, it->scale + i*it->blocks_k, it->offset + 2*i*it->blocks_k);
        hex_noise_weights(r->a, q, it->weight + i*(it->blocks_k + 1), 1);
        it->weight[i*(it->blocks_k + 1) + it->blocks_k] = 1;
        it->shift[i] = 0;
        if (mean) {
            r->k->row_qk(q, mean, &it->shift[i], 1, head_k);
        }
    }
}

// The item's share of heads and rows.
static void locate(struct item * it, const run_t * r, int64_t sh, int32_t block) {
    const struct hex_cache * c = r->c;
    const int32_t group = r->l.group;
    it->r      = r;
    it->sh     = sh;
    it->block  = block;
    it->s      = (int32_t) (sh/c->n_head_kv);
    it->h0     = (int32_t) (sh % c->n_head_kv)*group;
    it->row0   = block*r->l.n_rows;
    it->n_rows = (int32_t) min64(r->l.n_rows, (int64_t) c->n_tps*group - it->row0);
    it->token0 = it->row0/group;
    it->n_tokens = (it->row0 + it->n_rows - 1)/group - it->token0 + 1;
    it->blocks_k = c->head_k/64;
    it->blocks_v = c->head_v/64;
}

void hex_attn_codes_prepare(const run_t * r, int64_t sh) {
    for (int32_t block = 0; block < r->l.n_block; block++) {
        struct item it;
        locate(&it, r, sh, block);
        find_queries(&it);
        code_queries(&it);
    }
}

static void begin(struct item * it, const run_t * r, int64_t item) {
    const struct hex_cache * c = r->c;
    size_t size;
    lay_out(it, &r->l, c, r->scratch, &size);
    const struct hex_attn_place place = place_of(r, item);
    const int32_t group = r->l.group;
    locate(it, r, place.sh, place.block);
    it->index  = place.index;
    it->tile0  = place.chunk*CHUNK_TILES;
    it->tile1  = r->l.n_tiles + r->l.n_raw;
    it->tile1  = r->l.split ? (int32_t) min64(it->tile0 + CHUNK_TILES, it->tile1) : it->tile1;
    it->unit = it->n_batches = 0;

    if (r->chunk_alone && it->sh % c->n_head_kv == 0) {
        read_chunk(it);
    }
    if (r->l.split) {
        find_queries(it);
    } else {
        code_queries(it);
    }
    for (int32_t i = 0; i < it->n_rows; i++) {
        const int32_t head = it->h0 + (it->row0 + i) % group;
        it->token[i] = (it->row0 + i)/group - it->token0;
        const float sink = r->a->sinks && !r->l.split ? r->a->sinks[head] : -INFINITY; // a split's sinks are the merge's
        it->max[i] = sink;
        it->sum[i] = sink == -INFINITY ? 0 : 1;
    }
    memset(it->out, 0, sizeof(float)*(size_t) it->n_rows*(size_t) c->head_v);
    const int32_t lanes = r->k->lanes;
    for (int32_t i = 0; i < ROWS && it->n_rows >= FEW; i++) {
        const float * q = i < it->n_rows ? query_row(it, i) : NULL;
        float * to = it->lanes_q + (size_t) (i/lanes*lanes)*(size_t) c->head_k + i % lanes;
        for (int32_t d = 0; d < c->head_k; d++) {
            to[(size_t) d*(size_t) lanes] = q ? q[d] : 0;
        }
    }
}

// Of the item's tokens, the first whose first head is in the item.
static int32_t first_token(const struct item * it) {
    return it->token0*it->r->l.group < it->row0;
}

static bool is_raw(const struct item * it, const struct unit_tile * u) {
    return u->tile >= it->r->l.n_tiles;
}

static void list_refined(struct item * it) {
    const struct hex_cache * c = it->r->c;
    const char * slot0 = hex_slot(c, it->s, (int32_t) (it->sh % c->n_head_kv), 0);
    const struct hex_entry * entries = entries_of(it->r, it->sh);
    const int32_t * start = tile_start_of(it->r, it->sh);
    int32_t n = 0;
    for (int32_t t = 0; t < it->n_tiles && !is_raw(it, &it->tiles[t]); t++) {
        const struct unit_tile * u = &it->tiles[t];
        const int32_t col0 = u->col - u->tile*HEX_TILE;
        for (int32_t e = start[u->tile]; e < start[u->tile + 1]; e++, n++) {
            it->cols[n]  = col0 + entries[e].cell;
            it->cells[n] = entries[e].cell;
            it->slots[n] = entries[e].slot;
            const char * slot = slot0 + (size_t) entries[e].slot*c->pool.nb[1];
            for (size_t at = 0; at < c->slot_size; at += 64) { // they lie scattered
                __builtin_prefetch(slot + at);
            }
        }
    }
}

// The tiles from `tile` on that some row sees, as many as a unit holds; returns where the next unit begins.
static int32_t find_tiles(struct item * it, int32_t tile) {
    const run_t * r = it->r;
    const int32_t * start = tile_start_of(r, it->sh);
    it->n_tiles = it->n_cached = 0;
    it->n_refined = 0;
    it->plain     = it->r->l.split;
    for (; tile < it->tile1 && it->n_tiles < UNIT_TILES; tile++) {
        struct unit_tile * u = &it->tiles[it->n_tiles];
        uint64_t any = 0;
        u->biased = false;
        u->all    = ~UINT64_C(0);
        for (int32_t t = 0; t < it->n_tokens; t++) {
            u->seen[t] = hex_tile_visible(r, it->s, tile, it->token0 + t, &u->biased);
            any |= u->seen[t];
            u->all &= t >= first_token(it) ? u->seen[t] : ~UINT64_C(0);
        }
        it->plain = it->plain && (any || tile >= r->l.n_tiles);
        if (any) {
            u->tile = tile;
            u->n    = tile_cells(r, tile);
            u->n_refined = is_raw(it, u) ? 0 : start[tile + 1] - start[tile];
            it->n_refined += u->n_refined;
            it->n_cached += is_raw(it, u) ? 0 : u->n;
            it->n_tiles++;
        }
    }
    // where most cells are refined, as in a young cache, precise products with all of them are fewer
    it->coarse = !r->l.split && r->coarse && r->k->codes->coarse && r->a->scale > 0 && 2*it->n_refined < it->n_cached;
    // columns: cells, refined cells again, the ubatch's own rows
    int32_t cell = 0, refined = it->n_cached;
    for (int32_t t = 0; t < it->n_tiles; t++) {
        struct unit_tile * u = &it->tiles[t];
        u->n_refined = it->coarse ? u->n_refined : 0;
        u->refined   = refined;
        refined     += u->n_refined;
        u->col     = is_raw(it, u) ? refined + cell - it->n_cached : cell;
        cell      += u->n;
    }
    it->n_coded = refined;
    it->n_cols  = refined + cell - it->n_cached;
    list_refined(it);
    return tile;
}

// Rows of a tile that some query sees; a cell nobody sees may hold anything, and 0 times NaN is not 0.
static void load_raw(const struct item * it, const struct unit_tile * u, bool is_v) {
    uint64_t any = 0;
    for (int32_t t = 0; t < it->n_tokens; t++) {
        any |= u->seen[t];
    }
    hex_tile_load(it->r, it->sh, u->tile, any, is_v, NULL, it->x);
}

// Rows for the kernels, padded as they want them.
static void unpack(const struct item * it, bool is_v, int bits, const char ** rows, int32_t n) {
    const struct hex_codes_kernels * k = it->r->k->codes;
    for (int32_t j = n; j % 16 != 0; j++) {
        rows[j] = rows[0];
    }
    if (is_v) {
        k->unpack_v(bits, rows, n, it->blocks_v, it->codes, it->scales);
    } else {
        k->unpack_k(bits, rows, n, it->blocks_k, it->codes, it->scales);
    }
}

// Base rows of a tile to codes.
static void unpack_base(const struct item * it, const struct unit_tile * u, bool is_v) {
    const struct hex_cache  * c = it->r->c;
    const struct hex_tensor * t = is_v ? &c->v_base : &c->k_base;
    const char * first = hex_row_base(t, it->s, (int32_t) (it->sh % c->n_head_kv), u->tile*HEX_TILE);
    const size_t step  = t->nb[2];
    const char * rows[HEX_TILE];
    for (int32_t j = 0; j < HEX_TILE; j += 4, first += 4*step) { // at least u->n
        rows[j]     = first;
        rows[j + 1] = first + step;
        rows[j + 2] = first + 2*step;
        rows[j + 3] = first + 3*step;
    }
    unpack(it, is_v, is_v ? c->bits_v : c->bits_k, rows, u->n);
}

static void unpack_scattered(const struct item * it, bool is_v, int bits, const char * first, size_t step, const int32_t * index, int32_t n) {
    const char * rows[HEX_TILE];
    for (int32_t e = 0; e < n; e++) {
        rows[e] = first + (size_t) index[e]*step;
    }
    unpack(it, is_v, bits, rows, n);
}

// Residual rows of n <= HEX_TILE refined cells of the unit, from the one at `from` on.
static void unpack_residuals(const struct item * it, int32_t from, int32_t n, bool is_v) {
    const struct hex_cache * c = it->r->c;
    const char * first = hex_slot(c, it->s, (int32_t) (it->sh % c->n_head_kv), 0) + (is_v ? hex_residual_size(c->refine, c->head_k) : 0);
    unpack_scattered(it, is_v, (int) c->refine, first, c->pool.nb[1], it->slots + from, n);
}

// Base rows of the same.
static void unpack_their_base(const struct item * it, int32_t from, int32_t n, bool is_v) {
    const struct hex_cache  * c = it->r->c;
    const struct hex_tensor * t = is_v ? &c->v_base : &c->k_base;
    const char * first = hex_row_base(t, it->s, (int32_t) (it->sh % c->n_head_kv), 0);
    unpack_scattered(it, is_v, is_v ? c->bits_v : c->bits_k, first, t->nb[2], it->cells + from, n);
}

static int32_t batch_size(const struct item * it, int32_t from) {
    return it->n_refined - from < HEX_TILE ? it->n_refined - from : HEX_TILE;
}

static void multiply_k(const struct item * it, int32_t n, float * s, int32_t stride, bool coarse) {
    it->r->k->codes->qk(it->codes, it->scales, n, it->blocks_k, it->limbs, it->scale, it->offset, it->n_rows, s, stride, coarse);
}

static int32_t probs_stride(const struct item * it) {
    return it->r->l.n_slots + it->r->c->n_tps;
}

static void multiply_v(const struct item * it, int32_t n, const float * p, int32_t stride, bool coarse) {
    const int32_t head_v = it->r->c->head_v;
    it->r->k->codes->pv(it->codes, it->scales, n, it->blocks_v, p, stride, it->n_rows, it->out, head_v, coarse);
}

// Logits of the ubatch's own rows in it->x. Many query rows go side by side through the SIMD lanes.
static void raw_logits(const struct item * it, const struct unit_tile * u) {
    const struct hex_attn_kernels * k = it->r->k;
    const int32_t head_k = it->r->c->head_k;
    if (it->n_rows < FEW) {
        for (int32_t i = 0; i < it->n_rows; i++) {
            k->row_qk(query_row(it, i), it->x, it->logits + (size_t) i*STRIDE + u->col, u->n, head_k);
        }
        return;
    }
    for (int32_t i0 = 0; i0 < it->n_rows; i0 += k->lanes) {
        k->lanes_qk(it->lanes_q + (size_t) i0*(size_t) head_k, it->x, it->lanes_s, u->n, head_k);
        for (int32_t i = i0; i < it->n_rows && i < i0 + k->lanes; i++) {
            float * l = it->logits + (size_t) i*STRIDE + u->col;
            for (int32_t j = 0; j < u->n; j++) {
                l[j] = it->lanes_s[j*k->lanes + i - i0];
            }
        }
    }
}

// Refined cells: residual products are added to those with the base rows, or, if the latter are coarse, both take columns
// of their own.
static void refined_logits(const struct item * it) {
    float * hide = it->noise + (size_t) it->blocks_k*STRIDE;
    for (int32_t from = 0; from < it->n_refined; from += HEX_TILE) {
        const int32_t   n    = batch_size(it, from);
        const int32_t * cols = it->cols + from;
        unpack_residuals(it, from, n, false);
        multiply_k(it, n, it->some, HEX_TILE, false);
        if (it->coarse) {
            unpack_their_base(it, from, n, false);
            multiply_k(it, n, it->logits + it->n_cached + from, STRIDE, false);
        }
        for (int32_t i = 0; i < it->n_rows; i++) {
            float * l = it->logits + (size_t) i*STRIDE;
            const float * some = it->some + i*HEX_TILE;
            if (it->coarse) {
                l += it->n_cached + from;
                for (int32_t e = 0; e < n; e++) {
                    l[e] += some[e];
                }
                continue;
            }
            for (int32_t e = 0; e < n; e++) {
                l[cols[e]] += some[e];
            }
        }
        for (int32_t e = 0; e < n; e++) {
            hide[cols[e]] = -INFINITY;
        }
        for (int32_t b = 0; b < it->blocks_k; b++) {
            for (int32_t e = 0; e < n; e++) {
                it->noise[b*STRIDE + cols[e]] = 0;
            }
        }
    }
}

static void make_logits(const struct item * it) {
    const run_t * r = it->r;
    for (int32_t t = 0; t < it->n_tiles; t++) {
        const struct unit_tile * u = &it->tiles[t];
        if (!is_raw(it, u)) {
            unpack_base(it, u, false);
            multiply_k(it, u->n, it->logits + u->col, STRIDE, it->coarse);
            for (int32_t b = 0; b < it->blocks_k; b++) {
                r->k->row_square(it->scales + b*HEX_TILE, u->n, it->noise + b*STRIDE + u->col);
            }
        }
    }
    for (int32_t b = 0; b <= it->blocks_k; b++) { // the last row hides none yet; refined columns have no noise
        const int32_t from = b < it->blocks_k ? it->n_cached : 0;
        memset(it->noise + b*STRIDE + from, 0, sizeof(float)*(size_t) (it->n_coded - from));
    }
    refined_logits(it);
    for (int32_t t = 0; t < it->n_tiles; t++) { // last, since products are written in whole sixteens of columns
        const struct unit_tile * u = &it->tiles[t];
        if (is_raw(it, u)) {
            load_raw(it, u, false);
            raw_logits(it, u);
        }
    }
}

// hex_tile_mask for the columns of refined cells.
static void mask_refined(const struct item * it, const struct unit_tile * u, int32_t token, int32_t head, float * l) {
    const run_t * r = it->r;
    const struct hex_entry * entry = entries_of(r, it->sh) + tile_start_of(r, it->sh)[u->tile];
    const uint16_t * mask = mask_row(r, it->s, it->token0 + token);
    const float slope = u->biased ? hex_attn_slope(r->a, head) : 0;
    for (int32_t e = 0; e < u->n_refined; e++, l++, entry++) {
        *l = !(u->seen[token] >> (entry->cell - u->tile*HEX_TILE) & 1) ? -INFINITY :
             u->biased ? *l + slope*hex_fp16_to_fp32(mask[entry->cell]) : *l;
    }
}

// Scale, mask, running maximum and sum; logits become probabilities relative to the maximum so far.
static void soften(const struct item * it) {
    const run_t * r = it->r;
    const struct hex_attn * a = r->a;
    const float * hide = it->noise + (size_t) it->blocks_k*STRIDE, one = 1;
    const int32_t n_noise = it->blocks_k + (it->coarse && a->softcap == 0);
    for (int32_t i = 0; i < it->n_rows; i++) {
        const int32_t token = it->token[i], head = it->h0 + (it->row0 + i) % r->l.group;
        float * l = it->logits + (size_t) i*STRIDE;
        // one pass, where nothing but the scale follows
        const int32_t n_done = a->softcap == 0 ? it->n_coded : 0;
        const float most = r->k->row_bias(l, it->n_coded, it->shift[i], it->weight + i*(it->blocks_k + 1), it->noise, n_noise, STRIDE,
                                          n_done > 0 ? a->scale : 1);
        r->k->scale(l + n_done, it->n_cols - n_done, a->scale, a->softcap);
        if (it->coarse && a->softcap != 0) { // which makes -inf finite
            r->k->row_bias(l, it->n_cached, 0, &one, hide, 1, STRIDE, 1);
        }
        bool done = n_done == it->n_cols;
        for (int32_t t = 0; t < it->n_tiles; t++) {
            const struct unit_tile * u = &it->tiles[t];
            if (u->biased || u->seen[token] != tile_full(u->n)) {
                hex_tile_mask(r, it->s, u->tile, it->token0 + token, head, u->seen[token], u->biased, l + u->col, 1);
                if (u->n_refined > 0) {
                    mask_refined(it, u, token, head, l + u->refined);
                }
                done = false;
            }
        }
        const float max = done ? most : r->k->row_max(l, it->n_cols), old = it->max[i];
        if (max > old) {
            const float f = old == -INFINITY ? 0 : expf(old - max);
            float * out = it->out + (size_t) i*(size_t) r->c->head_v;
            for (int32_t d = 0; d < r->c->head_v; d++) {
                out[d] *= f;
            }
            it->sum[i] *= f;
            it->max[i]  = max;
        }
        it->sum[i] += r->k->row_exp(l, it->n_cols, it->max[i] == -INFINITY ? 0 : it->max[i]);
    }
}

// Tokens that see each cell of a batch.
static void count_seen(const struct item * it, int32_t from, int32_t n, float * n_seen) {
    const int32_t first = first_token(it);
    const struct unit_tile * u = it->tiles;
    for (int32_t e = 0; e < n; e++) {
        const int32_t cell = it->cells[from + e];
        while (u->tile != cell/HEX_TILE) {
            u++;
        }
        int32_t sum = it->n_tokens - first;
        if (!(u->all >> cell % HEX_TILE & 1)) {
            sum = 0;
            for (int32_t t = first; t < it->n_tokens; t++) {
                sum += (int32_t) (u->seen[t] >> cell % HEX_TILE & 1);
            }
        }
        n_seen[e] = (float) sum;
    }
}

// Outputs of refined cells: residuals, and the base rows where their own columns are hidden.
static void add_refined(struct item * it) {
    const run_t * r = it->r;
    const bool keep = !r->l.split && r->a->mass, put = it->plain && r->a->mass; // for the mass
    const int32_t stride = put ? probs_stride(it) : HEX_TILE;
    for (int32_t from = 0; from < it->n_refined; from += HEX_TILE) {
        const int32_t   n    = batch_size(it, from);
        const int32_t * cols = it->cols + from;
        float * p = put  ? probs_of(r, it->sh, it->block) + tile_start_of(r, it->sh)[it->tile0] + from :
                    keep ? it->probs + (size_t) it->n_batches*(size_t) r->l.n_rows*HEX_TILE : it->some;
        for (int32_t i = 0; i < it->n_rows; i++) {
            const float * l = it->logits + (size_t) i*STRIDE;
            if (it->coarse) {
                memcpy(p + (size_t) i*(size_t) stride, l + it->n_cached + from, sizeof(float)*(size_t) n);
                continue;
            }
            for (int32_t e = 0; e < n; e++) {
                p[(size_t) i*(size_t) stride + (size_t) e] = l[cols[e]];
            }
        }
        unpack_residuals(it, from, n, true);
        multiply_v(it, n, p, stride, false);
        if (it->coarse) {
            unpack_their_base(it, from, n, true);
            multiply_v(it, n, p, stride, false);
        }
        if (keep) {
            struct batch * b = it->batches + it->n_batches++;
            b->n    = n;
            b->unit = it->unit;
            memcpy(b->slots, it->slots + from, sizeof(int32_t)*(size_t) n);
            count_seen(it, from, n, b->n_seen);
        }
    }
}

static void add_outputs(struct item * it) {
    const run_t * r = it->r;
    const int32_t head_v = r->c->head_v;
    add_refined(it);
    for (int32_t t = 0; t < it->n_tiles; t++) {
        const struct unit_tile * u = &it->tiles[t];
        if (!is_raw(it, u)) {
            unpack_base(it, u, true);
            multiply_v(it, u->n, it->logits + u->col, STRIDE, it->coarse);
            continue;
        }
        load_raw(it, u, true);
        r->k->rows_pv(it->logits + u->col, STRIDE, it->x, it->out, head_v, it->n_rows, u->n, head_v);
    }
}

//
// mass
//

// Split: probabilities of refined cells and of the ubatch's rows, for the merge. Those of a plain chunk's cells are there.
static void keep_probs(const struct item * it, float * probs) {
    const run_t * r = it->r;
    const int32_t * start = tile_start_of(r, it->sh);
    const int32_t tile0 = it->tile0 < r->l.n_tiles ? it->tile0 : r->l.n_tiles, tile1 = it->tile1 < r->l.n_tiles ? it->tile1 : r->l.n_tiles;
    const int32_t raw0 = it->tile0 > r->l.n_tiles ? (it->tile0 - r->l.n_tiles)*HEX_TILE : 0;
    const int32_t raw1 = it->tile1 > r->l.n_tiles ? (int32_t) min64((int64_t) (it->tile1 - r->l.n_tiles)*HEX_TILE, r->c->n_tps) : 0;
    if (it->plain && raw0 == raw1) {
        return;
    }
    for (int32_t i = 0; i < it->n_rows; i++, probs += probs_stride(it)) {
        for (int32_t e = start[tile0]; e < start[tile1] && !it->plain; e++) {
            probs[e] = 0;
        }
        for (int32_t j = raw0; j < raw1; j++) {
            probs[r->l.n_slots + j] = 0;
        }
        for (int32_t t = 0; t < it->n_tiles; t++) {
            const struct unit_tile * u = &it->tiles[t];
            if (it->plain && !is_raw(it, u)) {
                continue;
            }
            hex_keep_probs(r, it->sh, u->tile, u->seen[it->token[i]], it->logits + (size_t) i*STRIDE + u->col, probs);
        }
    }
}

// Not split: those of the ubatch's rows.
static void keep_raw(const struct item * it) {
    for (int32_t t = 0; t < it->n_tiles; t++) {
        const struct unit_tile * u = &it->tiles[t];
        const int32_t raw = u->tile - it->r->l.n_tiles;
        for (int32_t i = 0; raw >= 0 && i < it->n_rows; i++) {
            memcpy(it->raw + ((size_t) raw*(size_t) it->r->l.n_rows + (size_t) i)*HEX_TILE, it->logits + (size_t) i*STRIDE + u->col,
                   sizeof(float)*(size_t) u->n);
        }
    }
}

// sum[j] += p[i][j]*f[i] over the rows.
static void add_rows(const float * p, const float * f, int32_t n_rows, int32_t n, float * sum) {
    for (int32_t i = 0; i < n_rows; i++, p += HEX_TILE) {
        for (int32_t j = 0; j < n; j++) {
            sum[j] += p[j]*f[i];
        }
    }
}

// Not split: the masses of this item.
static void add_mass(const struct item * it) {
    const run_t * r = it->r;
    const size_t width = (size_t) r->l.n_rows;
    float * mass = (float *) (r->work + r->l.mass) + it->index*r->l.n_mass;
    memset(mass, 0, sizeof(float)*(size_t) r->l.n_mass);
    for (int32_t u = 0; u < it->unit; u++) { // to factors
        for (int32_t i = 0; i < it->n_rows; i++) {
            float * m = it->unit_max + (size_t) u*width + i;
            *m = *m == -INFINITY || !(it->sum[i] > 0) ? 0 : expf(*m - it->max[i])/it->sum[i];
        }
    }
    for (int32_t t = 0; t < r->l.n_raw; t++) {
        const float * f = it->unit_max + (size_t) it->unit_of[r->l.n_tiles + t]*width;
        add_rows(it->raw + (size_t) t*width*HEX_TILE, f, it->n_rows, tile_cells(r, r->l.n_tiles + t), mass + r->l.n_ranked + t*HEX_TILE);
    }
    for (int32_t n = 0; n < it->n_batches; n++) {
        const struct batch * b = it->batches + n;
        float m[HEX_TILE] = {0};
        add_rows(it->probs + (size_t) n*width*HEX_TILE, it->unit_max + (size_t) b->unit*width, it->n_rows, b->n, m);
        for (int32_t e = 0; e < b->n; e++) {
            if (b->slots[e] < r->l.n_ranked) {
                mass[b->slots[e]] = m[e];
            }
            if (b->slots[e] < r->l.n_ranked && b->slots[e] >= r->c->n_ring) {
                mass[r->l.n_ranked + r->c->n_tps + b->slots[e] - r->c->n_ring] = b->n_seen[e];
            }
        }
    }
}

//
// items
//

static void one_unit(struct item * it) {
    if (it->n_tiles > 0) {
        make_logits(it);
        soften(it);
        add_outputs(it);
    }
}

static void split_item(struct item * it) {
    const run_t * r = it->r;
    find_tiles(it, it->tile0);
    one_unit(it);
    if (r->a->mass) {
        keep_probs(it, probs_of(r, it->sh, it->block));
    }
    float * part = part_of(r, it->index);
    const int32_t head_v = r->c->head_v;
    for (int32_t i = 0; i < it->n_rows; i++, part += 2 + head_v) {
        part[0] = it->max[i];
        part[1] = it->sum[i];
        memcpy(part + 2, it->out + (size_t) i*(size_t) head_v, sizeof(float)*(size_t) head_v);
    }
}

static void whole_item(struct item * it) {
    const run_t * r = it->r;
    if (r->a->mass) {
        memset(it->raw, 0, sizeof(float)*(size_t) r->l.n_raw*(size_t) r->l.n_rows*HEX_TILE);
    }
    for (int32_t tile = 0; tile < it->tile1; it->unit++) {
        const int32_t from = tile;
        tile = find_tiles(it, tile);
        one_unit(it);
        for (int32_t t = from; r->a->mass && t < tile; t++) {
            it->unit_of[t] = it->unit;
        }
        if (r->a->mass) {
            memcpy(it->unit_max + it->unit*r->l.n_rows, it->max, sizeof(float)*(size_t) it->n_rows);
            keep_raw(it);
        }
    }
    if (r->a->mass) {
        add_mass(it);
    }
    for (int32_t i = 0; i < it->n_rows; i++) {
        const float   inv = it->sum[i] > 0 ? 1/it->sum[i] : 0;
        const float * out = it->out + (size_t) i*(size_t) r->c->head_v;
        float * dst = out_row(r->a, it->s, (it->row0 + i)/r->l.group, it->h0 + (it->row0 + i) % r->l.group);
        for (int32_t d = 0; d < r->c->head_v; d++) {
            dst[d] = out[d]*inv;
        }
    }
}

void hex_attn_codes_item(const run_t * r, int64_t item) {
    struct item it;
    begin(&it, r, item);
    if (r->l.split) {
        split_item(&it);
    } else {
        whole_item(&it);
    }
}
