// HEX_COMMIT. Two kernels, with the two phases of csrc/cpu/hex_commit.c:
//
//   place    a block per (stream, KV head): which rows are stored where, means and the recoding at the freeze, scores,
//            competition for heavy slots
//   encode   a block of two warps per (stream, KV head, row, 64 samples of K or V): the residual that moves from the row's ring
//            slot to a heavy slot, base code, residual. The two warps search at the two scales that fine codes are tried at.
//
// What the CPU does in a loop over rows or slots, "the first that names a cell has it", is an atomic minimum here: its
// result does not depend on the order of threads.
#include "hex_commit.cuh"
#include "hex_codec.cuh"

#include "../core/hex_score.h"

#include <limits.h>

#define PLACE_THREADS 512
#define PLACE_BATCH   4    // slots of a thread whose loads are under way together: each is a chain of three
#define ROW_DROPPED   (-2) // row_ring of a row that is not stored
#define LEVELS_MAX    6    // 32^6 heavy slots

// Work of one (stream, KV head), in words.
struct place_work {
    int32_t * owner;     // [n_ctx] of the cells that are named: -(row + 1), ring slot, or n_ring + heavy slot
    int32_t * row_slot;  // [n_tps] heavy slot of the row; of a row with a ring slot: of the token that leaves that one; -1: none
    int32_t * row_ring;  // [n_tps] ring slot of the row, -1: none
    int32_t * ring_row;  // [n_ring] row that takes the slot
    int32_t * ring_held; // [n_ring] 1: the slot held a token before
    int32_t * slot_row;  // [n_heavy] the row that has it as row_slot, -1: none
    float   * weakest;   // tree over the heavy scores: the least of each 32, then of each 32 of those, ...
};

static __host__ __device__ size_t place_tree_words(int32_t n_heavy) {
    size_t n = 0;
    for (int32_t level = n_heavy; level > 1;) {
        level = (level + HEX_WARP - 1)/HEX_WARP;
        n += (size_t) level;
    }
    return n + 1;
}

static __host__ __device__ size_t place_words(const hex_cache & c) {
    return (size_t) c.n_ctx + 2*(size_t) c.n_tps + 2*(size_t) c.n_ring + (size_t) c.n_heavy + place_tree_words(c.n_heavy);
}

static __device__ place_work place_work_of(const hex_cache & c, int32_t * work, int32_t sh) {
    place_work w;
    w.owner     = work + (size_t) sh*place_words(c);
    w.row_slot  = w.owner     + c.n_ctx;
    w.row_ring  = w.row_slot  + c.n_tps;
    w.ring_row  = w.row_ring  + c.n_tps;
    w.ring_held = w.ring_row  + c.n_ring;
    w.slot_row  = w.ring_held + c.n_ring;
    w.weakest   = (float *) (w.slot_row + c.n_heavy);
    return w;
}

static __device__ bool cell_ok(const hex_cache & c, int32_t cell) {
    return cell >= 0 && cell < c.n_kv;
}

// The cell of a word of the heavy slots' table, -1: none.
static __device__ int32_t heavy_cell(const hex_cache & c, int32_t word) {
    return word > 0 && word <= c.n_ctx ? word - 1 : -1;
}

static __device__ int32_t static_slot(const hex_cache & c, int32_t head, int32_t cell) {
    if (c.n_static == 0) {
        return -1;
    }
    const int32_t slot = hex_graph_slot_impl(&c.graph, c.pair0 + head, cell);
    return slot >= 0 && slot < c.n_static ? c.n_ring + c.n_heavy + slot : -1;
}

static __device__ size_t residual_size(int32_t refine, int32_t n) {
    return refine == HEX_REFINE_F16 ? 2*(size_t) n : refine == HEX_REFINE_Q8_0 ? 34*(size_t) (n/32) :
           refine == HEX_REFINE_NONE ? 0 : hex_block_size(refine)*(size_t) (n/HEX_BLOCK);
}

//
// one block of 64 samples
//

// The better of two attempts; the first stays unless the second holds more.
static __device__ hex_code better(const hex_code & a, const hex_code & b) {
    return b.energy > a.energy ? b : a;
}

