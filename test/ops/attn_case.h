// Random cases of HEX_ATTN for the tests of its kernels, on the CPU and in CUDA: shapes, masks, slot states, valid and
// hostile.
#pragma once

#include "fixture.h"

#include "cpu/hex_attn.h"

#include <algorithm>
#include <map>
#include <string>

// ---- a random case

static const int32_t heads [][2] = { { 64, 64 }, { 128, 128 }, { 192, 128 }, { 256, 256 }, { 64, 128 } };
static const int32_t groups[]    = { 1, 2, 3, 4, 7, 8, 16 };
static const int32_t tokens[]    = { 1, 2, 3, 4, 5, 17, 63, 64, 65, 513 };
static const enum hex_refine refines[] = { HEX_REFINE_NONE, HEX_REFINE_HEX1, HEX_REFINE_HEX2, HEX_REFINE_HEX3,
                                           HEX_REFINE_HEX4, HEX_REFINE_Q8_0, HEX_REFINE_F16 };
static const enum hex_backbone graphs[] = { HEX_BACKBONE_NONE, HEX_BACKBONE_EXPANDER, HEX_BACKBONE_RANDOM,
                                            HEX_BACKBONE_STRIDED, HEX_BACKBONE_LOG, HEX_BACKBONE_CHANNELS };
static const char * mask_names[] = { "none", "causal", "random", "biased", "blocks", "hidden" };
enum mask_kind { MASK_NONE, MASK_CAUSAL, MASK_RANDOM, MASK_BIASED, MASK_BLOCKS, MASK_HIDDEN, N_MASKS };

struct attn_case {
    shape   sh;
    int32_t group = 1, n_tps = 1, n_kv = 1;
    int     mask = MASK_NONE;
    bool    alibi = false, softcap = false, sinks = false, hostile = false, huge = false, frozen = false;
};

static std::map<std::string, int> covered; // value of a parameter -> cases
static const size_t N_COVERED = 74;

static void cover(const attn_case & c) {
    const auto count = [](const char * what, long value) { covered[std::string(what) + " " + std::to_string(value)]++; };
    covered["heads " + std::to_string(c.sh.head_k) + "/" + std::to_string(c.sh.head_v)]++;
    count("n_head_kv", c.sh.n_head_kv);
    count("group", c.group);
    count("n_tps", c.n_tps);
    count("n_stream", c.sh.n_stream);
    count("refine", c.sh.refine);
    count("bits_k", c.sh.bits_k);
    count("bits_v", c.sh.bits_v);
    count("graph", c.sh.graph_kind);
    count("heavy", c.sh.n_heavy > 0);
    count("alibi", c.alibi);
    count("softcap", c.softcap);
    count("sinks", c.sinks);
    count("hostile", c.hostile);
    count("huge", c.huge);
    count("frozen", c.frozen);
    count("unbias", c.sh.unbias > 0);
    count("n_kv < n_ctx", c.n_kv < c.sh.n_ctx);
    covered[std::string("mask ") + mask_names[c.mask]]++;
}

// What does not depend on the time there is.
static void draw_rest(attn_case & c, rng & r) {
    c.n_kv = r.chance(0.3) ? c.sh.n_ctx : r.range(1, c.sh.n_ctx);

    if (c.sh.refine != HEX_REFINE_NONE) {
        c.sh.n_ring     = r.chance(0.2) ? 0 : r.below(c.sh.n_ctx/2 + 2);
        c.sh.n_heavy    = r.chance(0.3) ? 0 : r.below(c.sh.n_ctx/2 + 2);
        c.sh.graph_kind = r.pick(graphs);
        set_graph(c.sh, r);
    }
    c.mask    = r.below(N_MASKS);
    c.alibi   = r.chance(0.3);
    c.softcap = r.chance(0.3);
    c.sinks   = r.chance(0.3);
    c.hostile = r.chance(0.5);
    c.huge    = r.chance(0.15);
    c.frozen  = r.chance(0.6);
    c.sh.unbias = r.chance(0.3) ? 0 : r.chance(0.5) ? 1 : 0.3f;
}

