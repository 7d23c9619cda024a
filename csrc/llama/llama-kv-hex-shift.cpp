// Context shift of a HEX cache. Stock llama.cpp turns the stored K rows in place; here a row is decoded with its
// residual and mean, turned in full precision, and coded again. Only cells that move against the others are touched.

#include "llama-kv-hex-rows.h"
#include "llama-hex-access.h"

#include "llama-batch.h"
#include "llama-context.h"
#include "llama-graph.h"
#include "llama-impl.h"
#include "llama-model.h"

#include <algorithm>
#include <bitset>
#include <cmath>
#include <cstdlib>

static constexpr int32_t FRAME_MAX = 1 << 15; // farther out the angles of RoPE, in floats, get coarse

static constexpr size_t CELLS_PER_STEP = 2048; // of one graph, so that its memory does not grow with the context

// rotate back, RoPE by the shift, rotate: what build_graph_shift does, on rows of floats, and without its attn_factor: a row got
// that when it was computed, and each turn would scale it once more
static ggml_tensor * build_turn(const llama_kv_cache & kv, const llama_cparams & cparams, ggml_context * ctx,
        ggml_tensor * rows, ggml_tensor * shift, ggml_tensor * rot, uint32_t il) {
    const auto & hparams = llama_hex_access::hparams(kv);
    const auto & model   = llama_hex_access::model(kv);

    const float freq_scale  = model.get_rope_freq_scale(cparams, il);
    const float attn_factor = cparams.yarn_ext_factor != 0 ? 1/(1 + 0.1f*logf(1/freq_scale)) : 1; // YaRN multiplies by that itself

    ggml_tensor * cur = rot ? llama_mul_mat_hadamard(ctx, rows, rot) : rows;
    cur = ggml_rope_ext(ctx, cur, shift, model.get_rope_factors(cparams, il), hparams.n_rot(il), hparams.rope_type, cparams.n_ctx_orig_yarn,
            model.get_rope_freq_base(cparams, il), freq_scale, cparams.yarn_ext_factor, attn_factor, cparams.yarn_beta_fast, cparams.yarn_beta_slow);
    return rot ? llama_mul_mat_hadamard(ctx, cur, rot) : cur;
}

// The rows of `cells`, [head_k, n_head_kv, n_cells], turned in place.
static bool turn(const llama_kv_cache & kv, llama_context * lctx, uint32_t il, int64_t head_k, int64_t n_head_kv,
        const std::vector<int32_t> & shifts, std::vector<float> & rows) {
    auto * sched = lctx->get_sched();
    ggml_backend_sched_reset(sched);
    auto * res = lctx->get_gf_res_reserve();
    res->reset();

    ggml_context * ctx = res->get_ctx();
    ggml_tensor * inp_rows  = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, head_k, n_head_kv, shifts.size());
    ggml_tensor * inp_shift = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, shifts.size());
    ggml_tensor * inp_rot   = kv.build_input_k_rot(ctx);
    ggml_set_input(inp_rows);
    ggml_set_input(inp_shift);

    ggml_tensor * out = build_turn(kv, lctx->get_cparams(), ctx, inp_rows, inp_shift, inp_rot, il);
    ggml_set_output(out);
    ggml_build_forward_expand(res->get_gf(), out);
    if (!ggml_backend_sched_alloc_graph(sched, res->get_gf())) {
        return false;
    }
    ggml_backend_tensor_set(inp_rows,  rows.data(),   0, ggml_nbytes(inp_rows));
    ggml_backend_tensor_set(inp_shift, shifts.data(), 0, ggml_nbytes(inp_shift));
    if (inp_rot) {
        kv.set_input_k_rot(inp_rot);
    }
    if (lctx->graph_compute(res->get_gf(), false) != GGML_STATUS_SUCCESS) {
        return false;
    }
    lctx->synchronize();
    ggml_backend_tensor_get(out, rows.data(), 0, ggml_nbytes(out));
    return true;
}

void llama_kv_hex::set_rope(bool has_rope, bool fr) {
    rope   = has_rope;
    frames = has_rope && fr;
}

const int32_t * llama_kv_hex::rope_positions(const llama_ubatch & ubatch, std::vector<int32_t> & buf) const {
    if (std::all_of(rings.begin(), rings.end(), [](const stream_ring & ring) { return ring.frame == 0; })) {
        return ubatch.pos;
    }
    buf.assign(ubatch.pos, ubatch.pos + ubatch.n_tokens);
    for (uint32_t i = 0; i < ubatch.n_tokens; ++i) {
        buf[i] += rings[n_stream > 1 ? ubatch.seq_id[i][0] : 0].frame;
    }
    return buf.data();
}

