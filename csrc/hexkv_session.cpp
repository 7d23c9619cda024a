// Sessions: memory estimate, decoding, truncation, statistics.
#include "hexkv_impl.h"
#include "hexkv_session.h"

#include "core/hex_bytes.h"
#include "llama/llama-hex.h"

#pragma GCC diagnostic push // upstream's headers are not ours to fix
#pragma GCC diagnostic ignored "-Wshadow"
#include "common.h"
#include "llama-ext.h"
#pragma GCC diagnostic pop

#include <algorithm>
#include <chrono>

namespace hexkv {
namespace {

const int32_t max_ctx     = 1 << 26; // tokens; cells alone take 64 bytes each on the host
const int32_t max_batch   = 1 << 20;
const int32_t max_threads = 512;     // GGML_MAX_N_THREADS
const uint64_t cell_bytes = 64;      // host bookkeeping of one cell, about

// ---- parameters

ggml_type type_of(const std::string & name) {
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        const char * n = ggml_type_name(static_cast<ggml_type>(i)); // NULL for holes in the table
        if (n && name == n) {
            return static_cast<ggml_type>(i);
        }
    }
    return GGML_TYPE_COUNT;
}

hexkv_status check_range(hexkv_error * e, const char * name, int32_t value, int32_t hi, const char * zero) {
    return value >= 0 && value <= hi ? HEXKV_OK
        : fail(e, HEXKV_ERR_CONFIG, "%s = %d is out of range; use 1 to %d, or 0 for %s", name, value, hi, zero);
}

// A stock cache's parameters, whatever p asks for.
void make_stock(llama_context_params * cp, ggml_type k, ggml_type v) {
    cp->type_k = k;
    cp->type_v = v;
    cp->hex    = {};
}

hexkv_status plan_session(const Model & m, const hexkv_session_params & p, Plan * out, hexkv_error * e) {
    const llama_model * l = m.llama.get();
    if (llama_model_has_encoder(l) || !llama_model_has_decoder(l) || llama_model_is_diffusion(l)) {
        return fail(e, HEXKV_ERR_UNSUPPORTED, "%s (%s) does not generate text token by token; use a decoder-only language model",
                    m.path.c_str(), m.info.arch);
    }
    hexkv_status s;
    if ((s = check_range(e, "context size", p.n_ctx, max_ctx, "the trained context")) != HEXKV_OK ||
        (s = check_range(e, "batch size", p.n_batch, max_batch, "2048")) != HEXKV_OK ||
        (s = check_range(e, "ubatch size", p.n_ubatch, max_batch, "512")) != HEXKV_OK ||
        (s = check_range(e, "threads", p.n_threads, max_threads, "the physical cores")) != HEXKV_OK) {
        return s;
    }
    if (p.n_seq != 0 && p.n_seq != 1) {
        return fail(e, HEXKV_ERR_CONFIG, "n_seq = %d is out of range; a session holds 1 sequence", p.n_seq);
    }
    out->n_ctx = p.n_ctx ? p.n_ctx : m.info.n_ctx_train;
    if (out->n_ctx <= 0 || out->n_ctx > max_ctx) {
        return fail(e, HEXKV_ERR_CONFIG, "%s does not say how long its context is; set the context size", m.path.c_str());
    }
    const int32_t n_ubatch = p.n_ubatch ? p.n_ubatch : p.n_batch ? std::min(512, p.n_batch) : 512;
    const int32_t n_batch  = p.n_batch ? p.n_batch : std::max(2048, n_ubatch);
    if (n_ubatch > n_batch) {
        return fail(e, HEXKV_ERR_CONFIG, "ubatch size %d is larger than batch size %d; use at most the batch size", n_ubatch, n_batch);
    }
    std::string type_k, type_v;
    s = cache_resolve(p.cache, &out->hex, &type_k, &type_v, e);
    if (s != HEXKV_OK) {
        return s;
    }

    llama_context_params cp = llama_context_default_params();
    cp.n_ctx           = static_cast<uint32_t>(out->n_ctx);
    cp.n_batch         = static_cast<uint32_t>(n_batch);
    cp.n_ubatch        = static_cast<uint32_t>(n_ubatch);
    cp.n_seq_max       = 1;
    cp.n_outputs_max   = p.all_logits ? 0 : 1; // 0 = the batch size
    cp.n_threads       = p.n_threads ? p.n_threads : std::min(max_threads, std::max(1, common_cpu_get_num_math()));
    cp.n_threads_batch = cp.n_threads;
    cp.swa_full        = false;
    cp.offload_kqv     = !p.kv_on_host;
    cp.no_perf         = true;
    const ggml_type k = type_of(type_k), v = type_of(type_v);
    if (k == GGML_TYPE_COUNT || v == GGML_TYPE_COUNT) {
        return fail(e, HEXKV_ERR_UNSUPPORTED, "cache type %s is not in this build; use f16, q8_0 or q4_0",
                    (k == GGML_TYPE_COUNT ? type_k : type_v).c_str());
    }
    cp.type_k = k;
    cp.type_v = v;
    cp.hex    = out->hex;
    if (out->hex.enabled) { // what the plan refuses, it refuses before anything is allocated
        hex_plan plan;
        char     text[512];
        if (!hex_plan_make(&plan, &out->hex, GGML_PAD(out->n_ctx, 256), 1, m.info.n_layer * m.info.n_head_kv, text, sizeof(text))) {
            return fail(e, HEXKV_ERR_CONFIG, "%s", text);
        }
    }
    out->cp         = cp;
    out->all_logits = p.all_logits;
    return HEXKV_OK;
}

// ---- memory

struct Device {
    ggml_backend_dev_t dev;
    uint64_t kv, compute;
};

struct Use {
    uint64_t kv = 0, compute = 0, model = 0;
    uint64_t host = 0;           // kv and compute in main memory
    std::vector<Device> devices; // and elsewhere
};

Use use_of(const llama_context * ctx) {
    Use use;
    for (const auto & [buft, b] : llama_get_memory_breakdown(ctx)) {
        use.kv      += b.context;
        use.compute += b.compute;
        use.model   += b.model;
        ggml_backend_dev_t dev = ggml_backend_buft_is_host(buft) ? nullptr : ggml_backend_buft_get_device(buft);
        if (!dev || ggml_backend_dev_type(dev) == GGML_BACKEND_DEVICE_TYPE_CPU) {
            use.host += b.context + b.compute;
        } else {
            auto it = std::find_if(use.devices.begin(), use.devices.end(), [&](const Device & d) { return d.dev == dev; });
            if (it == use.devices.end()) { // a device can have several types of buffers
                it = use.devices.insert(it, { dev, 0, 0 });
            }
            it->kv      += b.context;
            it->compute += b.compute;
        }
    }
    return use;
}

double type_bits(ggml_type t) {
    return 8.0 * static_cast<double>(ggml_type_size(t)) / static_cast<double>(ggml_blck_size(t));
}

// Bytes of a cache whose layers are all like the first, without refinements.
double uniform_kv_bytes(const Model & m, const Plan & plan) {
    return static_cast<double>(plan.n_ctx) * m.info.n_layer * m.info.n_head_kv *
           (m.info.head_k * type_bits(plan.cp.type_k) + m.info.head_v * type_bits(plan.cp.type_v)) / 8;
}

// Splits kv bytes into tiers. For a cache whose layers are all alike this is exact; others (sliding windows) get the
// shares of such a cache.
template <typename T>
void split_tiers(const Model & m, const Plan & plan, int32_t n_ctx, T * out) {
    const double kv = static_cast<double>(out->kv);
    double k = m.info.head_k * type_bits(plan.cp.type_k), v = m.info.head_v * type_bits(plan.cp.type_v);
    const double share = k + v > 0 ? k / (k + v) : 0;
    out->base_k  = static_cast<uint64_t>(kv * share + 0.5);
    out->refined = out->state = 0;

    hex_plan  hp;
    hex_bytes b     = {};
    hex_shape shape = { m.info.n_layer, m.info.n_head_kv, m.info.head_k, m.info.head_v, 1 };
    if (plan.hex.enabled && hex_plan_make(&hp, &plan.hex, n_ctx, 1, m.info.n_layer * m.info.n_head_kv, nullptr, 0)) {
        hex_bytes_of(&b, &plan.hex, &hp, &shape);
        const double total = static_cast<double>(b.total), scale = kv / std::max(1.0, total);
        if (scale > 0.99 && scale < 1.01) {
            // Tensors are padded a little: half of it is K's.
            const int64_t padding = static_cast<int64_t>(out->kv - b.total);
            out->refined = b.refined;
            out->state   = b.state;
            out->base_k  = b.base_k + static_cast<uint64_t>(padding / 2);
        } else {
            out->refined = static_cast<uint64_t>(static_cast<double>(b.refined) * scale);
            out->state   = static_cast<uint64_t>(static_cast<double>(b.state) * scale);
            out->base_k  = static_cast<uint64_t>(static_cast<double>(b.base_k) * scale);
        }
    }
    out->base_v = out->kv - std::min(out->kv, out->base_k + out->refined + out->state);
}

// Bits per element of layers with a sliding window: HEX leaves them to q8_0.
double window_bits(ggml_type t) {
    return type_bits(strncmp(ggml_type_name(t), "hex", 3) == 0 ? GGML_TYPE_Q8_0 : t);
}

// Fills in what llama.cpp's cache says. It speaks of full-attention layers; the rest of out->kv, such as layers with a
// sliding window, is base codes of the type that those layers use.
void hex_stats(const hexkv_session & s, const llama_hex_stats & h, hexkv_stats * out) {
    const uint64_t rest = out->kv - std::min(out->kv, h.total_bytes);
    const double   bits = (window_bits(s.plan.cp.type_k) + window_bits(s.plan.cp.type_v)) / 2;
    const double   elements = (h.bits_per_element > 0 ? static_cast<double>(h.total_bytes) / h.bits_per_element : 0) +
                              static_cast<double>(rest) / bits; // eighths
    out->hex              = h.enabled;
    out->n_ctx            = h.n_ctx;
    out->n_used           = h.n_used;
    out->base_k           = h.base_k_bytes + rest / 2;
    out->base_v           = h.base_v_bytes + (rest - rest / 2);
    out->refined          = h.refined_bytes;
    out->state            = h.state_bytes;
    out->kv               = h.total_bytes + rest;
    out->bits_per_element = elements > 0 ? static_cast<double>(out->kv) / elements : 0;
    out->refined_ring     = h.refined_ring;
    out->refined_heavy    = h.refined_heavy;
    out->refined_static   = h.refined_static;
    out->n_entries        = h.n_entries;
}

ContextPtr new_context(llama_model * l, const llama_context_params & cp) {
    return ContextPtr(llama_init_from_model(l, cp));
}

// Loads the model without its weights: contexts over it are laid out and not allocated.
hexkv_status shadow_of(Model & m, llama_model ** out, hexkv_error * e) {
    if (!m.shadow) {
        llama_model_params params = m.params;
        params.no_alloc  = true;
        params.load_mode = LLAMA_LOAD_MODE_NONE;
        params.progress_callback = [](float, void *) { return true; };
        Capture log;
        m.shadow.reset(llama_model_load_from_file(m.path.c_str(), params));
        if (!m.shadow) {
            return fail(e, HEXKV_ERR_MODEL, "%s cannot be read again for a memory estimate: %s", m.path.c_str(),
                        log.text("llama.cpp gives no reason").c_str());
        }
    }
    *out = m.shadow.get();
    return HEXKV_OK;
}

uint64_t output_bytes(const Model & m, uint32_t rows) {
    return rows * static_cast<uint64_t>(m.info.n_vocab) * sizeof(float);
}

// Most rows of logits at once.
uint32_t max_rows(const Plan & plan) {
    return plan.all_logits ? std::min<uint32_t>(plan.cp.n_batch, GGML_PAD(plan.n_ctx, 256)) : 1;
}

hexkv_status too_large(const Plan & plan, uint64_t need, uint64_t have, const char * where, hexkv_error * e) {
    const double    ratio = static_cast<double>(have) / static_cast<double>(need);
    const long long fit   = static_cast<long long>(plan.n_ctx * ratio) / 256 * 256;
    const std::string remedy = fit > 0 ? "use a context of at most about " + std::to_string(fit) + " tokens, or a smaller cache such as hex:tiny"
                                       : "free memory, or use a smaller model";
    return fail(e, HEXKV_ERR_MEMORY, "a context of %d tokens needs about %s of memory, but %s are free%s; %s", plan.n_ctx,
                bytes_text(need).c_str(), bytes_text(have).c_str(), where, remedy.c_str());
}

hexkv_status estimate(Model & m, const Plan & plan, hexkv_estimate * out, Use * use, hexkv_error * e) {
    *out = {};
    out->available = memory_available();
    // Hopeless contexts are not even laid out. An eighth, as layers may differ or see a sliding window only.
    const uint64_t kv = static_cast<uint64_t>(uniform_kv_bytes(m, plan)) + static_cast<uint64_t>(plan.n_ctx) * cell_bytes;
    if (out->available && kv / 8 > out->available) {
        return too_large(plan, kv, out->available, "", e);
    }
    std::lock_guard<std::mutex> lock(m.shadow_mutex);
    llama_model * shadow = nullptr;
    hexkv_status  s      = shadow_of(m, &shadow, e);
    if (s != HEXKV_OK) {
        return s;
    }
    Capture log;
    const ContextPtr ctx = new_context(shadow, plan.cp);
    if (!ctx) {
        return fail(e, HEXKV_ERR_INTERNAL, "the context cannot be laid out: %s", log.text("llama.cpp gives no reason").c_str());
    }
    *use           = use_of(ctx.get());
    out->n_ctx     = static_cast<int32_t>(llama_n_ctx(ctx.get()));
    out->kv        = use->kv;
    out->compute   = use->compute;
    out->model     = use->model;
    out->output    = output_bytes(m, max_rows(plan));
    out->total     = out->kv + out->compute + out->output;
    use->host     += out->output;
    split_tiers(m, plan, out->n_ctx, out);

    llama_context_params f16 = plan.cp;
    make_stock(&f16, GGML_TYPE_F16, GGML_TYPE_F16);
    out->kv_f16 = out->kv;
    if (plan.hex.enabled || plan.cp.type_k != GGML_TYPE_F16 || plan.cp.type_v != GGML_TYPE_F16) {
        const ContextPtr stock = new_context(shadow, f16);
        if (!stock) {
            return fail(e, HEXKV_ERR_INTERNAL, "an f16 context cannot be laid out: %s", log.text("llama.cpp gives no reason").c_str());
        }
        out->kv_f16 = use_of(stock.get()).kv;
    }
    const uint64_t elements = out->kv_f16 / 2;
    out->kv_q8_0 = elements / 32 * 34;
    out->kv_q4_0 = elements / 32 * 18;
    out->bits_per_element = elements ? 8.0 * static_cast<double>(out->kv) / static_cast<double>(elements) : 0;
    return HEXKV_OK;
}

// Whether the session surely fits, by an upper bound that needs no layout.
bool surely_fits(const Model & m, const Plan & plan) {
    const double ctx   = GGML_PAD(plan.n_ctx, 256);
    const double kv    = ctx * m.info.n_layer * m.info.n_head * (m.info.head_k + m.info.head_v) * 4.0;
    const double graph = plan.cp.n_ubatch * (ctx * 16.0 + m.info.n_embd * 512.0) + 8.0 * m.info.n_vocab * max_rows(plan);
    return !m.info.recurrent && llama_model_n_devices(m.llama.get()) == 0 &&
           kv + graph + ctx * cell_bytes < static_cast<double>(memory_available()) / 4;
}

hexkv_status check_memory(Model & m, const Plan & plan, hexkv_error * e) {
    if (surely_fits(m, plan)) {
        return HEXKV_OK;
    }
    hexkv_estimate est;
    Use            use;
    const hexkv_status s = estimate(m, plan, &est, &use, e);
    if (s != HEXKV_OK) {
        return s;
    }
    if (est.available && use.host > est.available) {
        return too_large(plan, use.host, est.available, "", e);
    }
    for (const Device & d : use.devices) {
        size_t free = 0, total = 0;
        ggml_backend_dev_memory(d.dev, &free, &total);
        if (total && d.kv + d.compute > free) {
            return too_large(plan, d.kv + d.compute, free, (std::string(" on ") + ggml_backend_dev_name(d.dev)).c_str(), e);
        }
    }
    return HEXKV_OK;
}

uint64_t now_us() {
    using namespace std::chrono;
    return static_cast<uint64_t>(duration_cast<microseconds>(steady_clock::now().time_since_epoch()).count());
}

bool on_abort(void * user) { return static_cast<hexkv_session *>(user)->cancel.load(std::memory_order_relaxed); }

// ---- decoding

// Drops the tokens from position n on, or all of them where that cannot be done.
void drop_tail(hexkv_session * s, int32_t n) {
    llama_memory_t mem = llama_get_memory(s->ctx.get());
    // A sliding window forgets: the tokens that position n would see must still be there.
    const int32_t window = s->model->info.n_swa;
    const bool    there  = n > 0 && (window == 0 || llama_memory_seq_pos_min(mem, 0) <= std::max(0, n - window));
    if (there && llama_memory_seq_rm(mem, 0, n, -1) && llama_memory_seq_pos_max(mem, 0) == n - 1) {
        s->n_past = n;
    } else {
        llama_memory_clear(mem, true);
        s->n_past = 0;
    }
}

hexkv_status decode_chunk(hexkv_session * s, const int32_t * tokens, int32_t n, int logits, hexkv_error * e) {
    llama_batch & b = s->batch;
    b.n_tokens = n;
    for (int32_t i = 0; i < n; i++) {
        b.token[i]     = tokens[i];
        b.pos[i]       = s->n_past + i;
        b.n_seq_id[i]  = 1;
        b.seq_id[i][0] = 0;
        b.logits[i]    = logits == HEXKV_LOGITS_ALL || (logits == HEXKV_LOGITS_LAST && i == n - 1);
    }
    Capture      log;
    int          status = -3;
    hexkv_status thrown = guard(e, [&] {
        status = llama_decode(s->ctx.get(), b);
        llama_synchronize(s->ctx.get());
        return HEXKV_OK;
    });
    if (thrown == HEXKV_OK && status == 0) {
        s->n_past += n;
        return HEXKV_OK;
    }
    drop_tail(s, s->n_past); // what is whole stays
    if (thrown != HEXKV_OK) {
        return thrown;
    }
    switch (status) {
        case 1:
            return fail(e, HEXKV_ERR_CONTEXT_FULL, "the cache has no room for %d tokens after %d; clear it or open a larger context", n,
                        s->n_past);
        case 2:
            return fail(e, HEXKV_ERR_CANCELLED, "cancelled after %d tokens", s->n_past);
        case -2:
            return fail(e, HEXKV_ERR_MEMORY, "llama.cpp could not allocate memory: %s", log.text("no details").c_str());
        default:
            return fail(e, HEXKV_ERR_INTERNAL, "llama.cpp could not decode: %s", log.text("no details").c_str());
    }
}

} // namespace
} // namespace hexkv