static attn_case random_case(rng & r, double budget) {
    attn_case c;
    const int hd = r.below(5);
    c.sh.head_k    = heads[hd][0];
    c.sh.head_v    = heads[hd][1];
    c.sh.n_head_kv = r.range(1, 4);
    c.sh.n_stream  = r.range(1, 3);
    c.sh.bits_k    = r.range(1, 4);
    c.sh.bits_v    = r.range(1, 4);
    c.sh.refine    = r.pick(refines);
    c.sh.padded    = r.chance(0.5);
    c.group        = r.pick(groups);
    c.n_tps        = r.pick(tokens);
    c.sh.n_ctx     = r.chance(0.3) ? r.range(1, 130) : r.range(64, 1300);

    // rows and cells that fit the time there is
    const auto cost = [&] { return (double) c.n_tps*c.group*c.sh.n_head_kv*c.sh.n_stream*(c.sh.n_ctx + c.n_tps); };
    while (cost() > budget) {
        switch (r.below(4)) {
            case 0: c.sh.n_stream  = c.sh.n_stream > 1 ? c.sh.n_stream - 1 : 1; break;
            case 1: c.sh.n_head_kv = c.sh.n_head_kv > 1 ? c.sh.n_head_kv - 1 : 1; break;
            case 2: c.sh.n_ctx     = c.sh.n_ctx > 100 ? c.sh.n_ctx/2 : c.sh.n_ctx; break;
            case 3: c.group        = r.pick(groups); break;
        }
    }
    draw_rest(c, r);
    return c;
}

// Items of 64 query rows, which the budget of random cases has with group 1 alone: few cells, one head.
static const int32_t many_rows[][2] = { { 74, 7 }, { 171, 3 }, { 512, 3 }, { 513, 3 }, { 513, 7 } }; // tokens, group

static attn_case many_rows_case(rng & r, const int32_t rows[2]) {
    attn_case c;
    c.sh.head_k = c.sh.head_v = r.chance(0.5) ? 64 : 128;
    c.sh.bits_k = r.range(1, 4);
    c.sh.bits_v = r.range(1, 4);
    c.sh.refine = HEX_REFINE_HEX4;
    c.sh.padded = r.chance(0.5);
    c.n_tps     = rows[0];
    c.group     = rows[1];
    c.sh.n_ctx  = r.range(100, 150);
    draw_rest(c, r);
    c.huge = false;
    c.n_kv = c.sh.n_ctx - r.below(20);
    c.sh.n_ring     = r.range(1, c.sh.n_ctx/5);
    c.sh.n_heavy    = r.range(1, c.sh.n_ctx/5);
    c.sh.graph_kind = HEX_BACKBONE_NONE; // channels would be F16
    c.sh.refine = (enum hex_refine) r.range(HEX_REFINE_HEX1, HEX_REFINE_HEX4);
    return c;
}

// Random codes of a row, their scale such that samples are about `sigma`.
static void random_blocks(rng & r, int bits, float sigma, char * block, int32_t n) {
    const int octave = 19 + (int) floorf(log2f(sigma)); // 32 table units are one sigma
    for (; n > 0; n -= HEX_BLOCK, block += hex_block_size(bits)) {
        for (int i = 0; i < 8*bits; i++) {
            block[i] = (char) r.next();
        }
        const uint32_t e = r.chance(0.02) ? 0 : ((uint32_t) octave << (3 + bits)) + (uint32_t) r.below(1 << (3 + bits));
        const uint16_t word = (uint16_t) (e << (8 - bits) | (r.next() & ((1u << (8 - bits)) - 1)));
        memcpy(block + 8*bits, &word, 2);
    }
}

static void random_residual(rng & r, enum hex_refine refine, float sigma, char * row, int32_t n) {
    if (refine == HEX_REFINE_F16) {
        for (int32_t i = 0; i < n; i++) {
            const uint16_t v = hex_fp32_to_fp16(sigma*r.gauss());
            memcpy(row + 2*i, &v, 2);
        }
    } else if (refine == HEX_REFINE_Q8_0) {
        for (int32_t i = 0; i < n; i++) {
            const uint16_t d = hex_fp32_to_fp16(sigma/60);
            memcpy(row + i/32*34, &d, 2);
            row[i/32*34 + 2 + i % 32] = (char) r.range(-127, 127);
        }
    } else if (refine != HEX_REFINE_NONE) {
        random_blocks(r, (int) refine, sigma, row, n);
    }
}

// An index that may be anything, but often is a cell.
static int32_t any_index(rng & r, int32_t n) {
    static const int32_t nasty[] = { -1, -2, -64, INT_MIN, INT_MAX, 1 << 20, INT_MIN + 1 };
    return r.chance(0.15) ? r.pick(nasty) : r.chance(0.05) ? n + r.below(3) : r.below(n);
}

struct attn_data {
    attn_case  c;
    cache_data d;
    buffer     q, mask;
    std::vector<float> sinks;
    size_t q_row = 0, q_head = 0, q_stream = 0, mask_row = 0, mask_stream = 0;
    float  scale = 0;
    std::vector<float> out, mass;