// Codes the lane's samples x to `block`; y: what they decode to. With PAIR the two warps of the block take an attempt
// each, `meet` holds a code for each thread of both, and both return the same; else the warp makes all attempts itself.
// unbias: as hex_unbias, 0 for all but V.
template<int K, bool PAIR>
static __device__ void encode_base(const float x[2], float unbias, char * block, int32_t * scratch, hex_code * meet, float y[2]) {
    const int   warp  = PAIR ? threadIdx.x/HEX_WARP : 0;
    const float sigma = hex_measure(x);
    hex_code code = { 0.0f, 0, { 0, 0 } };
    if (sigma > 0.0f) {
        if (!PAIR || warp < hex_tries(K)) {
            code = hex_attempt<K>(x, sigma, warp, scratch);
        }
        if (!PAIR && hex_tries(K) > 1) {
            code = better(code, hex_attempt<K>(x, sigma, 1, scratch));
        }
    }
    if (PAIR && hex_tries(K) > 1) {
        meet[threadIdx.x] = code;
        __syncthreads();
        code = better(meet[threadIdx.x % HEX_WARP], meet[threadIdx.x % HEX_WARP + HEX_WARP]);
        __syncthreads();
    } else if (PAIR) {
        meet[threadIdx.x] = code;
        __syncthreads();
        code = meet[threadIdx.x % HEX_WARP];
        __syncthreads();
    }
    if (unbias > 0.0f) {
        code.word = hex_unbiased_word<K>(code, x, unbias);
    }
    if (warp == 0) {
        hex_put_block<K>(code, block);
    }
    hex_decode_own<K>(code, y);
}

template<bool PAIR>
static __device__ void encode_codes(int bits, const float x[2], float unbias, char * block, int32_t * scratch, hex_code * meet, float y[2]) {
    switch (bits) {
        case 1: encode_base<1, PAIR>(x, unbias, block, scratch, meet, y); break;
        case 2: encode_base<2, PAIR>(x, unbias, block, scratch, meet, y); break;
        case 3: encode_base<3, PAIR>(x, unbias, block, scratch, meet, y); break;
        case 4: encode_base<4, PAIR>(x, unbias, block, scratch, meet, y); break;
    }
}

// What a residual can hold: one infinite value in a row would spoil every attention that reads it.
static __device__ float storable(float x, float most) {
    return !isfinite(x) ? 0.0f : x > most ? most : x < -most ? -most : x;
}

static __device__ void put_u16(char * p, uint16_t v) {
    p[0] = (char) v;
    p[1] = (char) (v >> 8);
}

static __device__ uint16_t get_u16(const char * p) {
    return (uint16_t) ((uint8_t) p[0] | (uint8_t) p[1] << 8);
}

template<bool PAIR>
static __device__ void encode_residual(int32_t refine, const float z[2], char * to, int32_t * scratch, hex_code * meet) {
    const int  lane  = threadIdx.x % HEX_WARP;
    const bool first = !PAIR || threadIdx.x < HEX_WARP;
    if (refine == HEX_REFINE_F16) {
        for (int j = 0; j < 2 && first; j++) {
            put_u16(to + 2*(lane + j*HEX_WARP), hex_fp32_to_fp16(storable(z[j], 65504.0f)));
        }
    } else if (refine == HEX_REFINE_Q8_0) {
        for (int j = 0; j < 2 && first; j++, to += 34) {
            const float amax = hex_warp_max(fabsf(storable(z[j], 127*65504.0f)));
            const float d    = amax/127;
            const float id   = d > 0 ? 1/d : 0;
            to[2 + lane] = (char) (int8_t) roundf(storable(z[j], amax)*id);
            if (lane == 0) {
                put_u16(to, hex_fp32_to_fp16(d));
            }
        }
    } else if (refine != HEX_REFINE_NONE) {
        float unused[2];
        encode_codes<PAIR>(refine, z, 0.0f, to, scratch, meet, unused);
    }
}