using namespace hexkv;

hexkv_session::~hexkv_session() {
    if (batch.token) {
        llama_batch_free(batch);
    }
    ctx.reset();
    if (pool) {
        ggml_threadpool_free(pool);
    }
}

hexkv_status hexkv_estimate_memory(hexkv_model * m, const hexkv_session_params * p, hexkv_estimate * out, hexkv_error * e) {
    return guard(e, [&] {
        if (!m || !p || !out) {
            return fail(e, HEXKV_ERR_INVALID, "hexkv_estimate_memory: NULL argument");
        }
        NoAbort      no_abort;
        Plan         plan;
        Use          use;
        hexkv_status s = plan_session(*m->p, *p, &plan, e);
        return s != HEXKV_OK ? s : estimate(*m->p, plan, out, &use, e);
    });
}

hexkv_status hexkv_session_open(hexkv_model * m, const hexkv_session_params * p, hexkv_session ** out, hexkv_error * e) {
    return guard(e, [&] {
        if (!m || !p || !out) {
            return fail(e, HEXKV_ERR_INVALID, "hexkv_session_open: NULL argument");
        }
        *out = nullptr;
        NoAbort no_abort;
        auto s   = std::make_unique<hexkv_session>();
        s->model = m->p;
        hexkv_status status = plan_session(*s->model, *p, &s->plan, e);
        if (status == HEXKV_OK) {
            status = check_memory(*s->model, s->plan, e);
        }
        if (status != HEXKV_OK) {
            return status;
        }
        llama_context_params cp = s->plan.cp;
        cp.abort_callback      = on_abort;
        cp.abort_callback_data = s.get();
        {
            std::lock_guard<std::mutex> lock(s->model->open_mutex);
            Capture log;
            s->ctx = new_context(s->model->llama.get(), cp);
            if (!s->ctx) {
                return fail(e, HEXKV_ERR_INTERNAL, "the context cannot be created: %s", log.text("llama.cpp gives no reason").c_str());
            }
        }
        s->n_ctx    = static_cast<int32_t>(llama_n_ctx(s->ctx.get()));
        s->n_batch  = static_cast<int32_t>(llama_n_batch(s->ctx.get()));
        s->n_ubatch = static_cast<int32_t>(llama_n_ubatch(s->ctx.get()));
        s->batch    = llama_batch_init(p->all_logits ? s->n_batch : s->n_ubatch, 0, 1);

        ggml_threadpool_params tp = ggml_threadpool_params_default(cp.n_threads);
        s->pool = ggml_threadpool_new(&tp);
        if (s->pool) {
            llama_attach_threadpool(s->ctx.get(), s->pool, nullptr);
        }
        *out = s.release();
        return HEXKV_OK;
    });
}

