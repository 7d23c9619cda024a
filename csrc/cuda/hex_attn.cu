// HEX_ATTN. Three kernels:
//
//   attend   a block per (stream, KV head, query rows, range of cells): one softmax over its tiles of plain cells, of
//            refined cells and, in the last range, of the ubatch's own rows. Rows are the query heads of the group for
//            each token, packed: 16 of them whose cells four warps share (decode), or 128 over common tiles (prefill).
//   finish   merges the ranges in their order, with the sinks; for few query rows it also makes the mass, of the logits that
//            `attend` has kept of ranked slots and of the ubatch's rows
//   mass     for many query rows: hex_attn_mass.cu
//
// Nothing waits for the host, and grids depend on shapes alone: CUDA graphs capture all of it.
#include "hex_attn_impl.cuh"

//
// attend
//

// Squares of the scales of a tile's K blocks, 1/32 of them in each lane: cell i/(D/64), block i % (D/64) for i = lane, lane + 32, ...
template<int D, int T> constexpr int noise_words = (T*(D/HEX_BLOCK) + HEX_WARP - 1)/HEX_WARP;

template<typename L, int D, int T>
static __device__ __forceinline__ void load_noise(const attn_args & p, const L & l, const uint32_t * shared, const tile_ref & t, int team, float square[noise_words<D, T>]) {
    const int bits = p.a.cache.bits_k, row_words = L::row_words(bits);
    const uint32_t * raw = shared + l.raw(team, false);
#pragma unroll
    for (int i = 0; i < noise_words<D, T>; i++) {
        const int at = (int) threadIdx.x % HEX_WARP + i*HEX_WARP, row = at/(D/HEX_BLOCK);
        const float d = row < t.n && t.kind == TILE_PLAIN && p.noise != 0.0f ? staged_scale(bits, raw + T + row*row_words, raw[row], at % (D/HEX_BLOCK)) : 0.0f;
        square[i] = d*d;
    }
}

// Adds what coding noise takes from the weight of cells without residual. weights: shared, of the lane's rows, 8 apart.
template<int D, int T>
static __device__ __forceinline__ void add_noise(const attn_args & p, const tile_ref & t, const float square[noise_words<D, T>], const float * weights, float x[T/8][4]) {
    if (t.kind != TILE_PLAIN || p.noise == 0.0f) {
        return;
    }
#pragma unroll
    for (int j = 0; j < T/8; j++) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
#pragma unroll
            for (int b = 0; b < D/HEX_BLOCK; b++) {
                // columns of a j lie in one word of all lanes
                const int   at = (8*j + e)*(D/HEX_BLOCK) + b;
                const float d2 = __shfl_sync(HEX_ALL, square[at/HEX_WARP], at % HEX_WARP + (int) threadIdx.x % 4*2*(D/HEX_BLOCK));
                x[j][e]     += weights[b]*d2;
                x[j][2 + e] += weights[8*(D/HEX_BLOCK) + b]*d2;
            }
        }
    }
}

// Keeps a tile's logits for the mass.
template<int T>
static __device__ __forceinline__ void keep_logits(const slot_logits & keep, const chunk_lists & lists, const tile_ref & t, int32_t row0, const float x[T/8][4]) {
    if (!keep.x || t.kind == TILE_PLAIN) {
        return;
    }
    for (int j = 0; j < T/8; j++) {
        for (int i = 0; i < 4; i++) {
            const int     col = 8*j + 2*(threadIdx.x % 4) + i % 2;
            const int32_t row = row0 + i/2*8;
            if (col >= t.n || row >= keep.n_rows) {
                continue;
            }
            const int32_t slot = t.kind == TILE_RAW ? keep.n_slots + t.first + col : lists.slots[t.first + col];
            if (t.kind == TILE_RAW || slot < keep.n_slots) {
                keep.x[(int64_t) slot*keep.n_rows + row] = x[j][i];
            }
        }
    }
}

template<int WR> static __device__ __forceinline__ void team_sync() {
    if (WR == 1) {
        __syncwarp();
    } else {
        __syncthreads();
    }
}

template<int WR> static __device__ __forceinline__ bool team_any(bool x) {
    return WR == 1 ? __any_sync(HEX_ALL, x) != 0 : __syncthreads_or(x) != 0;
}