// Samples 64*b + lane and + 32 of a stored row.
static __device__ void decode_codes(int bits, const char * block, float y[2]) {
    const float scale = hex_block_scale(bits, block);
    for (int j = 0; j < 2; j++) {
        const int at = (threadIdx.x % HEX_WARP + j*HEX_WARP)*bits;
        const uint32_t w = (uint32_t) get_u16(block + at/8) >> at % 8 & 255;
        y[j] = scale*(float) hex_value(bits, w);
    }
}

static __device__ void add_residual(int32_t refine, const char * from, float y[2]) {
    const int lane = threadIdx.x % HEX_WARP;
    float z[2] = { 0.0f, 0.0f };
    for (int j = 0; j < 2; j++) {
        if (refine == HEX_REFINE_F16) {
            z[j] = hex_fp16_to_fp32(get_u16(from + 2*(lane + j*HEX_WARP)));
        } else if (refine == HEX_REFINE_Q8_0) {
            z[j] = hex_fp16_to_fp32(get_u16(from + 34*j))*(float) (int8_t) from[34*j + 2 + lane];
        }
    }
    if (refine >= HEX_REFINE_HEX1 && refine <= HEX_REFINE_HEX4) {
        decode_codes(refine, from, z);
    }
    for (int j = 0; j < 2; j++) {
        y[j] += z[j];
    }
}

//
// place
//

static __device__ void copy_bytes(char * dst, const char * src, size_t n, int i0, int step) {
    for (size_t i = (size_t) i0; i < n; i += (size_t) step) {
        dst[i] = src[i];
    }
}

// Codes every stored K row again, now centred; a warp per cell.
static __device__ void recode(const hex_cache & c, int32_t s, int32_t h, const float * mean, int32_t * shared) {
    const int32_t  * meta  = hex_meta(&c, s);
    const uint32_t * valid = hex_meta_bitmap(meta, c.n_tps, c.n_ring);
    const int32_t  * ring  = hex_meta_ring(meta, c.n_tps);
    const int32_t  * heavy = hex_state(&c, s, h) + hex_state_heavy_cell(c.head_k, c.n_ring);
    const int lane = threadIdx.x % HEX_WARP, warp = threadIdx.x/HEX_WARP;
    int32_t * scratch = shared + warp*HEX_SEARCH_WORDS;
    const size_t part = residual_size(c.refine, HEX_BLOCK);

    for (int32_t cell = warp; cell < c.n_kv; cell += PLACE_THREADS/HEX_WARP) {
        if (!hex_bit_get(valid, cell)) {
            continue;
        }
        const int32_t fixed = static_slot(c, h, cell);
        int32_t slot = fixed;
        for (int32_t i0 = 0; slot < 0 && i0 < c.n_ring + c.n_heavy; i0 += HEX_WARP) { // the first slot that names it
            const int32_t  i    = i0 + lane;
            const bool     here = i < c.n_ring ? ring[i] == cell : i < c.n_ring + c.n_heavy && heavy[i - c.n_ring] == cell + 1;
            const uint32_t some = __ballot_sync(HEX_ALL, here);
            slot = some != 0 ? i0 + __ffs((int) some) - 1 : -1;
        }
        char * base     = hex_row_base(&c.k_base, s, h, cell);
        char * residual = slot >= 0 ? hex_slot(&c, s, h, slot) : NULL;
        for (int32_t b = 0; b < c.head_k/HEX_BLOCK; b++, base += hex_block_size(c.bits_k)) {
            float x[2], y[2];
            decode_codes(c.bits_k, base, x);
            if (residual) {
                add_residual(c.refine, residual + b*part, x);
            }
            for (int j = 0; j < 2; j++) {
                x[j] -= mean[b*HEX_BLOCK + lane + j*HEX_WARP];
            }
            __syncwarp(); // every lane has read the block
            encode_codes<false>(c.bits_k, x, 0.0f, base, scratch, NULL, y);
            if (residual) {
                for (int j = 0; j < 2; j++) {
                    y[j] = x[j] - y[j];
                }
                encode_residual<false>(c.refine, y, residual + b*part, scratch, NULL);
            }
        }
        __syncwarp();
        // a backbone cell can hold a ring slot as well: both read the same residual
        for (int32_t i = 0; fixed >= 0 && i < c.n_ring; i++) {
            if (ring[i] == cell) {
                copy_bytes(hex_slot(&c, s, h, i), residual, residual_size(c.refine, c.head_k), lane, HEX_WARP);
            }
        }
    }
}

