// HEX_COMMIT in CUDA, run on the CPU, against csrc/cpu/hex_commit.c: every byte of the cache is the same, after several
// ubatches, valid and hostile.
#include "ops/attn_case.h"

#include "cuda/hex_commit.cu"

#include "core/check.h"

static int n_evicted, n_frozen, n_late;

// Rows, ring and bitmap of a new ubatch. Hostile ones name anything; in the others the host's promises hold.
static void new_meta(cache_data & d, int32_t n_tps, bool hostile, rng & r, int32_t n_kv) {
    const shape & sh = d.sh;
    d.new_ubatch(n_tps);
    for (int32_t s = 0; s < sh.n_stream; s++) {
        for (int32_t i = 0; i < sh.n_ring; i++) {
            d.ring(s)[i] = hostile ? any_index(r, n_kv) : r.chance(0.8) ? (i*7 + r.below(2)) % n_kv : -1;
        }
        for (int32_t i = 0; i < (sh.n_ctx + 31)/32; i++) {
            d.bitmap(s)[i] = (uint32_t) (r.next() | r.next());
        }
        const int32_t first = r.below(n_kv);
        for (int32_t i = 0; i < n_tps; i++) {
            struct hex_meta_row & row = d.rows(s)[i];
            row = { hostile ? any_index(r, n_kv) : (first + i) % n_kv, any_index(r, sh.n_ring + 1), any_index(r, 100), any_index(r, n_kv),
                    any_index(r, 100), r.chance(0.1) };
            if (row.ring_slot >= 0 && row.ring_slot < sh.n_ring && r.chance(0.9)) {
                row.evict_cell = d.ring(s)[row.ring_slot];
            }
            if (!hostile && row.cell >= 0) {
                d.bitmap(s)[row.cell/32] &= ~(1u << row.cell % 32);
            }
        }
        for (int32_t h = 0; h < sh.n_head_kv; h++) {
            for (int32_t i = 0; i < n_tps; i++) {
                const float size = r.chance(0.1) ? 0 : r.chance(0.1) ? 1e-6f : r.chance(0.1) ? 1e6f : 1;
                for (const bool k : { true, false }) {
                    for (int32_t j = 0; j < (k ? sh.head_k : sh.head_v); j++) {
                        float & x = d.cur(k, s, h, i)[j];
                        x = size*r.gauss();
                        if (hostile && r.chance(0.002)) {
                            x = r.chance(0.5) ? NAN : INFINITY;
                        }
                    }
                }
            }
        }
    }
}

static std::vector<float> new_mass(const cache_data & d, rng & r, bool ties, bool hostile) {
    std::vector<float> mass((size_t) d.sh.n_stream*d.sh.n_head_kv*(d.sh.n_ring + 2*d.sh.n_heavy + d.n_tps));
    for (float & m : mass) {
        m = ties ? (float) r.below(4)/4 : (float) r.uniform();
        m = hostile && r.chance(0.01) ? r.chance(0.5) ? NAN : INFINITY : m;
    }
    const size_t head = (size_t) (d.sh.n_ring + 2*d.sh.n_heavy + d.n_tps), n_heavy = (size_t) d.sh.n_heavy;
    for (size_t i = 0; i < mass.size(); i++) {
        if (i % head >= head - n_heavy) {
            mass[i] = (float) r.below(d.n_tps + 1);
        }
    }
    return mass;
}

// Makes heavy scores and means such that something happens: ties, empty slots, a mean about to freeze.
static void new_state(cache_data & d, rng & r, bool ties, bool hostile, int32_t n_kv) {
    const shape & sh = d.sh;
    d.pool.fill(r);
    if (sh.refine == HEX_REFINE_F16) {
        for (size_t i = 1; i < d.pool.size; i += 2) {
            d.pool.as<char>()[i] &= 0x3f; // finite
        }
    }
    for (int32_t s = 0; s < sh.n_stream; s++) {
        for (int32_t h = 0; h < sh.n_head_kv; h++) {
            int32_t * state = d.head_state(s, h);
            state[HEX_STATE_FROZEN] = r.chance(0.3);
            state[HEX_STATE_ROWS]   = state[HEX_STATE_FROZEN] ? sh.n_mean : std::max(0, sh.n_mean - r.below(20));
            for (int32_t i = 0; i < sh.head_k; i++) {
                d.mean(s, h)[i] = state[HEX_STATE_FROZEN] ? 0.3f*r.gauss() : 0.3f*(float) state[HEX_STATE_ROWS]*r.gauss();
            }
            for (int32_t i = 0; i < sh.n_ring && sh.n_heavy > 0; i++) {
                d.ring_score(s, h)[i] = ties ? (float) r.below(4) : (float) r.uniform();
            }
            for (int32_t i = 0; i < sh.n_heavy; i++) {
                const int32_t cell = hostile ? any_index(r, n_kv) : (i*3 + 1) % n_kv;
                d.heavy(s, h)[i] = r.chance(0.2) ? 0 : cell < INT_MAX ? cell + 1 : cell;
                d.heavy_score(s, h)[i] = ties ? (float) r.below(4)/8 : (float) r.uniform()/4;
            }
            for (int32_t cell = 0; cell < sh.n_ctx; cell++) {
                random_blocks(r, sh.bits_k, 1, d.base(true,  s, h, cell), sh.head_k);
                random_blocks(r, sh.bits_v, 1, d.base(false, s, h, cell), sh.head_v);
            }
        }
    }
}

