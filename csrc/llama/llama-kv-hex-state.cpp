// Saving and restoring the refinement tier, behind the cells and base codes that llama_kv_cache writes itself.
//
// Per stream: a header that must match the cache, the ring, and per layer and KV head the mean and the refined cells
// with their residuals. Cells are named by their place in the saved list, so they can come back at other indices.
// Everything that is read is checked; a mismatch throws, and the cache then drops what it restored.

#include "llama-kv-hex-rows.h"
#include "llama-hex-io.h"

#include "llama-impl.h"
#include "llama-io.h"
#include "llama-model.h"

#include "ggml-backend.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

static constexpr uint32_t STATE_MAGIC   = 0x54584548; // "HEXT"
static constexpr uint32_t STATE_VERSION = 3; // 2: a checksum behind the state (llama-hex-io.h), turns; 3: the model, unbias
static constexpr float    MAX_ROWS      = 1 << 24; // of n_mean: a sum of keys is no larger than this many keys

struct state_header {
    uint32_t magic, version;
    int32_t  n_layer, refine, n_mean, n_sink;
    int32_t  n_ring, n_heavy;
    int32_t  n_cells; // of this section
    int32_t  n_entry; // of the ring
    float    unbias;
    uint32_t model[2]; // its sum
};

struct state_entry { // a token of the ring
    int32_t index;   // in the saved list of cells
    int32_t seq_id;
    int32_t is_sink;
    int32_t age;     // queries of its sequence since it came
};

enum state_tier : int32_t { TIER_RING, TIER_HEAVY, TIER_STATIC };

struct state_refined {
    int32_t index;
    int32_t tier;
    float   score;
};

// Not: repacked weights, and those of a model without memory.
static bool can_read(const ggml_tensor * t) {
    if (!t || !t->buffer || !t->data) {
        return false;
    }
    const auto dev = ggml_backend_buft_get_device(ggml_backend_buffer_get_type(t->buffer));
    return ggml_backend_buffer_is_host(t->buffer) || (dev && ggml_backend_dev_type(dev) != GGML_BACKEND_DEVICE_TYPE_CPU);
}

static void add_tensor(llama_hex_sum & sum, const ggml_tensor * t, int64_t n_rows) {
    if (!can_read(t)) {
        return;
    }
    n_rows = std::min(n_rows, t->ne[1]);
    std::vector<uint8_t> row(ggml_row_size(t->type, t->ne[0]));
    for (int64_t i = 0; i < n_rows; ++i) { // evenly spread: the first rows are often unused tokens
        ggml_backend_tensor_get(t, row.data(), i*(t->ne[1]/n_rows)*t->nb[1], row.size());
        sum.add(row.data(), row.size());
    }
}

// Shape, and a few rows of what no backend splits or repacks: embeddings and norms. Names and templates do not matter.
void llama_kv_hex::set_model(const llama_model & model) {
    const auto & hp = model.hparams;
    if (hp.no_alloc) {
        return;
    }
    llama_hex_sum sum;
    const uint32_t shape[] = { (uint32_t) model.arch, hp.n_embd, hp.n_layer(), hp.n_rot(0), model.vocab.n_tokens() };
    const float    rope_base[] = { hp.rope_freq_base_train, hp.rope_freq_scale_train };
    sum.add(shape, sizeof(shape));
    sum.add(rope_base, sizeof(rope_base));
    add_tensor(sum, model.tok_embd, 16);
    add_tensor(sum, model.output_norm, 1);
    for (const auto & l : model.layers) {
        add_tensor(sum, l.attn_norm, 1);
    }
    model_sum = sum.get();
}

[[noreturn]] static void mismatch(const std::string & what) {
    throw std::runtime_error("the saved HEX tier does not fit this cache: " + what);
}

static void refuse_channels(const hex_graph & graph) {
    if (graph.kind == HEX_BACKBONE_CHANNELS) {
        throw std::runtime_error("a HEX cache with a backbone of channels cannot be saved; use another --hex-backbone-kind");
    }
}

