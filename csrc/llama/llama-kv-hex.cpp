#include "llama-kv-hex.h"

#include "ggml/hex_meta.h"
#include "ggml/hex_state.h"

#include "llama-batch.h"
#include "llama-graph.h"
#include "llama-impl.h"

#include "ggml-backend.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

llama_kv_hex::llama_kv_hex(const hex_params & hp, std::vector<layer> hl, uint32_t n_ctx, uint32_t ns, uint32_t n_seq_max) :
    params(hp), n_stream(ns), layers(std::move(hl)) {
    int32_t n_pairs = 0;
    for (auto & l : layers) {
        l.pair0 = n_pairs;
        n_pairs += l.n_head_kv;
    }

    char err[256];
    const int32_t n_seq = n_stream > 1 ? 1 : n_seq_max; // sequences that share one stream
    if (!hex_plan_make(&plan, &params, n_ctx, n_seq, n_pairs, err, sizeof(err))) {
        throw std::runtime_error(err);
    }
    if (plan.n_static > 0) {
        const bool channels = params.backbone_kind == HEX_BACKBONE_CHANNELS; // its pairs are the channels of a block
        if (!hex_graph_make(&graph, params.backbone_kind, params.seed, channels ? HEX_BLOCK : n_pairs, plan.degree, n_ctx, nullptr, err, sizeof(err))) {
            throw std::runtime_error(err);
        }
    }

    pool_stream .resize(layers.size());
    state_stream.resize(layers.size());
    rings.resize(n_stream);
    clear();
}

void llama_kv_hex::create_tensors(size_t ikv, ggml_context * ctx) {
    layer & l = layers[ikv];

    const size_t  slot_size = hex_slot_size(params.refine, l.head_k, l.head_v);
    const int64_t words     = hex_state_size(l.head_k, plan.n_ring, plan.n_heavy);

    if (plan.n_slots > 0) {
        l.pool = ggml_new_tensor_4d(ctx, GGML_TYPE_I8, slot_size, plan.n_slots, l.n_head_kv, n_stream);
        ggml_format_name(l.pool, "cache_hex_pool_l%d", l.il);
    }
    l.state = ggml_new_tensor_3d(ctx, GGML_TYPE_I32, words, l.n_head_kv, n_stream);
    ggml_format_name(l.state, "cache_hex_state_l%d", l.il);

    for (uint32_t s = 0; s < n_stream; ++s) {
        pool_stream [ikv].push_back(!l.pool ? nullptr :
            ggml_view_3d(ctx, l.pool, l.pool->ne[0], l.pool->ne[1], l.pool->ne[2], l.pool->nb[1], l.pool->nb[2], s*l.pool->nb[3]));
        state_stream[ikv].push_back(ggml_view_2d(ctx, l.state, l.state->ne[0], l.state->ne[1], l.state->nb[1], s*l.state->nb[2]));
    }
}

//
// bookkeeping
//

void llama_kv_hex::reset_ring(stream_ring & ring) const {
    ring.seqs.clear();
    ring.frame.assign(plan.n_ctx, 0);
    ring.free.resize(plan.n_ring);
    for (int32_t i = 0; i < plan.n_ring; ++i) {
        ring.free[i] = plan.n_ring - 1 - i;
    }
}

void llama_kv_hex::clear() {
    moves.clear();
    joining.clear();
    unsettled = false;
    for (auto & ring : rings) {
        reset_ring(ring);
    }
}

void llama_kv_hex::copy_stream(uint32_t ssrc, uint32_t sdst) {
    for (size_t i = 0; i < layers.size(); ++i) {
        if (pool_stream[i][ssrc]) {
            ggml_backend_tensor_copy(pool_stream[i][ssrc], pool_stream[i][sdst]);
        }
        ggml_backend_tensor_copy(state_stream[i][ssrc], state_stream[i][sdst]);
    }

    // with several streams, stream s holds sequence s and no other
    reset_ring(rings[sdst]);
    rings[sdst].free  = rings[ssrc].free;
    rings[sdst].frame = rings[ssrc].frame;
    const auto it = rings[ssrc].seqs.find(ssrc);
    if (it != rings[ssrc].seqs.end()) {
        rings[sdst].seqs[sdst] = it->second;
    }
}

static bool bit_get(const std::vector<uint32_t> & bits, uint32_t i) {
    return bits[i/32] >> (i % 32) & 1;
}

static void bit_set(std::vector<uint32_t> & bits, uint32_t i) {
    bits[i/32] |= 1u << (i % 32);
}