// Which rows are stored, which of them have a ring slot; and, with heavy slots, which ring and heavy slots hold a token.
static __device__ void place_rows(const hex_cache & c, const place_work & w, int32_t s, int32_t h) {
    const int32_t             * meta  = hex_meta(&c, s);
    const struct hex_meta_row * rows  = hex_meta_rows(meta);
    const int32_t             * table = hex_meta_ring(meta, c.n_tps);
    const uint32_t            * valid = hex_meta_bitmap(meta, c.n_tps, c.n_ring);
    const int32_t             * heavy = hex_state(&c, s, h) + hex_state_heavy_cell(c.head_k, c.n_ring);
    const int32_t n_named = c.n_tps + (c.n_heavy > 0 ? c.n_ring + c.n_heavy : 0);

    for (int pass = 0; pass < 2; pass++) { // only the owners of cells that are named are ever set
        for (int32_t i0 = threadIdx.x; i0 < n_named; i0 += PLACE_BATCH*PLACE_THREADS) {
            int32_t cell[PLACE_BATCH];
            bool    here[PLACE_BATCH];
#pragma unroll
            for (int k = 0; k < PLACE_BATCH; k++) { // loads have no conditions, or each would wait for the one before
                const int32_t i = i0 + k*PLACE_THREADS < n_named ? i0 + k*PLACE_THREADS : i0, slot = i - c.n_tps;
                cell[k] = *(slot < 0 ? &rows[i].cell : slot < c.n_ring ? &table[slot] : &heavy[slot - c.n_ring]);
            }
#pragma unroll
            for (int k = 0; k < PLACE_BATCH; k++) {
                const int32_t i = i0 + k*PLACE_THREADS, slot = i - c.n_tps;
                cell[k] = slot >= c.n_ring ? heavy_cell(c, cell[k]) : cell_ok(c, cell[k]) ? cell[k] : -1;
                here[k] = hex_bit_get(valid, cell[k] >= 0 ? cell[k] : 0) || slot < 0;
                cell[k] = i < n_named ? cell[k] : -1;
            }
#pragma unroll
            for (int k = 0; k < PLACE_BATCH; k++) {
                const int32_t i = i0 + k*PLACE_THREADS, slot = i - c.n_tps;
                if (cell[k] < 0 || !here[k]) {
                    continue;
                }
                if (pass == 0) {
                    w.owner[cell[k]] = INT_MAX;
                } else {
                    atomicMin(&w.owner[cell[k]], slot < 0 ? -(i + 1) : slot); // of rows the last one
                }
            }
        }
        for (int32_t i = threadIdx.x; pass == 0 && i < c.n_ring; i += PLACE_THREADS) {
            w.ring_row[i] = -1;
        }
        __syncthreads();
    }
    for (int pass = 0; pass < 2; pass++) {
        for (int32_t i = threadIdx.x; i < c.n_tps; i += PLACE_THREADS) {
            const int32_t cell = rows[i].cell, slot = rows[i].ring_slot;
            const bool is_stored = cell_ok(c, cell) && w.owner[cell] == -(i + 1);
            const bool in_ring   = is_stored && slot >= 0 && slot < c.n_ring;
            if (pass == 0 && in_ring) {
                atomicMax(&w.ring_row[slot], i);
            } else if (pass == 1) {
                w.row_ring[i] = !is_stored ? ROW_DROPPED : in_ring && w.ring_row[slot] == i ? slot : -1;
                w.row_slot[i] = -1;
            }
        }
        __syncthreads();
    }
}

