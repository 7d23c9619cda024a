// The mass that HEX_ATTN gives for many query rows: a block per (stream, KV head, chunk of cells). Probabilities of ranked refined
// cells and of the ubatch's rows, summed over all query rows in their order; no atomics on floats, so the same input gives
// the same bits.
#include "hex_attn_impl.cuh"

template<int D, typename L>
static __global__ void __launch_bounds__(L::THREADS) hex_attn_mass(const attn_args p) {
    constexpr int T = L::CELLS;
    static_assert(L::WARPS == 1 && T == 16, "a warp has a tile");
    HEX_SHARED(memory);
    uint32_t * shared = (uint32_t *) memory;
    const hex_cache & c = p.a.cache;
    const L l(c.bits_k, c.bits_v, c.refine);
    const int32_t n_chunks = (int32_t) gridDim.x - 1; // and one block for the ubatch's rows
    const bool    raw = (int32_t) blockIdx.x == n_chunks;
    const int32_t sh = (int32_t) blockIdx.y, s = sh/c.n_head_kv, h = sh % c.n_head_kv, c0 = raw ? 0 : (int32_t) blockIdx.x*L::N_CHUNK;
    const int lane = threadIdx.x % HEX_WARP, team = threadIdx.x/HEX_WARP;
    const int32_t n_ranked = c.n_ring + c.n_heavy;
    float * mass = p.a.mass + (int64_t) sh*(n_ranked + c.n_tps + c.n_heavy);
    const uint16_t * tile = (const uint16_t *) (shared + l.tile(team));

    fill_tables(c, l, shared);
    chunk_lists lists = make_lists(c, l, shared, p.kept(sh), s, h, c0, raw ? 0 : min(L::N_CHUNK, c.n_kv - c0));
    lists.drop_plain();
    const int n = raw ? (c.n_tps + T - 1)/T : (lists.n_refined + T - 1)/T;

    for (int i0 = 0; i0 < n; i0 += few_warps<D>) { // a tile for each warp, the query rows for all of them
        const tile_ref t = i0 + team < n ? tile_at<T>(lists, raw ? c.n_tps : 0, i0 + team) : tile_ref { TILE_RAW, 0, 0 };
        stage_tile<L, D, T>(c, l, shared, lists, t, s, h, c0, team, false);
        hex_copy_commit(); // an empty group, so that the copies are not the last one
        hex_copy_wait();
        __syncwarp();
        load_tile<L, D, T>(c, l, shared, lists, t, s, h, team, false);

        float total[T/8][2] = { { 0.0f, 0.0f }, { 0.0f, 0.0f } };
        for (int32_t row0 = 0; row0 < p.n_rows; row0 += 16) {
            __syncthreads();
            load_queries<L, D>(p, l, shared, s, h, row0);
            __syncthreads();
            int32_t token[2];
            float   shift[2], slope[2], base[2], inv[2];
            for (int half = 0; half < 2; half++) {
                const int32_t row = row0 + lane/4 + 8*half;
                const float * stat = p.stat + ((int64_t) sh*p.n_rows + min(row, p.n_rows - 1))*2;
                token[half] = row < p.n_rows ? row/p.group : -1;
                shift[half] = ((const float *) shared)[l.shift + lane/4 + 8*half];
                slope[half] = slope_of(p.a, h*p.group + row % p.group);
                base[half]  = stat[0];
                inv[half]   = stat[1];
            }
            bool biased;
            const uint32_t seen = visible_of<T>(p, lists, t, s, c0, token, biased);
            float x[T/8][4];
            tile_logits<L, D, T>((const uint16_t *) (shared + l.q), tile, x);
            finish_logits<T>(p, lists, t, s, c0, seen, biased, token, shift, slope, x);
            for (int j = 0; j < T/8; j++) {
                for (int e = 0; e < 2; e++) {
                    total[j][e] += __expf(x[j][e] - base[0])*inv[0] + __expf(x[j][2 + e] - base[1])*inv[1];
                }
            }
        }
        for (int j = 0; j < T/8; j++) {
            for (int e = 0; e < 2; e++) {
                float v = total[j][e];
                for (int k = 4; k < HEX_WARP; k *= 2) {
                    v += __shfl_xor_sync(HEX_ALL, v, k);
                }
                const int col = 8*j + 2*(lane % 4) + e;
                if (lane < 4 && col < t.n) {
                    const int32_t slot = raw ? n_ranked + t.first + col : lists.slots[t.first + col];
                    if (raw || slot < n_ranked) {
                        mass[slot] = v;
                    }
                }
            }
        }
        for (int col = 0; col < t.n && !raw; col++) { // queries that could see a heavy hitter
            const int32_t slot = lists.slots[t.first + col], cell = c0 + lists.refined_cell(t.first + col);
            if (slot < c.n_ring || slot >= n_ranked) {
                continue;
            }
            int32_t n_seen = 0;
            for (int32_t token = lane; token < c.n_tps; token += HEX_WARP) {
                const uint16_t * mask = mask_row(p.a, s, token);
                n_seen += !mask || mask[cell] != 0xfc00;
            }
            for (int k = 1; k < HEX_WARP; k *= 2) {
                n_seen += __shfl_xor_sync(HEX_ALL, n_seen, k);
            }
            if (lane == 0) {
                mass[n_ranked + c.n_tps + slot - c.n_ring] = (float) n_seen;
            }
        }
        __syncthreads();
    }
}

template<int D, typename L>
static void launch_mass(const attn_args & p, cudaStream_t stream) {
    const hex_cache & c = p.a.cache;
    const int32_t n_heads = c.n_head_kv*c.n_stream;
    const auto mass = hex_attn_mass<D, L>;
    hex_prepare((const void *) mass, L::THREADS, shared_of<L>(c));
    hex_clear(p.a.mass, sizeof(float)*(size_t) n_heads*(size_t) (c.n_ring + 2*c.n_heavy + c.n_tps), stream);
    HEX_LAUNCH(mass, dim3((c.n_kv + L::N_CHUNK - 1)/L::N_CHUNK + 1, n_heads), dim3(L::THREADS), shared_of<L>(c), stream, p);
}

template<int D>
static void launch_mass(const attn_args & p, const hex_cuda_device & dev, cudaStream_t stream) {
    if (shared_of<few_layout<D>>(p.a.cache) <= dev.shared) {
        launch_mass<D, few_layout<D>>(p, stream);
    } else {
        launch_mass<D, tight_layout<D>>(p, stream);
    }
}

void hex_attn_mass_cuda(const attn_args & p, const hex_cuda_device & dev, cudaStream_t stream) {
    switch (p.a.cache.head_k) {
        case 64:  launch_mass<64> (p, dev, stream); break;
        case 128: launch_mass<128>(p, dev, stream); break;
        case 256: launch_mass<256>(p, dev, stream); break;
    }
}