void hexkv_session_close(hexkv_session * s) { delete s; }

void hexkv_session_cancel(hexkv_session * s, bool cancel) { s->cancel.store(cancel, std::memory_order_relaxed); }

hexkv_status hexkv_decode(hexkv_session * s, const int32_t * tokens, size_t n, int logits, hexkv_error * e) {
    return guard(e, [&] {
        if (!s || !tokens || n == 0) {
            return fail(e, HEXKV_ERR_INVALID, "there are no tokens to decode");
        }
        const bool all = logits == HEXKV_LOGITS_ALL;
        if (all && !s->plan.all_logits) {
            return fail(e, HEXKV_ERR_CONFIG, "the logits of all tokens are asked for; open the session with all_logits");
        }
        if (all && n > static_cast<size_t>(s->n_batch)) {
            return fail(e, HEXKV_ERR_INVALID, "the logits of %zu tokens are asked for; decode at most %d (the batch size) at once", n,
                        s->n_batch);
        }
        for (size_t i = 0; i < n; i++) {
            if (tokens[i] < 0 || tokens[i] >= s->model->info.n_vocab) {
                return fail(e, HEXKV_ERR_INVALID, "token %d at index %zu is not in the vocabulary of %d", tokens[i], i,
                            s->model->info.n_vocab);
            }
        }
        if (n > static_cast<size_t>(s->n_ctx - s->n_past)) {
            return fail(e, HEXKV_ERR_CONTEXT_FULL,
                        "the context is full: %zu more tokens do not fit beside %d in %d; clear it or open a larger one", n, s->n_past,
                        s->n_ctx);
        }
        s->rows        = 0; // before the decode: a failure leaves no logits
        const size_t   step  = static_cast<size_t>(all ? s->n_batch : s->n_ubatch);
        const int32_t  begin = s->n_past;
        const uint64_t t     = now_us();
        hexkv_status status  = HEXKV_OK;
        for (size_t i = 0; i < n && status == HEXKV_OK; i += step) {
            const size_t m = std::min(step, n - i);
            if (s->cancel.load(std::memory_order_relaxed)) {
                status = fail(e, HEXKV_ERR_CANCELLED, "cancelled after %d tokens", s->n_past);
                break;
            }
            status = decode_chunk(s, tokens + i, static_cast<int32_t>(m), i + m < n ? static_cast<int>(HEXKV_LOGITS_NONE) : logits, e);
        }
        const uint64_t us   = now_us() - t;
        const uint64_t done = static_cast<uint64_t>(std::max(0, s->n_past - begin));
        (n > 1 ? s->prefill_us : s->decode_us) += us;
        (n > 1 ? s->prefill_tokens : s->decode_tokens) += done;
        if (status == HEXKV_OK && logits != HEXKV_LOGITS_NONE) {
            s->rows     = all ? static_cast<int32_t>(n) : 1;
            s->last     = static_cast<int32_t>(n) - 1;
            s->max_rows = std::max(s->max_rows, s->rows);
        }
        return status;
    });
}

