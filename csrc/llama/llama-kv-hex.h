// The refinement tier of a llama_kv_cache: slot pools and state per layer, and the host's half of the bookkeeping.
//
// The cache owns one of these when HEX is on. Base codes stay in the cache's own K and V tensors. The host knows
// sequences, positions and freed cells, the device knows scores; before each ubatch the host writes what it knows into
// the `meta` tensor (csrc/ggml/hex_meta.h), an input of the graph.
#pragma once

#include "llama-hex.h"

#include "core/hex_bytes.h"
#include "core/hex_codec.h"
#include "core/hex_graph.h"
#include "ggml/hex_ops.h"

#include "llama-kv-cells.h"
#include "llama-kv-cache.h"

#include <bitset>
#include <deque>
#include <map>
#include <vector>

class llama_io_read_i;
class llama_io_write_i;
struct llama_model;
struct llama_ubatch;
struct llama_batch;
struct llm_graph_context;

class llama_kv_hex {
public:
    struct layer {
        int32_t il;
        int32_t pair0; // pair of its KV head 0 in the backbone graph
        int32_t n_head_kv;
        int32_t head_k;
        int32_t head_v;

        ggml_tensor * k     = nullptr; // base codes of the cache, hexN [head_k*n_head_kv, n_ctx, n_stream]
        ggml_tensor * pool  = nullptr; // I8  [slot_size, n_slots, n_head_kv, n_stream]
        ggml_tensor * state = nullptr; // I32 [words, n_head_kv, n_stream]

        bool rope = true; // its keys are turned: what the last graph showed
    };

    // Throws std::runtime_error with one sentence when params do not fit the cache.
    llama_kv_hex(const hex_params & params, std::vector<layer> layers, uint32_t n_ctx, uint32_t n_stream, uint32_t n_seq_max);

    // Creates the tensors of layer ikv in ctx.
    void create_tensors(size_t ikv, ggml_context * ctx);
    static size_t tensors_per_layer(uint32_t n_stream) { return 2 + 2*n_stream; }

    //
    // bookkeeping, in step with the cells
    //

    using slot_info = llama_kv_cache::slot_info;

    // Prepares meta for a ubatch; called before the cells are changed.
    void apply(const slot_info & sinfo, const llama_ubatch & ubatch, const llama_kv_cells_vec & cells);
    void clear();
    void copy_stream(uint32_t ssrc, uint32_t sdst); // tensors and ring; the caller has synchronised

    //
    // state (llama-kv-hex-state.cpp); both throw std::runtime_error
    //

    // Writes the tier of the cells `saved`.
    void state_write(llama_io_write_i & io, uint32_t strm, const std::vector<uint32_t> & saved, const llama_kv_cells & cells) const;
    // Reads it back for the same cells, which are at `placed` now; seq_id -1: they keep their sequences.
    void state_read(llama_io_read_i & io, uint32_t strm, const std::vector<uint32_t> & placed, llama_seq_id seq_id, const llama_kv_cells & cells);

    // Of what a state belongs to: checked when it comes back.
    void set_model(const llama_model & model);

    // Finishes what a restore has left to do; before stored rows are read or moved.
    void apply_moves();

    //
    // context shifts (llama-kv-hex-shift.cpp)
    //

    bool can_shift() const { return graph.kind != HEX_BACKBONE_CHANNELS; }

    // Coding a row again costs precision, so as few as possible are turned. Sequences have a frame: their rows are stored with
    // RoPE of the position of their cell plus the frame. Where most cells of a sequence move alike, its frame moves the other way
    // and only the others are turned; attention sees differences only. Sequences that share a cell share their frame.
    void set_rope(bool has_rope, bool frames);
    const int32_t * rope_positions(const llama_ubatch & ubatch, std::vector<int32_t> & buf) const; // of new rows
    bool has_turns() const { return unsettled; }
    std::vector<int32_t> take_turns(uint32_t strm, const llama_kv_cells & cells); // of each cell; moves the frames
    void joined();                                                                // sequences came to share cells
    void will_join(const llama_batch & batch, const llama_kv_cells_vec & cells);  // ... or will, by this batch
    bool shift_failed = false; // and nobody has been told yet

    //
    // graph
    //

    ggml_tensor * build_input_meta(ggml_context * ctx, int64_t n_tps, int64_t n_stream) const;
    void          set_input_meta(ggml_tensor * dst) const;

    // Attends, then commits. Returns the attention output, F32 [head_v*n_head, n_tokens].
    ggml_tensor * build_attn(const llm_graph_context & graph, const slot_info & sinfo, ggml_tensor * meta,
            ggml_tensor * q, ggml_tensor * k_cur, ggml_tensor * v_cur, ggml_tensor * k_base, ggml_tensor * v_base,
            ggml_tensor * mask, ggml_tensor * sinks, float scale, int32_t ikv) const;

    //
    // reports
    //

    size_t pool_bytes() const;
    size_t state_bytes() const;
    const hex_plan & get_plan() const { return plan; }
    const hex_params & get_params() const { return params; }
    const std::vector<layer> & get_layers() const { return layers; }

    // Counts refined entries by tier over the given cells; reads device memory.
    void count_refined(const llama_kv_cells_vec & cells, llama_hex_stats & out) const;

private:
    friend class llama_hex_rows;

    using seq_set = std::bitset<LLAMA_MAX_SEQ>;

    struct entry { // a token in the ring
        int32_t slot;
        int32_t cell;
        int64_t q0; // queries of its sequence before it
    };

