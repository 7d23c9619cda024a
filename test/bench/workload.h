// What hexkv-bench runs: for one shape, the caches of every type with the same contents, and one graph per op.
#pragma once

#include "core/hex_config.h"
#include "ggml/hex_ops.h"

#include "ggml-backend.h"
#include "ggml.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

struct shape {
    const char * op;      // decode, prefill or decode_batch
    int32_t n_tps;        // queries per stream
    int32_t n_stream;
    int32_t n_kv;         // cells per stream, the rows of the ubatch included; every one holds a token
    int32_t head;         // of K and V
    int32_t n_head_kv;
    int32_t group;        // query heads per KV head

    int32_t n_q()    const { return n_tps*n_stream; }
    int32_t n_head() const { return n_head_kv*group; }
};

struct cache_type {
    std::string name; // f16, q8_0, q4_0, hex:balanced, ...
    ggml_type   type_k, type_v;
    hex_params  hex;  // not enabled: a stock cache
};

// False for an unknown name. Presets are known with and without "hex:".
bool cache_type_find(const std::string & name, cache_type & out);

class workload {
public:
    workload(ggml_backend_t backend, const shape & s, const std::vector<cache_type> & caches);
    ~workload();
    workload(const workload &) = delete;
    workload & operator=(const workload &) = delete;

    size_t size() const { return caches.size(); }

    void attend(size_t i);        // FLASH_ATTN_EXT or HEX_ATTN
    void store(size_t i);         // SET_ROWS of K and of V, or HEX_COMMIT
    void prepare_store(size_t i); // not timed: the state before the ubatch, and the mass of the last attend(i)

    size_t bytes_read(size_t i) const; // of the cache, by attention over one query per stream; each byte counted once

    // ---- for --check
    std::vector<float>   output(size_t i) const; // [head, n_head, n_q]
    std::vector<float>   mass(size_t i) const;   // HEX
    std::vector<uint8_t> contents(size_t i) const; // HEX: all that commit writes
    void copy_decoded(size_t from, size_t to);     // cells of a HEX cache, decoded, into an F32 cache

private:
    struct cache {
        cache_type    type;
        hex_plan      plan;
        ggml_tensor * k, * v;    // [head, n_head_kv, n_kv, n_stream]
        ggml_tensor * pool = nullptr, * state = nullptr, * meta = nullptr, * mass = nullptr; // HEX
        ggml_tensor * out = nullptr;
        ggml_cgraph * attn = nullptr, * store = nullptr;
        std::vector<uint8_t> first_state;
    };

    void add_stock(cache & c);
    void add_hex(cache & c);
    void fill_inputs();
    void fill_stock(cache & c);
    void fill_hex(cache & c);
    void fill_meta(cache & c);
    void fill_slots(cache & c);
    size_t row_of(int32_t stream, int32_t head, int32_t cell) const;

    const shape    s;
    ggml_backend_t backend;
    std::vector<cache> caches;
    std::vector<float> k_rows, v_rows, k_mean; // the distinct rows
    ggml_context * ctx = nullptr;
    ggml_backend_buffer_t buffer = nullptr;
    ggml_tensor  * q, * k_cur, * v_cur, * mask, * cells;
};