    attn_data(const attn_case & cs, rng & r) : c(cs), d(cs.sh) {
        d.new_ubatch(c.n_tps);
        const shape & sh = c.sh;
        const int32_t n_head = sh.n_head_kv*c.group;

        // huge: values of V near the largest floats, logits of usual size from large factors
        const float size_q = c.huge ? 1e12f : 1, size_k = 1, size_v = c.huge ? 1e30f : 1;
        scale = (c.huge ? 1e-12f : 1)*2/sqrtf((float) sh.head_k);

        for (int32_t s = 0; s < sh.n_stream; s++) {
            uint32_t * bits = d.bitmap(s);
            const int fill = r.below(4);
            for (int32_t i = 0; i < (sh.n_ctx + 31)/32; i++) {
                bits[i] = fill == 0 ? 0xffffffffu : fill == 1 && r.chance(0.5) ? 0 : (uint32_t) (r.next() | (fill > 2 ? r.next() : 0));
            }
            if (!c.hostile) {
                for (int32_t cell = c.n_kv; cell < (sh.n_ctx + 31)/32*32; cell++) {
                    bits[cell/32] &= ~(1u << cell % 32);
                }
            }
            int32_t next = 0;
            for (int32_t i = 0; i < c.n_tps; i++) {
                struct hex_meta_row * row = d.rows(s) + i;
                *row = { any_index(r, c.n_kv), any_index(r, sh.n_ring + 1), any_index(r, 100), any_index(r, c.n_kv), any_index(r, 100), 0 };
                if (!c.hostile) { // a cell that holds nothing yet
                    while (next < c.n_kv && d.bit(s, next)) {
                        next++;
                    }
                    row->cell = next < c.n_kv ? next++ : -1;
                }
            }
            for (int32_t i = 0; i < sh.n_ring; i++) {
                d.ring(s)[i] = c.hostile || r.chance(0.9) ? any_index(r, c.n_kv) : -1;
            }
            for (int32_t h = 0; h < sh.n_head_kv; h++) {
                int32_t * state = d.head_state(s, h);
                state[HEX_STATE_ROWS]   = c.hostile ? any_index(r, 1000) : 256;
                state[HEX_STATE_FROZEN] = c.frozen ? (c.hostile ? any_index(r, 3) | 1 : 1) : 0;
                for (int32_t i = 0; i < sh.head_k; i++) {
                    d.mean(s, h)[i] = 0.3f*r.gauss();
                }
                for (int32_t i = 0; i < sh.n_heavy; i++) {
                    const int32_t cell = any_index(r, c.n_kv);
                    d.heavy(s, h)[i] = cell < INT_MAX ? cell + 1 : cell;
                    d.heavy_score(s, h)[i] = (float) r.uniform();
                }
                for (int32_t i = 0; i < d.n_slots; i++) {
                    char * slot = d.slot(s, h, i);
                    random_residual(r, sh.refine, 0.3f, slot, sh.head_k);
                    random_residual(r, sh.refine, 0.3f, slot + hex_slot_size(sh.refine, sh.head_k, 0), sh.head_v);
                }
                for (int32_t cell = 0; cell < sh.n_ctx; cell++) {
                    random_blocks(r, sh.bits_k, 1, d.base(true,  s, h, cell), sh.head_k);
                    random_blocks(r, sh.bits_v, 1, d.base(false, s, h, cell), sh.head_v);
                }
                for (int32_t i = 0; i < c.n_tps; i++) {
                    // rows that nobody sees may hold anything
                    const int32_t cell = d.rows(s)[i].cell;
                    const float   any  = (cell < 0 || cell >= c.n_kv) && r.chance(0.3) ? NAN : 1;
                    for (int32_t j = 0; j < sh.head_k; j++) {
                        d.cur(true, s, h, i)[j] = any*size_k*r.gauss();
                    }
                    for (int32_t j = 0; j < sh.head_v; j++) {
                        d.cur(false, s, h, i)[j] = any*size_v*r.gauss();
                    }
                }
            }
        }

        // q as the graph has it: heads next to each other in memory, permuted
        q_head   = 4*((size_t) sh.head_k + 2*d.pad);
        q_row    = q_head*(size_t) n_head + 20*d.pad;
        q_stream = q_row*(size_t) c.n_tps + 4*d.pad;
        q = buffer(q_stream*(size_t) sh.n_stream);
        for (size_t i = 0; i < q.size/4; i++) {
            q.as<float>()[i] = size_q*r.gauss();
        }

        if (c.mask != MASK_NONE) {
            mask_row    = 2*((size_t) c.n_kv + 3*d.pad);
            mask_stream = mask_row*((size_t) c.n_tps + d.pad);
            mask = buffer(mask_stream*(size_t) sh.n_stream);
            for (int32_t s = 0; s < sh.n_stream; s++) {
                for (int32_t i = 0; i < c.n_tps; i++) {
                    fill_mask_row(r, s, i);
                }
            }
        }
        for (int32_t i = 0; i < (c.sinks ? n_head : 0); i++) {
            sinks.push_back(3*r.gauss());
        }
        out .resize((size_t) sh.n_stream*c.n_tps*n_head*sh.head_v);
        mass.resize(sh.n_heavy > 0 ? (size_t) sh.n_stream*sh.n_head_kv*(sh.n_ring + 2*sh.n_heavy + c.n_tps) : 0);
    }

