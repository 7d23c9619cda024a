// What the kernels of HEX_ATTN share: shapes of blocks, arguments, query rows, tiles and their logits.
#pragma once

#include "hex_attn.cuh"
#include "hex_attn_tile.cuh"

// Shapes of blocks. Few query rows, up to FEW_ROWS: warps take tiles of their own. Many: warps take rows of one tile.
// Tight: few, and for many rows too, in the 64 KB of shared memory that Turing has.
#define FEW_ROWS 32
template<int D> constexpr int few_warps = D < 256 ? 4 : 2;
template<int D> using few_layout   = tile_layout<D, 1, few_warps<D>, 16>;
template<int D> using tight_layout = tile_layout<D, 1, few_warps<D>, 16, D < 128 ? HEX_CHUNK : HEX_CHUNK_TIGHT>;
template<int D> using many_layout  = tile_layout<D, D < 256 ? 8 : 4, 1, D < 256 ? 64 : 32>;

struct attn_args {
    hex_attn a;
    int32_t  group;
    int32_t  n_rows;  // query rows of a (stream, KV head): n_tps*group, token by token
    int32_t  n_split; // ranges
    int32_t  range;   // cells of one, a multiple of 32
    float    noise;   // factor of |q|^2 d^2 in the logits of cells without residual (ggml/hex_ops.h)
    float  * part;    // [stream, KV head][row][range][2 + D]: maximum, sum, weighted V
    float  * stat;    // [stream, KV head][row][2]: maximum, 1/sum; before that, whether a NaN of V was left out
    float  * logits;  // few rows: [stream, KV head][ranked slots, rows of the ubatch][row]; NULL: not kept

    __device__ slot_logits kept(int32_t sh) const {
        const int32_t n_slots = a.cache.n_ring + a.cache.n_heavy;
        return { logits ? logits + (int64_t) sh*(n_slots + a.cache.n_tps)*n_rows : NULL, n_slots, n_rows };
    }
};

static __device__ __forceinline__ float slope_of(const hex_attn & a, int32_t head) {
    if (a.max_bias <= 0.0f) {
        return 1.0f;
    }
    int32_t n_log2 = 1;
    while (2*n_log2 <= a.n_head) {
        n_log2 *= 2;
    }
    const float step = a.max_bias/(float) n_log2;
    return exp2f(head < n_log2 ? -step*(float) (head + 1) : -step/2*(float) (2*(head - n_log2) + 1));
}

static __device__ __forceinline__ float softcap(float x, float cap) {
    return cap*(1.0f - __fdividef(2.0f, __expf(2.0f*x/cap) + 1.0f)); // cap*tanh(x/cap)
}

static __device__ __forceinline__ const uint16_t * mask_row(const hex_attn & a, int32_t s, int32_t token) {
    return a.mask.data ? (const uint16_t *) (a.mask.data + token*a.mask.nb[1] + s*a.mask.nb[3]) : NULL;
}

