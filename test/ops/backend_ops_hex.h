// Cases of HEX_ATTN, HEX_COMMIT and the types hex1..hex4 for llama.cpp's test-backend-ops, which includes this file
// after its own cases (patches/). It compares a backend with the CPU; the CPU with the reference code.
#pragma once

#include "core/hex_bytes.h"
#include "core/hex_codec.h"
#include "core/hex_fp16.h"
#include "cpu/hex_isa.h"
#include "ggml/hex_meta.h"
#include "ggml/hex_ops.h"
#include "ggml/hex_state.h"

enum hex_mode {
    HEX_MODE_ATTN,   // HEX_ATTN
    HEX_MODE_COMMIT, // HEX_COMMIT with any mass; compares every byte of K, V, pool and state
    HEX_MODE_CHAIN,  // HEX_ATTN, HEX_COMMIT, then HEX_ATTN over what was stored: pool, state and codes of V count as well
};

struct hex_shape_case {
    ggml_type type_k = GGML_TYPE_HEX3, type_v = GGML_TYPE_HEX2;
    int refine = HEX_REFINE_HEX4;
    int hsk = 64, hsv = 64;
    int nh = 2, nr = 3;   // KV heads, query heads per KV head
    int kv = 300, nb = 1; // cells, rows per stream
    int ns = 1;           // streams
    int n_ring = 40, n_heavy = 50;
    int graph = HEX_BACKBONE_NONE;
    bool mask = true, sinks = false, frozen = true;
    float max_bias = 0.0f, softcap = 0.0f;
    bool chain = false; // of measurements: hex_chain
};

// A measurement repeats one op, and what it reads may then stay in the L2 cache of a GPU, as it does not where every layer of
// a model has a cache of its own. So the op of a measurement of decoding is a chain, the queries of one the output of the one before,
// over several caches in turns: together over twice the L2 of an H100. Its time is that of all `ops`.
struct hex_chain {
    int caches, ops;

    explicit hex_chain(size_t bytes) { // that one op reads
        caches = (int) std::min<size_t>(16, ((size_t) 160 << 20)/bytes + 1);
        ops    = (116 - 4*caches)/2/caches*caches; // test_case has room for 128 tensors
    }
    std::string vars() const { return ",caches=" + std::to_string(caches) + ",ops=" + std::to_string(ops); }
    // so many that the chain is not repeated
    static uint64_t flops() { return UINT64_C(1000000000000); }
};

// The queries of the next op.
static ggml_tensor * hex_chain_q(ggml_context * ctx, ggml_tensor * out, int64_t d, int64_t n_head, int64_t nb, int64_t ns) {
    const size_t row = ggml_element_size(out)*d;
    return ggml_view_4d(ctx, out, d, nb, n_head, ns, row*n_head, row, row*n_head*nb, 0);
}

// Uniform values, the same ones for the same state of gen.
static void hex_init_uniform(ggml_tensor * t, std::mt19937 & gen, float lo, float hi) {
    std::uniform_real_distribution<float> uniform(lo, hi);
    std::vector<float> x(ggml_nelements(t));
    for (float & v : x) {
        v = uniform(gen);
    }
    if (!ggml_is_quantized(t->type)) {
        GGML_ASSERT(t->type == GGML_TYPE_F32);
        ggml_backend_tensor_set(t, x.data(), 0, ggml_nbytes(t));
        return;
    }
    std::vector<char> codes(ggml_nbytes(t));
    ggml_quantize_chunk(t->type, x.data(), codes.data(), 0, ggml_nrows(t), t->ne[0], nullptr);
    ggml_backend_tensor_set(t, codes.data(), 0, codes.size());
}

// Random bytes in blocks of `size`, repeated every 64 MiB; set_scale makes a number of each block's scale. To draw or to encode the
// gigabytes of a measurement would take longer than the measurement, and time does not depend on what the codes are.
template<typename F>
static void hex_random_blocks(ggml_tensor * t, size_t size, uint64_t seed, F set_scale) {
    const size_t n = ggml_nbytes(t), piece = std::min(n, ((size_t) 64 << 20)/size*size);
    std::vector<uint64_t> data((piece + 7)/8);
    for (uint64_t & word : data) { // splitmix64
        uint64_t z = seed += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30))*0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27))*0x94d049bb133111ebu;
        word = z ^ (z >> 31);
    }
    char * bytes = (char *) data.data();
    for (size_t i = 0; i + size <= piece; i += size) {
        set_scale(bytes + i);
    }
    for (size_t at = 0; at < n; at += piece) {
        ggml_backend_tensor_set(t, bytes, at, std::min(piece, n - at));
    }
}