    struct seq_ring {
        std::vector<entry> sinks;
        std::deque <entry> recent; // oldest first
        int64_t n_query = 0;       // rows of the sequence so far
    };

    struct stream_ring {
        std::map<llama_seq_id, seq_ring> seqs;
        std::vector<int32_t>             free; // slots, taken from the back

        std::vector<int32_t>             frame; // of each cell: RoPE of its row got its position, before a shift that is due, plus this
    };

    const hex_params params;
    uint64_t         model_sum = 0;
    bool             rope   = false; // of any kind
    bool             frames = false; // the positions that RoPE gets come from rope_positions, for all layers
    hex_plan         plan  = {};
    hex_graph        graph = {};
    const uint32_t   n_stream;

    mutable std::vector<layer> layers; // build_attn notes `rope`
    // per layer and stream, for copies between streams
    std::vector<std::vector<ggml_tensor *>> pool_stream;
    std::vector<std::vector<ggml_tensor *>> state_stream;

    struct move { // restored K rows of a layer that are still relative to the mean they were saved with
        size_t   il;
        uint32_t strm;
        std::vector<uint32_t> cells;
        std::vector<float>    shift; // [n_head_kv][head_k]: saved mean minus this cache's; heads without one stay
    };

    std::vector<move>        moves;
    std::vector<stream_ring> rings;
    std::vector<int32_t>     meta; // of the current ubatch, [n_stream of it][words]
    std::vector<int32_t>     row_frame; // of its rows; empty: 0
    bool                     unsettled = false; // a sequence can have cells in several frames
    std::vector<seq_set>     joining; // sequences that will share cells

    mutable ggml_backend_sched_t sched = nullptr; // of the last graph that was built: it may still run

    bool framed() const;
    int32_t frame_of(const stream_ring & ring, const llama_kv_cells & cells, const seq_set & seqs) const;
    void frame_rows(stream_ring & ring, const llama_kv_cells & cells, const llama_ubatch & ubatch, size_t i0, const std::vector<uint32_t> & idxs);

    void reset_ring(stream_ring & ring) const;
    void begin_stream(uint32_t s);
    void drop_dead (stream_ring & ring, const llama_kv_cells & cells, const std::vector<uint32_t> & taken) const;
    static int32_t n_sinks(const seq_ring & seq, const llama_kv_cells & cells, llama_seq_id id);
    void place_rows(stream_ring & ring, const llama_kv_cells & cells, const llama_ubatch & ubatch, size_t i0,
            const std::vector<uint32_t> & idxs, int32_t * words) const;

    void read_tier(llama_io_read_i & io, uint32_t strm, const std::vector<uint32_t> & placed, llama_seq_id seq_id, const llama_kv_cells & cells);

    ggml_hex_op_params op_params(const layer & l) const;
};

// Swaps an unsupported HEX request for a stock type before llama.cpp's own checks would refuse it (one log line), and
// turns an enabled one into cache types. False, with the reason logged, when the request contradicts itself.
bool llama_hex_resolve(const llama_model & model, llama_context_params & params);

// Gives the caches inside `memory` that HEX covers their refinement tier.
void llama_hex_attach(llama_memory_i * memory, const hex_params & params);

// Base types are for full attention; sliding-window caches are short and take this instead.
ggml_type llama_hex_swa_type(ggml_type type);

// Tells the tier, if there is one, about a ubatch; before the cells are changed.
void llama_hex_apply(llama_kv_cache & kv, const llama_kv_cache::slot_info & sinfo, const llama_ubatch & ubatch);

// Turns the K rows of cells whose positions were moved. False, with the reason logged and the cache cleared, when that failed.
bool llama_hex_shift(llama_kv_cache & kv, llama_context * lctx);
// True once after such a failure: an update of the memory cannot fail, the decode that asked for it can.
bool llama_hex_shift_failed(llama_memory_i * memory);
// Before an update of the memory: the batch that will be decoded next.
void llama_hex_expect(llama_memory_i * memory, const llama_batch & batch);

bool llama_hex_has_tier(llama_memory_i * memory);

// The tier of a graph's memory, if its rows have a frame, and the positions that its RoPE gets.
const llama_kv_hex * llama_hex_of(const llama_memory_context_i * mctx);
const int32_t * llama_hex_positions(const llama_kv_hex * tier, const llama_ubatch & ubatch, std::vector<int32_t> & buf);

// True, with the reason logged, for a memory whose HEX positions cannot be moved. Asked before any part of it moves.
bool llama_hex_refuses(llama_memory_i * memory, const char * what);

// The v_trans word of a state: a mark in it keeps states with a tier and states without one apart.
uint32_t llama_hex_mark  (const llama_kv_hex * tier, uint32_t v_trans);
bool     llama_hex_unmark(const llama_kv_hex * tier, uint32_t & v_trans); // false, with the reason logged: the wrong kind
// The cells of a list of ranges [first, second).
std::vector<uint32_t> llama_hex_cells(const std::vector<std::pair<uint32_t, uint32_t>> & ranges);

// Builds attention for a cache that has a tier; nullptr when it has none. kq_b must be NULL then.
ggml_tensor * llama_hex_build_attn(const llm_graph_context & graph, const llama_kv_cache_context * mctx, ggml_tensor * q,
        ggml_tensor * k_cur, ggml_tensor * v_cur, ggml_tensor * kq_b, ggml_tensor * mask, ggml_tensor * sinks, float scale, int il);
