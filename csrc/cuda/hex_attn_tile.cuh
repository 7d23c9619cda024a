// Tiles of the cache as f16 in shared memory, and the lists of cells that tiles are made of. For the kernels of HEX_ATTN.
//
// A block works through chunks of HEX_CHUNK cells, or fewer where shared memory is short. It first sorts a chunk's valid cells into two lists: those that
// no slot names (plain), and those that one does, with the lowest slot that names them (refined). Both give tiles without
// gaps. Codes are decoded two samples at a time by a table in shared memory: 8 + k bits of the stream select two values.
#pragma once

#include "hex_mma.cuh"
#include "hex_scale.cuh"

#include <limits.h>

#define HEX_CHUNK 1024
#define HEX_CHUNK_TIGHT 512

// Where things are in the shared memory of a block, in 32-bit words. D: head size, WR: warps that share a tile, WC: teams
// of such warps, T: cells of a tile, CHUNK: of a chunk. Query rows: 16 for each warp of a team.
template<int D, int WR, int WC, int T, int CHUNK = HEX_CHUNK>
struct tile_layout {
    static constexpr int WARPS = WR, TEAMS = WC, CELLS = T;
    static constexpr int N_CHUNK = CHUNK, CHUNK_WORDS = CHUNK/32;
    static constexpr int THREADS = HEX_WARP*WR*WC;
    static constexpr int TEAM    = HEX_WARP*WR;   // threads
    static constexpr int ROWS    = 16*WR;
    static constexpr int STRIDE  = D + 8;         // samples; ldmatrix meets no bank twice
    static constexpr int TILE    = T*STRIDE/2;
    static constexpr int MERGE   = WC > 1 ? TEAM*(D/2 + 4) : 0;

    int lut_k, lut_v, lut_r, mantissa, q, shift, noise, cells, slots, words, nan, team, n_words;
    int raw_k, raw_v; // words of a team's staged codes

    __host__ __device__ size_t bytes() const { return sizeof(uint32_t)*(size_t) n_words; }
    __host__ __device__ static int lut_words(int bits) { return 1 << (8 + bits); }

    __host__ __device__ static int row_words(int bits) { return (((int) hex_block_size(bits)*(D/HEX_BLOCK) + 5)/4) | 1; } // of a staged row
    __host__ __device__ static int raw_words(int bits) { return T + T*row_words(bits) + 4; } // parities, rows, read-ahead of the decoder

    __host__ __device__ tile_layout(int bits_k, int bits_v, int refine) :
            raw_k(raw_words(bits_k)), raw_v(raw_words(bits_v)) {
        const bool codes = refine >= HEX_REFINE_HEX1 && refine <= HEX_REFINE_HEX4;
        int at = 0;
        lut_k = at; at += lut_words(bits_k);
        lut_v = lut_k;
        if (bits_v != bits_k) {
            lut_v = at; at += lut_words(bits_v);
        }
        lut_r = refine == bits_v ? lut_v : lut_k;
        if (codes && refine != bits_k && refine != bits_v) {
            lut_r = at; at += lut_words(refine);
        }
        mantissa = at; at += 128;
        q        = at; at += ROWS*STRIDE/2;
        shift    = at; at += ROWS;
        noise    = at; at += ROWS*(D/HEX_BLOCK);
        cells    = at; at += CHUNK/2;
        slots    = at; at += CHUNK;
        words    = at; at += 4*CHUNK_WORDS;
        nan      = at; at += 4; // one word: whether a row of V was no number
        team     = at; // the owners of a chunk's cells while its lists are made; then tiles; at the end the merge
        const int tiles = WC*(TILE + raw_k + raw_v);
        const int most  = tiles > CHUNK ? tiles : CHUNK;
        n_words  = at + (most > MERGE ? most : MERGE);
    }
    __device__ int tile(int t) const { return team + t*TILE; }
    __device__ int raw(int t, bool is_v) const { return team + WC*TILE + t*(raw_k + raw_v) + (is_v ? raw_k : 0); }
};

//
// tables
//

// Entry i: the values of the windows i & 255 and i >> K & 255. They repeat, so each is computed once.
template<int K>
static __device__ void fill_lut(uint16_t * value, uint32_t * lut, int i0, int step) {
    __syncthreads(); // the values of the last table are read to their end
    for (int w = i0; w < 256; w += step) {
        value[w] = (uint16_t) hex_f16x2((float) (hex_table_a[K][w & 15] + hex_table_b[K][w >> 4]), 0.0f);
    }
    __syncthreads();
    for (int i = 4*i0; i < 1 << (8 + K); i += 4*step) {
        const uint2 low = *(const uint2 *) (value + (i & 255));
        uint32_t high[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            high[j] = (uint32_t) value[((i >> K) + (j >> K)) & 255] << 16;
        }
        *(uint4 *) (lut + i) = { (low.x & 0xffff) | high[0], low.x >> 16 | high[1], (low.y & 0xffff) | high[2], low.y >> 16 | high[3] };
    }
}

