// The hook points in llama.cpp: parameters, attachment to a cache, attention, statistics.

#include "llama-hex-access.h"

#include "ggml/hex_meta.h"
#include "ggml/hex_state.h"

#include "llama-arch.h"
#include "llama-context.h"
#include "llama-graph.h"
#include "llama-impl.h"
#include "llama-kv-cache-iswa.h"
#include "llama-memory-hybrid-iswa.h"
#include "llama-memory-hybrid.h"
#include "llama-model.h"

#include <algorithm>
#include <cinttypes>
#include <stdexcept>
#include <utility>

static constexpr double MiB = 1024.0*1024.0;

static llama_kv_cache_iswa * iswa_cache(llama_memory_i * memory) {
    if (auto * hybrid = dynamic_cast<llama_memory_hybrid_iswa *>(memory)) {
        return hybrid->get_mem_attn();
    }
    return dynamic_cast<llama_kv_cache_iswa *>(memory);
}

static llama_kv_cache * full_attention_cache(llama_memory_i * memory) {
    if (auto * iswa = iswa_cache(memory)) {
        return iswa->get_base();
    }
    if (auto * hybrid = dynamic_cast<llama_memory_hybrid *>(memory)) {
        return hybrid->get_mem_attn();
    }
    return dynamic_cast<llama_kv_cache *>(memory);
}

//
// parameters
//

static bool refuse(char * buf, size_t size, const std::string & why) {
    snprintf(buf, size, "%s", why.c_str());
    return false;
}

// a layer of Falcon-H1 is recurrent and has attention as well
static bool has_attention(const llama_model & model, uint32_t il) {
    return model.hparams.has_kv(il) && (!model.hparams.is_recr(il) || model.arch == LLM_ARCH_FALCON_H1);
}

bool llama_hex_supported(const llama_model * model, char * buf, size_t size) {
    const auto & hparams = model->hparams;
    const std::string arch = llm_arch_name(model->arch);

    if (hparams.is_mla()) {
        return refuse(buf, size, arch + " uses multi-head latent attention, whose cache is compressed already");
    }
    switch (model->arch) {
        case LLM_ARCH_GROK:
            return refuse(buf, size, arch + " runs without flash attention");
        case LLM_ARCH_T5:
        case LLM_ARCH_T5ENCODER:
            return refuse(buf, size, arch + " adds a bias to its attention logits");
        case LLM_ARCH_GEMMA3N:
        case LLM_ARCH_GEMMA4:
        case LLM_ARCH_GEMMA4_ASSISTANT:
            return refuse(buf, size, arch + " shares KV rows between layers");
        case LLM_ARCH_DEEPSEEK32:
        case LLM_ARCH_DEEPSEEK4:
        case LLM_ARCH_GLM_DSA:
        case LLM_ARCH_DOTS3NOTE:
        case LLM_ARCH_MINIMAX_M3:
        case LLM_ARCH_QWEN4EXP:
        case LLM_ARCH_DFLASH:
            return refuse(buf, size, arch + " reads its KV cache in a way of its own");
        default:
            break;
    }
    if (model->split_mode() == LLAMA_SPLIT_MODE_TENSOR) {
        return refuse(buf, size, "split mode `tensor` cuts rows of the cache across devices");
    }

    bool any = false;
    for (uint32_t il = 0; il < hparams.n_layer(); ++il) {
        if (!has_attention(*model, il)) {
            continue;
        }
        any = any || !hparams.is_swa(il);
        const uint32_t d_k = hparams.n_embd_head_k(il), d_v = hparams.n_embd_head_v(il);
        if (d_k == 0 || d_v == 0 || d_k % HEX_BLOCK != 0 || d_v % HEX_BLOCK != 0) {
            return refuse(buf, size, "head size " + std::to_string(d_k % HEX_BLOCK != 0 ? d_k : d_v) + " is no multiple of 64");
        }
    }
    return any || refuse(buf, size, "no layer has full attention");
}

static bool is_hex(ggml_type type) {
    return hex_type_bits(type) > 0;
}