static bool all_zero(const float * x, size_t n) {
    return std::all_of(x, x + n, [](float v) { return v == 0; });
}

template <typename T>
static void put(llama_io_write_i & io, const T & x) {
    io.write(&x, sizeof(x));
}

template <typename T>
static T get(llama_io_read_i & io) {
    T x;
    io.read(&x, sizeof(x));
    return x;
}

void llama_kv_hex::state_write(llama_io_write_i & io, uint32_t strm, const std::vector<uint32_t> & saved, const llama_kv_cells & cells) const {
    refuse_channels(graph);
    std::vector<int32_t> index(plan.n_ctx, -1); // of a cell in the saved list
    for (size_t i = 0; i < saved.size(); ++i) {
        index[saved[i]] = (int32_t) i;
    }

    std::vector<state_entry>     ring;
    std::vector<const entry *>   ring_slots;
    for (const auto & [id, seq] : rings[strm].seqs) {
        const auto add = [&](const entry & e, bool is_sink) {
            if (index[e.cell] >= 0) { // cells that sequences share can be in the ring of another one
                ring.push_back({ index[e.cell], id, is_sink, (int32_t) std::min<int64_t>(seq.n_query - e.q0, INT32_MAX) });
                ring_slots.push_back(&e);
            }
        };
        for (const auto & e : seq.sinks)  { add(e, true);  }
        for (const auto & e : seq.recent) { add(e, false); }
    }

    put(io, state_header { STATE_MAGIC, STATE_VERSION, (int32_t) layers.size(), params.refine, params.n_mean, params.n_sink,
            plan.n_ring, plan.n_heavy, (int32_t) saved.size(), (int32_t) ring.size(), params.unbias,
            { (uint32_t) model_sum, (uint32_t) (model_sum >> 32) } });
    for (const auto & e : ring) {
        put(io, e);
    }
    for (const uint32_t cell : saved) { // the position of its RoPE, less its own
        put(io, rope ? rings[strm].frame[cell] - cells.get_shift(cell) : 0);
    }

    const size_t slot_size = hex_slot_size(params.refine, layers[0].head_k, layers[0].head_v);
    std::vector<uint8_t> row(slot_size);
    for (size_t il = 0; il < layers.size(); ++il) {
        const layer & l = layers[il];
        llama_hex_layer_state st(l, plan);
        ggml_backend_tensor_get(state_stream[il][strm], st.words.data(), 0, st.words.size()*sizeof(int32_t));
        row.resize(hex_slot_size(params.refine, l.head_k, l.head_v));
        llama_hex_pages pool(pool_stream[il][strm]);

        for (int32_t h = 0; h < l.n_head_kv; ++h) {
            io.write(st.head(h), (HEX_STATE_MEAN + l.head_k)*sizeof(int32_t));

            // each refined cell once, in the order in which attention looks for it
            std::vector<std::pair<state_refined, int32_t>> refined; // with its slot
            std::vector<bool> seen(saved.size());
            const auto add = [&](int32_t cell, state_tier tier, float score, int32_t slot) {
                if (cell >= 0 && cell < plan.n_ctx && index[cell] >= 0 && !seen[index[cell]]) {
                    seen[index[cell]] = true;
                    refined.push_back({ { index[cell], tier, score }, slot });
                }
            };
            for (const auto * e : ring_slots) {
                add(e->cell, TIER_RING, plan.n_heavy > 0 ? st.ring_score(h)[e->slot] : 0, e->slot);
            }
            for (int32_t i = 0; i < plan.n_heavy; ++i) {
                add(st.heavy_cell(h)[i] - 1, TIER_HEAVY, st.heavy_score(h)[i], plan.n_ring + i);
            }
            for (int32_t i = 0; i < plan.n_static; ++i) {
                add(hex_graph_cell(&graph, l.pair0 + h, i), TIER_STATIC, 0, plan.n_ring + plan.n_heavy + i);
            }

            put(io, (int32_t) refined.size());
            for (const auto & [r, slot] : refined) {
                put(io, r);
                if (!io.counts_only()) {
                    pool.get(row.data(), llama_hex_slot_offset(l.pool, h, slot), row.size());
                }
                io.write(row.data(), row.size());
            }
        }
    }
}