template<typename L>
static __device__ void fill_tables(const hex_cache & c, const L & l, uint32_t * shared) {
    uint16_t * value = (uint16_t *) (shared + l.team);
    const auto fill = [&](int bits, uint32_t * lut) {
        switch (bits) {
            case 1: fill_lut<1>(value, lut, threadIdx.x, L::THREADS); break;
            case 2: fill_lut<2>(value, lut, threadIdx.x, L::THREADS); break;
            case 3: fill_lut<3>(value, lut, threadIdx.x, L::THREADS); break;
            case 4: fill_lut<4>(value, lut, threadIdx.x, L::THREADS); break;
        }
    };
    fill(c.bits_k, shared + l.lut_k);
    if (l.lut_v != l.lut_k) {
        fill(c.bits_v, shared + l.lut_v);
    }
    if (c.refine >= HEX_REFINE_HEX1 && c.refine <= HEX_REFINE_HEX4 && l.lut_r != l.lut_k && l.lut_r != l.lut_v) {
        fill(c.refine, shared + l.lut_r);
    }
    // Mantissas of scales as two f16 factors: one alone errs by up to 2^-12, the same for all samples of a block, and their
    // logit with it. Of 16 products the best errs a tenth of that.
    for (int i = threadIdx.x; i < 128; i += L::THREADS) {
        const float scale = hex_bits_float(0x3f800000u | hex_scale_mantissa[i]);
        float least = 1.0f;
        for (int j = 0; j < 16; j++) {
            const float    second = 1.0f + (float) j/1024;
            const uint32_t first  = hex_f16x2(scale/second, 0.0f);
            const float    error  = fabsf(hex_f32x2(first).x*second - scale);
            if (error < least) {
                least = error;
                shared[l.mantissa + i] = first | (uint32_t) j << 16;
            }
        }
    }
}

//
// codes
//

// The scale as two factors: the first about 1 to 2, the second about a power of two, so that small scales lose no precision
// early. Those below 2^-14 have exact powers of two: f16 has no more digits there.
template<int K>
static __device__ __forceinline__ void split_scale(uint32_t word, const uint32_t * mantissa, uint32_t s[2]) {
    const uint32_t e = word >> (8 - K), octave = e >> (3 + K), step = e & ((1u << (3 + K)) - 1);
    const uint32_t m = mantissa[step << (4 - K)];
    const uint32_t power = octave < 10 ? 1u << octave : ((octave - 9) << 10) + (m >> 16); // 2^(octave - 24)
    const uint32_t first = (m & 0xffff)*0x10001u;
    s[0] = e == 0 ? 0 : octave < 10 ? hex_f16x2_mul(first, (0x3c00 + (m >> 16))*0x10001u) : first;
    s[1] = power*0x10001u;
}

// Scale of a block of a staged row.
static __device__ __forceinline__ float staged_scale(int bits, const uint32_t * words, uint32_t parity, int block) {
    const int at = 16*(int) parity + 8*(int) hex_block_size(bits)*block + 64*bits; // in bits, a multiple of 16
    return hex_word_scale(bits, words[at/32] >> at % 32 & 0xffff);
}

// 16 samples whose bits begin at bit 0 of x.
template<int K>
static __device__ __forceinline__ void decode_16(const uint32_t x[4], uint32_t word, const uint32_t * lut, const uint32_t * mantissa, uint32_t y[8]) {
    uint32_t s[2];
    split_scale<K>(word, mantissa, s);
#pragma unroll
    for (int p = 0; p < 8; p++) {
        const int i = 2*K*p/32, o = 2*K*p % 32;
        const uint32_t v = o + 8 + K <= 32 ? x[i] >> o : __funnelshift_r(x[i], x[i + 1], o);
        y[p] = hex_f16x2_mul(hex_f16x2_mul(lut[v & ((1u << (8 + K)) - 1)], s[0]), s[1]);
    }
}

// Words of x that decode_16 looks at.
static __host__ __device__ constexpr int words_of_16(int k) { return (15*k + 8 + 31)/32; }

static __device__ __forceinline__ uint32_t load_u16(const char * p) { return *(const uint16_t *) p; }