// Samples are about 2^(octave - 19).
static void hex_random_codes(ggml_tensor * t, int bits, int octave, uint64_t seed) {
    const uint16_t scale = (uint16_t) (octave << (3 + bits) << (8 - bits));
    hex_random_blocks(t, hex_block_size(bits), seed, [=](char * block) { memcpy(block + 8*bits, &scale, sizeof(scale)); });
}

// Samples are at most 1. type: f16, q8_0 or q4_0.
static void hex_random_stock(ggml_tensor * t, uint64_t seed) {
    const ggml_fp16_t scale = ggml_fp32_to_fp16(t->type == GGML_TYPE_Q8_0 ? 1.0f/127 : 1.0f/8);
    GGML_ASSERT(t->type == GGML_TYPE_F16 || t->type == GGML_TYPE_Q8_0 || t->type == GGML_TYPE_Q4_0);
    hex_random_blocks(t, ggml_type_size(t->type), seed, [&](char * block) {
        if (t->type == GGML_TYPE_F16) {
            block[1] = (char) ((block[1] & 0x83) | 0x38); // 1/2 to 1
        } else {
            memcpy(block, &scale, sizeof(scale));
        }
    });
}

struct test_hex : public test_case {
    const hex_mode mode_hex;
    const hex_shape_case c;
    ggml_hex_op_params p = {};

    std::string op_desc(ggml_tensor * t) override {
        GGML_UNUSED(t);
        return mode_hex == HEX_MODE_ATTN ? "HEX_ATTN" : "HEX_COMMIT";
    }

    std::string vars() override {
        const auto & [type_k, type_v, refine, hsk, hsv, nh, nr, kv, nb, ns, n_ring, n_heavy, graph, mask, sinks, frozen, max_bias, softcap, caches] = c;
        const bool chain = mode_hex == HEX_MODE_CHAIN;
        return VARS_TO_STR10(type_k, type_v, refine, hsk, hsv, nh, nr, kv, nb, ns) + "," +
               VARS_TO_STR9(n_ring, n_heavy, graph, mask, sinks, frozen, max_bias, softcap, chain) + (caches ? perf_chain().vars() : "");
    }

    hex_chain perf_chain() const {
        return hex_chain((size_t) c.ns*c.nh*(ggml_row_size(c.type_k, c.hsk) + ggml_row_size(c.type_v, c.hsv))*c.kv);
    }
    int n_caches() const { return c.chain ? perf_chain().caches : 1; }

    uint64_t op_flops(ggml_tensor * t) override {
        GGML_UNUSED(t);
        return c.chain ? hex_chain::flops() : (uint64_t) 2*c.nh*c.nr*c.nb*c.ns*(c.hsk + c.hsv)*(c.kv + c.nb);
    }

    // The output and the mass each for itself: their sizes differ.
    double err(const float * a, const float * b, size_t n) override {
        const size_t n_out = (size_t) c.hsv*c.nh*c.nr*c.nb*c.ns;
        if (mode_hex == HEX_MODE_COMMIT) {
            return std::equal(a, a + n, b) ? 0.0 : 1.0;
        }
        if (n <= n_out) {
            return nmse(a, b, n);
        }
        // the mass of a slot is the weights of one cell, whose errors do not average out as in the output: half its error counts
        const double e = nmse(a, b, n_out);
        return p.n_heavy > 0 ? std::max(e, nmse(a + n_out, b + n_out, n - n_out)/2) : e; // else one unused element
    }

    // Kernels of other devices round K, V and queries to f16, the CPU's those of many rows to 8 bits where that is allowed;
    // commit gives the same bits everywhere. In a chain, a mass that is a little off can decide between two tokens of nearly the
    // same score, and another cell is refined then: 9 of 10 times that is an NMSE below 0.8/kv (measured with hex_attn_ref). Rows that
    // are all stored wrongly give more, and HEX_MODE_COMMIT compares the bytes.
    double max_nmse_err(ggml_backend_t backend) override {
        const bool cpu = ggml_backend_dev_type(ggml_backend_get_device(backend)) == GGML_BACKEND_DEVICE_TYPE_CPU;
        if (mode_hex == HEX_MODE_COMMIT || (cpu && !hex_coarse_get())) {
            return test_case::max_nmse_err();
        }
        const double limit = cpu ? 2e-4 : 1e-5;
        return mode_hex == HEX_MODE_CHAIN ? std::max(limit, std::min(0.8/c.kv, 1e-2)) : limit;
    }

