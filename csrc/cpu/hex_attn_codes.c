// HEX_ATTN on codes as they are: base codes and residual codes of a refined cell are two rows, whose products add up. The
// cache passes in units of a few tiles: logits, then the usual running maximum and sum, then outputs. The ubatch's own
// rows are floats. Few query rows: an item is a chunk of the cache, one unit. Many: an item is a block of query rows
// against the whole cache; there the products with base rows are most of the work, so those with cells that have no
// residual are coarse where the kernels can. Refined cells then have columns of their own behind the others, where the
// products with their base rows, gathered, and residual rows are precise; their columns among the others are hidden.
#include "hex_attn_codes_impl.h"

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

static void split_item(struct item * it) {
    const run_t * r = it->r;
    find_tiles(it, it->tile0);
    hex_codes_unit(it);
    if (r->a->mass) {
        hex_codes_keep_probs(it, probs_of(r, it->sh, it->block));
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
        hex_codes_unit(it);
        for (int32_t t = from; r->a->mass && t < tile; t++) {
            it->unit_of[t] = it->unit;
        }
        if (r->a->mass) {
            memcpy(it->unit_max + it->unit*r->l.n_rows, it->max, sizeof(float)*(size_t) it->n_rows);
            hex_codes_keep_raw(it);
        }
    }
    if (r->a->mass) {
        hex_codes_add_mass(it);
    }
    for (int32_t i = 0; i < it->n_rows; i++) {
        const float   inv = it->sum[i] != 0 ? 1/it->sum[i] : 0; // NaN stays
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