static __device__ __forceinline__ void put_16(uint16_t * to, const uint32_t y[8]) {
    uint4 * dst = (uint4 *) to;
    dst[0] = { y[0], y[1], y[2], y[3] };
    dst[1] = { y[4], y[5], y[6], y[7] };
}

static __device__ __forceinline__ void put_zeros(uint16_t * to) {
    const uint32_t zero[8] = { 0, 0, 0, 0, 0, 0, 0, 0 };
    put_16(to, zero);
}

// Starts to copy a row of codes, `size` bytes at an even address, to a row of words; 8 lanes share a row. The words are
// those of memory: a row that begins in the middle of one has parity 1.
static __device__ __forceinline__ void stage_row(const char * row, int size, uint32_t * to, uint32_t * parity, int lane8) {
    const char * first = (const char *) ((uintptr_t) row & ~(uintptr_t) 3);
    if (lane8 == 0) {
        *parity = ((uintptr_t) row & 2) != 0;
    }
    for (const char * p = first + 4*lane8; p < row + size; p += 32) {
        uint32_t * word = to + (p - first)/4;
        if (p >= row && p + 4 <= row + size) {
            hex_copy_word(word, (const uint32_t *) p);
        } else if (p < row) { // half of the word is outside of the row
            *word = load_u16(p + 2) << 16;
        } else {
            *word = load_u16(p);
        }
    }
}

// Decodes n staged rows to the tile; rows up to T become zero.
template<typename L, int D, int T, int K>
static __device__ void decode_rows(const uint32_t * raw, int row_words, int n, const uint32_t * lut, const uint32_t * mantissa, uint16_t * tile) {
    for (int item = threadIdx.x % L::TEAM; item < T*D/16; item += L::TEAM) {
        const int row = item/(D/16), piece = item % (D/16);
        uint16_t * to = tile + row*L::STRIDE + 16*piece;
        if (row >= n) {
            put_zeros(to);
            continue;
        }
        const uint32_t * words = raw + T + row*row_words;
        const int block = 16*(int) raw[row] + 8*(8*K + 2)*(piece/4), at = block + 16*K*(piece % 4); // in bits
        uint32_t x[4] = { 0, 0, 0, 0 }, y[8];
#pragma unroll
        for (int i = 0; i < words_of_16(K); i++) {
            x[i] = __funnelshift_r(words[at/32 + i], words[at/32 + i + 1], at % 32);
        }
        const int end = block + 64*K;
        decode_16<K>(x, words[end/32] >> end % 32 & 0xffff, lut, mantissa, y);
        put_16(to, y);
    }
}

template<typename L, int D, int T>
static __device__ void decode_rows_of(int bits, const uint32_t * raw, int row_words, int n, const uint32_t * lut, const uint32_t * mantissa, uint16_t * tile) {
    switch (bits) {
        case 1: decode_rows<L, D, T, 1>(raw, row_words, n, lut, mantissa, tile); break;
        case 2: decode_rows<L, D, T, 2>(raw, row_words, n, lut, mantissa, tile); break;
        case 3: decode_rows<L, D, T, 3>(raw, row_words, n, lut, mantissa, tile); break;
        case 4: decode_rows<L, D, T, 4>(raw, row_words, n, lut, mantissa, tile); break;
    }
}

// 16 samples of a residual row, from global memory.
template<int K>
static __device__ __forceinline__ void residual_codes(const char * row, int piece, const uint32_t * lut, const uint32_t * mantissa, float y[16]) {
    const char * block = row + (8*K + 2)*(piece/4), * p = block + 2*K*(piece % 4);
    uint32_t x[4] = { 0, 0, 0, 0 }, h[8];
#pragma unroll
    for (int i = 0; i <= K; i++) { // 16*K + 8 - K bits
        x[i/2] |= load_u16(p + 2*i) << i % 2*16;
    }
    decode_16<K>(x, load_u16(block + 8*K), lut, mantissa, h);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float2 f = hex_f32x2(h[i]);
        y[2*i] = f.x;
        y[2*i + 1] = f.y;
    }
}

