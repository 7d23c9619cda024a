// What the HEX hooks reach inside llama_kv_cache.
#pragma once

#include "llama-kv-hex.h"

struct llama_hex_access {
    static llama_kv_hex * tier(const llama_kv_cache & kv)               { return kv.hex.get(); }
    static const llama_kv_hex * tier_of(const llama_memory_context_i * mctx);
    static const llama_kv_cells_vec & cells(const llama_kv_cache & kv)  { return kv.v_cells; }
    static const llama_model   & model(const llama_kv_cache & kv)       { return kv.model; }
    static const llama_hparams & hparams(const llama_kv_cache & kv)     { return kv.hparams; }
    static size_t base_bytes(const llama_kv_cache & kv)                 { return kv.size_k_bytes() + kv.size_v_bytes(); }

    static bool has_codes(const llama_kv_cache & kv) { // a cache of its own, with hexN types
        return !kv.other && !kv.layers.empty() && hex_type_bits(kv.layers[0].k->type) > 0;
    }
    static void attach(llama_kv_cache & kv, const hex_params & params);
    static ggml_tensor * build_attn(const llm_graph_context & graph, const llama_kv_cache_context & mctx, ggml_tensor * q,
            ggml_tensor * k_cur, ggml_tensor * v_cur, ggml_tensor * kq_b, ggml_tensor * mask, ggml_tensor * sinks, float scale, int il);
    static void stats(const llama_kv_cache & kv, llama_hex_stats & out);
};