// A stream whose tokens are all gone begins as a new one does: an answer must not depend on what was in the cache before.
// The last graph may still commit to that state on a device, and a memset does not wait for it.
void llama_kv_hex::begin_stream(uint32_t s) {
    reset_ring(rings[s]);
    if (sched) {
        ggml_backend_sched_synchronize(sched);
    }
    for (const auto & state : state_stream) {
        ggml_backend_tensor_memset(state[s], 0, 0, ggml_nbytes(state[s]));
    }
}

// Frees the slots of tokens that were removed, or whose cells this ubatch takes over.
void llama_kv_hex::drop_dead(stream_ring & ring, const llama_kv_cells & cells, const std::vector<uint32_t> & taken) const {
    const auto dead = [&](const entry & e) {
        const bool res = cells.is_empty(e.cell) || bit_get(taken, e.cell);
        if (res) {
            ring.free.push_back(e.slot);
        }
        return res;
    };
    for (auto & [_, seq] : ring.seqs) {
        seq.sinks .erase(std::remove_if(seq.sinks .begin(), seq.sinks .end(), dead), seq.sinks .end());
        seq.recent.erase(std::remove_if(seq.recent.begin(), seq.recent.end(), dead), seq.recent.end());
    }
}

// Sinks of a sequence. One can be in the list of a sequence that it was copied from and that is gone.
int32_t llama_kv_hex::n_sinks(const seq_ring & seq, const llama_kv_cells & cells, llama_seq_id id) {
    return (int32_t) std::count_if(seq.sinks.begin(), seq.sinks.end(), [&](const entry & e) { return cells.seq_has(e.cell, id); });
}

// Gives the rows ubatch[i0, i0 + idxs.size()) their ring slots and writes them to words.
void llama_kv_hex::place_rows(stream_ring & ring, const llama_kv_cells & cells, const llama_ubatch & ubatch, size_t i0,
        const std::vector<uint32_t> & idxs, int32_t * words) const {
    auto * rows = reinterpret_cast<hex_meta_row *>(words);

    struct progress {
        int64_t query0; // queries before this ubatch
        int64_t n_rows; // rows of the sequence in this ubatch
        int64_t n_left; // ... from here to the end
        int32_t n_sink; // sinks that the sequence has; positions can repeat, so they do not tell
        int32_t n_keep; // recent tokens that the ring can hold
    };
    std::map<llama_seq_id, progress> seqs;
    for (size_t ii = 0; ii < idxs.size(); ++ii) {
        const llama_seq_id id = ubatch.seq_id[i0 + ii][0];
        const auto [it, is_new] = seqs.insert({ id, {} });
        if (is_new) {
            const seq_ring & seq = ring.seqs[id];
            it->second = { seq.n_query, 0, 0, n_sinks(seq, cells, id), (int32_t) std::min<size_t>(plan.n_recent, seq.recent.size() + ring.free.size()) };
        }
        it->second.n_rows++;
        it->second.n_left++;
    }

    for (size_t ii = 0; ii < idxs.size(); ++ii) {
        const llama_seq_id id  = ubatch.seq_id[i0 + ii][0];
        const llama_pos    pos = ubatch.pos[i0 + ii];

        seq_ring & seq = ring.seqs[id];
        progress & at  = seqs[id];

        hex_meta_row & row = rows[ii];
        row = { /*.cell =*/ (int32_t) idxs[ii], /*.ring_slot =*/ -1, /*.n_seen =*/ (int32_t) at.n_left,
                /*.evict_cell =*/ -1, /*.evict_seen =*/ 0, /*.is_sink =*/ pos < params.n_sink && at.n_sink < params.n_sink };

        entry e = { -1, row.cell, seq.n_query };
        if (row.is_sink || at.n_left <= at.n_keep) { // of a long ubatch only the last rows are recent at its end
            const bool full = !row.is_sink && (int32_t) seq.recent.size() >= plan.n_recent;
            if (!full && !ring.free.empty()) {
                e.slot = ring.free.back();
                ring.free.pop_back();
            } else if (!row.is_sink && !seq.recent.empty() && seq.recent.front().q0 < at.query0) {
                // never a row of this ubatch: its slot is not written yet
                const entry & old = seq.recent.front();
                row.evict_cell = old.cell;
                row.evict_seen = (int32_t) std::min<int64_t>(at.query0 - old.q0 + at.n_rows, INT32_MAX);
                e.slot = old.slot;
                seq.recent.pop_front();
            }
        }
        row.ring_slot = e.slot;
        if (e.slot >= 0) {
            if (row.is_sink) {
                seq.sinks.push_back(e);
            } else {
                seq.recent.push_back(e);
            }
        }
        at.n_sink += row.is_sink;
        at.n_left--;
        seq.n_query++;
    }
}

