// The `meta` tensor: what the host tells HEX_ATTN and HEX_COMMIT about one ubatch. I32 [words, n_stream].
//
// Per stream: rows, ring table, bitmap. Every index is checked by the ops; -1 means none.
#pragma once

#include "../core/hex_hd.h"

#include <stddef.h>
#include <stdint.h>

#define HEX_META_ROW_WORDS 6

// One row (token) of the ubatch.
struct hex_meta_row {
    int32_t cell;       // cell of the stream that the row is stored in
    int32_t ring_slot;  // ring slot that the row takes, -1: none (it competes as a heavy hitter at once)
    int32_t n_seen;     // rows of this ubatch that can attend to it, itself included
    int32_t evict_cell; // cell that loses ring_slot to this row, -1: none
    int32_t evict_seen; // queries that could see evict_cell while it was in the ring, this ubatch included
    int32_t is_sink;    // 1: a sink; its key takes no part in the mean
};

// Ring table: ring[slot] = cell held by the slot before this ubatch, -1: free.
// Bitmap: bit c is set when cell c holds a token stored before this ubatch that is still valid.

HEX_HD size_t hex_meta_words(int64_t n_rows, int64_t n_ring, int64_t n_ctx) {
    return (size_t) (n_rows*HEX_META_ROW_WORDS + n_ring + (n_ctx + 31)/32);
}

HEX_HD const struct hex_meta_row * hex_meta_rows(const int32_t * meta) {
    return (const struct hex_meta_row *) meta;
}

HEX_HD const int32_t * hex_meta_ring(const int32_t * meta, int64_t n_rows) {
    return meta + n_rows*HEX_META_ROW_WORDS;
}

HEX_HD const uint32_t * hex_meta_bitmap(const int32_t * meta, int64_t n_rows, int64_t n_ring) {
    return (const uint32_t *) (meta + n_rows*HEX_META_ROW_WORDS + n_ring);
}

HEX_HD int hex_bit_get(const uint32_t * bits, int32_t i) {
    return (bits[i >> 5] >> (i & 31)) & 1;
}