    test_hex(hex_mode mode_hex, const hex_shape_case & c) : mode_hex(mode_hex), c(c) {
        p.scale      = 1.0f/sqrtf((float) c.hsk);
        p.max_bias   = c.max_bias;
        p.softcap    = c.softcap;
        p.refine     = c.refine;
        p.n_mean     = 64;
        p.half_life  = 100;
        p.unbias     = c.kv % 2 ? 0.5f : 1.0f;
        p.n_ctx      = c.kv + 37;
        p.n_ring     = c.refine == HEX_REFINE_NONE ? 0 : std::min(c.n_ring,  p.n_ctx);
        p.n_heavy    = c.refine == HEX_REFINE_NONE ? 0 : std::min(c.n_heavy, p.n_ctx);
        p.graph_kind = c.refine == HEX_REFINE_NONE ? HEX_BACKBONE_NONE : c.graph;
        if (p.graph_kind != HEX_BACKBONE_NONE) {
            p.graph_seed = 5;
            p.n_pairs    = p.graph_kind == HEX_BACKBONE_CHANNELS ? HEX_BLOCK : 32;
            p.degree     = 4;
            p.pair0      = 3;
            const int period = p.n_pairs/p.degree;
            p.n_static   = (p.n_ctx + period - 1)/period;
        }
    }

    int n_slots() const { return p.n_ring + p.n_heavy + p.n_static; }

    ggml_tensor * named(ggml_tensor * t, const char * name) {
        ggml_set_name(t, name);
        return t;
    }

    ggml_tensor * build_graph(ggml_context * ctx) override {
        const int64_t n_tokens = (int64_t) c.nb*c.ns, n_head = c.nh*c.nr;
        const int64_t n_stream = (int64_t) c.ns*n_caches();
        // K and V of the cache are views of more cells, q is permuted as in a model's graph
        ggml_tensor * k_all  = named(ggml_new_tensor_4d(ctx, c.type_k, c.hsk, c.nh, p.n_ctx, n_stream), "k_base");
        ggml_tensor * v_all  = named(ggml_new_tensor_4d(ctx, c.type_v, c.hsv, c.nh, p.n_ctx, n_stream), "v_base");
        ggml_tensor * k_base = ggml_view_4d(ctx, k_all, c.hsk, c.nh, c.kv, c.ns, k_all->nb[1], k_all->nb[2], k_all->nb[3], 0);
        ggml_tensor * v_base = ggml_view_4d(ctx, v_all, c.hsv, c.nh, c.kv, c.ns, v_all->nb[1], v_all->nb[2], v_all->nb[3], 0);
        ggml_tensor * k_cur  = named(ggml_new_tensor_3d(ctx, GGML_TYPE_F32, c.hsk, c.nh, n_tokens), "k_cur");
        ggml_tensor * v_cur  = named(ggml_new_tensor_3d(ctx, GGML_TYPE_F32, c.hsv, c.nh, n_tokens), "v_cur");
        ggml_tensor * state  = named(ggml_new_tensor_3d(ctx, GGML_TYPE_I32, hex_state_size(c.hsk, p.n_ring, p.n_heavy), c.nh, n_stream), "state");
        ggml_tensor * meta   = named(ggml_new_tensor_2d(ctx, GGML_TYPE_I32, hex_meta_words(c.nb, p.n_ring, p.n_ctx), c.ns), "meta");
        ggml_tensor * pool   = n_slots() == 0 ? nullptr :
            named(ggml_new_tensor_4d(ctx, GGML_TYPE_I8, hex_slot_size((hex_refine) p.refine, c.hsk, c.hsv), n_slots(), c.nh, n_stream), "pool");

        ggml_tensor * mass = nullptr;
        ggml_tensor * q    = nullptr;
        ggml_tensor * m    = nullptr;
        ggml_tensor * s    = nullptr;
        if (mode_hex != HEX_MODE_COMMIT) {
            q = named(ggml_new_tensor_4d(ctx, GGML_TYPE_F32, c.hsk, n_head, c.nb, c.ns), "q");
            q = ggml_permute(ctx, q, 0, 2, 1, 3);
            m = c.mask  ? named(ggml_new_tensor_4d(ctx, GGML_TYPE_F16, c.kv, c.nb, 1, c.ns), "m") : nullptr;
            s = c.sinks ? named(ggml_new_tensor_1d(ctx, GGML_TYPE_F32, n_head), "s") : nullptr;
            if (c.chain) {
                return named(build_chain(ctx, q, k_cur, v_cur, k_all, v_all, pool, state, meta, m), "out");
            }
            ggml_tensor * attn = ggml_hex_attn(ctx, q, k_cur, v_cur, k_base, v_base, pool, state, meta, m, s, &p);
            if (mode_hex == HEX_MODE_ATTN) {
                return named(attn, "out");
            }
            mass = ggml_hex_attn_mass(ctx, attn);
        } else {
            const int64_t n_mass = ggml_hex_mass_size(&p, c.nb)*c.nh*c.ns;
            mass = named(ggml_new_tensor_1d(ctx, GGML_TYPE_F32, n_mass > 0 ? n_mass : 1), "mass");
        }
        ggml_tensor * commit = ggml_hex_commit(ctx, k_cur, v_cur, mass, k_base, v_base, pool, state, meta, &p);
        if (mode_hex == HEX_MODE_COMMIT) {
            if (mode == MODE_TEST && gf) { // nodes of their own, which are compared as well
                ggml_build_forward_expand(gf, commit);
                for (ggml_tensor * t : { k_all, v_all, pool, state }) {
                    if (t) {
                        ggml_build_forward_expand(gf, bytes_of(ctx, t));
                    }
                }
            }
            return named(commit, "out");
        }
        ggml_tensor * later = named(ggml_new_tensor_2d(ctx, GGML_TYPE_I32, meta->ne[0], c.ns), "meta_later");
        return named(ggml_hex_attn(ctx, q, k_cur, v_cur, commit, v_base, pool, state, later, m, s, &p), "out");
    }