void llama_kv_hex::apply(const slot_info & sinfo, const llama_ubatch & ubatch, const llama_kv_cells_vec & v_cells) {
    apply_moves();

    const size_t n_tps = sinfo.size();
    const size_t words = hex_meta_words(n_tps, plan.n_ring, plan.n_ctx);

    meta.assign(words*sinfo.n_stream(), 0);
    row_frame.clear();

    for (size_t s = 0; s < sinfo.n_stream(); ++s) {
        const auto & cells = v_cells[sinfo.strm[s]];
        auto       & ring  = rings[sinfo.strm[s]];
        int32_t    * dst   = meta.data() + s*words;

        std::vector<uint32_t> taken((cells.size() + 31)/32);
        for (const uint32_t idx : sinfo.idxs[s]) {
            bit_set(taken, idx);
        }

        int32_t * table  = dst + n_tps*HEX_META_ROW_WORDS;
        int32_t * bitmap = table + plan.n_ring;
        bool left = false; // a token that stays
        for (uint32_t i = 0; i < cells.used_max_p1(); ++i) {
            if (!cells.is_empty(i) && !bit_get(taken, i)) {
                bitmap[i/32] |= 1u << (i % 32);
                left = true;
            }
        }
        if (!left) {
            begin_stream(sinfo.strm[s]);
        }
        drop_dead(ring, cells, taken);
        frame_rows(ring, cells, ubatch, s*n_tps, sinfo.idxs[s]);

        std::fill(table, table + plan.n_ring, -1);
        for (const auto & [_, seq] : ring.seqs) {
            for (const auto & e : seq.sinks) {
                table[e.slot] = e.cell;
            }
            for (const auto & e : seq.recent) {
                table[e.slot] = e.cell;
            }
        }

        place_rows(ring, cells, ubatch, s*n_tps, sinfo.idxs[s], dst);
    }
}

//
// graph
//

ggml_tensor * llama_kv_hex::build_input_meta(ggml_context * ctx, int64_t n_tps, int64_t ns) const {
    ggml_tensor * res = ggml_new_tensor_2d(ctx, GGML_TYPE_I32, hex_meta_words(n_tps, plan.n_ring, plan.n_ctx), ns);
    ggml_set_input(res);
    ggml_set_name(res, "attn_inp_hex_meta");
    return res;
}

void llama_kv_hex::set_input_meta(ggml_tensor * dst) const {
    GGML_ASSERT(ggml_nbytes(dst) == meta.size()*sizeof(int32_t));
    ggml_backend_tensor_set(dst, meta.data(), 0, ggml_nbytes(dst));
}

ggml_hex_op_params llama_kv_hex::op_params(const layer & l) const {
    ggml_hex_op_params p = {};
    p.refine     = params.refine;
    p.n_ring     = plan.n_ring;
    p.n_heavy    = plan.n_heavy;
    p.n_static   = plan.n_static;
    p.n_mean     = params.n_mean;
    p.half_life  = params.half_life;
    p.unbias     = params.unbias;
    p.n_ctx      = plan.n_ctx;
    p.graph_kind = graph.kind;
    p.graph_seed = graph.seed;
    p.n_pairs    = graph.n_pairs;
    p.degree     = plan.degree;
    p.pair0      = l.pair0;
    return p;
}

// Whether RoPE is between a key and the weights it comes from. Some models leave it out of some layers; their hparams do not tell.
static bool is_turned(const ggml_tensor * k) {
    if (!k) {
        return false;
    }
    switch (k->op) {
        case GGML_OP_ROPE:
            return true;
        case GGML_OP_MUL_MAT: // by the Hadamard matrix, an input, or by weights
            return (k->src[0]->flags & GGML_TENSOR_FLAG_INPUT) && is_turned(k->src[1]);
        case GGML_OP_RESHAPE: case GGML_OP_VIEW:  case GGML_OP_PERMUTE:  case GGML_OP_TRANSPOSE: case GGML_OP_CONT:   case GGML_OP_CPY:
        case GGML_OP_ADD:     case GGML_OP_MUL:   case GGML_OP_SCALE:    case GGML_OP_NORM:      case GGML_OP_RMS_NORM: case GGML_OP_L2_NORM:
        case GGML_OP_CONCAT:
            return is_turned(k->src[0]) || is_turned(k->src[1]);
        default:
            return false;
    }
}

