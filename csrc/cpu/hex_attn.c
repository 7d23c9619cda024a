#include "hex_attn_impl.h"

#include "../core/hex_codec.h"

static const struct hex_attn_kernels * kernels_now(void) {
#if defined(__x86_64__) || defined(_M_X64)
    switch (hex_isa_get()) {
        case HEX_ISA_AVX512: return &hex_attn_kernels_avx512;
        case HEX_ISA_AVX2:   return &hex_attn_kernels_avx2;
        case HEX_ISA_REF:    break;
    }
#elif defined(__aarch64__)
    if (hex_isa_get() == HEX_ISA_NEON) {
        return &hex_attn_kernels_neon;
    }
#endif
    return &hex_attn_kernels_generic;
}

// Base and residuals both have to be hexN.
static bool codes_serve(const struct hex_cache * c) {
    const int32_t most = HEX_BLOCK*HEX_MAX_BLOCKS;
    return !hex_has_channels(c) && (int) c->refine <= HEX_REFINE_HEX4 && c->head_k <= most && c->head_v <= most;
}

static struct hex_attn_layout make_layout(const struct hex_attn * a, int nth, int lanes, bool codes) {
    const struct hex_cache * c = &a->cache;
    struct hex_attn_layout l = {0};

    l.group    = a->n_head/c->n_head_kv;
    l.n_tiles  = (c->n_kv + HEX_TILE - 1)/HEX_TILE;
    l.n_raw    = (c->n_tps + HEX_TILE - 1)/HEX_TILE;
    l.n_slots  = c->n_ring + c->n_heavy + c->n_static;
    l.n_ranked = c->n_ring + c->n_heavy;
    l.n_mass   = l.n_ranked + c->n_tps + c->n_heavy;
    l.head     = c->head_k > c->head_v ? c->head_k : c->head_v;
    l.n_sh     = (int64_t) c->n_stream*c->n_head_kv;
    l.codes    = codes;
    if (codes) {
        hex_attn_codes_shape(&l, c);
    } else {
        hex_attn_floats_shape(&l, c, lanes);
    }
    l.n_items  = l.n_sh*l.n_block*l.n_chunk;

    size_t at = 0;
    l.entries    = work_reserve(&at, sizeof(struct hex_entry)*(size_t) (l.n_sh*l.n_slots));
    l.tile_start = work_reserve(&at, sizeof(int32_t)*(size_t) (l.n_sh*(l.n_tiles + 1)));
    const size_t views = (size_t) c->n_stream*(size_t) c->n_tps*(size_t) (l.n_tiles + l.n_raw);
    l.seen   = work_reserve(&at, sizeof(uint64_t)*views);
    l.biased = work_reserve(&at, views);
    if (l.split) {
        l.part  = work_reserve(&at, sizeof(float)*(size_t) (l.n_items*l.n_rows*(2 + c->head_v)));
        l.probs = work_reserve(&at, a->mass ? sizeof(float)*(size_t) (l.n_sh*l.n_block*(l.n_slots + c->n_tps)*l.n_rows) : 0);
        l.query_size = codes ? hex_attn_codes_queries(&l, c) : 0;
        l.queries    = work_reserve(&at, l.query_size*(size_t) (l.n_sh*l.n_block));
    } else {
        l.mass  = work_reserve(&at, a->mass ? sizeof(float)*(size_t) (l.n_items*l.n_mass) : 0);
    }
    l.thread = at;

    // scratch: a bitmap and the slots of cells, then what an item needs
    const size_t setup = sizeof(uint32_t)*(size_t) ((c->n_ctx + 31)/32) + sizeof(int32_t)*(size_t) c->n_kv;
    const size_t item  = codes ? hex_attn_codes_scratch(&l, c) : hex_attn_floats_scratch(&l, c, lanes);
    l.thread_size = ((setup > item ? setup : item) + 64 + 63) & ~(size_t) 63;
    l.total = at + l.thread_size*(size_t) nth;
    return l;
}

size_t hex_attn_work(const struct hex_attn * a, int nth) {
    // room for every driver and kernel width: the path can be forced after the graph was planned
    size_t most = 0;
    for (int path = 0; path < 3; path++) {
        const bool codes = path == 2;
        if (!codes || codes_serve(&a->cache)) {
            const size_t total = make_layout(a, nth, path == 0 ? 16 : HEX_MAX_LANES, codes).total;
            most = total > most ? total : most;
        }
    }
    return most + 64;
}