template<int D, typename L>
static __global__ void __launch_bounds__(L::THREADS) hex_attn_attend(const attn_args p) {
    constexpr int WR = L::WARPS, WC = L::TEAMS, T = L::CELLS;
    static_assert(WR == 1 || WC == 1, "a team is a warp or the block");
    HEX_SHARED(memory);
    uint32_t * shared = (uint32_t *) memory;
    const hex_cache & c = p.a.cache;
    const L l(c.bits_k, c.bits_v, c.refine);

    const int32_t h = (int32_t) blockIdx.x % c.n_head_kv, row0 = (int32_t) blockIdx.x/c.n_head_kv*L::ROWS, split = (int32_t) blockIdx.y, s = (int32_t) blockIdx.z;
    const int warp = threadIdx.x/HEX_WARP, lane = threadIdx.x % HEX_WARP, team = warp/WR, my_row = 16*(warp % WR) + lane/4;
    const bool active = row0 + 16*(warp % WR) < p.n_rows; // else the warp only helps to decode
    const uint16_t * q    = (const uint16_t *) (shared + l.q) + 16*(warp % WR)*L::STRIDE;
    const uint16_t * tile = (const uint16_t *) (shared + l.tile(team));

    fill_tables(c, l, shared);
    load_queries<L, D>(p, l, shared, s, h, row0);
    if (threadIdx.x == 0) {
        shared[l.nan] = 0;
    }
    __syncthreads();

    int32_t token[2];
    float   shift[2], slope[2], max_[2], sum[2], o[D/8][4];
    for (int half = 0; half < 2; half++) {
        const int32_t row = row0 + my_row + 8*half;
        token[half] = row < p.n_rows ? row/p.group : -1;
        shift[half] = ((const float *) shared)[l.shift + my_row + 8*half];
        slope[half] = slope_of(p.a, h*p.group + row % p.group);
        max_[half]  = -INFINITY;
        sum[half]   = 0.0f;
    }
#pragma unroll
    for (int j = 0; j < D/8; j++) {
        o[j][0] = o[j][1] = o[j][2] = o[j][3] = 0.0f;
    }

    const int32_t begin = split*p.range, end = min(c.n_kv, begin + p.range);
    const bool    last  = split == p.n_split - 1;
    const slot_logits kept = p.kept(s*c.n_head_kv + h);
    for (int32_t c0 = begin; c0 < end || (last && c0 == begin); c0 += L::N_CHUNK) {
        const chunk_lists lists = make_lists(c, l, shared, kept, s, h, c0, min(L::N_CHUNK, end - c0));
        const int n_raw = last && c0 + L::N_CHUNK >= end ? c.n_tps : 0;
        const int n     = (lists.n_plain + T - 1)/T + (lists.n_refined + T - 1)/T + (n_raw + T - 1)/T;

        // codes of K and V of the next tile are on their way while this one is computed
        tile_ref next = tile_at<T>(lists, n_raw, team);
        next.n = team < n ? next.n : 0;
        stage_tile<L, D, T>(c, l, shared, lists, next, s, h, c0, team, false);
        stage_tile<L, D, T>(c, l, shared, lists, next, s, h, c0, team, true);
        for (int i = team; i < n; i += WC) {
            const tile_ref t = next;
            next   = tile_at<T>(lists, n_raw, i + WC);
            next.n = i + WC < n ? next.n : 0;

            bool biased;
            const uint32_t seen = visible_of<T>(p, lists, t, s, c0, token, biased);
            hex_copy_wait(); // for K
            team_sync<WR>();
            float x[T/8][4] = {};
            if (!team_any<WR>(seen != 0)) {
                finish_logits<T>(p, lists, t, s, c0, 0, false, token, shift, slope, x); // all hidden
                keep_logits<T>(kept, lists, t, row0 + my_row, x);
                stage_tile<L, D, T>(c, l, shared, lists, next, s, h, c0, team, false);
                hex_copy_wait();
                stage_tile<L, D, T>(c, l, shared, lists, next, s, h, c0, team, true);
                continue;
            }
            load_tile<L, D, T>(c, l, shared, lists, t, s, h, team, false);
            float noise[noise_words<D, T>];
            load_noise<L, D, T>(p, l, shared, t, team, noise);
            team_sync<WR>();
            stage_tile<L, D, T>(c, l, shared, lists, next, s, h, c0, team, false);
            if (active) {
                tile_logits<L, D, T>(q, tile, x);
            }
            add_noise<D, T>(p, t, noise, (const float *) shared + l.noise + my_row*(D/HEX_BLOCK), x);
            hex_copy_wait(); // for V
            team_sync<WR>();
            load_tile<L, D, T>(c, l, shared, lists, t, s, h, team, true);
            finish_logits<T>(p, lists, t, s, c0, seen, biased, token, shift, slope, x);
            keep_logits<T>(kept, lists, t, row0 + my_row, x);

            float keep[2];
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float m = max_[half];
#pragma unroll
                for (int j = 0; j < T/8; j++) {
                    m = fmaxf(m, fmaxf(x[j][2*half], x[j][2*half + 1]));
                }
                m = fmaxf(m, __shfl_xor_sync(HEX_ALL, m, 1));
                m = fmaxf(m, __shfl_xor_sync(HEX_ALL, m, 2));
                const float base = m == -INFINITY ? 0.0f : m; // nothing visible yet: every weight is 0
                keep[half] = __expf(max_[half] - base);
                max_[half] = m;
                sum[half] *= keep[half];
#pragma unroll
                for (int j = 0; j < T/8; j++) {
#pragma unroll
                    for (int e = 0; e < 2; e++) {
                        float & v = x[j][2*half + e];
                        v = __expf(v - base);
                        sum[half] += v; // of this lane's columns; the lanes are added at the end
                    }
                }
            }
#pragma unroll
            for (int j = 0; j < D/8; j++) {
                o[j][0] *= keep[0];
                o[j][1] *= keep[0];
                o[j][2] *= keep[1];
                o[j][3] *= keep[1];
            }
            team_sync<WR>();
            stage_tile<L, D, T>(c, l, shared, lists, next, s, h, c0, team, true);
#pragma unroll
            for (int k = 0; k < T/16 && active; k++) {
                const uint32_t w[4] = { hex_f16x2(x[2*k][0], x[2*k][1]), hex_f16x2(x[2*k][2], x[2*k][3]),
                                        hex_f16x2(x[2*k + 1][0], x[2*k + 1][1]), hex_f16x2(x[2*k + 1][2], x[2*k + 1][3]) };
#pragma unroll
                for (int j = 0; j < D/16; j++) {
                    uint32_t b[4];
                    hex_load_frag_trans(b, tile, L::STRIDE, 16*k, 16*j);
                    hex_mma(o[2*j],     w, b[0], b[1]);
                    hex_mma(o[2*j + 1], w, b[2], b[3]);
                }
            }
            team_sync<WR>();
        }
    }