// Query rows [row0, row0 + ROWS) as f16, scaled; shift: their product with the mean that K is coded without; noise: the weights of
// the coding noise of K's blocks.
template<typename L, int D>
static __device__ void load_queries(const attn_args & p, const L & l, uint32_t * shared, int32_t s, int32_t h, int32_t row0) {
    const hex_cache & c = p.a.cache;
    const int32_t * state = hex_state(&c, s, h);
    const float   * mean  = state[HEX_STATE_FROZEN] ? (const float *) state + HEX_STATE_MEAN : NULL;
    const int lane8 = threadIdx.x % 8;

    for (int r = threadIdx.x/8; r < L::ROWS; r += L::THREADS/8) {
        const int32_t row = row0 + r;
        const float * q = row < p.n_rows ? (const float *) (p.a.q.data + row/p.group*p.a.q.nb[1] + (h*p.group + row % p.group)*p.a.q.nb[2] + s*p.a.q.nb[3]) : NULL;
        uint32_t * to = shared + l.q + r*L::STRIDE/2;
        float sum = 0.0f, square[D/HEX_BLOCK];
        for (int b = 0; b < D/HEX_BLOCK; b++) {
            square[b] = 0.0f;
            for (int d = b*HEX_BLOCK + 2*lane8; d < (b + 1)*HEX_BLOCK; d += 16) {
                const float x = q ? q[d]*p.a.scale : 0.0f, y = q ? q[d + 1]*p.a.scale : 0.0f;
                to[d/2] = hex_f16x2(x, y);
                sum += mean ? x*mean[d] + y*mean[d + 1] : 0.0f;
                square[b] += x*x + y*y;
            }
        }
        for (int i = 4; i > 0; i /= 2) {
            sum += __shfl_xor_sync(HEX_ALL, sum, i);
            for (int b = 0; b < D/HEX_BLOCK; b++) {
                square[b] += __shfl_xor_sync(HEX_ALL, square[b], i);
            }
        }
        if (lane8 == 0) {
            ((float *) shared)[l.shift + r] = sum;
            for (int b = 0; b < D/HEX_BLOCK; b++) {
                ((float *) shared)[l.noise + r*(D/HEX_BLOCK) + b] = p.noise*square[b];
            }
        }
    }
}

enum tile_kind { TILE_PLAIN, TILE_REFINED, TILE_RAW };

struct tile_ref {
    int kind, first, n; // n cells of its list, or rows of the ubatch, from `first`
};

template<int T>
static __device__ __forceinline__ tile_ref tile_at(const chunk_lists & lists, int n_raw, int i) {
    const int n_p = (lists.n_plain + T - 1)/T, n_r = (lists.n_refined + T - 1)/T;
    if (i < n_p) {
        return { TILE_PLAIN, i*T, min(T, lists.n_plain - i*T) };
    }
    if (i < n_p + n_r) {
        return { TILE_REFINED, (i - n_p)*T, min(T, lists.n_refined - (i - n_p)*T) };
    }
    return { TILE_RAW, (i - n_p - n_r)*T, min(T, n_raw - (i - n_p - n_r)*T) };
}

// The cell of a tile's column, -1: none.
static __device__ __forceinline__ int32_t cell_of(const hex_cache & c, const chunk_lists & lists, const tile_ref & t, int32_t s, int32_t c0, int col) {
    if (col >= t.n) {
        return -1;
    }
    if (t.kind == TILE_RAW) {
        const int32_t cell = hex_meta_rows(hex_meta(&c, s))[t.first + col].cell;
        return cell >= 0 && cell < c.n_kv ? cell : -1;
    }
    return c0 + (t.kind == TILE_PLAIN ? lists.cells[t.first + col] : lists.refined_cell(t.first + col));
}

// Starts the copies of a tile's codes, K or V, as one group.
template<typename L, int D, int T>
static __device__ void stage_tile(const hex_cache & c, const L & l, uint32_t * shared, const chunk_lists & lists, const tile_ref & t,
        int32_t s, int32_t h, int32_t c0, int team, bool is_v) {
    const int bits = is_v ? c.bits_v : c.bits_k, row_words = L::row_words(bits);
    uint32_t * raw = shared + l.raw(team, is_v);
    for (int row = threadIdx.x % L::TEAM/8; row < t.n && t.kind != TILE_RAW; row += L::TEAM/8) {
        const int32_t cell = cell_of(c, lists, t, s, c0, row);
        stage_row(hex_row_base(is_v ? &c.v_base : &c.k_base, s, h, cell), (int) hex_block_size(bits)*(D/HEX_BLOCK),
                raw + T + row*row_words, raw + row, threadIdx.x % 8);
    }
    hex_copy_commit();
}

