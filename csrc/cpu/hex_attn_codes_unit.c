// A unit of the driver on codes: logits, softmax, outputs.
#include "hex_attn_codes_impl.h"

#include "../core/hex_fp16.h"

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

static void multiply_k(const struct item * it, int32_t n, float * s, int32_t stride, bool coarse) {
    it->r->k->codes->qk(it->codes, it->scales, n, it->blocks_k, it->limbs, it->scale, it->offset, it->n_rows, s, stride, coarse);
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
            hex_codes_count_seen(it, from, n, b->n_seen);
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

void hex_codes_unit(struct item * it) {
    if (it->n_tiles > 0) {
        make_logits(it);
        soften(it);
        add_outputs(it);
    }
}