#pragma unroll
    for (int half = 0; half < 2; half++) {
        sum[half] += __shfl_xor_sync(HEX_ALL, sum[half], 1);
        sum[half] += __shfl_xor_sync(HEX_ALL, sum[half], 2);
    }
    float * merge = (float *) shared + l.team; // [value][lane]
    for (int from = 1; from < WC; from++) {    // teams in their order
        __syncthreads();
        if (team == from) {
            for (int half = 0; half < 2; half++) {
                merge[half*HEX_WARP + lane]       = max_[half];
                merge[(2 + half)*HEX_WARP + lane] = sum[half];
            }
#pragma unroll
            for (int i = 0; i < D/2; i++) {
                merge[(4 + i)*HEX_WARP + lane] = o[i/4][i % 4];
            }
        }
        __syncthreads();
        if (team == 0) {
            float mine[2], other[2];
            for (int half = 0; half < 2; half++) {
                const float m = merge[half*HEX_WARP + lane], top = fmaxf(m, max_[half]), base = top == -INFINITY ? 0.0f : top;
                mine[half]  = __expf(max_[half] - base);
                other[half] = __expf(m - base);
                sum[half]   = sum[half]*mine[half] + merge[(2 + half)*HEX_WARP + lane]*other[half];
                max_[half]  = top;
            }
#pragma unroll
            for (int i = 0; i < D/2; i++) {
                o[i/4][i % 4] = o[i/4][i % 4]*mine[i % 4/2] + merge[(4 + i)*HEX_WARP + lane]*other[i % 4/2];
            }
        }
    }
    if (team != 0) {
        return;
    }
    for (int half = 0; half < 2; half++) {
        const int32_t row = row0 + my_row + 8*half;
        if (row >= p.n_rows) {
            continue;
        }
        float * part = p.part + (((int64_t) (s*c.n_head_kv + h)*p.n_rows + row)*p.n_split + split)*(2 + D);
        if (lane % 4 == 0) {
            part[0] = max_[half];
            part[1] = sum[half];
            if (last) { // the rows of the ubatch are its
                p.stat[((int64_t) (s*c.n_head_kv + h)*p.n_rows + row)*2] = (float) shared[l.nan];
            }
        }
#pragma unroll
        for (int j = 0; j < D/8; j++) {
            part[2 + 8*j + 2*(lane % 4)]     = o[j][2*half];
            part[2 + 8*j + 2*(lane % 4) + 1] = o[j][2*half + 1];
        }
    }
}

