// What the two drivers of HEX_ATTN share. Internal.
//
// A tile is 64 cells of the cache or, behind them, 64 rows of the ubatch. An item is the unit of work of a thread; items
// depend on shapes alone, never on the number of threads, so neither does the result.
//
//   hex_attn_floats.c   decodes a tile to floats, residuals included; any ISA, any residual codec
//   hex_attn_codes.c    multiplies codes as they are, base and residuals apart; hexN residuals, kernels that can
#pragma once

#include "../core/hex_codec.h"
#include "hex_attn.h"
#include "hex_attn_kernels.h"

#include "../ggml/hex_meta.h"
#include "../ggml/hex_state.h"

#include <math.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CHUNK_TILES 8 // 512 cells: an item's share of the cache where there are few query rows

struct hex_attn_layout {
    int32_t group, n_tiles, n_raw, n_chunk, n_block, n_slots, n_ranked, n_mass, head;
    int32_t n_rows;  // query rows of an item, at most; row i of block b is token (b*n_rows + i)/group, head (...) % group
    int64_t n_sh, n_items;
    bool    codes;   // which driver
    bool    split;   // item: (stream, KV head, block, chunk of tiles), merged by log-sum-exp; else (stream, KV head, block)

    // offsets into the shared work buffer, in bytes
    size_t entries;    // struct hex_entry [n_sh][n_slots], sorted by cell
    size_t tile_start; // int32 [n_sh][n_tiles + 1]
    size_t seen;       // uint64 [n_stream][n_tps][n_tiles + n_raw]: the elements of a tile that a row sees
    size_t biased;     // uint8, likewise: one of them has a mask value other than 0
    size_t part;       // split: float [n_items][n_rows][2 + head_v]: max, sum, output
    size_t probs;      // split: float [n_sh][n_block][n_rows][n_slots + n_tps], relative to the item's max
    size_t queries;    // codes, split: [n_sh][n_block] of query_size bytes, query rows in the kernels' form
    size_t query_size;
    size_t mass;       // not split: float [n_items][n_mass]
    size_t tile;       // floats of one decoded tile
    size_t thread;     // per-thread scratch
    size_t thread_size;
    size_t total;
};

struct hex_attn_work_area {
    const struct hex_attn *  a;
    const struct hex_cache * c;
    const struct hex_attn_kernels * k;
    struct hex_attn_layout l;
    bool   chunk_alone; // all heads of a chunk are this thread's
    bool   coarse;      // hex_coarse_get()
    char * work;
    char * scratch; // of this thread
};

typedef struct hex_attn_work_area run_t;

static inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }

static inline size_t work_reserve(size_t * at, size_t size) {
    const size_t here = *at;
    *at += (size + 63) & ~(size_t) 63;
    return here;
}

static inline struct hex_entry * entries_of(const run_t * r, int64_t sh) {
    return (struct hex_entry *) (r->work + r->l.entries) + sh*r->l.n_slots;
}
static inline int32_t * tile_start_of(const run_t * r, int64_t sh) {
    return (int32_t *) (r->work + r->l.tile_start) + sh*(r->l.n_tiles + 1);
}
static inline const float * mean_of(const struct hex_cache * c, int64_t sh) {
    const int32_t * state = hex_state(c, (int32_t) (sh/c->n_head_kv), (int32_t) (sh % c->n_head_kv));
    return state[HEX_STATE_FROZEN] ? (const float *) state + HEX_STATE_MEAN : NULL;
}
static inline const float * q_row(const struct hex_attn * a, int32_t s, int32_t row, int32_t head) {
    return (const float *) (a->q.data + row*a->q.nb[1] + head*a->q.nb[2] + s*a->q.nb[3]);
}
static inline float * out_row(const struct hex_attn * a, int32_t s, int32_t row, int32_t head) {
    return a->out + (((int64_t) s*a->cache.n_tps + row)*a->n_head + head)*a->cache.head_v;
}
static inline const uint16_t * mask_row(const run_t * r, int32_t s, int32_t row) {
    const struct hex_tensor * m = &r->a->mask;
    return m->data ? (const uint16_t *) (m->data + row*m->nb[1] + s*m->nb[3]) : NULL;
}

// Brings memory near, in order.
static inline void hex_read_ahead(const char * p, size_t size) {
    for (size_t i = 0; i < size; i += 64) {
        (void) *(const volatile char *) (p + i);
    }
}

static inline uint64_t * tiles_seen  (const run_t * r) { return (uint64_t *) (r->work + r->l.seen); }
static inline uint8_t *  tiles_biased(const run_t * r) { return (uint8_t *)  (r->work + r->l.biased); }

