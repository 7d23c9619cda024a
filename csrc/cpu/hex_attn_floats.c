// HEX_ATTN by way of floats: a tile is decoded once, residuals included, for all query rows of an item. Few query rows: an
// item is one token's heads of the group against a chunk of tiles. Many: one query row per SIMD lane, against all tiles.
#include "hex_attn_impl.h"

#define ROW_MODE_MAX 4 // query rows per stream, up to which "few" pays

void hex_attn_floats_shape(struct hex_attn_layout * l, const struct hex_cache * c, int lanes) {
    l->split   = c->n_tps <= ROW_MODE_MAX;
    l->n_rows  = l->split ? l->group : lanes;
    l->n_block = l->split ? c->n_tps : (c->n_tps*l->group + lanes - 1)/lanes;
    l->n_chunk = l->split ? (l->n_tiles + l->n_raw + CHUNK_TILES - 1)/CHUNK_TILES : 1;
    l->tile    = (size_t) HEX_TILE*(size_t) l->head;
}

// tile, logits, noise of a tile, its weights; then shift and q of each head, or q, output, max, sum by lane
size_t hex_attn_floats_scratch(const struct hex_attn_layout * l, const struct hex_cache * c, int lanes) {
    const size_t rows   = (size_t) l->n_rows;
    const size_t logits = rows*HEX_TILE*(size_t) (l->split ? CHUNK_TILES : l->n_tiles + l->n_raw);
    const size_t more   = l->split ? rows + 3 : (size_t) lanes*(size_t) (c->head_k + c->head_v + 2);
    const size_t noise  = (size_t) c->head_k + rows*(size_t) (c->head_k/HEX_BLOCK);
    return sizeof(float)*(l->tile + logits + noise + more) + sizeof(float *)*(l->split ? rows : 0);
}

//
// few query rows
//

static void row_item(const run_t * r, int64_t item) {
    const struct hex_attn  * a = r->a;
    const struct hex_cache * c = r->c;
    const int32_t group = r->l.group, blocks = c->head_k/HEX_BLOCK;
    const struct hex_attn_place place = place_of(r, item);
    const int32_t chunk = place.chunk, row = place.block;
    const int64_t sh    = place.sh;
    const int32_t s = (int32_t) (sh/c->n_head_kv), h0 = (int32_t) (sh % c->n_head_kv)*group;
    const int32_t tile0 = chunk*CHUNK_TILES;
    const int32_t tile1 = (int32_t) min64(tile0 + CHUNK_TILES, r->l.n_tiles + r->l.n_raw);

    float * x      = (float *) r->scratch;                 // [tile][head]
    float * logits = x + r->l.tile;                         // [group][CHUNK_TILES*HEX_TILE], visible tiles only
    float * noise  = logits + (size_t) group*CHUNK_TILES*HEX_TILE; // [blocks][HEX_TILE]
    float * weight = noise + c->head_k;                     // [group][blocks]
    float * shift  = weight + ((size_t) group*(size_t) blocks + 1)/2*2; // [group]: q . mean; even, for the pointers behind
    const float ** q = (const float **) (shift + (group + 1)/2*2);  // [group]
    const size_t stride = CHUNK_TILES*HEX_TILE;
    uint64_t visible[CHUNK_TILES];
    int32_t  at[CHUNK_TILES], n_cols = 0;

    const float * mean = mean_of(c, sh);
    for (int32_t g = 0; g < group; g++) {
        q[g] = q_row(a, s, row, h0 + g);
        hex_noise_weights(a, q[g], weight + g*blocks, 1);
        shift[g] = 0;
        if (mean) {
            r->k->row_qk(q[g], mean, &shift[g], 1, c->head_k);
        }
    }
    for (int32_t t = tile0; t < tile1; t++) {
        bool biased = false;
        const uint64_t seen = hex_tile_visible(r, s, t, row, &biased);
        visible[t - tile0] = seen;
        at[t - tile0]      = n_cols;
        if (!seen) {
            continue;
        }
        const int32_t n = tile_cells(r, t);
        const bool raw = t >= r->l.n_tiles;
        hex_tile_load(r, sh, t, seen, false, NULL, x);
        if (!raw) {
            hex_tile_noise(r, sh, t, noise);
        }
        for (int32_t g = 0; g < group; g++) {
            float * l = logits + g*stride + n_cols;
            r->k->row_qk(q[g], x, l, n, c->head_k);
            if (!raw) {
                r->k->row_bias(l, n, shift[g], weight + g*blocks, noise, blocks, HEX_TILE, 1);
            }
            r->k->scale(l, n, a->scale, a->softcap);
            if (biased || seen != tile_full(n)) {
                hex_tile_mask(r, s, t, row, h0 + g, seen, biased, l, 1);
            }
        }
        n_cols += n;
    }

    float * part = part_of(r, place.index);
    for (int32_t g = 0; g < group; g++) {
        float * l = logits + g*stride;
        const float max = r->k->row_max(l, n_cols);
        part[g*(2 + c->head_v)]     = max;
        part[g*(2 + c->head_v) + 1] = max == -INFINITY ? 0 : r->k->row_exp(l, n_cols, max);
        memset(part + g*(2 + c->head_v) + 2, 0, sizeof(float)*(size_t) c->head_v);
    }

    float * probs = a->mass ? probs_of(r, sh, row) : NULL;
    for (int32_t t = tile0; t < tile1; t++) {
        const int32_t n    = tile_cells(r, t), col = at[t - tile0];
        const uint64_t seen = visible[t - tile0];
        if (seen) {
            hex_tile_load(r, sh, t, seen, true, NULL, x);
            for (int32_t g = 0; g < group; g++) {
                r->k->row_pv(logits + g*stride + col, x, part + g*(2 + c->head_v) + 2, n, c->head_v);
            }
        }
        for (int32_t g = 0; probs && g < group; g++) {
            hex_keep_probs(r, sh, t, seen, logits + g*stride + col, probs + (int64_t) g*(r->l.n_slots + c->n_tps));
        }
    }
}