// Notes the slot of a cell that is in left, and takes it out.
static inline void take_cell(int32_t cell, int32_t slot, int32_t n_kv, uint32_t * restrict left, int32_t * restrict slot_of) {
    if ((uint32_t) cell >= (uint32_t) n_kv) {
        return;
    }
    const uint32_t word = left[cell >> 5], bit = 1u << (cell & 31);
    if (word & bit) {
        left[cell >> 5] = word ^ bit;
        slot_of[cell]   = slot;
    }
}

// The refined cells of (stream, head), those of hex_refined_entries, in the order of cells.
static void list_entries(const run_t * r, int64_t sh) {
    const struct hex_cache * c = r->c;
    const int32_t s = (int32_t) (sh/c->n_head_kv), head = (int32_t) (sh % c->n_head_kv);
    const int32_t n_words = (c->n_ctx + 31)/32, n_kv = c->n_kv;
    const uint32_t * valid = hex_meta_bitmap(hex_meta(c, s), c->n_tps, c->n_ring);
    const int32_t  * ring  = hex_meta_ring(hex_meta(c, s), c->n_tps);
    const int32_t  * heavy = hex_state(c, s, head) + hex_state_heavy_cell(c->head_k, c->n_ring);
    uint32_t * left    = (uint32_t *) r->scratch; // valid cells that no slot has taken; the first of several slots has a cell
    int32_t  * slot_of = (int32_t *) (left + n_words);
    struct hex_entry * entries = entries_of(r, sh);
    int32_t * start = tile_start_of(r, sh);

    memcpy(left, valid, sizeof(uint32_t)*(size_t) n_words);
    int32_t slot = 0;
    for (int32_t i = 0; i < c->n_ring; i++) {
        take_cell(ring[i], slot++, n_kv, left, slot_of);
    }
    for (int32_t i = 0; i < c->n_heavy; i++) {
        take_cell(heavy[i] - 1, slot++, n_kv, left, slot_of);
    }
    for (int32_t i = 0; i < c->n_static; i++) {
        take_cell(hex_graph_cell(&c->graph, c->pair0 + head, i), slot++, n_kv, left, slot_of);
    }
    int32_t n = 0;
    for (int32_t word = 0; word < (n_kv + 31)/32; word++) {
        if (word % 2 == 0) {
            start[word/2] = n;
        }
        for (uint32_t taken = word < n_words ? valid[word] ^ left[word] : 0; taken; taken &= taken - 1) {
            const int32_t cell = word*32 + __builtin_ctz(taken);
            entries[n++] = (struct hex_entry) { slot_of[cell], cell };
        }
    }
    start[r->l.n_tiles] = n;
}

// Row of the block: its output from the parts of all chunks, each of which keeps its factor in part[1].
static void merge_row(const run_t * r, int64_t sh, int32_t block, int32_t row) {
    const struct hex_attn  * a = r->a;
    const struct hex_cache * c = r->c;
    const int32_t group = r->l.group, index = block*r->l.n_rows + row;
    const int32_t s = (int32_t) (sh/c->n_head_kv), head = (int32_t) (sh % c->n_head_kv)*group + index % group;
    const size_t  next = (size_t) r->l.n_rows*(size_t) (2 + c->head_v);
    float * part = part_of(r, (sh*r->l.n_block + block)*r->l.n_chunk) + (size_t) row*(size_t) (2 + c->head_v);

    float max = a->sinks ? a->sinks[head] : -INFINITY, sum = 0;
    for (int32_t k = 0; k < r->l.n_chunk; k++) {
        max = part[k*next] > max ? part[k*next] : max;
    }
    for (int32_t k = 0; k < r->l.n_chunk; k++) {
        sum += part[k*next] == -INFINITY ? 0 : part[k*next + 1]*expf(part[k*next] - max);
    }
    sum += a->sinks ? expf(a->sinks[head] - max) : 0;

    float * out = out_row(a, s, index/group, head);
    memset(out, 0, sizeof(float)*(size_t) c->head_v);
    for (int32_t k = 0; k < r->l.n_chunk; k++) {
        const float f = part[k*next] == -INFINITY ? 0 : expf(part[k*next] - max)/sum;
        part[k*next + 1] = f;
        for (int32_t d = 0; d < c->head_v && f != 0; d++) {
            out[d] += f*part[k*next + 2 + d];
        }
    }
}