// Sums rows until n_mean of them are in, then freezes their mean.
static __device__ void update_mean(const hex_cache & c, const place_work & w, int32_t s, int32_t h, int32_t * shared) {
    int32_t * state = hex_state(&c, s, h);
    if (c.n_mean == 0 || state[HEX_STATE_FROZEN]) {
        return;
    }
    const struct hex_meta_row * rows = hex_meta_rows(hex_meta(&c, s));
    float * mean = (float *) state + HEX_STATE_MEAN;

    int32_t n_rows = state[HEX_STATE_ROWS], end = 0; // every thread counts
    for (; end < c.n_tps && n_rows < c.n_mean; end++) {
        n_rows += w.row_ring[end] != ROW_DROPPED && !rows[end].is_sink;
    }
    const bool freezes = n_rows >= c.n_mean;
    for (int32_t d = threadIdx.x; d < c.head_k; d += PLACE_THREADS) {
        float m = mean[d];
        for (int32_t i = 0; i < end; i++) {
            if (w.row_ring[i] != ROW_DROPPED && !rows[i].is_sink) {
                m += hex_row_cur(&c.k_cur, h, (int64_t) s*c.n_tps + i)[d];
            }
        }
        mean[d] = freezes ? hex_finite_or_0(m/(float) c.n_mean) : m;
    }
    __syncthreads();
    if (freezes) {
        recode(c, s, h, mean, shared);
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        state[HEX_STATE_ROWS] = n_rows;
        state[HEX_STATE_FROZEN] |= freezes;
    }
}

// Scores of ring and heavy slots after the ubatch; heavy slots whose token is gone are emptied.
static __device__ void update_scores(const hex_cache & c, const place_work & w, const float * mass, int32_t s, int32_t h) {
    const int32_t  * meta  = hex_meta(&c, s);
    const int32_t  * table = hex_meta_ring(meta, c.n_tps);
    const uint32_t * valid = hex_meta_bitmap(meta, c.n_tps, c.n_ring);
    int32_t * state = hex_state(&c, s, h);
    float   * ring  = (float *) state + hex_state_ring_score(c.head_k);
    int32_t * cells = state + hex_state_heavy_cell(c.head_k, c.n_ring);
    float   * score = (float *) state + hex_state_heavy_score(c.head_k, c.n_ring, c.n_heavy);
    const float * n_seen = mass + c.n_ring + c.n_heavy + c.n_tps;

    for (int32_t i = threadIdx.x; i < c.n_ring; i += PLACE_THREADS) {
        ring[i] = hex_finite_or_0(ring[i] + mass[i]);
        w.ring_held[i] = cell_ok(c, table[i]) && hex_bit_get(valid, table[i]) && w.owner[table[i]] == i;
    }
    for (int32_t i0 = threadIdx.x; i0 < c.n_heavy; i0 += PLACE_BATCH*PLACE_THREADS) {
        int32_t cell[PLACE_BATCH];
        bool    held[PLACE_BATCH];
        float   seen[PLACE_BATCH], old[PLACE_BATCH], more[PLACE_BATCH];
#pragma unroll
        for (int k = 0; k < PLACE_BATCH; k++) {
            const int32_t i = i0 + k*PLACE_THREADS < c.n_heavy ? i0 + k*PLACE_THREADS : i0; // as in place_rows
            cell[k] = heavy_cell(c, cells[i]);
            seen[k] = n_seen[i];
            old[k]  = score[i];
            more[k] = mass[c.n_ring + i];
        }
#pragma unroll
        for (int k = 0; k < PLACE_BATCH; k++) {
            const int32_t at   = cell[k] >= 0 ? cell[k] : 0, owner = w.owner[at];
            const bool    here = hex_bit_get(valid, at);
            held[k] = cell[k] >= 0 && here && owner == c.n_ring + i0 + k*PLACE_THREADS;
        }
#pragma unroll
        for (int k = 0; k < PLACE_BATCH; k++) {
            const int32_t i = i0 + k*PLACE_THREADS;
            if (i >= c.n_heavy) {
                break;
            }
            if (!held[k]) {
                cells[i] = 0;     // empty, or the token is gone
                score[i] = -1.0f; // weaker than any token
            } else if (seen[k] > 0) {
                score[i] = hex_score_update(old[k], more[k], seen[k], hex_score_keep(seen[k], c.half_life));
            } else {
                score[i] = hex_finite_or_0(old[k]);
            }
            w.slot_row[i] = -1;
        }
    }
}