//
// finish
//

// The maximum of a query row over its ranges, or 0 when it sees nothing, and the sum of its weights relative to that; a
// range for each lane. Every warp computes the same; weight: shared, the factors of the ranges, or NULL.
static __device__ __forceinline__ void merge_ranges(const attn_args & p, int32_t sh, int32_t row, int32_t d, float sink, float & base, float & sum, float * weight) {
    const float * part = p.part + ((int64_t) sh*p.n_rows + row)*p.n_split*(2 + d);
    const int lane = threadIdx.x % HEX_WARP;
    float m = sink;
    sum = 0.0f;
    for (int32_t i = lane; i < p.n_split; i += HEX_WARP) {
        m = fmaxf(m, part[i*(2 + d)]);
    }
    for (int i = HEX_WARP/2; i > 0; i /= 2) {
        m = fmaxf(m, __shfl_xor_sync(HEX_ALL, m, i));
    }
    base = m == -INFINITY ? 0.0f : m;
    for (int32_t i = lane; i < p.n_split; i += HEX_WARP) {
        const float w = __expf(part[i*(2 + d)] - base);
        sum += w*part[i*(2 + d) + 1];
        if (weight && threadIdx.x < HEX_WARP) {
            weight[i] = w;
        }
    }
    for (int i = HEX_WARP/2; i > 0; i /= 2) {
        sum += __shfl_xor_sync(HEX_ALL, sum, i);
    }
    sum += p.a.sinks ? __expf(sink - base) : 0.0f;
}

// The mass of ranked slots and rows of the ubatch, a thread for each, from the logits that were kept.
template<int D>
static __device__ void mass_of_logits(const attn_args & p, int32_t s, int32_t h, int32_t first, float * stat) {
    const hex_cache & c = p.a.cache;
    const int32_t sh = s*c.n_head_kv + h;
    for (int32_t row = threadIdx.x/HEX_WARP; row < p.n_rows; row += D/HEX_WARP) {
        float base, sum;
        merge_ranges(p, sh, row, D, p.a.sinks ? p.a.sinks[h*p.group + row % p.group] : -INFINITY, base, sum, NULL);
        if (threadIdx.x % HEX_WARP == 0) {
            stat[2*row]     = base;
            stat[2*row + 1] = sum > 0.0f ? 1.0f/sum : 0.0f;
        }
    }
    __syncthreads();

    const slot_logits kept = p.kept(sh);
    const int32_t i = first + (int32_t) threadIdx.x, n_slots = kept.n_slots;
    if (i >= n_slots + c.n_tps) {
        return;
    }
    const int32_t * meta = hex_meta(&c, s);
    float * mass = p.a.mass + (int64_t) sh*(n_slots + c.n_tps + c.n_heavy);
    int32_t cell = 0;
    bool holds = true;
    if (i < n_slots) { // else a row, whose logits are always there
        cell  = i < c.n_ring ? hex_meta_ring(meta, c.n_tps)[i] :
                (int32_t) ((uint32_t) hex_state(&c, s, h)[hex_state_heavy_cell(c.head_k, c.n_ring) + i - c.n_ring] - 1);
        holds = cell >= 0 && cell < c.n_kv && hex_bit_get(hex_meta_bitmap(meta, c.n_tps, c.n_ring), cell) &&
                ((const uint32_t *) kept.x)[(int64_t) i*p.n_rows] != HEX_NOT_OWNER;
    }
    float sum = 0.0f;
    for (int32_t row = 0; row < p.n_rows && holds; row++) {
        sum += __expf(kept.x[(int64_t) i*p.n_rows + row] - stat[2*row])*stat[2*row + 1];
    }
    mass[i] = sum;
    if (i >= c.n_ring && i < n_slots) { // queries that could see a heavy hitter
        int32_t n_seen = 0;
        for (int32_t token = 0; token < c.n_tps && holds; token++) {
            const uint16_t * mask = mask_row(p.a, s, token);
            n_seen += !mask || mask[cell] != 0xfc00;
        }
        mass[n_slots + c.n_tps + i - c.n_ring] = (float) n_seen;
    }
}