namespace hexkv {

hexkv_status logits_row(hexkv_session * s, int32_t row, float ** out, hexkv_error * e) {
    const bool last = s->rows > 0 && (row == -1 || row == s->last);
    if (!last && (row < 0 || s->rows <= 1 || row >= s->rows)) {
        return fail(e, HEXKV_ERR_NO_LOGITS, "the last decode kept no logits for row %d; decode with logits first", row);
    }
    *out = llama_get_logits_ith(s->ctx.get(), last ? -1 : row);
    return *out ? HEXKV_OK : fail(e, HEXKV_ERR_NO_LOGITS, "the model gives no logits");
}

} // namespace hexkv

hexkv_status hexkv_logits(hexkv_session * s, int32_t row, const float ** out, hexkv_error * e) {
    return guard(e, [&] {
        if (!s || !out) {
            return fail(e, HEXKV_ERR_INVALID, "hexkv_logits: NULL argument");
        }
        float * p = nullptr;
        const hexkv_status status = logits_row(s, row, &p, e);
        *out = p;
        return status;
    });
}

int32_t hexkv_n_past(const hexkv_session * s) { return s->n_past; }
int32_t hexkv_n_ctx(const hexkv_session * s) { return s->n_ctx; }

hexkv_status hexkv_truncate(hexkv_session * s, int32_t n, int32_t * kept, hexkv_error * e) {
    return guard(e, [&] {
        if (!s || !kept || n < 0) {
            return fail(e, HEXKV_ERR_INVALID, "hexkv_truncate: bad argument");
        }
        if (n >= s->n_past) {
            *kept = s->n_past;
            return HEXKV_OK;
        }
        s->rows = 0;
        drop_tail(s, n);
        *kept = s->n_past;
        return HEXKV_OK;
    });
}