    // A copy of the bytes of a tensor as they are by then.
    ggml_tensor * bytes_of(ggml_context * ctx, ggml_tensor * t) {
        ggml_tensor * bytes = ggml_view_1d(ctx, t, ggml_nelements(t), 0);
        bytes->type  = GGML_TYPE_I8;
        bytes->ne[0] = (int64_t) ggml_nbytes(t);
        bytes->nb[0] = 1;
        bytes->nb[1] = bytes->nb[2] = bytes->nb[3] = ggml_nbytes(t);
        return ggml_cont(ctx, bytes);
    }

    ggml_tensor * build_chain(ggml_context * ctx, ggml_tensor * q, ggml_tensor * k_cur, ggml_tensor * v_cur, ggml_tensor * k_all, ggml_tensor * v_all,
            ggml_tensor * pool, ggml_tensor * state, ggml_tensor * meta, ggml_tensor * m) {
        const hex_chain chain = perf_chain();
        struct cache { ggml_tensor * k, * v, * pool, * state; };
        std::vector<cache> caches;
        for (int i = 0; i < chain.caches; i++) {
            const auto part = [&](ggml_tensor * t, int64_t n2) { // streams of the cache; n2: of dimension 2
                return ggml_view_4d(ctx, t, t->ne[0], t->ne[1], n2, c.ns, t->nb[1], t->nb[2], t->nb[3], (size_t) i*c.ns*t->nb[3]);
            };
            caches.push_back({ part(k_all, c.kv), part(v_all, c.kv), pool ? part(pool, c.nh) : nullptr,
                ggml_view_3d(ctx, state, state->ne[0], c.nh, c.ns, state->nb[1], state->nb[2], (size_t) i*c.ns*state->nb[2]) });
        }
        ggml_tensor * out = nullptr;
        for (int i = 0; i < chain.ops; i++) {
            const cache & a = caches[i % chain.caches];
            out = ggml_hex_attn(ctx, q, k_cur, v_cur, a.k, a.v, a.pool, a.state, meta, m, nullptr, &p);
            q   = i + 1 < chain.ops ? hex_chain_q(ctx, out, c.hsk, c.nh*c.nr, c.nb, c.ns) : q;
        }
        return out;
    }

    // Rows take cells that hold nothing, some cells hold no token at all; slots hold tokens, each once. What is measured is full.
    struct plan {
        std::vector<int32_t> words, later, heavy;
    };