static void check_header(const state_header & hd, const hex_params & p, uint64_t model, size_t n_layer, size_t n_cells) {
    if (hd.magic != STATE_MAGIC) {
        mismatch("there is none in this state");
    }
    if (hd.version != STATE_VERSION) {
        mismatch("it has version " + std::to_string(hd.version) + ", this build reads version " + std::to_string(STATE_VERSION) +
            " only; save the session again with this build");
    }
    if (hd.n_layer != (int32_t) n_layer || hd.n_cells != (int32_t) n_cells) {
        mismatch(std::to_string(hd.n_layer) + " layers and " + std::to_string(hd.n_cells) + " cells");
    }
    if (hd.refine != p.refine || hd.n_mean != p.n_mean || hd.n_sink != p.n_sink || !(hd.unbias == p.unbias)) {
        mismatch("refine, sinks, mean or unbias differ; use the settings that it was saved with");
    }
    if (hd.model[0] != (uint32_t) model || hd.model[1] != (uint32_t) (model >> 32)) {
        mismatch("it belongs to another model of the same shape; load the model file that it was saved with");
    }
    if (hd.n_entry < 0 || hd.n_entry > hd.n_ring || hd.n_ring < 0 || hd.n_ring > (1 << 30)) {
        mismatch("its ring is damaged");
    }
}

void llama_kv_hex::state_read(llama_io_read_i & io, uint32_t strm, const std::vector<uint32_t> & placed, llama_seq_id seq_id, const llama_kv_cells & cells) {
    try {
        read_tier(io, strm, placed, seq_id, cells);
    } catch (const std::exception & e) {
        moves.clear();
        LLAMA_LOG_ERROR("%s: %s\n", __func__, e.what()); // the caller tells only that it failed
        throw;
    }
}