hexkv_status hexkv_get_stats(hexkv_session * s, hexkv_stats * out, hexkv_error * e) {
    return guard(e, [&] {
        if (!s || !out) {
            return fail(e, HEXKV_ERR_INVALID, "hexkv_get_stats: NULL argument");
        }
        *out = {};
        const Use use = use_of(s->ctx.get());
        out->n_ctx          = s->n_ctx;
        out->n_used         = s->n_past;
        out->kv             = use.kv;
        out->compute        = use.compute;
        const size_t max_gpus = sizeof(out->gpus) / sizeof(out->gpus[0]);
        for (size_t i = 0, n = 0; i < use.devices.size() && n < max_gpus; i++) {
            const Device & d = use.devices[i];
            if (d.kv + d.compute > 0) {
                copy(out->gpus[n].name, ggml_backend_dev_name(d.dev));
                out->gpus[n].kv      = d.kv;
                out->gpus[n].compute = d.compute;
                n++;
            }
        }
        out->output         = output_bytes(*s->model, static_cast<uint32_t>(std::max(1, s->max_rows)));
        out->prefill_tokens = s->prefill_tokens;
        out->prefill_us     = s->prefill_us;
        out->decode_tokens  = s->decode_tokens;
        out->decode_us      = s->decode_us;
        const hexkv_model_info & info = s->model->info;
        out->n_entries = static_cast<uint64_t>(info.n_layer) * static_cast<uint64_t>(info.n_head_kv) * static_cast<uint64_t>(s->n_past);
        const double k = info.head_k, v = info.head_v;
        out->bits_per_element = k + v > 0 ? (k * type_bits(s->plan.cp.type_k) + v * type_bits(s->plan.cp.type_v)) / (k + v) : 0;
        split_tiers(*s->model, s->plan, s->n_ctx, out);
        llama_hex_stats h = {};
        if (llama_hex_get_stats(s->ctx.get(), &h)) {
            hex_stats(*s, h, out);
        }
        return HEXKV_OK;
    });
}