// The heavy scores and the least of each 32 of them, level by level. A warp finds the weakest slot in one step per level.
struct weakest_tree {
    float * level[LEVELS_MAX + 1]; // [0]: the scores
    int32_t n[LEVELS_MAX + 1];
    int     n_levels;              // above the scores
};

static __device__ weakest_tree make_tree(float * score, float * more, int32_t n) {
    weakest_tree t;
    t.level[0] = score;
    t.n[0]     = n;
    t.n_levels = 0;
    while (t.n[t.n_levels] > 1 && t.n_levels < LEVELS_MAX) {
        const int32_t up = (t.n[t.n_levels] + HEX_WARP - 1)/HEX_WARP;
        t.n_levels++;
        t.level[t.n_levels] = more;
        t.n[t.n_levels]     = up;
        more += up;
    }
    return t;
}

static __device__ float least_in_warp(float x) {
    for (int j = HEX_WARP/2; j > 0; j /= 2) {
        x = fminf(x, __shfl_xor_sync(HEX_ALL, x, j));
    }
    return x;
}

// The least of the 32 values from i0 on, and the first that has it.
static __device__ float least_of(const float * x, int32_t n, int32_t i0, int32_t * at) {
    const int32_t i = i0 + threadIdx.x % HEX_WARP;
    const float   v = i < n ? x[i] : INFINITY;
    const float   m = least_in_warp(v);
    *at = i0 + __ffs((int) __ballot_sync(HEX_ALL, i < n && v == m)) - 1;
    return m;
}

// The levels above the scores; the whole block calls it.
static __device__ void fill_tree(const weakest_tree & t) {
    for (int l = 1; l <= t.n_levels; l++) {
        for (int32_t i0 = threadIdx.x/HEX_WARP*PLACE_BATCH; i0 < t.n[l]; i0 += PLACE_BATCH*PLACE_THREADS/HEX_WARP) {
            float x[PLACE_BATCH];
#pragma unroll
            for (int k = 0; k < PLACE_BATCH; k++) {
                const int32_t i = (i0 + k)*HEX_WARP + threadIdx.x % HEX_WARP;
                x[k] = i < t.n[l - 1] ? t.level[l - 1][i] : INFINITY;
            }
#pragma unroll
            for (int k = 0; k < PLACE_BATCH; k++) {
                const float least = least_in_warp(x[k]);
                if (threadIdx.x % HEX_WARP == 0 && i0 + k < t.n[l]) {
                    t.level[l][i0 + k] = least;
                }
            }
        }
        __syncthreads();
    }
}

static __device__ int32_t find_weakest(const weakest_tree & t) {
    int32_t at = 0;
    for (int l = t.n_levels - 1; l >= 0; l--) {
        least_of(t.level[l], t.n[l], at*HEX_WARP, &at);
    }
    return at;
}

static __device__ void set_score(const weakest_tree & t, int32_t slot, float x) {
    int32_t at = slot, unused;
    for (int l = 0; l < t.n_levels; l++) {
        if (threadIdx.x % HEX_WARP == 0) {
            t.level[l][at] = x;
        }
        __syncwarp();
        at /= HEX_WARP;
        x = least_of(t.level[l], t.n[l], at*HEX_WARP, &unused);
    }
    if (threadIdx.x % HEX_WARP == 0) {
        t.level[t.n_levels][at] = x;
    }
    __syncwarp();
}