//
// many query rows: one per SIMD lane
//

static void lanes_item(const run_t * r, int64_t item) {
    const struct hex_attn  * a = r->a;
    const struct hex_cache * c = r->c;
    const int32_t lanes = r->k->lanes, group = r->l.group, blocks = c->head_k/HEX_BLOCK;
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
    float * noise  = sum + lanes;          // [blocks][HEX_TILE]
    float * weight = noise + c->head_k;    // [blocks][lanes]
    float * logits = weight + (size_t) blocks*(size_t) lanes; // [visible tiles][HEX_TILE][lanes]

    for (int32_t i = 0; i < lanes; i++) {
        const float * src = i < nr ? q_row(a, s, (r0 + i)/group, h0 + (r0 + i) % group) : NULL;
        for (int32_t d = 0; d < c->head_k; d++) {
            q[(size_t) d*lanes + i] = src ? src[d] : 0;
        }
        hex_noise_weights(a, src, weight + i, lanes);
        max[i] = a->sinks && i < nr ? a->sinks[h0 + (r0 + i) % group] : -INFINITY;
        sum[i] = 0;
    }

    const float * mean = mean_of(c, sh);
    float * l = logits;
    for (int32_t t = 0; t < n_tiles; t++) {
        const int32_t n = tile_cells(r, t);
        uint64_t any = 0, all = tile_full(n);
        bool biased = false;
        for (int32_t row = t0; row <= t1; row++) {
            const uint64_t seen = hex_tile_visible(r, s, t, row, &biased);
            any |= seen;
            all &= seen;
        }
        if (!any) {
            continue;
        }
        hex_tile_load(r, sh, t, any, false, t < r->l.n_tiles ? mean : NULL, x);
        r->k->lanes_qk(q, x, l, n, c->head_k);
        if (t < r->l.n_tiles) {
            hex_tile_noise(r, sh, t, noise);
            r->k->lanes_bias(l, n, weight, noise, blocks, HEX_TILE);
        }
        r->k->scale(l, n*lanes, a->scale, a->softcap);
        for (int32_t i = 0; i < nr && (biased || all != tile_full(n)); i++) {
            const int32_t  row  = (r0 + i)/group;
            const uint64_t seen = hex_tile_visible(r, s, t, row, &biased);
            hex_tile_mask(r, s, t, row, h0 + (r0 + i) % group, seen, biased, l + i, lanes);
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
        const int32_t n = tile_cells(r, t);
        uint64_t any = 0, seen[HEX_MAX_LANES]; // by token of the item
        bool biased = false;
        for (int32_t row = t0; row <= t1; row++) {
            seen[row - t0] = hex_tile_visible(r, s, t, row, &biased);
            any |= seen[row - t0];
        }
        if (!any) {
            continue;
        }
        if (!mass) {
            r->k->lanes_exp(l, max, sum, n);
        }
        hex_tile_load(r, sh, t, any, true, NULL, x);
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

void hex_attn_floats_item(const run_t * r, int64_t item) {
    if (r->l.split) {
        row_item(r, item);
    } else {
        lanes_item(r, item);
    }
}