static __device__ void residual_16(int refine, const char * row, int piece, const uint32_t * lut, const uint32_t * mantissa, float y[16]) {
    switch (refine) {
        case HEX_REFINE_HEX1: residual_codes<1>(row, piece, lut, mantissa, y); break;
        case HEX_REFINE_HEX2: residual_codes<2>(row, piece, lut, mantissa, y); break;
        case HEX_REFINE_HEX3: residual_codes<3>(row, piece, lut, mantissa, y); break;
        case HEX_REFINE_HEX4: residual_codes<4>(row, piece, lut, mantissa, y); break;
        case HEX_REFINE_Q8_0: {
            const char * block = row + 34*(piece/2);
            const float  d     = hex_f32x2(load_u16(block)).x;
            for (int i = 0; i < 16; i += 2) {
                const uint32_t two = load_u16(block + 2 + 16*(piece % 2) + i);
                y[i]     = d*(float) (int8_t) two;
                y[i + 1] = d*(float) (int8_t) (two >> 8);
            }
        } break;
        case HEX_REFINE_F16:
            for (int i = 0; i < 16; i++) {
                y[i] = hex_f32x2(load_u16(row + 2*(16*piece + i))).x;
            }
            break;
    }
}

// Adds the residuals in `slots` to the n rows of a tile. Each thread adds where it decoded: nobody waits in between.
template<typename L, int D, int T>
static __device__ void add_residuals(const hex_cache & c, int32_t s, int32_t h, const int32_t * slots, bool is_v, int n,
        const uint32_t * lut, const uint32_t * mantissa, uint16_t * tile) {
    const size_t behind = is_v ? (c.refine == HEX_REFINE_F16 ? 2*(size_t) D : c.refine == HEX_REFINE_Q8_0 ? 34*(size_t) (D/32) :
                                  hex_block_size(c.refine)*(size_t) (D/HEX_BLOCK)) : 0;
    for (int item = threadIdx.x % L::TEAM; item < n*(D/16); item += L::TEAM) {
        const int row = item/(D/16), piece = item % (D/16);
        uint16_t * to = tile + row*L::STRIDE + 16*piece;
        float r[16];
        uint32_t y[8];
        residual_16(c.refine, hex_slot(&c, s, h, slots[row]) + behind, piece, lut, mantissa, r);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const float2 b = hex_f32x2(((const uint32_t *) to)[i]);
            y[i] = hex_f16x2(b.x + r[2*i], b.y + r[2*i + 1]);
        }
        put_16(to, y);
    }
}

// Rows [first, first + n) of the ubatch. A row without a cell is seen by nobody and may hold anything: it becomes zero. V that is
// not a number would spoil query rows that do not see it, as 0 times NaN is NaN: it becomes zero as well, and *nan is set.
template<typename L, int D, int T>
static __device__ void load_raw_rows(const hex_cache & c, int32_t s, int32_t h, bool is_v, int first, int n, uint16_t * tile, uint32_t * nan) {
    const struct hex_meta_row * rows = hex_meta_rows(hex_meta(&c, s));
    for (int item = threadIdx.x % L::TEAM; item < T*D/16; item += L::TEAM) {
        const int row = item/(D/16), piece = item % (D/16);
        uint16_t * to = tile + row*L::STRIDE + 16*piece;
        const int32_t cell = row < n ? rows[first + row].cell : -1;
        if (cell < 0 || cell >= c.n_kv) {
            put_zeros(to);
            continue;
        }
        const float * x = hex_row_cur(is_v ? &c.v_cur : &c.k_cur, h, (int64_t) s*c.n_tps + first + row) + 16*piece;
        uint32_t y[8];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float a = x[2*i], b = x[2*i + 1];
            if (is_v && (a != a || b != b)) {
                a = a != a ? 0.0f : a;
                b = b != b ? 0.0f : b;
                *nan = 1;
            }
            y[i] = hex_f16x2(a, b);
        }
        put_16(to, y);
    }
}

//
// lists
//

struct chunk_lists {
    uint16_t * cells; // plain ones, then refined ones; relative to the chunk
    int32_t  * slots; // of the refined ones
    int n_plain, n_refined;

    __device__ int refined_cell(int i) const { return cells[n_plain + i]; }
    __device__ void drop_plain() {
        cells  += n_plain;
        n_plain = 0;
    }
};

#define HEX_NOT_OWNER 0x7fc0ffeeu // a NaN that no computation gives

// Logits of ranked slots and rows of the ubatch that the kernel of decoding keeps for the mass: [slot or row][query row].
// A slot whose cell another slot holds is marked in its first query row.
struct slot_logits {
    float * x;      // NULL: not kept
    int32_t n_slots, n_rows;
};