// One warp: the tokens compete one after another, as on the CPU.
static __device__ void compete_all(const hex_cache & c, const place_work & w, const float * mass, int32_t s, int32_t h, const weakest_tree & t) {
    const int32_t             * meta  = hex_meta(&c, s);
    const struct hex_meta_row * rows  = hex_meta_rows(meta);
    const int32_t             * table = hex_meta_ring(meta, c.n_tps);
    const float               * row_mass = mass + c.n_ring + c.n_heavy;
    int32_t * state = hex_state(&c, s, h);
    float   * ring  = (float *) state + hex_state_ring_score(c.head_k);
    int32_t * cells = state + hex_state_heavy_cell(c.head_k, c.n_ring);
    const int lane = threadIdx.x % HEX_WARP;
    float least = t.level[t.n_levels][0];

    for (int late = 0; late < 2; late++) { // tokens that leave the ring, then rows that the ring has no room for
        for (int32_t i0 = 0; i0 < c.n_tps; i0 += HEX_WARP) {
            const int32_t i = i0 + lane, slot_ring = i < c.n_tps ? w.row_ring[i] : ROW_DROPPED;
            int32_t cell  = -1;
            float   score = 0;
            if (!late && slot_ring >= 0 && w.ring_held[slot_ring] && table[slot_ring] == rows[i].evict_cell) {
                cell  = rows[i].evict_cell;
                score = ring[slot_ring]/(float) (rows[i].evict_seen > 0 ? rows[i].evict_seen : 1);
            } else if (late && slot_ring == -1) {
                cell  = rows[i].cell;
                score = hex_finite_or_0(row_mass[i])/(float) (rows[i].n_seen > 0 ? rows[i].n_seen : 1);
            }
            if (cell >= 0 && static_slot(c, h, cell) >= 0) {
                cell = -1;
            }
            for (uint32_t todo = __ballot_sync(HEX_ALL, cell >= 0 && score > least); todo != 0;) { // least only grows
                const int   j  = __ffs((int) todo) - 1;
                const float sj = __shfl_sync(HEX_ALL, score, j);
                const int32_t cj = __shfl_sync(HEX_ALL, cell, j);
                todo &= todo - 1;
                if (!(sj > least)) {
                    continue;
                }
                const int32_t slot = find_weakest(t);
                set_score(t, slot, sj);
                least = t.level[t.n_levels][0];
                if (lane == 0) {
                    cells[slot] = cj + 1;
                    if (w.slot_row[slot] >= 0) {
                        w.row_slot[w.slot_row[slot]] = -1;
                    }
                    w.slot_row[slot]   = i0 + j;
                    w.row_slot[i0 + j] = slot;
                }
                __syncwarp();
            }
        }
    }
    for (int32_t i = lane; i < c.n_tps; i += HEX_WARP) {
        if (w.row_ring[i] >= 0) {
            ring[w.row_ring[i]] = hex_finite_or_0(row_mass[i]);
        }
    }
}

static __global__ void __launch_bounds__(PLACE_THREADS) hex_commit_place(const hex_commit cm, int32_t * work) {
    HEX_SHARED(shared);
    const hex_cache & c = cm.cache;
    const int32_t sh = (int32_t) blockIdx.x, s = sh/c.n_head_kv, h = sh % c.n_head_kv;
    const place_work w = place_work_of(c, work, sh);

    place_rows(c, w, s, h);
    update_mean(c, w, s, h, (int32_t *) shared);
    if (c.n_heavy == 0) {
        return;
    }
    const float * mass = cm.mass + (int64_t) sh*(c.n_ring + 2*c.n_heavy + c.n_tps);
    update_scores(c, w, mass, s, h);
    __syncthreads();

    const weakest_tree t = make_tree((float *) hex_state(&c, s, h) + hex_state_heavy_score(c.head_k, c.n_ring, c.n_heavy), w.weakest, c.n_heavy);
    fill_tree(t);
    if (threadIdx.x < HEX_WARP) {
        compete_all(c, w, mass, s, h, t);
    }
}

//
// encode
//