    plan make_plan(std::mt19937 & gen) const {
        std::vector<int32_t> order(c.kv);
        for (int i = 0; i < c.kv; i++) {
            order[i] = i;
        }
        std::shuffle(order.begin(), order.end(), gen);
        const int n_rows  = std::min(c.nb, c.kv/2);
        const bool full   = mode == MODE_PERF;
        const int n_empty = full ? 0 : (c.kv - n_rows)/10;

        plan res;
        res.words.resize(hex_meta_words(c.nb, p.n_ring, p.n_ctx));
        auto * rows = (hex_meta_row *) res.words.data();
        int32_t * ring = res.words.data() + c.nb*HEX_META_ROW_WORDS;
        int32_t * bits = ring + p.n_ring;
        const int32_t * cell = order.data() + n_rows + n_empty, * end = order.data() + c.kv;
        for (const int32_t * i = cell; i < end; i++) {
            bits[*i/32] |= (int32_t) (1u << *i % 32);
        }
        for (int i = 0; i < p.n_ring; i++) {
            ring[i] = (full || i % 7 != 3) && cell < end ? *cell++ : -1;
        }
        for (int i = 0; i < p.n_heavy; i++) {
            res.heavy.push_back((full || i % 5 != 2) && cell < end ? *cell++ + 1 : 0);
        }
        for (int i = 0; i < c.nb; i++) {
            rows[i] = { i < n_rows ? order[i] : -1, i < p.n_ring && i % 4 != 1 ? i : -1, c.nb - i, -1, 0, i == 0 };
            if (rows[i].ring_slot >= 0 && ring[i] >= 0) {
                rows[i].evict_cell = ring[i];
                rows[i].evict_seen = 20 + i;
            }
        }

        // the next ubatch, whose rows have no cells: it sees what was stored
        res.later = res.words;
        rows = (hex_meta_row *) res.later.data();
        ring = res.later.data() + c.nb*HEX_META_ROW_WORDS;
        bits = ring + p.n_ring;
        for (int i = 0; i < c.nb; i++) {
            if (rows[i].cell >= 0) {
                bits[rows[i].cell/32] |= (int32_t) (1u << rows[i].cell % 32);
                if (rows[i].ring_slot >= 0) {
                    ring[rows[i].ring_slot] = rows[i].cell;
                }
            }
            rows[i] = { -1, -1, 1, -1, 0, 0 };
        }
        return res;
    }

    void initialize_tensors(ggml_context * ctx) override {
        uint32_t seed = 2166136261u; // FNV-1a of the parameters: every run has the same case
        for (const char byte : op_desc(nullptr) + vars()) {
            seed = (seed ^ (uint8_t) byte)*16777619u;
        }
        std::mt19937 gen(seed);
        std::normal_distribution<float> gauss(0.0f, 1.0f);
        std::uniform_real_distribution<float> uniform(0.0f, 1.0f);

        std::vector<plan> plans;
        for (int i = 0; i < c.ns; i++) {
            plans.push_back(make_plan(gen));
        }
        for (ggml_tensor * t = ggml_get_first_tensor(ctx); t != NULL; t = ggml_get_next_tensor(ctx, t)) {
            const std::string name = t->name;
            if (t->op == GGML_OP_HEX_ATTN) { // the element that is not used without heavy slots must be a number
                const std::vector<float> zero(ggml_nelements(t));
                ggml_backend_tensor_set(t, zero.data(), 0, ggml_nbytes(t));
            }
            if (t->op != GGML_OP_NONE || t->view_src) {
                continue;
            }
            const int bits = hex_type_bits(t->type);
            if ((mode == MODE_PERF || c.kv > 10000) && bits > 0) {
                hex_random_codes(t, bits, 19, gen());
                continue;
            }
            if (mode == MODE_PERF && name == "pool" && p.refine >= HEX_REFINE_HEX1 && p.refine <= HEX_REFINE_HEX4) {
                hex_random_codes(t, p.refine, 16, gen());
                continue;
            }
            std::vector<float> x(ggml_nelements(t));
            if (name == "meta" || name == "meta_later") {
                for (int i = 0; i < c.ns; i++) {
                    const auto & words = name == "meta" ? plans[i].words : plans[i].later;
                    ggml_backend_tensor_set(t, words.data(), i*t->nb[1], words.size()*sizeof(int32_t));
                }
            } else if (name == "state") {
                for (int i = 0; i < n_caches()*c.ns*c.nh; i++) {
                    init_state(t, i, plans[i/c.nh % c.ns], gen);
                }
            } else if (name == "pool") {
                init_pool(t, gen);
            } else if (name == "m") {
                for (size_t i = 0; i < x.size(); i++) {
                    const size_t tile = i/64 % 5; // seen whole, hidden whole, or by chance; with ALiBi biased
                    const bool   show = tile == 0 || (tile != 1 && uniform(gen) < 0.8f);
                    x[i] = mode == MODE_PERF ? 0.0f : !show ? -INFINITY : c.max_bias > 0.0f || tile == 4 ? -uniform(gen) : 0.0f;
                }
                std::vector<ggml_fp16_t> y(x.size());
                ggml_fp32_to_fp16_row(x.data(), y.data(), x.size());
                ggml_backend_tensor_set(t, y.data(), 0, y.size()*sizeof(ggml_fp16_t));
            } else if (name == "s") {
                hex_init_uniform(t, gen, -3.0f, 3.0f);
            } else if (name == "mass") {
                hex_init_uniform(t, gen, 0.0f, 1.0f);
            } else if (name == "q" || name == "k_cur" || name == "v_cur") {
                for (float & v : x) {
                    v = gauss(gen);
                }
                ggml_backend_tensor_set(t, x.data(), 0, x.size()*sizeof(float));
            } else {
                hex_init_uniform(t, gen, -1.0f, 1.0f);
            }
        }
    }