// Adds up n <= HEX_TILE columns of probs, times the factors of their chunk.
static void add_probs(const run_t * r, const float * probs, const float * part, int32_t n_rows, int32_t n, float * m) {
    const size_t width = (size_t) (r->l.n_slots + r->c->n_tps), part_width = (size_t) (2 + r->c->head_v);
    memset(m, 0, sizeof(float)*HEX_TILE);
    for (int32_t row = 0; row < n_rows; row++, probs += width) {
        const float f = part[(size_t) row*part_width + 1];
        for (int32_t e = 0; e < n && f > 0; e++) { // not of a row that is NaN
            m[e] += probs[e]*f;
        }
    }
}

// Tokens token0 to token1 that see an element of a tile of the cache.
static int32_t count_seen(const run_t * r, int32_t s, int32_t tile, int32_t j, int32_t token0, int32_t token1) {
    int32_t n = 0;
    for (int32_t t = token0; t < token1; t++) {
        n += (int32_t) (tiles_seen(r)[tile_seen_at(r, s, tile, t)] >> j & 1);
    }
    return n;
}

// Do the tokens see every cell of the chunk?
static bool chunk_is_seen(const run_t * r, int32_t s, int32_t t0, int32_t t1, int32_t token0, int32_t token1) {
    bool all = true;
    for (int32_t t = token0; t < token1; t++) {
        for (int32_t tile = t0; tile < t1; tile++) {
            all = all && tiles_seen(r)[tile_seen_at(r, s, tile, t)] == tile_full(tile_cells(r, tile));
        }
    }
    return all;
}

// Adds m of n entries to mass, and n_seen to seen of their heavy slots; both by slot. Inlined, its loop is short of registers.
__attribute__((noinline))
static void add_to_slots(const struct hex_entry * restrict entries, int32_t n, int32_t n_ring, int32_t n_ranked, const float * restrict m, float n_seen,
                         float * restrict mass, float * restrict seen) {
    for (int32_t e = 0; e < n; e++) {
        const int32_t slot = entries[e].slot;
        if (slot < n_ranked) {
            mass[slot] += m[e];
            if (slot >= n_ring) {
                seen[slot] += n_seen;
            }
        }
    }
}

// Adds one block's probabilities, times their chunk's factor, to the mass of the slots and of the ubatch's rows; and the
// tokens that see a heavy slot, those whose first head is in the block.
static void merge_probs(const run_t * r, int64_t sh, int32_t block, int32_t n_rows, float * mass) {
    const struct hex_cache * c = r->c;
    const struct hex_entry * entries = entries_of(r, sh);
    const int32_t * start = tile_start_of(r, sh);
    const float * probs = probs_of(r, sh, block);
    const float * parts = part_of(r, (sh*r->l.n_block + block)*r->l.n_chunk);
    const size_t  chunk = (size_t) r->l.n_rows*(size_t) (2 + c->head_v); // floats of a chunk's part
    const int32_t s = (int32_t) (sh/c->n_head_kv), row0 = block*r->l.n_rows;
    const int32_t token0 = (row0 + r->l.group - 1)/r->l.group, token1 = (row0 + n_rows - 1)/r->l.group + 1;
    float * seen = mass + r->l.n_ranked + c->n_tps - c->n_ring; // by slot
    float m[HEX_TILE];

    for (int32_t t0 = 0; t0 < r->l.n_tiles; t0 += CHUNK_TILES) {
        const int32_t t1 = t0 + CHUNK_TILES < r->l.n_tiles ? t0 + CHUNK_TILES : r->l.n_tiles, e1 = start[t1];
        const bool all = chunk_is_seen(r, s, t0, t1, token0, token1);
        for (int32_t e0 = start[t0]; e0 < e1; e0 += HEX_TILE) {
            const int32_t n = e1 - e0 < HEX_TILE ? e1 - e0 : HEX_TILE;
            add_probs(r, probs + e0, parts + (size_t) (t0/CHUNK_TILES)*chunk, n_rows, n, m);
            add_to_slots(entries + e0, n, c->n_ring, r->l.n_ranked, m, all ? (float) (token1 - token0) : 0, mass, seen);
            for (int32_t e = e0; e < e0 + n && !all; e++) {
                if (entries[e].slot >= c->n_ring && entries[e].slot < r->l.n_ranked) {
                    seen[entries[e].slot] += (float) count_seen(r, s, entries[e].cell/HEX_TILE, entries[e].cell % HEX_TILE, token0, token1);
                }
            }
        }
    }
    for (int32_t j0 = 0; j0 < c->n_tps; j0 += HEX_TILE) {
        const int32_t n = c->n_tps - j0 < HEX_TILE ? c->n_tps - j0 : HEX_TILE;
        const int32_t t = r->l.n_tiles + j0/HEX_TILE;
        add_probs(r, probs + r->l.n_slots + j0, parts + (size_t) (t/CHUNK_TILES)*chunk, n_rows, n, m);
        for (int32_t j = 0; j < n; j++) {
            mass[r->l.n_ranked + j0 + j] += m[j];
        }
    }
}