ggml_tensor * llama_kv_hex::build_attn(const llm_graph_context & g, const slot_info & sinfo, ggml_tensor * inp_meta,
        ggml_tensor * q, ggml_tensor * k_cur, ggml_tensor * v_cur, ggml_tensor * k_base, ggml_tensor * v_base,
        ggml_tensor * mask, ggml_tensor * sinks, float scale, int32_t ikv) const {
    ggml_context * ctx = g.ctx0;
    const layer  & l   = layers[ikv];
    const int64_t  ns  = k_base->ne[3];
    sched = g.sched;
    layers[ikv].rope = is_turned(k_cur);

    ggml_tensor * pool  = l.pool ? ggml_view_4d(ctx, l.pool, l.pool->ne[0], l.pool->ne[1], l.pool->ne[2], ns,
            l.pool->nb[1], l.pool->nb[2], l.pool->nb[3], sinfo.s0*l.pool->nb[3]) : nullptr;
    ggml_tensor * state = ggml_view_3d(ctx, l.state, l.state->ne[0], l.state->ne[1], ns,
            l.state->nb[1], l.state->nb[2], sinfo.s0*l.state->nb[2]);

    ggml_hex_op_params p = op_params(l);
    p.scale    = scale;
    p.max_bias = g.hparams.f_max_alibi_bias;
    p.softcap  = g.hparams.attn_soft_cap ? g.hparams.f_attn_logit_softcapping : 0.0f;

    // as in build_attn_mha: one slice per stream, heads outermost
    q = ggml_view_4d(ctx, q, q->ne[0], q->ne[1], q->ne[2]/ns, ns, q->nb[1], q->nb[2], q->nb[3]/ns, 0);
    q = ggml_permute(ctx, q, 0, 2, 1, 3);

    ggml_tensor * attn = ggml_hex_attn(ctx, q, k_cur, v_cur, k_base, v_base, pool, state, inp_meta, mask, sinks, &p);
    g.cb(attn, "hex_attn", l.il);
    if (l.k->buffer && ggml_backend_buffer_is_host(l.k->buffer)) { // else a GPU would be sent the whole cache for every token
        ggml_backend_sched_set_tensor_backend(g.sched, attn, g.backend_cpu);
    }

    ggml_tensor * out = ggml_hex_attn_out(ctx, attn);
    ggml_build_forward_expand(g.gf, out);

    ggml_tensor * stored = ggml_hex_commit(ctx, k_cur, v_cur, ggml_hex_attn_mass(ctx, attn), k_base, v_base, pool, state, inp_meta, &p);
    g.cb(stored, "hex_commit", l.il);
    ggml_build_forward_expand(g.gf, stored);

    return out;
}

//
// reports
//

size_t llama_kv_hex::pool_bytes() const {
    size_t res = 0;
    for (const auto & l : layers) {
        res += l.pool ? ggml_nbytes(l.pool) : 0;
    }
    return res;
}

size_t llama_kv_hex::state_bytes() const {
    size_t res = 0;
    for (const auto & l : layers) {
        res += ggml_nbytes(l.state);
    }
    return res;
}

void llama_kv_hex::count_refined(const llama_kv_cells_vec & v_cells, llama_hex_stats & out) const {
    std::vector<int32_t> state;
    for (const auto & l : layers) {
        state.resize(ggml_nelements(l.state));
        ggml_backend_tensor_get(l.state, state.data(), 0, ggml_nbytes(l.state));

        for (uint32_t s = 0; s < n_stream; ++s) {
            const auto & cells = v_cells[s];
            out.n_entries += (uint64_t) cells.get_used()*l.n_head_kv;

            for (int32_t h = 0; h < l.n_head_kv; ++h) {
                // as the ops do: ring, then heavy, then backbone, each cell once
                std::vector<uint32_t> seen((cells.size() + 31)/32);
                const auto count = [&](int32_t cell, uint64_t & n) {
                    if (cell >= 0 && cell < (int32_t) cells.size() && !cells.is_empty(cell) && !bit_get(seen, cell)) {
                        bit_set(seen, cell);
                        n++;
                    }
                };
                for (const auto & [_, seq] : rings[s].seqs) {
                    for (const auto & e : seq.sinks) {
                        count(e.cell, out.refined_ring);
                    }
                    for (const auto & e : seq.recent) {
                        count(e.cell, out.refined_ring);
                    }
                }
                const int32_t * heavy = state.data() + (s*l.n_head_kv + h)*l.state->ne[0] + hex_state_heavy_cell(l.head_k, plan.n_ring);
                for (int32_t i = 0; i < plan.n_heavy; ++i) {
                    count(heavy[i] - 1, out.refined_heavy);
                }
                if (graph.kind == HEX_BACKBONE_CHANNELS) { // every cell keeps a share of its channels
                    out.refined_static += (uint64_t) cells.get_used()*plan.degree/HEX_BLOCK;
                }
                for (int32_t i = 0; i < plan.n_static; ++i) {
                    count(hex_graph_cell(&graph, l.pair0 + h, i), out.refined_static);
                }
            }
        }
    }
}