    void init_state(ggml_tensor * t, int i, const plan & pl, std::mt19937 & gen) {
        std::uniform_real_distribution<float> uniform(0.0f, 1.0f);
        std::vector<int32_t> words(t->ne[0]);
        float * f = (float *) words.data();
        words[HEX_STATE_ROWS]   = c.frozen ? p.n_mean : p.n_mean - std::min(c.nb, 3); // the mean may freeze now
        words[HEX_STATE_FROZEN] = c.frozen;
        for (int j = 0; j < c.hsk; j++) {
            f[HEX_STATE_MEAN + j] = 0.5f*uniform(gen)*(c.frozen ? 1.0f : words[HEX_STATE_ROWS]);
        }
        for (int j = 0; j < p.n_heavy; j++) {
            words[hex_state_heavy_cell(c.hsk, p.n_ring) + j] = pl.heavy[j];
            f[hex_state_heavy_score(c.hsk, p.n_ring, p.n_heavy) + j] = uniform(gen);
        }
        for (int j = 0; j < p.n_ring && p.n_heavy > 0; j++) {
            f[hex_state_ring_score(c.hsk) + j] = uniform(gen);
        }
        ggml_backend_tensor_set(t, words.data(), i*t->nb[1], words.size()*sizeof(int32_t));
    }

    void init_pool(ggml_tensor * t, std::mt19937 & gen) {
        std::normal_distribution<float> gauss(0.0f, 0.2f);
        std::vector<char> data(ggml_nbytes(t));
        std::vector<float> x(c.hsk + c.hsv);
        for (size_t at = 0; at < data.size(); at += t->nb[1]) {
            for (float & v : x) {
                v = gauss(gen);
            }
            if (p.refine == HEX_REFINE_F16) {
                ggml_fp32_to_fp16_row(x.data(), (ggml_fp16_t *) (data.data() + at), x.size());
            } else {
                const ggml_type type = p.refine == HEX_REFINE_Q8_0 ? GGML_TYPE_Q8_0 : (ggml_type) (GGML_TYPE_HEX1 + p.refine - 1);
                ggml_quantize_chunk(type, x.data(), data.data() + at, 0, 1, x.size(), nullptr);
            }
        }
        ggml_backend_tensor_set(t, data.data(), 0, data.size());
    }
};

// Stock attention in the same chain. Its streams would share K and V, so sequences are more heads.
struct test_stock_chain : public test_flash_attn_ext {
    const hex_chain chain;

    test_stock_chain(int64_t d, int64_t nh, int64_t nr, int64_t kv, int64_t nb, ggml_type type) :
        test_flash_attn_ext(d, d, nh, { nr, 1 }, kv, nb, true, false, 0, 0, GGML_PREC_F32, type, type, { 0, 2, 1, 3 }),
        chain((size_t) (2*kv*nh)*ggml_row_size(type, d)) {}

    std::string vars() override { return test_flash_attn_ext::vars() + chain.vars(); }

    uint64_t op_flops(ggml_tensor * t) override {
        GGML_UNUSED(t);
        return hex_chain::flops();
    }

