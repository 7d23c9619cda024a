// The driver on codes: attention mass of slots and of the ubatch's rows.
#include "hex_attn_codes_impl.h"

void hex_codes_count_seen(const struct item * it, int32_t from, int32_t n, float * n_seen) {
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

void hex_codes_keep_probs(const struct item * it, float * probs) {
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

void hex_codes_keep_raw(const struct item * it) {
    for (int32_t t = 0; t < it->n_tiles; t++) {
        const struct unit_tile * u = &it->tiles[t];
        const int32_t raw = u->tile - it->r->l.n_tiles;
        for (int32_t i = 0; raw >= 0 && i < it->n_rows; i++) {
            memcpy(it->raw + ((size_t) raw*(size_t) it->r->l.n_rows + (size_t) i)*HEX_TILE, it->logits + (size_t) i*STRIDE + u->col,
                   sizeof(float)*(size_t) u->n);
        }
    }
}

// sum[j] += p[i][j]*f[i] over the rows; those of factor 0 may hold NaN.
static void add_rows(const float * p, const float * f, int32_t n_rows, int32_t n, float * sum) {
    for (int32_t i = 0; i < n_rows; i++, p += HEX_TILE) {
        for (int32_t j = 0; j < n && f[i] != 0; j++) {
            sum[j] += p[j]*f[i];
        }
    }
}

void hex_codes_add_mass(const struct item * it) {
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