    uint16_t * mask_at(int32_t s, int32_t row) { return (uint16_t *) (mask.as<char>() + mask_stream*(size_t) s + mask_row*(size_t) row); }

    void fill_mask_row(rng & r, int32_t s, int32_t row) {
        uint16_t * m = mask_at(s, row);
        const float bias = c.alibi ? 1 : 0;
        const bool hidden = c.mask == MASK_HIDDEN && (row % 3 != 1 || c.n_tps == 1);
        const double p = r.uniform();
        for (int32_t cell = 0; cell < c.n_kv; cell++) {
            bool show = true;
            switch (c.mask) {
                case MASK_CAUSAL: // cells of earlier rows and of the cache; everything later is hidden
                    for (int32_t i = row + 1; i < std::min(c.n_tps, row + 40); i++) {
                        show = show && d.rows(s)[i].cell != cell;
                    }
                    break;
                case MASK_RANDOM: show = r.chance(p); break;
                case MASK_BIASED: show = r.chance(0.9); break;
                case MASK_BLOCKS: show = ((uint64_t) (cell/64)*2654435761u + (uint64_t) row/9*40503u) >> 3 & 1; break;
                case MASK_HIDDEN: show = !hidden && r.chance(0.7); break;
            }
            const float value = c.mask == MASK_BIASED ? r.gauss() : -bias*(float) abs(cell - row)/16;
            m[cell] = show ? hex_fp32_to_fp16(value) : 0xfc00;
        }
    }

    // Half the variance of a cell's logit by coding noise, over the scale; hex_ops.h.
    double noise(int32_t s, int32_t h, int32_t cell, const float * q) {
        uint64_t kept = 0;
        if (c.sh.graph_kind == HEX_BACKBONE_CHANNELS) {
            struct hex_cache view = d.view(c.n_kv);
            hex_channel_masks(&view, cell, 1, &kept);
        }
        double sum = 0;
        for (int32_t b = 0; b < c.sh.head_k/HEX_BLOCK; b++) {
            const char * block = d.base(true, s, h, cell) + hex_block_size(c.sh.bits_k)*(size_t) b;
            uint16_t word;
            memcpy(&word, block + 8*c.sh.bits_k, 2);
            const double size = (double) hex_scale_decode(c.sh.bits_k, word);
            for (int32_t i = 0; i < HEX_BLOCK; i++) {
                sum += size*size*(double) q[b*HEX_BLOCK + i]*(double) q[b*HEX_BLOCK + i];
            }
        }
        const double coded = (HEX_BLOCK - __builtin_popcountll(kept))/(double) HEX_BLOCK;
        return 0.5*(double) c.sh.unbias*(double) scale*(double) hex_code_noise[c.sh.bits_k]*coded*sum;
    }

    struct hex_attn attn() {
        struct hex_attn a = {};
        a.cache    = d.view(c.n_kv);
        a.n_head   = c.sh.n_head_kv*c.group;
        a.scale    = scale;
        a.max_bias = c.alibi ? 8.0f : 0.0f;
        a.softcap  = c.softcap ? 5.0f : 0.0f;
        a.q        = cache_data::tensor(q, 4, q_row, q_head, q_stream);
        a.mask     = cache_data::tensor(mask, 2, mask_row, mask_stream, mask_stream);
        a.mask.data = c.mask == MASK_NONE ? nullptr : a.mask.data;
        a.sinks    = c.sinks ? sinks.data() : nullptr;
        a.out      = out.data();
        a.mass     = mass.empty() ? nullptr : mass.data();
        return a;
    }
};