static inline size_t tile_seen_at(const run_t * r, int32_t s, int32_t tile, int32_t row) {
    return ((size_t) s*(size_t) r->c->n_tps + (size_t) row)*(size_t) (r->l.n_tiles + r->l.n_raw) + (size_t) tile;
}
// Which elements of the tile row `row` sees; *biased is set when one of them has a mask value other than 0.
static inline uint64_t hex_tile_visible(const run_t * r, int32_t s, int32_t tile, int32_t row, bool * biased) {
    const size_t at = tile_seen_at(r, s, tile, row);
    *biased |= tiles_biased(r)[at] != 0;
    return tiles_seen(r)[at];
}

float hex_attn_slope(const struct hex_attn * a, int32_t head); // ALiBi

static inline int32_t tile_cells(const run_t * r, int32_t tile) {
    const int32_t left = tile < r->l.n_tiles ? r->c->n_kv - tile*HEX_TILE : r->c->n_tps - (tile - r->l.n_tiles)*HEX_TILE;
    return left < HEX_TILE ? left : HEX_TILE;
}
static inline uint64_t tile_full(int32_t n) {
    return n < HEX_TILE ? (UINT64_C(1) << n) - 1 : ~UINT64_C(0);
}

// Mask column of element j of a tile, -1: no cell of the cache.
int32_t  hex_tile_column (const run_t * r, int32_t s, int32_t tile, int32_t j);
// Finds what of the tile each row sees, for all heads.
void     hex_tile_look   (const run_t * r, int32_t s, int32_t tile);
// Hides what is not in `seen` and adds the mask's bias to n logits, `step` floats apart.
void     hex_tile_mask   (const run_t * r, int32_t s, int32_t tile, int32_t row, int32_t head, uint64_t seen, bool biased, float * l, int32_t step);
// Decodes the elements in `want` (others become zero) to x [n][head].
void     hex_tile_load   (const run_t * r, int64_t sh, int32_t tile, uint64_t want, bool is_v, const float * mean, float * x);

// What the n-th item is. Heads are innermost where the cache is split: their rows lie side by side in memory, so the
// items of a chunk read it once.
struct hex_attn_place { int64_t sh; int32_t block, chunk; int64_t index; };

static inline struct hex_attn_place place_of(const run_t * r, int64_t n) {
    struct hex_attn_place p = { .sh = n/r->l.n_block, .block = (int32_t) (n % r->l.n_block), .index = n };
    if (r->l.split) {
        const int64_t h = n % r->c->n_head_kv, rest = n/r->c->n_head_kv;
        p.block = (int32_t) (rest % r->l.n_block);
        p.chunk = (int32_t) (rest/r->l.n_block % r->l.n_chunk);
        p.sh    = rest/r->l.n_block/r->l.n_chunk*r->c->n_head_kv + h;
        p.index = (p.sh*r->l.n_block + p.block)*r->l.n_chunk + p.chunk;
    }
    return p;
}

// Coding noise of K (hex_ops.h): the logit of element j, before the scale, gets  sum over blocks of weights[b]*noise[b][j].
// weights [head_k/64], step floats apart: of one query row, NULL for none. noise [head_k/64][HEX_TILE]: of a tile of the cache,
// 0 where there is a residual.
void hex_noise_weights(const struct hex_attn * a, const float * q, float * weights, int32_t step);
void hex_tile_noise   (const run_t * r, int64_t sh, int32_t tile, float * noise);

// Where a split item leaves its results, by its index.
static inline float * part_of(const run_t * r, int64_t item) {
    return (float *) (r->work + r->l.part) + item*r->l.n_rows*(2 + r->c->head_v);
}
static inline float * probs_of(const run_t * r, int64_t sh, int32_t block) {
    return (float *) (r->work + r->l.probs) + (sh*r->l.n_block + block)*r->l.n_rows*(r->l.n_slots + r->c->n_tps);
}
// Puts down the probabilities of a tile's refined cells, or of the ubatch's rows, for the mass. p: of the tile's elements,
// of which what the row does not see is not read. probs: of the same query row.
void hex_keep_probs(const run_t * r, int64_t sh, int32_t tile, uint64_t seen, const float * p, float * probs);

// Both drivers: n_rows, n_block, n_chunk, split; bytes of a thread's scratch; one item.
void   hex_attn_floats_shape  (struct hex_attn_layout * l, const struct hex_cache * c, int lanes);
size_t hex_attn_floats_scratch(const struct hex_attn_layout * l, const struct hex_cache * c, int lanes);
void   hex_attn_floats_item   (const run_t * r, int64_t item);

void   hex_attn_codes_shape   (struct hex_attn_layout * l, const struct hex_cache * c);
size_t hex_attn_codes_scratch (const struct hex_attn_layout * l, const struct hex_cache * c);
size_t hex_attn_codes_queries (const struct hex_attn_layout * l, const struct hex_cache * c); // query_size
void   hex_attn_codes_prepare (const run_t * r, int64_t sh); // split: codes the query rows of its items
void   hex_attn_codes_item    (const run_t * r, int64_t item);

#ifdef __cplusplus
}
#endif
