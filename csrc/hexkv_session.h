// The session handle, which the sampler reads logits from.
#pragma once

#include "hexkv_impl.h"

namespace hexkv {

// Session parameters, checked and resolved.
struct Plan {
    llama_context_params cp  = {};
    hex_params           hex = {};
    int32_t              n_ctx      = 0;
    bool                 all_logits = false;
};

hexkv_status logits_row(hexkv_session * s, int32_t row, float ** out, hexkv_error * e);

} // namespace hexkv

struct hexkv_session {
    std::shared_ptr<hexkv::Model> model;
    hexkv::Plan       plan;
    hexkv::ContextPtr ctx;
    ggml_threadpool * pool  = nullptr;
    llama_batch       batch = {};
    int32_t           n_ctx = 0, n_batch = 0, n_ubatch = 0;
    int32_t           n_past   = 0;
    int32_t           rows     = 0; // logit rows of the last decode
    int32_t           last     = 0; // token index of the last of them
    int32_t           max_rows = 0;
    std::atomic<bool> cancel{false};
    uint64_t          prefill_tokens = 0, prefill_us = 0, decode_tokens = 0, decode_us = 0;

    ~hexkv_session();
};
