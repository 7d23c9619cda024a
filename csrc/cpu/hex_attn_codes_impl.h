// What the files of the driver on codes share. Internal.
#pragma once

#include "hex_attn_impl.h"

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

static inline const float * query_row(const struct item * it, int32_t i) {
    const int32_t group = it->r->l.group;
    return q_row(it->r->a, it->s, (it->row0 + i)/group, it->h0 + (it->row0 + i) % group);
}

// Of the item's tokens, the first whose first head is in the item.
static inline int32_t first_token(const struct item * it) {
    return it->token0*it->r->l.group < it->row0;
}

static inline bool is_raw(const struct item * it, const struct unit_tile * u) {
    return u->tile >= it->r->l.n_tiles;
}

static inline int32_t batch_size(const struct item * it, int32_t from) {
    return it->n_refined - from < HEX_TILE ? it->n_refined - from : HEX_TILE;
}

static inline int32_t probs_stride(const struct item * it) {
    return it->r->l.n_slots + it->r->c->n_tps;
}

// hex_attn_codes_unit.c: the tiles in the item, from logits to outputs.
void hex_codes_unit(struct item * it);

// hex_attn_codes_mass.c
// Tokens that see each of n refined cells of the unit, of those whose first head is in the item.
void hex_codes_count_seen(const struct item * it, int32_t from, int32_t n, float * n_seen);
// Split: probabilities of refined cells and of the ubatch's rows, for the merge. Those of a plain chunk's cells are there.
void hex_codes_keep_probs(const struct item * it, float * probs);
// Not split: those of the ubatch's rows, of one unit; the masses of the item.
void hex_codes_keep_raw(const struct item * it);
void hex_codes_add_mass(const struct item * it);