// The stock type for a model that HEX does not cover. Quantized V needs flash attention.
static ggml_type fallback_type(const llama_model & model, const llama_context_params & params) {
    bool q8_0 = params.flash_attn_type != LLAMA_FLASH_ATTN_TYPE_DISABLED && model.arch != LLM_ARCH_GROK &&
                model.arch != LLM_ARCH_T5 && model.arch != LLM_ARCH_T5ENCODER;
    for (uint32_t il = 0; il < model.hparams.n_layer(); ++il) {
        q8_0 = q8_0 && model.hparams.n_embd_head_k(il) % 32 == 0 && model.hparams.n_embd_head_v(il) % 32 == 0;
    }
    return q8_0 ? GGML_TYPE_Q8_0 : GGML_TYPE_F16;
}

// Whether the device runs the ops that a layer's cache needs, asked with ops of the layer's shapes and no data: the two
// of a tier, or without one what stock attention does with a cache of these types.
static bool device_runs(ggml_backend_dev_t dev, const llama_hparams & hparams, uint32_t il, const hex_params & hex, bool tier,
        ggml_type type_k, ggml_type type_v) {
    ggml_context_ptr holder(ggml_init({ 64*ggml_tensor_overhead(), nullptr, true }));
    ggml_context * ctx = holder.get();
    if (!ctx) {
        return false;
    }
    const int64_t d_k = hparams.n_embd_head_k(il), d_v = hparams.n_embd_head_v(il), n_kv = hparams.n_head_kv(il), n_head = hparams.n_head(il), n_ctx = 256;

    ggml_tensor * q = ggml_permute(ctx, ggml_new_tensor_4d(ctx, GGML_TYPE_F32, d_k, n_head, 1, 1), 0, 2, 1, 3);
    ggml_tensor * k = ggml_new_tensor_4d(ctx, type_k, d_k, n_kv, n_ctx, 1);
    ggml_tensor * v = ggml_new_tensor_4d(ctx, type_v, d_v, n_kv, n_ctx, 1);
    ggml_tensor * mask = ggml_new_tensor_4d(ctx, GGML_TYPE_F16, n_ctx, 1, 1, 1);
    if (!tier) {
        ggml_tensor * idxs = ggml_new_tensor_1d(ctx, GGML_TYPE_I64, 1);
        const auto stores = [&](ggml_type type, int64_t n) {
            return ggml_backend_dev_supports_op(dev, ggml_set_rows(ctx, ggml_new_tensor_2d(ctx, type, n, n_ctx), ggml_new_tensor_2d(ctx, GGML_TYPE_F32, n, 1), idxs));
        };
        return stores(type_k, d_k*n_kv) && stores(type_v, d_v*n_kv) &&
            ggml_backend_dev_supports_op(dev, ggml_flash_attn_ext(ctx, q, ggml_permute(ctx, k, 0, 2, 1, 3), ggml_permute(ctx, v, 0, 2, 1, 3), mask, 1.0f, 0.0f, 0.0f));
    }

    ggml_hex_op_params p = {};
    p.refine    = hex.refine;
    p.half_life = hex.half_life;
    p.unbias    = hex.unbias;
    p.n_mean    = hex.n_mean;
    p.n_ctx     = (int32_t) n_ctx;
    if (hex.refine != HEX_REFINE_NONE) {
        p.n_ring  = 32;
        p.n_heavy = 32;
        if (hex.backbone > 0 && hex.backbone_kind == HEX_BACKBONE_CHANNELS) { // the other kinds differ in cells, not in layout
            p.graph_kind = HEX_BACKBONE_CHANNELS;
            p.n_pairs    = HEX_BLOCK;
            p.degree     = 4;
            p.n_static   = (int32_t) n_ctx/(HEX_BLOCK/4);
        }
    }
    const int64_t n_slots = p.n_ring + p.n_heavy + p.n_static;
    ggml_tensor * k_cur = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, d_k, n_kv, 1);
    ggml_tensor * v_cur = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, d_v, n_kv, 1);
    ggml_tensor * pool  = n_slots > 0 ? ggml_new_tensor_4d(ctx, GGML_TYPE_I8, hex_slot_size(hex.refine, d_k, d_v), n_slots, n_kv, 1) : nullptr;
    ggml_tensor * state = ggml_new_tensor_3d(ctx, GGML_TYPE_I32, hex_state_size(d_k, p.n_ring, p.n_heavy), n_kv, 1);
    ggml_tensor * meta  = ggml_new_tensor_2d(ctx, GGML_TYPE_I32, hex_meta_words(1, p.n_ring, p.n_ctx), 1);
    ggml_tensor * attn  = ggml_hex_attn(ctx, q, k_cur, v_cur, k, v, pool, state, meta, mask, nullptr, &p);
    return ggml_backend_dev_supports_op(dev, attn) &&
        ggml_backend_dev_supports_op(dev, ggml_hex_commit(ctx, k_cur, v_cur, ggml_hex_attn_mass(ctx, attn), k, v, pool, state, meta, &p));
}