    ggml_tensor * build_graph(ggml_context * ctx) override {
        ggml_tensor * q = ggml_permute(ctx, ggml_new_tensor_4d(ctx, GGML_TYPE_F32, hsk, nh*nr23[0], nb, 1), 0, 2, 1, 3);
        ggml_tensor * m = ggml_set_name(ggml_new_tensor_4d(ctx, GGML_TYPE_F16, kv, nb, 1, 1), "m");
        ggml_tensor * all[2] = { ggml_new_tensor_4d(ctx, type_K, hsk, nh, kv, chain.caches), ggml_new_tensor_4d(ctx, type_V, hsv, nh, kv, chain.caches) };
        std::vector<std::array<ggml_tensor *, 2>> caches(chain.caches);
        for (int i = 0; i < chain.caches; i++) {
            for (int j = 0; j < 2; j++) {
                const ggml_tensor * t = all[j];
                caches[i][j] = ggml_view_4d(ctx, all[j], t->ne[0], kv, nh, 1, t->nb[2], t->nb[1], t->nb[3], (size_t) i*t->nb[3]);
            }
        }
        ggml_tensor * out = nullptr;
        for (int i = 0; i < chain.ops; i++) {
            const auto & [k, v] = caches[i % chain.caches];
            out = ggml_flash_attn_ext(ctx, q, k, v, m, 1.0f/sqrtf((float) hsk), max_bias, logit_softcap);
            ggml_prec_set_acc(out, prec);
            q = i + 1 < chain.ops ? hex_chain_q(ctx, out, hsk, nh*nr23[0], nb, 1) : q;
        }
        return ggml_set_name(out, "out");
    }

    void initialize_tensors(ggml_context * ctx) override {
        for (ggml_tensor * t = ggml_get_first_tensor(ctx); t != NULL; t = ggml_get_next_tensor(ctx, t)) {
            if (t->op != GGML_OP_NONE || t->view_src) {
                continue;
            }
            if (strcmp(t->name, "m") == 0) { // all seen
                const std::vector<ggml_fp16_t> zero(ggml_nelements(t));
                ggml_backend_tensor_set(t, zero.data(), 0, ggml_nbytes(t));
            } else if (t->type == GGML_TYPE_F32) {
                init_tensor_uniform(t);
            } else {
                hex_random_stock(t, 1);
            }
        }
    }
};