static bool same(const cache_data & a, const cache_data & b, std::string & where) {
    where = !(a.k_base == b.k_base) ? "K codes" : !(a.v_base == b.v_base) ? "V codes" : !(a.pool == b.pool) ? "residuals" :
            !(a.state == b.state) ? "state" : !(a.meta == b.meta && a.k_cur == b.k_cur && a.v_cur == b.v_cur) ? "sources" : "";
    return where.empty();
}

static bool run_ubatches(int number, const shape & sh, int32_t n_kv, bool hostile, bool ties, rng & r);

static bool run_case(int number, rng & r) {
    static const int32_t head_sizes[] = { 64, 128, 192, 256 };
    static const enum hex_backbone kinds[] = { HEX_BACKBONE_NONE, HEX_BACKBONE_EXPANDER, HEX_BACKBONE_RANDOM, HEX_BACKBONE_STRIDED, HEX_BACKBONE_LOG };
    shape sh;
    sh.head_k    = number % 4 == 0 ? r.pick(head_sizes) : 64;
    sh.head_v    = number % 4 == 0 ? r.pick(head_sizes) : 64;
    sh.n_head_kv = r.range(1, 2);
    sh.n_stream  = r.range(1, 2);
    sh.n_ctx     = r.range(40, 400);
    sh.bits_k    = 1 + number % 4;
    sh.bits_v    = 1 + number/4 % 4;
    sh.refine    = r.pick(refines);
    sh.padded    = r.chance(0.5);
    sh.n_mean    = r.chance(0.8) ? 40 : 0;
    sh.half_life = r.range(1, 300);
    if (sh.refine != HEX_REFINE_NONE) {
        sh.n_ring  = r.chance(0.2) ? 0 : r.below(sh.n_ctx/2 + 2);
        sh.n_heavy = r.chance(0.2) ? 0 : r.chance(0.2) ? 1 : r.below(sh.n_ctx/2 + 2);
        sh.graph_kind = r.pick(kinds);
        set_graph(sh, r);
    }
    const bool hostile = r.chance(0.5), ties = r.chance(0.3);
    return run_ubatches(number, sh, r.chance(0.5) ? sh.n_ctx : r.range(30, sh.n_ctx), hostile, ties, r);
}

// More slots than the threads of a block take in one step.
static bool run_long_case(int number, rng & r) {
    shape sh;
    sh.n_ctx   = 6000;
    sh.refine  = HEX_REFINE_HEX4;
    sh.n_ring  = 700;
    sh.n_heavy = PLACE_BATCH*PLACE_THREADS + 500;
    sh.n_mean  = 40;
    return run_ubatches(number, sh, sh.n_ctx, number % 2 != 0, number % 2 != 0, r);
}

static bool run_ubatches(int number, const shape & sh, int32_t n_kv, bool hostile, bool ties, rng & r) {
    static const int32_t rows[] = { 1, 1, 1, 2, 5, 33, 70 };
    cache_data d(sh);
    new_state(d, r, ties, hostile, n_kv);
    for (int step = 0; step < 3; step++) {
        new_meta(d, r.pick(rows), hostile, r, n_kv);
        const std::vector<float> mass = new_mass(d, r, ties, hostile);
        const cache_data before = d;
        cache_data want = d;

        struct hex_commit cm = { want.view(n_kv), sh.n_heavy > 0 ? mass.data() : nullptr };
        buffer work(hex_commit_work(&cm));
        work.fill(r);
        team t;
        t.run(1, [&](int ith) { hex_commit_run(&cm, work.as<void>(), ith, 1, team::wait, &t); });

        struct hex_commit cuda = { d.view(n_kv), cm.mass };
        buffer cuda_work(hex_commit_cuda_work(cuda.cache));
        cuda_work.fill(r);
        std::string where = "support";
        if (!hex_commit_cuda(cuda, cuda_work.as<void>(), nullptr) || !same(d, want, where)) {
            printf("case %d step %d: %s differ: head %d/%d x%d, rows %d x%d, n_kv %d of %d, hex%d/hex%d refine %d, ring %d heavy %d graph %d%s%s\n", number, step,
                   where.c_str(), sh.head_k, sh.head_v, sh.n_head_kv, d.n_tps, sh.n_stream, n_kv, sh.n_ctx, sh.bits_k, sh.bits_v, sh.refine, sh.n_ring,
                   sh.n_heavy, sh.graph_kind, hostile ? " hostile" : "", ties ? " ties" : "");
            return false;
        }
        for (int32_t s = 0; s < sh.n_stream; s++) {
            for (int32_t h = 0; h < sh.n_head_kv; h++) {
                cache_data old = before;
                n_frozen += sh.n_mean > 0 && d.head_state(s, h)[HEX_STATE_FROZEN] != old.head_state(s, h)[HEX_STATE_FROZEN];
                for (int32_t i = 0; i < sh.n_heavy; i++) {
                    const int32_t cell = d.heavy(s, h)[i] - 1;
                    if (d.heavy(s, h)[i] == old.heavy(s, h)[i] || cell < 0) { continue; }
                    bool by_row = false;
                    for (int32_t j = 0; j < d.n_tps; j++) { by_row = by_row || d.rows(s)[j].cell == cell; }
                    (by_row ? n_late : n_evicted)++;
                }
            }
        }
    }
    return true;
}