// A cache cannot leave the device that it was put on, so it stays on the CPU when one of the devices has no kernels for it.
static void keep_on_cpu_if_needed(const llama_model & model, llama_context_params & params) {
    const hex_params & hex = params.hex;
    const bool slots = hex.refine != HEX_REFINE_NONE && (hex.n_sink > 0 || hex.n_recent != 0 || hex.heavy > 0 || hex.backbone > 0);
    const bool tier  = hex.enabled && (slots || hex.n_mean > 0 || hex.unbias > 0);

    for (uint32_t il = 0; il < model.hparams.n_layer() && params.offload_kqv; ++il) {
        auto * dev = const_cast<ggml_backend_dev_t>(model.dev_layer(il));
        if (!dev || ggml_backend_dev_type(dev) == GGML_BACKEND_DEVICE_TYPE_CPU || !has_attention(model, il) || model.hparams.is_swa(il)) {
            continue;
        }
        if (!device_runs(dev, model.hparams, il, hex, tier, params.type_k, params.type_v)) {
            LLAMA_LOG_WARN("%s: %s has no kernels for this HEX cache: the KV cache and its attention stay on the CPU\n", __func__, ggml_backend_dev_name(dev));
            params.offload_kqv = false;
        }
    }
}

bool llama_hex_resolve(const llama_model & model, llama_context_params & params) {
    hex_params & hex = params.hex;
    if (!hex.enabled && !is_hex(params.type_k) && !is_hex(params.type_v)) {
        return true;
    }

    char why[256];
    if (!llama_hex_supported(&model, why, sizeof(why))) {
        const ggml_type type = fallback_type(model, params);
        LLAMA_LOG_WARN("%s: HEX is off for this model: %s; the KV cache is %s\n", __func__, why, ggml_type_name(type));
        hex.enabled   = false;
        params.type_k = type;
        params.type_v = type;
        return true;
    }
    if (!hex.enabled) { // -ctk hexN alone: base codes through stock attention
        keep_on_cpu_if_needed(model, params);
        return true;
    }

    // F16 is the default of llama_context_params and means "from the preset"
    if ((params.type_k != GGML_TYPE_F16 && !is_hex(params.type_k)) || (params.type_v != GGML_TYPE_F16 && !is_hex(params.type_v))) {
        LLAMA_LOG_ERROR("%s: cache types K = %s, V = %s contradict a HEX cache; use hex1 to hex4, or leave them out\n", __func__,
                ggml_type_name(params.type_k), ggml_type_name(params.type_v));
        return false;
    }
    if (is_hex(params.type_k)) {
        hex.base_k = hex_type_bits(params.type_k);
    }
    if (is_hex(params.type_v)) {
        hex.base_v = hex_type_bits(params.type_v);
    }
    if (!hex_params_validate(&hex, why, sizeof(why))) {
        LLAMA_LOG_ERROR("%s: HEX configuration: %s\n", __func__, why);
        return false;
    }
    if (params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_DISABLED) {
        LLAMA_LOG_ERROR("%s: a HEX cache needs flash attention; leave out `-fa off`\n", __func__);
        return false;
    }
    params.type_k = (ggml_type) (GGML_TYPE_HEX1 + hex.base_k - 1);
    params.type_v = (ggml_type) (GGML_TYPE_HEX1 + hex.base_v - 1);

    keep_on_cpu_if_needed(model, params);
    return true;
}

ggml_type llama_hex_swa_type(ggml_type type) {
    return is_hex(type) ? GGML_TYPE_Q8_0 : type;
}

//
// attachment
//

