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
#include <cmath>
#include <cstdlib>
#include <functional>

// Farther out the angles of RoPE, in floats, get coarse. A shift discards half of a context at most, so eight fit at least.
static int64_t frame_max(uint32_t n_ctx) {
    return std::max<int64_t>(1 << 15, 4*(int64_t) n_ctx);
}

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
    if (row_frame.size() != ubatch.n_tokens) {
        return ubatch.pos;
    }
    buf.assign(ubatch.pos, ubatch.pos + ubatch.n_tokens);
    for (uint32_t i = 0; i < ubatch.n_tokens; ++i) {
        buf[i] += row_frame[i];
    }
    return buf.data();
}

static bool any_frame(const std::vector<int32_t> & frame) {
    return std::any_of(frame.begin(), frame.end(), [](int32_t x) { return x != 0; });
}

bool llama_kv_hex::framed() const {
    return std::any_of(rings.begin(), rings.end(), [](const stream_ring & ring) { return any_frame(ring.frame); });
}

// That of any cell of these sequences: an update has made them equal.
int32_t llama_kv_hex::frame_of(const stream_ring & ring, const llama_kv_cells & cells, const seq_set & seqs) const {
    for (uint32_t i = 0; i < cells.used_max_p1(); ++i) {
        if (!cells.is_empty(i) && (cells.seq_get_all(i) & seqs).any()) {
            return ring.frame[i];
        }
    }
    return 0;
}

static std::bitset<LLAMA_MAX_SEQ> seqs_of(const llama_seq_id * ids, int32_t n) {
    std::bitset<LLAMA_MAX_SEQ> res;
    for (int32_t i = 0; i < n; ++i) {
        res.set(ids[i]);
    }
    return res;
}

// New rows get the frame of their sequences.
void llama_kv_hex::frame_rows(stream_ring & ring, const llama_kv_cells & cells, const llama_ubatch & ubatch, size_t i0, const std::vector<uint32_t> & idxs) {
    if (!any_frame(ring.frame)) {
        return;
    }
    row_frame.resize(ubatch.n_tokens);
    std::map<std::vector<llama_seq_id>, int32_t> known;
    for (size_t i = i0; i < i0 + idxs.size(); ++i) {
        const auto [it, is_new] = known.insert({ { ubatch.seq_id[i], ubatch.seq_id[i] + ubatch.n_seq_id[i] }, 0 });
        if (is_new) {
            it->second = frame_of(ring, cells, seqs_of(ubatch.seq_id[i], ubatch.n_seq_id[i]));
        }
        row_frame[i] = it->second;
    }
    for (size_t i = 0; i < idxs.size(); ++i) { // after frame_of: these cells may be of the same sequences
        ring.frame[idxs[i]] = row_frame[i0 + i];
    }
}

void llama_kv_hex::joined() {
    unsettled = unsettled || framed();
}

void llama_kv_hex::will_join(const llama_batch & batch, const llama_kv_cells_vec & v_cells) {
    joining.clear();
    if (n_stream > 1 || !batch.n_seq_id) {
        return; // streams have one sequence each
    }
    for (int32_t i = 0; i < batch.n_tokens; ++i) {
        const seq_set seqs = seqs_of(batch.seq_id[i], batch.n_seq_id[i]);
        if (seqs.count() < 2 || (!joining.empty() && joining.back() == seqs)) {
            continue;
        }
        joining.push_back(seqs);
        if (!framed()) {
            continue;
        }
        const int32_t frame = frame_of(rings[0], v_cells[0], seqs);
        for (int32_t j = 0; j < batch.n_seq_id[i]; ++j) {
            const llama_seq_id id = batch.seq_id[i][j];
            unsettled = unsettled || (v_cells[0].seq_pos_min(id) >= 0 && frame_of(rings[0], v_cells[0], seqs_of(&id, 1)) != frame);
        }
    }
}

std::vector<int32_t> llama_kv_hex::take_turns(uint32_t strm, const llama_kv_cells & cells) {
    stream_ring & ring = rings[strm];

    std::vector<seq_set> groups; // sequences that share cells
    const auto add = [&](seq_set seqs) {
        for (size_t g = 0; g < groups.size(); ) {
            if ((groups[g] & seqs).none()) {
                ++g;
                continue;
            }
            seqs |= groups[g];
            groups[g] = groups.back();
            groups.pop_back();
        }
        groups.push_back(seqs);
    };
    for (uint32_t i = 0; i < cells.size(); ++i) {
        if (!cells.is_empty(i) && (groups.empty() || (cells.seq_get_all(i) & ~groups.back()).any())) {
            add(cells.seq_get_all(i));
        }
    }
    for (const auto & seqs : joining) {
        add(seqs);
    }
    joining.clear();
    unsettled = false;

    std::vector<int32_t> res(cells.size());
    for (const auto & seqs : groups) {
        std::map<int32_t, size_t, std::greater<>> alike; // cells by the frame that they are in now
        int32_t frame = frame_of(ring, cells, seqs);
        for (uint32_t i = 0; i < cells.size(); ++i) {
            if (!cells.is_empty(i) && (cells.seq_get_all(i) & seqs).any()) {
                alike[ring.frame[i] - cells.get_shift(i)]++;
            }
        }
        for (const auto & [f, n] : alike) {
            frame = n > alike[frame] ? f : frame;
        }
        if (!frames || std::abs((int64_t) frame) > frame_max(cells.size())) {
            frame = 0; // back to where it began, once in a long time
        }
        for (uint32_t i = 0; i < cells.size(); ++i) {
            if (!cells.is_empty(i) && (cells.seq_get_all(i) & seqs).any()) {
                res[i] = frame - (ring.frame[i] - cells.get_shift(i));
                ring.frame[i] = frame;
            }
        }
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
            if (!l.rope) {
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
                    lctx->get_memory()->clear(true); // also a sliding window, and recurrent states
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