// Split items of one (stream, head): outputs, then mass.
static void merge_parts(const run_t * r, int64_t sh) {
    float * mass = r->a->mass ? r->a->mass + sh*r->l.n_mass : NULL;
    if (mass) {
        memset(mass, 0, sizeof(float)*(size_t) r->l.n_mass);
    }
    for (int32_t b = 0; b < r->l.n_block; b++) {
        const int32_t n_rows = (int32_t) min64(r->l.n_rows, (int64_t) r->c->n_tps*r->l.group - (int64_t) b*r->l.n_rows);
        for (int32_t row = 0; row < n_rows; row++) {
            merge_row(r, sh, b, row);
        }
        if (mass) {
            merge_probs(r, sh, b, n_rows, mass);
        }
    }
}

// Items that saw the whole cache have only their masses to be added up.
static void merge_mass(const run_t * r, int64_t sh) {
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
    run_t r = { .a = a, .c = &a->cache, .k = kernels_now(), .coarse = hex_coarse_get() };
    r.l    = make_layout(a, nth, r.k->lanes, r.k->codes && codes_serve(&a->cache));
    r.work = (char *) (((uintptr_t) work + 63) & ~(uintptr_t) 63);
    r.scratch = r.work + r.l.thread + r.l.thread_size*(size_t) ith;

    for (int64_t sh = ith; sh < r.l.n_sh; sh += nth) {
        list_entries(&r, sh);
    }
    for (int64_t i = ith; i < r.l.n_sh && r.l.codes && r.l.split; i += nth) {
        hex_attn_codes_prepare(&r, r.l.n_sh - 1 - i); // from the end: a thread with one list more has a head less here
    }
    const int64_t n_tiles = r.l.n_tiles + r.l.n_raw, n_looks = n_tiles*a->cache.n_stream;
    for (int64_t i = n_looks*ith/nth; i < n_looks*(ith + 1)/nth; i++) { // in a row, since their results lie side by side
        hex_tile_look(&r, (int32_t) (i/n_tiles), (int32_t) (i % n_tiles));
    }
    barrier(barrier_ctx);
    // The heads of a chunk of the cache lie side by side: one thread takes them all where there are chunks enough.
    r.chunk_alone = r.l.split && (int64_t) r.l.n_chunk*a->cache.n_stream >= 4*nth;
    const int64_t run = r.chunk_alone ? a->cache.n_head_kv : 1;
    for (int64_t i = 0; i < r.l.n_items; i++) {
        if (i/run % nth != ith) {
            continue;
        }
        if (r.l.codes) {
            hex_attn_codes_item(&r, i);
        } else {
            hex_attn_floats_item(&r, i);
        }
    }
    if (!r.l.split && !a->mass) {
        return;
    }
    barrier(barrier_ctx);
    for (int64_t sh = ith; sh < r.l.n_sh; sh += nth) {
        if (r.l.split) {
            merge_parts(&r, sh);
        } else {
            merge_mass(&r, sh);
        }
    }
}