void llama_hex_access::attach(llama_kv_cache & kv, const hex_params & params) {
    std::vector<llama_kv_hex::layer> layers;
    for (const auto & l : kv.layers) {
        layers.push_back({ (int32_t) l.il, 0, (int32_t) kv.hparams.n_head_kv(l.il),
                (int32_t) kv.hparams.n_embd_head_k(l.il), (int32_t) kv.hparams.n_embd_head_v(l.il), l.k });
    }
    auto tier = std::make_shared<llama_kv_hex>(params, std::move(layers), kv.get_size(), kv.n_stream, kv.n_seq_max);
    if (tier->get_plan().n_slots == 0 && params.n_mean == 0 && params.unbias == 0) {
        return; // nothing beyond base codes: stock attention serves
    }

    // one context and buffer per buffer type, as for K and V
    std::map<ggml_backend_buffer_type_t, ggml_context_ptr> ctxs;
    for (size_t i = 0; i < kv.layers.size(); ++i) {
        ggml_backend_buffer_type_t buft = ggml_backend_buffer_get_type(kv.layers[i].k->buffer);
        auto & ctx = ctxs[buft];
        if (!ctx) {
            ctx.reset(ggml_init({ kv.layers.size()*llama_kv_hex::tensors_per_layer(kv.n_stream)*ggml_tensor_overhead(), nullptr, true }));
            if (!ctx) {
                throw std::runtime_error("failed to create ggml context for the refinement tier");
            }
        }
        tier->create_tensors(i, ctx.get());
    }
    for (auto & [buft, ctx] : ctxs) {
        ggml_backend_buffer_t buf;
        if (kv.hparams.no_alloc) {
            buf = ggml_backend_buft_alloc_buffer(buft, 0);
            for (ggml_tensor * t = ggml_get_first_tensor(ctx.get()); t; t = ggml_get_next_tensor(ctx.get(), t)) {
                t->buffer = buf;
            }
        } else {
            buf = ggml_backend_alloc_ctx_tensors_from_buft(ctx.get(), buft);
        }
        if (!buf) {
            throw std::runtime_error("failed to allocate the refinement tier of the KV cache; use a smaller context or preset");
        }
        ggml_backend_buffer_clear(buf, 0);
        kv.ctxs_bufs.emplace_back(std::move(ctx), buf);
    }
    kv.hex = std::move(tier);
}

static void log_bytes(const llama_hex_stats & st) {
    const double n_elements = st.total_bytes*8/st.bits_per_element;
    LLAMA_LOG_INFO("%s: KV cache %.2f MiB, %.2f bits per element: base K %.2f, base V %.2f, refined %.2f, state %.2f MiB; "
            "f16 would take %.2f, q8_0 %.2f, q4_0 %.2f MiB\n", __func__, st.total_bytes/MiB, st.bits_per_element,
            st.base_k_bytes/MiB, st.base_v_bytes/MiB, st.refined_bytes/MiB, st.state_bytes/MiB,
            n_elements*16/8/MiB, n_elements*8.5/8/MiB, n_elements*4.5/8/MiB);
}

static void log_plan(const hex_plan & plan, const hex_params & p) {
    LLAMA_LOG_INFO("%s: refined (%s) per KV head: %d sinks and recent, %d heavy hitters, %d backbone (%s); K centred on the mean of %d rows\n",
            __func__, hex_refine_name(p.refine), plan.n_ring, plan.n_heavy, plan.n_static, hex_backbone_name(p.backbone_kind), p.n_mean);
}

void llama_hex_attach(llama_memory_i * memory, const hex_params & params) {
    llama_kv_cache * kv = full_attention_cache(memory);
    if (!kv || !llama_hex_access::has_codes(*kv)) {
        return;
    }
    if (params.enabled) {
        llama_hex_access::attach(*kv, params);
    }
    llama_hex_stats st = {};
    llama_hex_access::stats(*kv, st);
    log_bytes(st);
    if (auto * tier = llama_hex_access::tier(*kv)) {
        tier->set_model(llama_hex_access::model(*kv));
        // the layers of a sliding window get the same positions, and their cache is stock's, which turns its rows
        const auto & hparams = llama_hex_access::hparams(*kv);
        const bool shared = iswa_cache(memory), absolute = llama_hex_access::model(*kv).pos_embd, several = hparams.n_pos_per_embd() > 1;
        tier->set_rope(hparams.rope_type != LLAMA_ROPE_TYPE_NONE && !several, !shared && !absolute); // several: get_can_shift is false
        log_plan(tier->get_plan(), params);
    }
}