static void append_hex_cases(std::vector<std::unique_ptr<test_case>> & cases) {
    const ggml_type types[] = { GGML_TYPE_HEX1, GGML_TYPE_HEX2, GGML_TYPE_HEX3, GGML_TYPE_HEX4 };
    const int refines[] = { HEX_REFINE_NONE, HEX_REFINE_HEX1, HEX_REFINE_HEX2, HEX_REFINE_HEX3, HEX_REFINE_HEX4, HEX_REFINE_Q8_0, HEX_REFINE_F16 };
    const int graphs[]  = { HEX_BACKBONE_EXPANDER, HEX_BACKBONE_RANDOM, HEX_BACKBONE_STRIDED, HEX_BACKBONE_LOG, HEX_BACKBONE_CHANNELS };
    const hex_mode modes[] = { HEX_MODE_ATTN, HEX_MODE_COMMIT, HEX_MODE_CHAIN };

    // flash attention over the types alone
    for (ggml_type type_K : types) {
        for (ggml_type type_V : types) {
            cases.emplace_back(new test_flash_attn_ext(64, 64, 2, {3, 1}, 113, 1, true, false, 0, 0, GGML_PREC_F32, type_K, type_V, {0, 2, 1, 3}));
        }
        for (int nb : {1, 35}) {
            cases.emplace_back(new test_flash_attn_ext(128, 128, 2, {4, 2}, 256, nb, true, true, 8.0f, 0, GGML_PREC_F32, type_K, type_K));
            cases.emplace_back(new test_flash_attn_ext(256, 256, 1, {4, 1}, 512, nb, true, false, 0, 30.0f, GGML_PREC_F32, type_K, type_K, {0, 2, 1, 3}));
        }
    }

    for (hex_mode mode : modes) {
        for (ggml_type type_k : types) {
            for (ggml_type type_v : types) {
                for (int nb : {1, 7}) {
                    hex_shape_case c;
                    c.type_k = type_k;
                    c.type_v = type_v;
                    c.nb     = nb;
                    cases.emplace_back(new test_hex(mode, c));
                }
            }
        }
        for (int refine : refines) {
            for (int nb : {1, 4, 5, 70}) {
                hex_shape_case c;
                c.refine = refine;
                c.nb     = nb;
                c.frozen = nb != 5;
                c.ns     = nb == 4 ? 3 : 1;
                cases.emplace_back(new test_hex(mode, c));
            }
        }
        for (int graph : graphs) {
            for (int n_heavy : {0, 50}) {
                for (int nb : {1, 33}) {
                    hex_shape_case c;
                    c.graph   = graph;
                    c.n_heavy = n_heavy;
                    c.refine  = graph == HEX_BACKBONE_CHANNELS ? HEX_REFINE_F16 : c.refine;
                    c.nb      = nb;
                    c.frozen  = n_heavy == 0;
                    cases.emplace_back(new test_hex(mode, c));
                }
            }
        }
        for (const auto & [hsk, hsv] : { std::pair<int, int>(128, 128), { 192, 128 }, { 256, 256 }, { 64, 128 } }) {
            for (int nb : {1, 3, 40}) {
                hex_shape_case c;
                c.hsk = hsk;
                c.hsv = hsv;
                c.nb  = nb;
                c.kv  = 129;
                cases.emplace_back(new test_hex(mode, c));
            }
        }
        for (int nr : {1, 2, 4, 7, 8, 16}) {
            for (int nb : {1, 20}) {
                hex_shape_case c;
                c.nr       = nr;
                c.nb       = nb;
                c.ns       = 2;
                c.sinks    = nr % 2 == 0;
                c.max_bias = nr > 3 ? 8.0f : 0.0f;
                c.softcap  = nr % 4 == 0 ? 20.0f : 0.0f;
                cases.emplace_back(new test_hex(mode, c));
            }
        }
        for (int kv : {1, 63, 64, 65, 1000}) { // rows that are longer than the cache, a cache of one cell
            for (int nb : {1, 130}) {
                hex_shape_case c;
                c.kv   = kv;
                c.nb   = nb;
                c.nh   = 1;
                c.nr   = 4;
                c.mask = kv != 65;
                cases.emplace_back(new test_hex(mode, c));
            }
        }
        for (int kv : {20000, 70000}) { // several chunks in a range, more ranges than a warp has lanes
            for (int nb : {1, 40}) {
                hex_shape_case c;
                c.kv      = kv;
                c.nb      = nb;
                c.nh      = 1;
                c.nr      = nb == 1 ? 4 : 1;
                c.n_ring  = 256;
                c.n_heavy = kv/16;
                cases.emplace_back(new test_hex(mode, c));
            }
        }
    }
}

// Decoding and prefill beside flash attention over stock types. HEXKV_PERF_LARGE: the sizes that GPUs are measured at.
static void append_hex_perf_case(std::vector<std::unique_ptr<test_case>> & cases, int kv, int nb, int ns, bool chain) {
    for (ggml_type type : {GGML_TYPE_F16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0}) { // its streams would share K and V, so more heads
        cases.emplace_back(chain ? new test_stock_chain(128, 8*ns, 4, kv, nb, type) :
            new test_flash_attn_ext(128, 128, 8*ns, {4, 1}, kv, nb, true, false, 0, 0, GGML_PREC_F32, type, type, {0, 2, 1, 3}));
    }
    hex_shape_case c;
    c.type_k = GGML_TYPE_HEX4;
    c.hsk = c.hsv = 128;
    c.nh = 8;
    c.nr = 4;
    c.kv = kv;
    c.nb = nb;
    c.ns = ns;
    c.n_ring  = 256;
    c.n_heavy = kv/16;
    cases.emplace_back(new test_hex(HEX_MODE_COMMIT, c));
    c.chain = chain;
    cases.emplace_back(new test_hex(HEX_MODE_ATTN, c));
}

static void append_hex_perf_cases(std::vector<std::unique_ptr<test_case>> & cases) {
    const bool large = getenv("HEXKV_PERF_LARGE") != nullptr;
    for (int kv : large ? std::vector<int>{ 4096, 8192, 32768, 131072 } : std::vector<int>{ 4096, 16384 }) {
        append_hex_perf_case(cases, kv, 1, 1, large);
        if (large && kv > 4096) { // that is only what llama-bench is compared with
            append_hex_perf_case(cases, kv, 1, 8, true);
        }
        if (kv <= 32768 && !(large && kv == 4096)) {
            append_hex_perf_case(cases, kv, 512, 1, false);
        }
    }
}