// The cell's lowest slot has it.
static __device__ __forceinline__ void claim(const hex_cache & c, const uint32_t * valid, int32_t * owner, const slot_logits & keep,
        int32_t c0, int32_t len, int32_t cell, int32_t slot) {
    if (cell >= c0 && cell < c0 + len && cell < c.n_kv && hex_bit_get(valid, cell)) {
        const int32_t old  = atomicMin(&owner[cell - c0], slot);
        const int32_t lost = max(old, slot); // of the two; INT_MAX: nobody had claimed it
        if (keep.x && lost < keep.n_slots) {
            ((uint32_t *) keep.x)[(int64_t) lost*keep.n_rows] = HEX_NOT_OWNER;
        }
    }
}

// The lists of cells [c0, c0 + len); c0 is a multiple of 32. The whole block calls it. Shared memory of L::team is
// overwritten.
template<typename L>
static __device__ chunk_lists make_lists(const hex_cache & c, const L & l, uint32_t * shared, const slot_logits & keep, int32_t s, int32_t h, int32_t c0, int32_t len) {
    const int32_t  * meta  = hex_meta(&c, s);
    const uint32_t * valid = hex_meta_bitmap(meta, c.n_tps, c.n_ring);
    const int32_t  * ring  = hex_meta_ring(meta, c.n_tps);
    const int32_t  * heavy = hex_state(&c, s, h) + hex_state_heavy_cell(c.head_k, c.n_ring);
    int32_t * owner = (int32_t *) shared + l.team;
    constexpr int n_words = L::CHUNK_WORDS;
    uint32_t * bits = shared + l.words; // plain, refined, then the number of cells before each word
    int32_t * before = (int32_t *) bits + 2*n_words;

    __syncthreads(); // tiles and lists of the last chunk are read to their end
    for (int32_t i = threadIdx.x; i < L::N_CHUNK; i += L::THREADS) {
        owner[i] = INT_MAX;
    }
    __syncthreads();
    for (int32_t i = threadIdx.x; i < c.n_ring; i += L::THREADS) {
        claim(c, valid, owner, keep, c0, len, ring[i], i);
    }
    for (int32_t i = threadIdx.x; i < c.n_heavy; i += L::THREADS) {
        claim(c, valid, owner, keep, c0, len, (int32_t) ((uint32_t) heavy[i] - 1), c.n_ring + i);
    }
    if (c.n_static > 0) { // but for LOG, slot i is for one of the cells [i*period, (i + 1)*period)
        const bool    all   = c.graph.kind == HEX_BACKBONE_LOG;
        const int32_t first = all ? 0 : c0/c.graph.period, end = all ? c.n_static : min(c.n_static, (c0 + len - 1)/c.graph.period + 1);
        for (int32_t i = first + (int32_t) threadIdx.x; i < end; i += L::THREADS) {
            claim(c, valid, owner, keep, c0, len, hex_graph_cell_impl(&c.graph, c.pair0 + h, i), c.n_ring + c.n_heavy + i);
        }
    }
    __syncthreads();

    const int lane = threadIdx.x % HEX_WARP;
    for (int w = threadIdx.x/HEX_WARP; w < n_words; w += L::THREADS/HEX_WARP) {
        const int32_t  i  = w*32 + lane;
        const bool     ok = i < len && c0 + i < c.n_kv && hex_bit_get(valid, c0 + i);
        const uint32_t p  = __ballot_sync(HEX_ALL, ok && owner[i] == INT_MAX), r = __ballot_sync(HEX_ALL, ok && owner[i] != INT_MAX);
        if (lane == 0) {
            bits[w] = p;
            bits[n_words + w] = r;
        }
    }
    __syncthreads();
    for (int w = threadIdx.x; w < 2*n_words; w += L::THREADS) {
        int n = 0;
        for (int i = w < n_words ? 0 : n_words; i < w; i++) {
            n += __popc(bits[i]);
        }
        before[w] = n;
    }
    __syncthreads();

    const int last = n_words - 1;
    chunk_lists lists;
    lists.cells     = (uint16_t *) (shared + l.cells);
    lists.slots     = (int32_t *) shared + l.slots;
    lists.n_plain   = before[last] + __popc(bits[last]);
    lists.n_refined = before[n_words + last] + __popc(bits[n_words + last]);
    for (int32_t i = threadIdx.x; i < L::N_CHUNK; i += L::THREADS) {
        const int w = i/32;
        const uint32_t below = (1u << i % 32) - 1, p = bits[w], r = bits[n_words + w];
        if (p >> i % 32 & 1) {
            lists.cells[before[w] + __popc(p & below)] = (uint16_t) i;
        } else if (r >> i % 32 & 1) {
            const int at = before[n_words + w] + __popc(r & below);
            lists.cells[lists.n_plain + at] = (uint16_t) i;
            lists.slots[at] = owner[i];
        }
    }
    __syncthreads();
    return lists;
}