void llama_hex_apply(llama_kv_cache & kv, const llama_kv_cache::slot_info & sinfo, const llama_ubatch & ubatch) {
    if (auto * tier = llama_hex_access::tier(kv)) {
        tier->apply(sinfo, ubatch, llama_hex_access::cells(kv));
    }
}

bool llama_hex_has_tier(llama_memory_i * memory) {
    const llama_kv_cache * kv = full_attention_cache(memory);
    return kv && llama_hex_access::tier(*kv);
}

void llama_hex_expect(llama_memory_i * memory, const llama_batch & batch) {
    llama_kv_cache * kv = full_attention_cache(memory);
    if (llama_kv_hex * tier = kv ? llama_hex_access::tier(*kv) : nullptr) {
        tier->will_join(batch, llama_hex_access::cells(*kv));
    }
}

bool llama_hex_shift_failed(llama_memory_i * memory) {
    llama_kv_cache * kv = full_attention_cache(memory);
    llama_kv_hex * tier = kv ? llama_hex_access::tier(*kv) : nullptr;
    return tier && std::exchange(tier->shift_failed, false);
}

bool llama_hex_refuses(llama_memory_i * memory, const char * what) {
    const llama_kv_cache * kv = full_attention_cache(memory);
    const llama_kv_hex * tier = kv ? llama_hex_access::tier(*kv) : nullptr;
    if (tier && !tier->can_shift()) {
        LLAMA_LOG_ERROR("%s: a HEX cache with a backbone of channels cannot move positions; nothing was changed\n", what);
        return true;
    }
    return false;
}

static constexpr uint32_t STATE_MARK = 2; // v_trans is 0 or 1 in a stock state

uint32_t llama_hex_mark(const llama_kv_hex * tier, uint32_t v_trans) {
    return tier ? STATE_MARK : v_trans;
}

bool llama_hex_unmark(const llama_kv_hex * tier, uint32_t & v_trans) {
    if ((v_trans == STATE_MARK) != (tier != nullptr)) {
        LLAMA_LOG_ERROR("%s: this state was saved %s a HEX tier and the cache is %s one; use the --hex settings that it was saved with\n",
                __func__, tier ? "without" : "with", tier ? "with" : "without");
        return false;
    }
    v_trans = tier ? 0 : v_trans;
    return true;
}

std::vector<uint32_t> llama_hex_cells(const std::vector<std::pair<uint32_t, uint32_t>> & ranges) {
    std::vector<uint32_t> cells;
    for (const auto & [first, last] : ranges) {
        for (uint32_t i = first; i < last; ++i) {
            cells.push_back(i);
        }
    }
    return cells;
}

//
// graph
//

// Input of the graph: the meta tensor of one cache.
class llm_graph_input_hex : public llm_graph_input_i {
public:
    llm_graph_input_hex(const llama_kv_hex * t, ggml_tensor * m, int64_t n) : tier(t), meta(m), n_tokens(n) {}

    void set_input(const llama_ubatch *) override {
        if (meta->buffer) {
            tier->set_input_meta(meta);
        }
    }

    // the streams of the ubatch are compared by llm_graph_params::allow_reuse
    bool can_reuse(const llm_graph_params & params) override {
        return params.ubatch.n_tokens == n_tokens;
    }

    const llama_kv_hex * tier;
    ggml_tensor        * meta;
    const int64_t        n_tokens;
};