// Whether a query row sees a row of the ubatch whose V is not a number in channel d.
static __device__ bool sees_nan(const attn_args & p, int32_t s, int32_t h, int32_t row, int32_t d) {
    const hex_cache & c = p.a.cache;
    const struct hex_meta_row * rows = hex_meta_rows(hex_meta(&c, s));
    const uint16_t * mask = mask_row(p.a, s, row/p.group);
    for (int32_t i = 0; i < c.n_tps; i++) {
        const int32_t cell = rows[i].cell;
        const float   v    = hex_row_cur(&c.v_cur, h, (int64_t) s*c.n_tps + i)[d];
        if (v != v && cell >= 0 && cell < c.n_kv && (!mask || mask[cell] != 0xfc00)) {
            return true;
        }
    }
    return false;
}

template<int D>
static __global__ void __launch_bounds__(D) hex_attn_finish(const attn_args p) {
    HEX_SHARED(memory);
    const hex_cache & c = p.a.cache;
    const int32_t row = (int32_t) blockIdx.x, sh = (int32_t) blockIdx.y, s = sh/c.n_head_kv, h = sh % c.n_head_kv;
    if (row >= p.n_rows) {
        mass_of_logits<D>(p, s, h, (row - p.n_rows)*D, (float *) memory);
        return;
    }
    const int32_t head = h*p.group + row % p.group;
    const float   sink = p.a.sinks ? p.a.sinks[head] : -INFINITY;
    float * stat   = p.stat + ((int64_t) sh*p.n_rows + row)*2;
    float * weight = (float *) memory; // of the ranges
    const bool left_out = stat[0] != 0.0f;
    float base, sum;
    merge_ranges(p, sh, row, D, sink, base, sum, weight);
    __syncthreads();
    const float * o_range = p.part + ((int64_t) sh*p.n_rows + row)*p.n_split*(2 + D) + 2 + threadIdx.x;
    float o = 0.0f;
#pragma unroll 8
    for (int32_t i = 0; i < p.n_split; i++) {
        o += weight[i]*o_range[i*(2 + D)];
    }
    if (left_out && sees_nan(p, s, h, row, threadIdx.x)) {
        o = NAN;
    }
    const float inv = sum > 0.0f ? 1.0f/sum : 0.0f;
    p.a.out[(((int64_t) s*c.n_tps + row/p.group)*p.a.n_head + head)*D + threadIdx.x] = o*inv;
    if (threadIdx.x == 0) {
        stat[0] = base;
        stat[1] = inv;
    }
}

//
// launch
//

static bool few_rows(const hex_attn & a) {
    return a.cache.n_tps*(a.n_head/a.cache.n_head_kv) <= FEW_ROWS;
}

// The kernel that attends, and its shape.
struct attend_kernel {
    void (*run)(const attn_args);
    int32_t rows, threads, chunk;
    size_t  shared; // bytes
};

template<int D, typename L>
static attend_kernel kernel_of(const hex_cache & c) {
    return { hex_attn_attend<D, L>, L::ROWS, L::THREADS, L::N_CHUNK, shared_of<L>(c) };
}

template<int D>
static attend_kernel pick_kernel(const hex_attn & a, const hex_cuda_device & dev) {
    const attend_kernel many = kernel_of<D, many_layout<D>>(a.cache), few = kernel_of<D, few_layout<D>>(a.cache);
    return !few_rows(a) && many.shared <= dev.shared ? many : few.shared <= dev.shared ? few : kernel_of<D, tight_layout<D>>(a.cache);
}

static attend_kernel pick_kernel(const hex_attn & a, const hex_cuda_device & dev) {
    switch (a.cache.head_k) {
        case 64:  return pick_kernel<64> (a, dev);
        case 128: return pick_kernel<128>(a, dev);
        default:  return pick_kernel<256>(a, dev);
    }
}