static __global__ void __launch_bounds__(2*HEX_WARP) hex_commit_encode(const hex_cache c, int32_t * work) {
    HEX_SHARED(shared);
    const int32_t i = (int32_t) blockIdx.x, sh = (int32_t) blockIdx.z, s = sh/c.n_head_kv, h = sh % c.n_head_kv;
    const int lane = threadIdx.x % HEX_WARP, warp = threadIdx.x/HEX_WARP;
    const place_work w = place_work_of(c, work, sh);
    if (w.row_ring[i] == ROW_DROPPED) {
        return;
    }
    const bool    is_v = (int32_t) blockIdx.y >= c.head_k/HEX_BLOCK;
    const int32_t b    = (int32_t) blockIdx.y - (is_v ? c.head_k/HEX_BLOCK : 0);
    const int     bits = is_v ? c.bits_v : c.bits_k;
    const int32_t cell = hex_meta_rows(hex_meta(&c, s))[i].cell;
    const int32_t * state = hex_state(&c, s, h);
    const float * mean = !is_v && state[HEX_STATE_FROZEN] ? (const float *) state + HEX_STATE_MEAN + b*HEX_BLOCK : NULL;
    const float * row  = hex_row_cur(is_v ? &c.v_cur : &c.k_cur, h, (int64_t) s*c.n_tps + i) + b*HEX_BLOCK;

    const size_t  part  = residual_size(c.refine, HEX_BLOCK), at = (is_v ? residual_size(c.refine, c.head_k) : 0) + b*part;
    const int32_t ring  = w.row_ring[i], heavy = w.row_slot[i] >= 0 ? c.n_ring + w.row_slot[i] : -1;
    if (ring >= 0 && heavy >= 0) { // of the token that leaves the ring, before the row takes its slot
        copy_bytes(hex_slot(&c, s, h, heavy) + at, hex_slot(&c, s, h, ring) + at, part, threadIdx.x, 2*HEX_WARP);
        __syncthreads();
    }

    int32_t  * scratch = (int32_t *) shared + warp*HEX_SEARCH_WORDS;
    hex_code * meet    = (hex_code *) ((int32_t *) shared + 2*HEX_SEARCH_WORDS);

    float x[2], z[2];
    for (int j = 0; j < 2; j++) {
        const int d = lane + j*HEX_WARP;
        x[j] = mean ? row[d] - mean[d] : row[d];
    }
    encode_codes<true>(bits, x, is_v ? c.unbias : 0.0f, hex_row_base(is_v ? &c.v_base : &c.k_base, s, h, cell) + b*hex_block_size(bits), scratch, meet, z);

    const int32_t slots[3] = { ring, ring < 0 ? heavy : -1, static_slot(c, h, cell) };
    char * first = NULL;
    for (int k = 0; k < 3; k++) {
        if (slots[k] < 0) {
            continue;
        }
        char * to = hex_slot(&c, s, h, slots[k]) + at;
        if (first == NULL) {
            for (int j = 0; j < 2; j++) {
                z[j] = x[j] - z[j];
            }
            encode_residual<true>(c.refine, z, to, scratch, meet);
            __syncthreads();
            first = to;
        } else {
            copy_bytes(to, first, part, threadIdx.x, 2*HEX_WARP);
        }
    }
}

size_t hex_commit_cuda_work(const struct hex_cache & c) {
    return sizeof(int32_t)*place_words(c)*(size_t) c.n_head_kv*(size_t) c.n_stream;
}

bool hex_commit_cuda_supported(const struct hex_cache & c) {
    return !hex_has_channels(&c) && (int64_t) c.n_head_kv*c.n_stream <= 65535 && hex_cuda_aligned(c);
}

bool hex_commit_cuda(const struct hex_commit & cm, void * work, cudaStream_t stream) {
    const hex_cache & c = cm.cache;
    const int32_t n_heads = c.n_head_kv*c.n_stream;
    if (!hex_commit_cuda_supported(c)) {
        return false;
    }
    const size_t place  = sizeof(int32_t)*HEX_SEARCH_WORDS*(PLACE_THREADS/HEX_WARP);
    const size_t encode = sizeof(int32_t)*HEX_SEARCH_WORDS*2 + sizeof(hex_code)*2*HEX_WARP;
    if (c.n_tps == 0) {
        return true;
    }
    HEX_LAUNCH(hex_commit_place, dim3(n_heads), dim3(PLACE_THREADS), place, stream, cm, (int32_t *) work);
    HEX_LAUNCH(hex_commit_encode, dim3(c.n_tps, (c.head_k + c.head_v)/HEX_BLOCK, n_heads), dim3(2*HEX_WARP), encode, stream, c, (int32_t *) work);
    return true;
}