// K or V of a tile as f16.
template<typename L, int D, int T>
static __device__ void load_tile(const hex_cache & c, const L & l, uint32_t * shared, const chunk_lists & lists, const tile_ref & t,
        int32_t s, int32_t h, int team, bool is_v) {
    uint16_t * tile = (uint16_t *) (shared + l.tile(team));
    const uint32_t * mantissa = shared + l.mantissa;
    if (t.kind == TILE_RAW) {
        load_raw_rows<L, D, T>(c, s, h, is_v, t.first, t.n, tile, shared + l.nan);
        return;
    }
    const int bits = is_v ? c.bits_v : c.bits_k;
    decode_rows_of<L, D, T>(bits, shared + l.raw(team, is_v), L::row_words(bits), t.n, shared + (is_v ? l.lut_v : l.lut_k), mantissa, tile);
    if (t.kind == TILE_REFINED) {
        add_residuals<L, D, T>(c, s, h, lists.slots + t.first, is_v, t.n, shared + l.lut_r, mantissa, tile);
    }
}

// S = Q*K of 16 query rows and the T cells of a tile.
template<typename L, int D, int T>
static __device__ __forceinline__ void tile_logits(const uint16_t * q, const uint16_t * tile, float x[T/8][4]) {
#pragma unroll
    for (int j = 0; j < T/8; j++) {
        x[j][0] = x[j][1] = x[j][2] = x[j][3] = 0.0f;
    }
#pragma unroll
    for (int k = 0; k < D; k += 16) {
        uint32_t a[4];
        hex_load_frag(a, q, L::STRIDE, 0, k);
#pragma unroll
        for (int j = 0; j < T/16; j++) {
            uint32_t b[4];
            hex_load_frag(b, tile, L::STRIDE, 16*j, k);
            hex_mma(x[2*j],     a, b[0], b[2]);
            hex_mma(x[2*j + 1], a, b[1], b[3]);
        }
    }
}

// Which of a lane's logits are visible: bit 4*j + 2*half + e for column 8*j + 2*(lane % 4) + e, row lane/4 + 8*half.
template<int T>
static __device__ __forceinline__ uint32_t visible_of(const attn_args & p, const chunk_lists & lists, const tile_ref & t, int32_t s, int32_t c0,
        const int32_t token[2], bool & biased) {
    const hex_cache & c = p.a.cache;
    uint32_t seen = 0;
    biased = false;
    for (int j = 0; j < T/8; j++) {
        for (int e = 0; e < 2; e++) {
            const int32_t cell = cell_of(c, lists, t, s, c0, 8*j + 2*(threadIdx.x % 4) + e);
            for (int half = 0; half < 2; half++) {
                if (cell < 0 || token[half] < 0) {
                    continue;
                }
                const uint16_t * mask = mask_row(p.a, s, token[half]);
                const uint16_t   m    = mask ? mask[cell] : 0;
                seen  |= m != 0xfc00 ? 1u << (4*j + 2*half + e) : 0;
                biased = biased || (m != 0xfc00 && (m & 0x7fff) != 0);
            }
        }
    }
    return seen;
}

// Products to logits.
template<int T>
static __device__ __forceinline__ void finish_logits(const attn_args & p, const chunk_lists & lists, const tile_ref & t, int32_t s, int32_t c0,
        uint32_t seen, bool biased, const int32_t token[2], const float shift[2], const float slope[2], float x[T/8][4]) {
#pragma unroll
    for (int j = 0; j < T/8; j++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int half = i/2;
            float v = x[j][i] + (t.kind == TILE_RAW ? 0.0f : shift[half]);
            if (p.a.softcap != 0.0f) {
                v = softcap(v, p.a.softcap);
            }
            if (!(seen >> (4*j + i) & 1)) {
                v = -INFINITY;
            } else if (biased) {
                const int32_t cell = cell_of(p.a.cache, lists, t, s, c0, 8*j + 2*(threadIdx.x % 4) + i % 2);
                v += slope[half]*hex_f32x2(mask_row(p.a, s, token[half])[cell]).x;
            }
            x[j][i] = v;
        }
    }
}

template<typename L>
static size_t shared_of(const hex_cache & c) {
    return L(c.bits_k, c.bits_v, c.refine).bytes();
}

// Starts the kernel of the mass for many query rows (hex_attn_mass.cu).
void hex_attn_mass_cuda(const attn_args & p, const hex_cuda_device & dev, cudaStream_t stream);