bool llama_kv_hex::has_turns() const {
    return std::any_of(rings.begin(), rings.end(), [](const stream_ring & ring) { return !ring.turns.empty(); });
}

std::vector<int32_t> llama_kv_hex::take_turns(uint32_t strm, const llama_kv_cells & cells) {
    stream_ring & ring = rings[strm];
    std::vector<int32_t> res(cells.size());
    std::map<int32_t, size_t> alike = { { 0, 0 } }; // cells by their turn
    for (uint32_t i = 0; i < cells.size(); ++i) {
        if (!cells.is_empty(i)) {
            const auto it = ring.turns.find(i);
            res[i] = cells.get_shift(i) + (it == ring.turns.end() ? 0 : it->second);
            alike[res[i]]++;
        }
    }
    ring.turns.clear();

    int32_t common = 0;
    for (const auto & [turn, n] : alike) {
        if (frames && n > alike[common]) {
            common = turn;
        }
    }
    // not at the cost of a sequence that has not moved
    std::bitset<LLAMA_MAX_SEQ> seqs;
    for (uint32_t i = 0; i < cells.size(); ++i) {
        if (!cells.is_empty(i) && res[i] == common) {
            seqs |= cells.seq_get_all(i);
        }
    }
    for (uint32_t i = 0; i < cells.size(); ++i) {
        if (!cells.is_empty(i) && (cells.seq_get_all(i) & seqs).none()) {
            common = 0;
        }
    }
    if (std::abs((int64_t) ring.frame - common) > FRAME_MAX) {
        common = ring.frame; // back to where it began, once in a long time
    }
    ring.frame -= common;
    for (uint32_t i = 0; i < cells.size(); ++i) {
        res[i] -= cells.is_empty(i) ? 0 : common;
    }
    return res;
}

static void add_mean(llama_hex_rows & stored, int32_t h, float sign, float * x, int32_t n) {
    if (const float * mean = stored.mean(h)) {
        for (int32_t d = 0; d < n; ++d) {
            x[d] += sign*mean[d];
        }
    }
}

bool llama_hex_shift(llama_kv_cache & kv, llama_context * lctx) {
    llama_kv_hex & tier = *llama_hex_access::tier(kv);
    tier.apply_moves();
    llama_synchronize(lctx);

    const auto & v_cells = llama_hex_access::cells(kv);
    for (uint32_t s = 0; s < v_cells.size(); ++s) {
        const std::vector<int32_t> turns = tier.take_turns(s, v_cells[s]);
        std::vector<uint32_t> moved;
        for (uint32_t i = 0; i < turns.size(); ++i) {
            if (turns[i] != 0) {
                moved.push_back(i);
            }
        }
        for (size_t ikv = 0; !moved.empty() && ikv < tier.get_layers().size(); ++ikv) {
            const auto & l = tier.get_layers()[ikv];
            if (!llama_hex_access::hparams(kv).has_rope(l.il)) {
                continue;
            }
            llama_hex_rows stored(tier, ikv, s);
            for (size_t at = 0; at < moved.size(); at += CELLS_PER_STEP) {
                const size_t n = std::min(CELLS_PER_STEP, moved.size() - at);
                std::vector<int32_t> shifts(n);
                std::vector<float>   rows(n*l.n_head_kv*l.head_k);
                const auto row = [&](size_t i, int32_t h) { return rows.data() + (i*l.n_head_kv + h)*l.head_k; };

                for (size_t i = 0; i < n; ++i) {
                    shifts[i] = turns[moved[at + i]];
                    for (int32_t h = 0; h < l.n_head_kv; ++h) {
                        stored.read(h, moved[at + i], row(i, h));
                        add_mean(stored, h, 1, row(i, h), l.head_k);
                    }
                }
                if (!turn(kv, lctx, l.il, l.head_k, l.n_head_kv, shifts, rows)) {
                    // some layers have moved and others have not, so what is left is of no use
                    LLAMA_LOG_ERROR("%s: the context shift of layer %d could not be computed, so the cache is cleared; "
                                    "decode the text again\n", __func__, l.il);
                    stored.discard();
                    kv.clear(true);
                    tier.shift_failed = true;
                    return false;
                }
                for (size_t i = 0; i < n; ++i) {
                    for (int32_t h = 0; h < l.n_head_kv; ++h) {
                        add_mean(stored, h, -1, row(i, h), l.head_k);
                        stored.write(h, moved[at + i], row(i, h));
                    }
                }
            }
        }
    }
    return true;
}
