// Reading and rewriting stored rows on the host: for state files and context shifts, not for attention.
#pragma once

#include "llama-kv-hex.h"

#include "ggml/hex_state.h"

// One layer's state of one stream, on the host.
struct llama_hex_layer_state {
    std::vector<int32_t> words;
    const int64_t        n_words;
    const int32_t        head_k, n_ring, n_heavy;

    llama_hex_layer_state(const llama_kv_hex::layer & l, const hex_plan & plan) :
        words(l.state->ne[0]*l.state->ne[1]), n_words(l.state->ne[0]), head_k(l.head_k), n_ring(plan.n_ring), n_heavy(plan.n_heavy) {}

    int32_t * head(int32_t h)        { return words.data() + h*n_words; }
    float   * mean(int32_t h)        { return (float *) head(h) + HEX_STATE_MEAN; }
    float   * ring_score(int32_t h)  { return (float *) head(h) + hex_state_ring_score(head_k); }
    int32_t * heavy_cell(int32_t h)  { return head(h) + hex_state_heavy_cell(head_k, n_ring); }
    float   * heavy_score(int32_t h) { return (float *) head(h) + hex_state_heavy_score(head_k, n_ring, n_heavy); }
};

static inline size_t llama_hex_slot_offset(const ggml_tensor * pool, int32_t h, int32_t slot) {
    return h*pool->nb[2] + slot*pool->nb[1];
}

// A tensor that is read and written in small pieces. It is fetched a page at a time, and written back when this object
// goes: device memory is far away, a row is some 50 bytes.
class llama_hex_pages {
public:
    explicit llama_hex_pages(ggml_tensor * tensor);
    ~llama_hex_pages();
    llama_hex_pages(const llama_hex_pages &) = delete;
    llama_hex_pages & operator=(const llama_hex_pages &) = delete;

    void get(void * data, size_t offset, size_t size);
    void set(const void * data, size_t offset, size_t size);
    void discard(); // forgets what was written

private:
    struct page {
        std::vector<uint8_t> data;
        bool dirty = false;
    };

    ggml_tensor     * tensor;
    const size_t      n_bytes;
    std::vector<page> pages;

    page & fetch(size_t i);
};

// K rows of one layer and stream, in the best precision that the cache holds, relative to the mean when there is one.
class llama_hex_rows {
public:
    llama_hex_rows(llama_kv_hex & tier, size_t il, uint32_t strm);

    void read (int32_t h, uint32_t cell,       float * x);
    void write(int32_t h, uint32_t cell, const float * x); // base code, and the residual where the cell is refined

    const float * mean(int32_t h); // [head_k], nullptr: K is not centred (yet)

    void discard() { k.discard(); pool.discard(); } // the cache is not written

private:
    llama_kv_hex              & tier;
    const llama_kv_hex::layer & l;
    llama_hex_pages             k, pool;
    const uint32_t              strm;
    llama_hex_layer_state       st;

    std::vector<std::vector<int32_t>> slot_of; // [n_head_kv][n_ctx]: ring or heavy slot, -1: none

    std::vector<uint8_t> base, residual;
    std::vector<float>   tmp;

    int32_t fixed_slot(int32_t h, uint32_t cell) const;
    size_t  base_offset(int32_t h, uint32_t cell) const;
};
