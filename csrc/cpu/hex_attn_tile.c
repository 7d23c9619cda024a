// Tiles of HEX_ATTN: what is visible, masks, and decoding to floats.
#include "hex_attn_impl.h"

#include "../core/hex_codec_impl.h"
#include "../core/hex_fp16.h"

int32_t hex_tile_column(const run_t * r, int32_t s, int32_t tile, int32_t j) {
    if (tile < r->l.n_tiles) {
        return tile*HEX_TILE + j;
    }
    const int32_t cell = hex_meta_rows(hex_meta(r->c, s))[(tile - r->l.n_tiles)*HEX_TILE + j].cell;
    return cell >= 0 && cell < r->c->n_kv ? cell : -1;
}

// Which elements of the tile hold something that can be read at all.
static uint64_t tile_valid(const run_t * r, int32_t s, int32_t tile, const int32_t cols[HEX_TILE]) {
    const int32_t n = tile_cells(r, tile);
    uint64_t bits = 0;
    if (tile < r->l.n_tiles) {
        const uint32_t * valid = hex_meta_bitmap(hex_meta(r->c, s), r->c->n_tps, r->c->n_ring);
        const int32_t last = (r->c->n_ctx + 31)/32 - 1;
        bits = valid[2*tile];
        bits |= 2*tile + 1 <= last ? (uint64_t) valid[2*tile + 1] << 32 : 0;
    } else {
        for (int32_t j = 0; j < n; j++) {
            bits |= (uint64_t) (cols[j] >= 0) << j;
        }
    }
    return bits & tile_full(n);
}

void hex_tile_look(const run_t * r, int32_t s, int32_t tile) {
    const int32_t n = tile_cells(r, tile);
    int32_t cols[HEX_TILE] = { tile*HEX_TILE }; // of a tile of the cache, the others follow it
    bool in_order = true; // of the ubatch's own cells, nearly always
    for (int32_t j = 0; j < n && tile >= r->l.n_tiles; j++) {
        cols[j]  = hex_tile_column(r, s, tile, j);
        in_order = in_order && cols[j] >= 0 && cols[j] == cols[0] + j;
    }
    const uint64_t valid = tile_valid(r, s, tile, cols);
    for (int32_t row = 0; row < r->c->n_tps; row++) {
        const size_t at = tile_seen_at(r, s, tile, row);
        const uint16_t * m = mask_row(r, s, row);
        uint16_t gathered[HEX_TILE];
        uint64_t hidden = 0;
        uint32_t any = 0;
        if (m && valid && in_order) {
            m += cols[0];
        } else if (m && valid) {
            for (int32_t j = 0; j < n; j++) {
                gathered[j] = cols[j] < 0 ? HEX_F16_NEG_INF : m[cols[j]];
            }
            m = gathered;
        }
        const int kind = !m || !valid ? 0 : n == HEX_TILE ? r->k->mask_kind(m) : -1; // nearly every tile is seen whole or not at all
        for (int32_t j = 0; j < n && kind < 0; j++) {
            hidden |= (uint64_t) (m[j] == HEX_F16_NEG_INF) << j;
            any    |= m[j] == HEX_F16_NEG_INF ? 0u : m[j];
        }
        tiles_seen(r)[at]   = kind == 1 ? 0 : valid & ~hidden;
        tiles_biased(r)[at] = any != 0;
    }
}

void hex_tile_mask(const run_t * r, int32_t s, int32_t tile, int32_t row, int32_t head, uint64_t seen, bool biased, float * l, int32_t step) {
    const int32_t n = tile_cells(r, tile);
    const uint16_t * mask = mask_row(r, s, row);
    const float slope = biased ? hex_attn_slope(r->a, head) : 0;
    for (int32_t j = 0; j < n; j++, l += step) {
        *l = !(seen >> j & 1) ? -INFINITY : biased ? *l + slope*hex_fp16_to_fp32(mask[hex_tile_column(r, s, tile, j)]) : *l;
    }
}

void hex_tile_load(const run_t * r, int64_t sh, int32_t tile, uint64_t want, bool is_v, const float * mean, float * x) {
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

void hex_noise_weights(const struct hex_attn * a, const float * q, float * weights, int32_t step) {
    const struct hex_cache * c = &a->cache;
    const float left = hex_has_channels(c) ? 1 - (float) c->graph.degree/HEX_BLOCK : 1; // channels that are coded
    for (int32_t b = 0; b < c->head_k/HEX_BLOCK; b++) {
        float sum = 0;
        for (int32_t i = 0; q && i < HEX_BLOCK; i++) {
            sum += q[b*HEX_BLOCK + i]*q[b*HEX_BLOCK + i];
        }
        const float w = 0.5f*c->unbias*a->scale*hex_code_noise[c->bits_k]*left*sum;
        weights[b*step] = w < 1e30f ? w : 1e30f; // infinity times the noise of a refined cell, 0, is not 0
    }
}

void hex_tile_noise(const run_t * r, int64_t sh, int32_t tile, float * noise) {
    const struct hex_cache * c = r->c;
    const int32_t s = (int32_t) (sh/c->n_head_kv), h = (int32_t) (sh % c->n_head_kv);
    const int32_t n = tile_cells(r, tile);
    const int32_t * start = tile_start_of(r, sh);
    for (int32_t b = 0; b < c->head_k/HEX_BLOCK; b++, noise += HEX_TILE) {
        for (int32_t j = 0; j < n; j++) {
            const float d = hex_block_scale(c->bits_k, hex_row_base(&c->k_base, s, h, tile*HEX_TILE + j) + (size_t) b*hex_block_size(c->bits_k));
            noise[j] = d*d;
        }
        for (int32_t e = start[tile]; e < start[tile + 1]; e++) {
            noise[entries_of(r, sh)[e].cell - tile*HEX_TILE] = 0;
        }
    }
}

float hex_attn_slope(const struct hex_attn * a, int32_t head) {
    if (a->max_bias <= 0) {
        return 1;
    }
    const int   n_log2 = 1 << (int) floorf(log2f((float) a->n_head));
    const float m0 = powf(2, -a->max_bias/(float) n_log2);
    const float m1 = powf(2, -a->max_bias/2/(float) n_log2);
    return head < n_log2 ? powf(m0, (float) (head + 1)) : powf(m1, (float) (2*(head - n_log2) + 1));
}

void hex_keep_probs(const run_t * r, int64_t sh, int32_t tile, uint64_t seen, const float * p, float * probs) {
    if (tile >= r->l.n_tiles) {
        probs += r->l.n_slots + (tile - r->l.n_tiles)*HEX_TILE;
        for (int32_t j = 0; j < tile_cells(r, tile); j++) {
            probs[j] = seen >> j & 1 ? p[j] : 0;
        }
        return;
    }
    const int32_t * start = tile_start_of(r, sh);
    for (int32_t e = start[tile]; e < start[tile + 1]; e++) {
        const int32_t j = entries_of(r, sh)[e].cell - tile*HEX_TILE;
        probs[e] = seen >> j & 1 ? p[j] : 0;
    }
}