void llama_kv_hex::read_tier(llama_io_read_i & io, uint32_t strm, const std::vector<uint32_t> & placed, llama_seq_id seq_id, const llama_kv_cells & cells) {
    const int32_t n = (int32_t) placed.size();
    refuse_channels(graph);
    const state_header hd = get<state_header>(io);
    check_header(hd, params, model_sum, layers.size(), placed.size());

    // what the ring and the heavy slots knew about these cells is about their former tokens
    stream_ring & ring = rings[strm];
    std::vector<uint32_t> taken((plan.n_ctx + 31)/32);
    for (const uint32_t cell : placed) {
        taken[cell/32] |= 1u << (cell % 32);
    }
    drop_dead(ring, cells, taken);

    std::vector<int32_t> ring_slot(n, -1), n_seen(n, 1); // queries that have seen a token of the saved ring
    std::vector<state_entry> recent;
    const auto place = [&](const state_entry & e, bool is_sink) {
        seq_ring & seq = ring.seqs[e.seq_id];
        if (ring.free.empty() || (!is_sink && (int32_t) seq.recent.size() >= plan.n_recent) || ring_slot[e.index] >= 0) {
            return; // a smaller ring: it competes for a heavy slot, or its base code remains
        }
        const entry here = { ring.free.back(), (int32_t) placed[e.index], seq.n_query - e.age };
        ring.free.pop_back();
        ring_slot[e.index] = here.slot;
        if (is_sink) {
            seq.sinks.push_back(here);
        } else {
            seq.recent.insert(std::lower_bound(seq.recent.begin(), seq.recent.end(), here, [](const entry & a, const entry & b) { return a.q0 < b.q0; }), here);
        }
    };
    for (int32_t i = 0; i < hd.n_entry; ++i) {
        auto e = get<state_entry>(io);
        if (e.index < 0 || e.index >= n || e.age < 0 || e.seq_id < 0 || e.seq_id >= LLAMA_MAX_SEQ) {
            mismatch("its ring names cell " + std::to_string(e.index) + " of " + std::to_string(n));
        }
        e.seq_id = seq_id == -1 ? e.seq_id : seq_id;
        n_seen[e.index] = std::max(e.age, 1);
        if (e.is_sink && n_sinks(ring.seqs[e.seq_id], cells, e.seq_id) < plan.n_sink) {
            place(e, true);
        } else {
            recent.push_back(e);
        }
    }
    std::stable_sort(recent.begin(), recent.end(), [](const state_entry & a, const state_entry & b) { return a.age < b.age; });
    for (const auto & e : recent) { // the newest first
        place(e, false);
    }

    // other tokens keep their codes, and so the mean that those are relative to
    const bool alone = (int32_t) cells.get_used() == n;

    std::vector<int32_t> frame(n);
    io.read(frame.data(), frame.size()*sizeof(int32_t));
    if (!std::all_of(frame.begin(), frame.end(), [](int32_t x) { return std::abs((int64_t) x) < 1 << 30; })) {
        mismatch("its frames are damaged");
    }
    for (int32_t i = 0; i < n; ++i) {
        ring.frame[placed[i]] = rope ? frame[i] : 0;
    }
    joined();

    // nothing on the device changes before all of it has been read and found good
    struct change {
        ggml_tensor * tensor;
        size_t        offset;
        std::vector<uint8_t> data;
    };
    std::vector<change> changes;

    for (size_t il = 0; il < layers.size(); ++il) {
        const layer & l = layers[il];
        llama_hex_layer_state st(l, plan);
        ggml_tensor * pool = pool_stream[il][strm];
        ggml_backend_tensor_get(state_stream[il][strm], st.words.data(), 0, st.words.size()*sizeof(int32_t));

        const size_t slot_size = hex_slot_size(params.refine, l.head_k, l.head_v);
        std::vector<uint8_t> row(slot_size);
        std::vector<int32_t> saved(HEX_STATE_MEAN + l.head_k);
        std::vector<float>   shift(l.n_head_kv*l.head_k);

        for (int32_t h = 0; h < l.n_head_kv; ++h) {
            io.read(saved.data(), saved.size()*sizeof(int32_t));
            const float * saved_mean = (const float *) saved.data() + HEX_STATE_MEAN;
            if (saved[HEX_STATE_ROWS] < 0 || saved[HEX_STATE_ROWS] > params.n_mean || (saved[HEX_STATE_FROZEN] & ~1) ||
                !std::all_of(saved_mean, saved_mean + l.head_k, [](float x) { return std::fabs(x) < 1e6f*MAX_ROWS; })) {
                mismatch("its means are damaged");
            }
            if (alone) {
                std::copy(saved.begin(), saved.end(), st.head(h));
            } else {
                for (int32_t d = 0; d < l.head_k; ++d) {
                    shift[h*l.head_k + d] = (saved[HEX_STATE_FROZEN] ? saved_mean[d] : 0) - (st.head(h)[HEX_STATE_FROZEN] ? st.mean(h)[d] : 0);
                }
            }

            for (int32_t i = 0; i < plan.n_heavy; ++i) {
                const int32_t cell = st.heavy_cell(h)[i] - 1;
                if (cell < 0 || cell >= plan.n_ctx || cells.is_empty(cell) || (taken[cell/32] >> (cell % 32) & 1)) {
                    st.heavy_cell(h)[i]  = 0;
                    st.heavy_score(h)[i] = -1;
                }
            }
            // backbone slots of these cells: empty until a residual comes
            std::fill(row.begin(), row.end(), 0);
            for (const uint32_t cell : placed) {
                const int32_t slot = plan.n_static > 0 ? hex_graph_slot(&graph, l.pair0 + h, cell) : -1;
                if (slot >= 0) {
                    changes.push_back({ pool, llama_hex_slot_offset(l.pool, h, plan.n_ring + plan.n_heavy + slot), row });
                }
            }
            // ring slots without a residual must not show an old one either
            for (const int32_t slot : ring_slot) {
                if (slot >= 0) {
                    changes.push_back({ pool, llama_hex_slot_offset(l.pool, h, slot), row });
                }
            }

            const int32_t n_refined = get<int32_t>(io);
            if (n_refined < 0 || n_refined > n) {
                mismatch(std::to_string(n_refined) + " refined cells of " + std::to_string(n));
            }
            for (int32_t i = 0; i < n_refined; ++i) {
                const auto r = get<state_refined>(io);
                io.read(row.data(), row.size());
                if (r.index < 0 || r.index >= n || r.tier < TIER_RING || r.tier > TIER_STATIC || !std::isfinite(r.score)) {
                    mismatch("a refined cell is damaged");
                }
                const int32_t cell  = (int32_t) placed[r.index];
                const int32_t fixed = plan.n_static > 0 ? hex_graph_slot(&graph, l.pair0 + h, cell) : -1;
                if (fixed >= 0) {
                    changes.push_back({ pool, llama_hex_slot_offset(l.pool, h, plan.n_ring + plan.n_heavy + fixed), row });
                }
                int32_t slot = ring_slot[r.index];
                if (slot >= 0) {
                    if (plan.n_heavy > 0) {
                        st.ring_score(h)[slot] = r.tier == TIER_RING ? r.score : 0;
                    }
                } else if (fixed < 0 && plan.n_heavy > 0) { // it competes like a token that leaves the ring
                    const float * score = st.heavy_score(h);
                    const float   own   = r.tier == TIER_RING ? r.score/(float) n_seen[r.index] : r.score;
                    const int32_t weakest = (int32_t) (std::min_element(score, score + plan.n_heavy) - score);
                    if (st.heavy_cell(h)[weakest] == 0 || own > score[weakest]) {
                        st.heavy_cell(h)[weakest]  = cell + 1;
                        st.heavy_score(h)[weakest] = own;
                        slot = plan.n_ring + weakest;
                    }
                }
                if (slot >= 0) {
                    changes.push_back({ pool, llama_hex_slot_offset(l.pool, h, slot), row });
                }
            }
        }
        if (!all_zero(shift.data(), shift.size())) {
            moves.push_back({ il, strm, placed, std::move(shift) });
        }
        const auto * words = (const uint8_t *) st.words.data();
        changes.push_back({ state_stream[il][strm], 0, std::vector<uint8_t>(words, words + st.words.size()*sizeof(int32_t)) });
    }
    std::map<ggml_tensor *, llama_hex_pages> tensors;
    for (const auto & c : changes) {
        tensors.try_emplace(c.tensor, c.tensor).first->second.set(c.data.data(), c.offset, c.data.size());
    }
}

// Codes the K rows of restored cells again, relative to this cache's mean: where that is the mean they were saved with, they stay,
// since each coding costs precision. Base rows that stay on the device arrive only after state_read has returned (llama.cpp
// defers them), so this runs before the next ubatch, save or restore.
void llama_kv_hex::apply_moves() {
    for (const auto & m : moves) {
        const layer & l = layers[m.il];
        llama_hex_rows rows(*this, m.il, m.strm);
        std::vector<float> x(l.head_k);
        for (int32_t h = 0; h < l.n_head_kv; ++h) {
            const float * shift = m.shift.data() + h*l.head_k;
            if (all_zero(shift, l.head_k)) {
                continue;
            }
            for (const uint32_t cell : m.cells) {
                rows.read(h, cell, x.data());
                for (int32_t d = 0; d < l.head_k; ++d) {
                    x[d] += shift[d];
                }
                rows.write(h, cell, x.data());
            }
        }
    }
    moves.clear();
}