static attn_args make_args(const hex_attn & a, const hex_cuda_device & dev, float * work) {
    const hex_cache & c = a.cache;
    const attend_kernel kernel = pick_kernel(a, dev);
    attn_args p;
    p.a      = a;
    p.group  = a.n_head/c.n_head_kv;
    p.n_rows = c.n_tps*p.group;
    const int32_t blocks = (p.n_rows + kernel.rows - 1)/kernel.rows*c.n_head_kv*c.n_stream;
    const int32_t wanted = hex_prepare((const void *) kernel.run, kernel.threads, kernel.shared)*dev.n_sm; // blocks that the device holds at once
    const int32_t most   = (c.n_kv + 255)/256;             // a range is worth its tables
    int32_t n_split = blocks > 0 ? wanted/blocks : 1;      // not more: a second wave of a few blocks takes as long as a full one
    n_split   = n_split > most ? most : n_split;
    n_split   = n_split < 1 ? 1 : n_split;
    p.noise   = 0.5f*c.unbias*hex_code_noise[c.bits_k];
    p.range   = ((c.n_kv + n_split - 1)/n_split + 31)/32*32;
    p.range   = p.range < 32 ? 32 : p.range;
    p.n_split = c.n_kv > 0 ? (c.n_kv + p.range - 1)/p.range : 1;
    const size_t n_all = (size_t) p.n_rows*(size_t) (c.n_head_kv*c.n_stream); // query rows
    p.stat    = work;
    p.part    = work + 2*n_all;
    p.logits  = a.mass && few_rows(a) ? p.part + n_all*(size_t) p.n_split*(size_t) (2 + c.head_v) : NULL;
    return p;
}

size_t hex_attn_cuda_work(const hex_attn & a, const hex_cuda_device & dev) {
    const hex_cache & c = a.cache;
    const attn_args p = make_args(a, dev, NULL);
    const size_t logits = a.mass && few_rows(a) ? (size_t) (c.n_ring + c.n_heavy + c.n_tps) : 0;
    return sizeof(float)*(size_t) p.n_rows*(size_t) (c.n_head_kv*c.n_stream)*(2 + (size_t) p.n_split*(size_t) (2 + c.head_v) + logits);
}

bool hex_attn_cuda_supported(const hex_attn & a, const hex_cuda_device & dev) {
    const hex_cache & c = a.cache;
    if (c.head_k != c.head_v || hex_has_channels(&c) || (int64_t) c.n_stream*c.n_head_kv > 65535 || !hex_cuda_aligned(c)) {
        return false;
    }
    switch (c.head_k) {
        case 64:  return shared_of<tight_layout<64>> (c) <= dev.shared;
        case 128: return shared_of<tight_layout<128>>(c) <= dev.shared;
        case 256: return shared_of<tight_layout<256>>(c) <= dev.shared;
    }
    return false;
}

template<int D>
static void launch(const attn_args & p, const hex_cuda_device & dev, cudaStream_t stream) {
    const hex_cache & c = p.a.cache;
    const int32_t n_heads = c.n_head_kv*c.n_stream;
    const attend_kernel kernel = pick_kernel<D>(p.a, dev);
    const auto attend = kernel.run;
    HEX_LAUNCH(attend, dim3((p.n_rows + kernel.rows - 1)/kernel.rows*c.n_head_kv, p.n_split, c.n_stream), dim3(kernel.threads), kernel.shared, stream, p);

    const auto finish = hex_attn_finish<D>;
    const int32_t n_mass = p.logits ? (c.n_ring + c.n_heavy + c.n_tps + D - 1)/D : 0; // blocks
    const int32_t floats = p.n_split > 2*FEW_ROWS ? p.n_split : 2*FEW_ROWS;
    HEX_LAUNCH(finish, dim3(p.n_rows + n_mass, n_heads), dim3(D), sizeof(float)*(size_t) floats, stream, p);
    if (p.a.mass && !p.logits) {
        hex_attn_mass_cuda(p, dev, stream);
    }
}

bool hex_attn_cuda(const hex_attn & a, void * work, const hex_cuda_device & dev, cudaStream_t stream) {
    if (!hex_attn_cuda_supported(a, dev)) {
        return false;
    }
    if (a.cache.n_tps == 0) {
        return true;
    }
    const attn_args p = make_args(a, dev, (float *) work);
    switch (a.cache.head_k) {
        case 64:  launch<64> (p, dev, stream); break;
        case 128: launch<128>(p, dev, stream); break;
        case 256: launch<256>(p, dev, stream); break;
    }
    return true;
}