// Blocks alone, many of them: every path of the search, at every size that samples can have.
static int wrong_blocks(int k, int n, rng & r) {
    shape sh;
    sh.bits_k = sh.bits_v = k;
    sh.refine = (enum hex_refine) k;
    sh.n_ctx  = n;
    sh.n_ring = n;
    cache_data d(sh);
    d.new_ubatch(n);
    for (int32_t i = 0; i < n; i++) {
        d.rows(0)[i] = { i, i, 1, -1, 0, 0 };
        const float size = exp2f((float) r.range(-40, 40));
        for (int32_t j = 0; j < 64; j++) {
            d.cur(true,  0, 0, i)[j] = i % 3 == 0 ? size*(float) r.range(-1, 1) : size*r.gauss();
            d.cur(false, 0, 0, i)[j] = i % 3 == 0 ? size*(r.chance(0.03) ? 1.0f : 0.0f) : (float) r.uniform();
        }
    }
    struct hex_commit cm = { d.view(n), nullptr };
    buffer work(hex_commit_cuda_work(cm.cache));
    hex_commit_cuda(cm, work.as<void>(), nullptr);
    int bad = 0;
    for (int32_t i = 0; i < n; i++) {
        for (const bool kk : { true, false }) {
            char want[34], residual[34];
            float y[64];
            const float * x = d.cur(kk, 0, 0, i);
            hex_quantize_ref(k, x, want, 64);
            if (!kk) {
                hex_unbias(k, x, want, 64, sh.unbias);
            }
            hex_dequantize_ref(k, want, y, 64);
            for (int32_t j = 0; j < 64; j++) { y[j] = x[j] - y[j]; }
            hex_quantize_ref(k, y, residual, 64);
            bad += memcmp(want, d.base(kk, 0, 0, i), hex_block_size(k)) != 0;
            bad += memcmp(residual, d.slot(0, 0, i) + (kk ? 0 : hex_block_size(k)), hex_block_size(k)) != 0;
        }
    }
    return bad;
}

// More rows than a grid has blocks in its second dimension; most of them without a cell, which takes no time.
static bool more_rows_than_blocks(rng & r) {
    shape sh;
    sh.n_ctx = 40;
    cache_data d(sh);
    d.new_ubatch(70000);
    for (int32_t i = 0; i < d.n_tps; i++) {
        d.rows(0)[i] = { i % 7000 == 6999 ? i/7000 : -1, -1, 1, -1, 0, 0 };
        for (int32_t j = 0; j < 64; j++) {
            d.cur(true, 0, 0, i)[j] = d.cur(false, 0, 0, i)[j] = r.gauss();
        }
    }
    cache_data want = d;
    struct hex_commit cm = { want.view(sh.n_ctx), nullptr };
    buffer work(hex_commit_work(&cm));
    team t;
    t.run(1, [&](int ith) { hex_commit_run(&cm, work.as<void>(), ith, 1, team::wait, &t); });
    struct hex_commit cuda = { d.view(sh.n_ctx), nullptr };
    buffer cuda_work(hex_commit_cuda_work(cuda.cache));
    std::string where;
    return hex_commit_cuda(cuda, cuda_work.as<void>(), nullptr) && same(d, want, where);
}

int main(int argc, char ** argv) {
    const int n_cases = argc > 1 ? atoi(argv[1]) : sanitized ? 16 : 96, n_blocks = sanitized ? 20 : 200;
    rng r { 20260202 };
    for (int k = 1; k <= 4; k++) {
        const int bad = wrong_blocks(k, n_blocks, r);
        check(bad == 0, "hex%d: the device's encoder gives the reference's bits in %d blocks", k, 4*n_blocks);
    }
    int bad = 0;
    for (int i = 0; i < n_cases; i++) {
        bad += !run_case(i, r);
    }
    check(bad == 0, "HEX_COMMIT in CUDA stores the same bytes as on the CPU: %d cases of 3 ubatches", n_cases);
    bad = 0;
    for (int i = 0; i < (sanitized ? 1 : 2); i++) {
        bad += !run_long_case(i, r);
    }
    check(bad == 0, "... and with more than 2,048 heavy slots");
    check(more_rows_than_blocks(r), "70000 rows at once");
    check(argc > 1 || sanitized || (n_evicted > 100 && n_late > 100 && n_frozen > 10),
          "%d tokens moved from the ring to a heavy slot, %d rows took one at once, %d means froze", n_evicted, n_late, n_frozen);
    return check_exit_code();
}