ggml_tensor * llama_hex_access::build_attn(const llm_graph_context & g, const llama_kv_cache_context & mctx, ggml_tensor * q,
        ggml_tensor * k_cur, ggml_tensor * v_cur, ggml_tensor * kq_b, ggml_tensor * mask, ggml_tensor * sinks, float scale, int il) {
    const llama_kv_hex * tier = mctx.kv->hex.get();
    if (!tier) {
        return nullptr;
    }
    if (kq_b) {
        throw std::runtime_error("HEX does not support a bias on attention logits");
    }
    if (!k_cur || !v_cur) {
        throw std::runtime_error("HEX does not support layers that share the KV rows of another layer");
    }

    ggml_tensor * k_base = mctx.get_k(g.ctx0, il);
    ggml_tensor * v_base = mctx.get_v(g.ctx0, il);

    const int64_t n_stream = k_base->ne[3];
    const auto & inputs = g.res->inputs;
    const auto it = std::find_if(inputs.begin(), inputs.end(), [&](const llm_graph_input_ptr & in) {
        const auto * hex = dynamic_cast<const llm_graph_input_hex *>(in.get());
        return hex && hex->tier == tier;
    });
    ggml_tensor * meta = nullptr;
    if (it != inputs.end()) {
        meta = static_cast<const llm_graph_input_hex *>(it->get())->meta;
    } else {
        meta = tier->build_input_meta(g.ctx0, g.n_tokens/n_stream, n_stream);
        g.res->add_input(std::make_unique<llm_graph_input_hex>(tier, meta, g.n_tokens));
    }

    return tier->build_attn(g, mctx.sinfos[mctx.i_cur], meta, q, k_cur, v_cur, k_base, v_base, mask, sinks, scale,
            mctx.kv->map_layer_ids.at(il));
}

ggml_tensor * llama_hex_build_attn(const llm_graph_context & graph, const llama_kv_cache_context * mctx, ggml_tensor * q,
        ggml_tensor * k_cur, ggml_tensor * v_cur, ggml_tensor * kq_b, ggml_tensor * mask, ggml_tensor * sinks, float scale, int il) {
    return llama_hex_access::build_attn(graph, *mctx, q, k_cur, v_cur, kq_b, mask, sinks, scale, il);
}

const llama_kv_hex * llama_hex_access::tier_of(const llama_memory_context_i * mctx) {
    if (const auto * hybrid = dynamic_cast<const llama_memory_hybrid_context *>(mctx)) {
        mctx = hybrid->get_attn();
    }
    const auto * kv = dynamic_cast<const llama_kv_cache_context *>(mctx);
    return kv ? kv->kv->hex.get() : nullptr;
}

const llama_kv_hex * llama_hex_of(const llama_memory_context_i * mctx) {
    return llama_hex_access::tier_of(mctx);
}

const int32_t * llama_hex_positions(const llama_kv_hex * tier, const llama_ubatch & ubatch, std::vector<int32_t> & buf) {
    return tier ? tier->rope_positions(ubatch, buf) : ubatch.pos;
}

//
// statistics
//

void llama_hex_access::stats(const llama_kv_cache & kv, llama_hex_stats & out) {
    double n_elements = 0;
    for (const auto & l : kv.layers) {
        n_elements += (double) ggml_nelements(l.k) + (l.v ? (double) ggml_nelements(l.v) : 0);
    }
    for (const auto & cells : kv.v_cells) {
        out.n_used += cells.get_used();
    }
    out.n_ctx        = kv.get_size()*kv.n_stream;
    out.base_k_bytes = kv.size_k_bytes();
    out.base_v_bytes = kv.size_v_bytes();
    if (kv.hex) {
        out.enabled       = true;
        out.refined_bytes = kv.hex->pool_bytes();
        out.state_bytes   = kv.hex->state_bytes();
    }
    out.total_bytes      = out.base_k_bytes + out.base_v_bytes + out.refined_bytes + out.state_bytes;
    out.bits_per_element = n_elements > 0 ? 8.0*out.total_bytes/n_elements : 0;
}

bool llama_hex_get_stats(const llama_context * ctx, llama_hex_stats * out) {
    *out = {};
    auto * memory = const_cast<llama_context *>(ctx)->get_memory();
    const llama_kv_cache * kv = full_attention_cache(memory);
    if (!kv) {
        return false;
    }
    llama_hex_access::stats(*kv, *out);
    if (const auto * iswa = iswa_cache(memory)) {
        out->swa_bytes = llama_hex_access::base_bytes(*iswa->get_swa());
    }
    if (const auto * tier = llama_hex_access::tier(*kv)) {
        llama_synchronize(const_cast<llama_context *>(ctx));
        tier->count_refined(llama_hex_access::cells(*kv), *out);
    }
    return true;
}
