// The refinement tier seen through llama.h: configurations that are refused or fall back, statistics, what a backbone of
// channels cannot do, graph reuse, aborted decodes.

#include "tier_fixture.h"

#include "ggml-backend.h"
#include "llama-ext.h"

#include <cinttypes>
#include <ctime>

static context_ptr make(const model_ptr & model, const setup & s, const hex_params & p) {
    log_text.clear();
    return context_ptr(llama_init_from_model(model.get(), context_params(s, p)));
}

static std::vector<row> some_rows(int n, int pos = 0, int seq = 0) {
    rng r = { 5 + (uint64_t) pos };
    std::vector<row> rows;
    for (int i = 0; i < n; i++) {
        rows.push_back({ seq, pos + i, r.below(100) });
    }
    return rows;
}

// ---- configurations

static void bad_configurations(const model_ptr & model) {
    struct { const char * what; const char * log; setup s; hex_params p; } cases[] = {
        { "q8_0 K",                 "contradict",       {}, preset("tiny") },
        { "q4_0 V",                 "contradict",       {}, preset("tiny") },
        { "no flash attention",     "flash attention",  {}, preset("tiny") },
        { "heavy = 1.5",            "heavy = 1.5",      {}, preset("tiny") },
        { "heavy = NaN",            "heavy = ",         {}, preset("tiny") },
        { "backbone = -0.1",        "backbone = -0.1",  {}, preset("tiny") },
        { "backbone = 0.001",       "backbone = 0.001", {}, preset("tiny") },
        { "7 bits",                 "base_k = 7",       {}, preset("tiny") },
        { "unknown refine",         "refine = 5",       {}, preset("tiny") },
        { "unknown backbone",       "backbone_kind",    {}, preset("tiny") },
        { "-5 recent",              "n_recent = -5",    {}, preset("tiny") },
        { "-1 sinks",               "n_sink = -1",      {}, preset("tiny") },
        { "half-life 0",            "half_life = 0",    {}, preset("tiny") },
        { "channels without f16",   "channels",         {}, preset("tiny") },
    };
    cases[0].s.type_k        = GGML_TYPE_Q8_0;
    cases[1].s.type_v        = GGML_TYPE_Q4_0;
    cases[2].s.flash         = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    cases[3].p.heavy         = 1.5f;
    cases[4].p.heavy         = NAN;
    cases[5].p.backbone      = -0.1f;
    cases[6].p.backbone      = 0.001f;
    cases[7].p.base_k        = 7;
    cases[8].p.refine        = (enum hex_refine) 5;
    cases[9].p.backbone_kind = (enum hex_backbone) 77;
    cases[10].p.n_recent     = -5;
    cases[11].p.n_sink       = -1;
    cases[12].p.half_life    = 0;
    cases[13].p.backbone      = 0.125f;
    cases[13].p.backbone_kind = HEX_BACKBONE_CHANNELS;
    for (const auto & c : cases) {
        const context_ptr ctx = make(model, c.s, c.p);
        check(!ctx && log_lines_with(c.log) > 0, "refused: %s", c.what);
    }

    // odd, but sound: they decode
    struct { const char * what; hex_params p; } odd[] = {
        { "everything larger than the context", preset("tiny") },
        { "only sinks",                         preset("tiny") },
        { "one cell of heavy hitters",          preset("tiny") },
        { "mean of one row",                    preset("tiny") },
        { "mean of more rows than cells",       preset("tiny") },
        { "hex1 residual",                      preset("tiny") },
        { "q8_0 residual",                      preset("tiny") },
    };
    odd[0].p.n_sink = 5000, odd[0].p.n_recent = 1 << 20, odd[0].p.heavy = 1, odd[0].p.backbone = 1;
    odd[1].p.n_recent = 0, odd[1].p.heavy = 0;
    odd[2].p.heavy = 1/256.0f;
    odd[3].p.n_mean = 1;
    odd[4].p.n_mean = 1 << 20;
    odd[5].p.refine = HEX_REFINE_HEX1;
    odd[6].p.refine = HEX_REFINE_Q8_0;
    for (const auto & o : odd) {
        twin t(model.get(), {}, o.p, true);
        t.prompt(0, 200, 40);
        t.prompt(0, 30, 1);
        check(t.ok() && t.rows.max_error < 0.5 && t.mean_kl() < 0.3, "works: %s (mean KL %.3f)%s%s", o.what, t.mean_kl(),
              t.ok() ? "" : "; ", t.why().c_str());
    }
}

// Any mixture of values is refused or works.
static void random_configurations(const model_ptr * models, int n_models, int n) {
    rng r = { 21 };
    int n_refused = 0;
    std::string why;
    for (int i = 0; i < n && why.empty(); i++) {
        const int   ints[]   = { -2, -1, 0, 1, 3, 4, 31, 32, 64, 255, 256, 257, 4096, 1 << 24 };
        const float shares[] = { -0.1f, 0, 1e-6f, 0.004f, 0.05f, 0.1f, 1/3.0f, 0.5f, 0.9f, 1, 1.1f };
        const int   refine[] = { 0, 1, 2, 3, 4, 8, 16, 16, 7 };
        const auto  some_int = [&] { return ints[r.range(r.chance(0.1) ? 0 : 2, 13)]; };
        hex_params p = preset("balanced");
        p.base_k        = r.range(r.chance(0.1) ? 0 : 1, 4);
        p.base_v        = r.range(1, r.chance(0.1) ? 5 : 4);
        p.refine        = (enum hex_refine) refine[r.below(r.chance(0.1) ? 9 : 8)];
        p.n_sink        = r.chance(0.5) ? 4 : some_int();
        p.n_recent      = some_int();
        p.heavy         = shares[r.range(1, r.chance(0.1) ? 10 : 9)];
        p.backbone      = shares[r.chance(0.1) ? r.below(11) : r.chance(0.4) ? 1 : r.range(6, 9)];
        p.backbone_kind = (enum hex_backbone) r.below(6);
        p.seed          = (uint32_t) r.next();
        p.n_mean        = some_int();
        p.half_life     = std::max(some_int(), r.chance(0.05) ? 0 : 1);
        setup s;
        s.n_seq   = r.range(1, 3);
        s.unified = r.chance(0.5);
        twin t(models[r.below(n_models)].get(), s, p, false);
        if (!t.hex) {
            n_refused++;
            continue;
        }
        t.swa = true;
        random_operations(t, r, 5, 250);
        if (!t.ok() || t.max_kl > 20) {
            why = "configuration " + std::to_string(i) + ": " + t.why();
        }
    }
    check(why.empty() && n_refused > n/20 && n_refused < n*2/3, "%d random configurations: %d refused, the others work%s", n, n_refused, why.c_str());
}

// The cache types pick the base; F16 means that the preset does.
static void cache_types(const model_ptr & model) {
    setup s;
    hex_params p = preset("tiny");
    s.type_k = GGML_TYPE_HEX4;
    const context_ptr ctx = make(model, s, p);
    llama_hex_stats st = {};
    const bool read = ctx && llama_hex_get_stats(ctx.get(), &st);
    check(read && st.base_k_bytes*5 == st.base_v_bytes*17, "-ctk hex4 over the preset's hex3, V in its hex1: %" PRIu64 " and %" PRIu64 " bytes",
          st.base_k_bytes, st.base_v_bytes); // 4.25 and 2.25 bits
}

// Head sizes that are no multiple of 64: a stock type, one line of log.
static void fallback() {
    for (const int head : { 80, 96, 40, 16 }) {
        for (const bool flash : { true, false }) {
            tiny_model shape;
            shape.head_size = head;
            const model_ptr model = load_tiny(shape);
            setup s;
            s.flash = flash ? LLAMA_FLASH_ATTN_TYPE_AUTO : LLAMA_FLASH_ATTN_TYPE_DISABLED;
            const context_ptr ctx = make(model, s, preset("balanced"));
            const int lines = log_lines_with("HEX is off");
            llama_hex_stats st = {};
            std::vector<float> logits;
            const bool works = ctx && decode(ctx.get(), some_rows(20), &logits) == 0 && llama_hex_get_stats(ctx.get(), &st) && !st.enabled;
            check(works && lines == 1, "head size %d, flash attention %s: falls back to %.2f bits (%d line of log)", head,
                  flash ? "auto" : "off", st.bits_per_element, lines);
        }
    }
}

// Without residuals, means and a correction of logits a HEX cache is `-ctk hexN -ctv hexN`.
static void plain_types(const model_ptr & model) {
    for (int bits = 1; bits <= 4; bits++) {
        hex_params p = preset("tiny");
        p.base_k = p.base_v = bits;
        p.refine = HEX_REFINE_NONE;
        p.n_mean = 0;
        p.unbias = 0;
        setup s, stock;
        stock.type_k = stock.type_v = (ggml_type) (GGML_TYPE_HEX1 + bits - 1);
        const context_ptr a = make(model, stock, preset("off")), b = make(model, s, p);
        std::vector<float> la, lb;
        bool same = a && b;
        for (int pos = 0; pos < 200 && same; pos += 50) {
            same = decode(a.get(), some_rows(50, pos), &la) == 0 && decode(b.get(), some_rows(50, pos), &lb) == 0 && la == lb;
        }
        for (int pos = 200; pos < 210 && same; pos++) {
            same = decode(a.get(), some_rows(1, pos), &la) == 0 && decode(b.get(), some_rows(1, pos), &lb) == 0 && la == lb;
        }
        check(same, "no refinement, mean or correction: bit-identical to -ctk hex%d -ctv hex%d", bits, bits);
    }
    // off: nothing changes
    hex_params off = preset("tiny");
    off.enabled = false;
    const context_ptr a = make(model, {}, preset("off")), b = make(model, {}, off);
    std::vector<float> la, lb;
    check(a && b && decode(a.get(), some_rows(100), &la) == 0 && decode(b.get(), some_rows(100), &lb) == 0 && la == lb, "off: bit-identical to f16");
}

// ---- statistics

static void statistics(const model_ptr & model, const tiny_model & shape, bool unified, int n_seq) {
    for (const char * name : { "tiny", "compact", "balanced", "quality", "paper" }) {
        hex_params p = preset(name);
        p.backbone = 0.25f;
        setup s;
        s.n_ctx   = 512;
        s.n_seq   = n_seq;
        s.unified = unified;
        const context_ptr ctx = make(model, s, p);
        const int n_lines = log_lines_with("bits per element");

        hex_plan  plan;
        hex_bytes bytes;
        char err[256];
        hex_shape dims = { shape.n_layer, shape.n_head_kv, shape.head_size, shape.head_size, unified ? 1 : n_seq };
        const bool planned = hex_plan_make(&plan, &p, s.n_ctx, unified ? n_seq : 1, shape.n_layer*shape.n_head_kv, err, sizeof(err));
        hex_bytes_of(&bytes, &p, &plan, &dims);

        llama_hex_stats st = {};
        const bool read = ctx && planned && llama_hex_get_stats(ctx.get(), &st);
        check(read && st.enabled && st.base_k_bytes == bytes.base_k && st.base_v_bytes == bytes.base_v && st.refined_bytes == bytes.refined &&
              st.state_bytes == bytes.state && st.total_bytes == bytes.total && fabs(st.bits_per_element - bytes.bits_per_element) < 1e-9 &&
              st.swa_bytes == 0 && n_lines == 1 && st.n_used == 0 && st.n_entries == 0 && st.n_ctx == s.n_ctx*(unified ? 1 : n_seq),
              "%s, %d %s: %" PRIu64 " bytes as planned, %.2f bits per element", name, n_seq, unified ? "unified" : "streams", st.total_bytes, st.bits_per_element);

        // young: everything is refined. Then the tiers fill up and stay as planned.
        const uint64_t pairs = (uint64_t) shape.n_layer*shape.n_head_kv;
        bool young = false, old = false;
        for (int pos = 0; ctx && pos < 480; pos += 12) {
            if (decode(ctx.get(), some_rows(12, pos), nullptr) != 0) {
                break;
            }
            llama_hex_get_stats(ctx.get(), &st);
            const uint64_t n = (uint64_t) pos + 12, refined = st.refined_ring + st.refined_heavy + st.refined_static;
            const uint64_t ring = std::min<uint64_t>(n, plan.n_ring_seq)*pairs;
            if (st.n_used != (int) n || st.n_entries != n*pairs || refined > st.n_entries || st.refined_ring != ring) {
                break;
            }
            young = pos == 0 ? refined == st.n_entries : young;
            old   = pos == 468 && st.refined_heavy == (uint64_t) plan.n_heavy*pairs && st.refined_static > 0;
        }
        check(young && old, "%s: all refined at 12 tokens; at 480 %" PRIu64 " ring, %" PRIu64 " heavy, %" PRIu64 " static of %" PRIu64,
              name, st.refined_ring, st.refined_heavy, st.refined_static, st.n_entries);
        if (ctx) {
            llama_memory_seq_rm(llama_get_memory(ctx.get()), 0, 100, -1);
            llama_hex_get_stats(ctx.get(), &st);
            const bool less = st.n_used == 100 && st.n_entries == 100*pairs && st.refined_ring + st.refined_heavy + st.refined_static <= st.n_entries;
            llama_memory_clear(llama_get_memory(ctx.get()), false);
            llama_hex_get_stats(ctx.get(), &st);
            check(less && st.n_used == 0 && st.refined_ring + st.refined_heavy + st.refined_static == 0, "%s: counts follow seq_rm and clear", name);
        }
    }
}

// The counts are those of what attention reads.
static void counts(const model_ptr & model) {
    setup s;
    s.n_seq = 2;
    hex_params p = preset("tiny");
    p.n_recent = 6, p.heavy = 0.2f, p.backbone = 0.25f;
    twin t(model.get(), s, p, true);
    bool same = true;
    rng r = { 9 };
    for (int i = 0; i < 40 && t.ok(); i++) {
        t.decode({ { 0, r.range(1, 5) }, { 1, r.range(0, 3) } });
        llama_hex_stats st = {};
        llama_hex_get_stats(t.hex.get(), &st);
        t.rows.restart();
        t.decode({ { 0, 1 } });
        same = same && st.n_used == t.live() - 1 && (long) st.n_entries == t.rows.n_rows && (long) st.refined_ring == t.rows.n_refined[0] &&
               (long) st.refined_heavy == t.rows.n_refined[1] && (long) st.refined_static == t.rows.n_refined[2];
        if (i % 7 == 6) {
            t.remove(i % 2, t.next_pos(i % 2) - 4, -1);
        }
        if (i == 20) {
            t.remove(1, 0, -1);
        }
    }
    check(t.ok() && same, "counts: what attention reads (%ld ring, %ld heavy, %ld static of %ld)", t.rows.n_refined[0], t.rows.n_refined[1],
          t.rows.n_refined[2], t.rows.n_rows);
}

// llama.cpp's own accounting, with memory and without any.
static void breakdown(const model_ptr & model, const tiny_model & shape) {
    const model_ptr dry = load_tiny(shape, true);
    uint64_t total[2] = {};
    llama_hex_stats st = {};
    for (int i = 0; i < 2; i++) {
        const context_ptr ctx = make(i ? dry : model, {}, preset("balanced"));
        if (ctx) {
            for (const auto & [_, bytes] : llama_get_memory_breakdown(ctx.get())) {
                total[i] += bytes.context;
            }
            if (i == 0) {
                llama_hex_get_stats(ctx.get(), &st);
            }
        }
    }
    check(total[0] > 0 && total[0] == total[1] && total[0] >= st.total_bytes && total[0] < st.total_bytes + 1024*(uint64_t) shape.n_layer,
          "memory breakdown: %" PRIu64 " bytes allocated, %" PRIu64 " without allocating, %" PRIu64 " in the statistics", total[0], total[1], st.total_bytes);
}

// ... per kind of buffer, with a sliding window and with streams: what is allocated is what was announced, to the byte.
static void breakdown_by_buffer() {
    for (int i = 0; i < 8; i++) {
        const bool swa = i & 1, streams = i & 2, hex = i & 4;
        tiny_model shape;
        if (swa) {
            shape.arch = "gemma2", shape.n_layer = 4;
        }
        const model_ptr model = load_tiny(shape), dry = load_tiny(shape, true);
        setup s;
        s.n_seq = 3, s.unified = !streams;
        std::map<std::string, uint64_t> context[2];
        llama_hex_stats st = {};
        for (int k = 0; k < 2; k++) {
            const context_ptr ctx = make(k ? dry : model, s, preset(hex ? "balanced" : "off"));
            for (const auto & [buft, bytes] : llama_get_memory_breakdown(ctx.get())) {
                if (bytes.context > 0) {
                    context[k][ggml_backend_buft_name(buft)] += bytes.context;
                }
            }
            if (k == 0) {
                llama_hex_get_stats(ctx.get(), &st);
            }
        }
        const uint64_t own = st.total_bytes + st.swa_bytes, bytes = context[0].empty() ? 0 : context[0].begin()->second;
        check(context[0] == context[1] && context[0].size() == 1 && bytes >= own && bytes < own + 1024*(uint64_t) shape.n_layer,
              "memory breakdown, %s%s%s: %" PRIu64 " bytes of %s, the same without allocating; %" PRIu64 " in the statistics", hex ? "HEX" : "stock",
              swa ? ", sliding window" : "", streams ? ", streams" : "", bytes, context[0].empty() ? "nothing" : context[0].begin()->first.c_str(), own);
    }
}

static void sliding_window_bytes() {
    tiny_model shape;
    shape.arch = "gemma2", shape.n_layer = 4;
    const model_ptr model = load_tiny(shape);
    const context_ptr ctx = make(model, {}, preset("balanced")), stock = make(model, {}, preset("off"));
    llama_hex_stats st = {}, st_stock = {};
    const bool read = ctx && stock && llama_hex_get_stats(ctx.get(), &st) && llama_hex_get_stats(stock.get(), &st_stock);
    const uint64_t elements = 256ull*2*shape.n_head_kv*shape.head_size*2; // cells, two layers, K and V
    check(read && st.swa_bytes == elements*34/32 && st_stock.swa_bytes == elements*2 && st_stock.total_bytes == elements*2,
          "sliding-window cache: %" PRIu64 " bytes in q8_0, %" PRIu64 " in f16", st.swa_bytes, st_stock.swa_bytes);
}

// ---- shifts, states, graphs

static hex_params channels() {
    hex_params p = preset("paper");
    p.backbone      = 0.125f;
    p.backbone_kind = HEX_BACKBONE_CHANNELS;
    return p;
}

// A backbone of channels can neither be shifted nor saved: a line of log, and nothing changes.
static void shifts(const model_ptr & model, bool swa) {
    check(llama_memory_can_shift(llama_get_memory(make(model, {}, preset("balanced")).get())), "can shift");

    twin t(model.get(), {}, channels(), true);
    t.swa = swa;
    t.prompt(0, 60, 20);
    const double kl = t.max_kl;
    const bool can = llama_memory_can_shift(t.mem(true));
    log_text.clear();
    llama_memory_seq_add(t.mem(true), 0, 10, -1, -5);
    const int n_add = log_lines_with("nothing was changed");
    llama_memory_seq_div(t.mem(true), 0, 10, -1, 2);
    const int n_div = log_lines_with("nothing was changed") - n_add;
    t.compare_positions();
    t.prompt(0, 5, 1);
    check(t.ok() && !can && n_add == 1 && n_div == 1 && t.max_kl < 4*kl + 0.05, "channels%s: seq_add and seq_div are refused with a line of log each%s%s",
          swa ? " beside a sliding window" : "", t.ok() ? "" : "; ", t.why().c_str());
}

static void states(const model_ptr & model, const hex_params & p, bool saves) {
    const context_ptr ctx = make(model, {}, p);
    std::vector<float> before, after;
    decode(ctx.get(), some_rows(50), &before);
    log_text.clear();

    const size_t size = llama_state_get_size(ctx.get()), size_seq = llama_state_seq_get_size(ctx.get(), 0);
    std::vector<uint8_t> data(size + (1 << 20));
    const size_t n     = llama_state_get_data(ctx.get(), data.data(), data.size());
    const size_t n_seq = llama_state_seq_get_data(ctx.get(), data.data(), data.size(), 0);
    if (saves) {
        check(size > 0 && size_seq > 0 && n == size && n_seq == size_seq, "state: saved, %zu bytes", n);
    } else {
        check(size == 0 && size_seq == 0 && n == 0 && n_seq == 0 && log_lines_with("cannot be saved") == 4, "channels: states are refused, with a line of log each");
    }
    check(!llama_state_save_file(ctx.get(), "/tmp/hexkv-no-such-folder/state", nullptr, 0), "state file that cannot be written: false");

    std::fill(data.begin(), data.end(), 0xa5);
    const size_t n_read = llama_state_set_data(ctx.get(), data.data(), data.size());
    llama_memory_clear(llama_get_memory(ctx.get()), true);
    decode(ctx.get(), some_rows(50), &after);
    check(n_read == 0 && before == after, "garbage as a state: refused, the context goes on");
}

static void graph_reuse(const model_ptr & model) {
    for (const bool on : { false, true }) {
        const context_ptr ctx = make(model, {}, preset(on ? "balanced" : "off"));
        decode(ctx.get(), some_rows(30), nullptr);
        llama_perf_context_reset(ctx.get());
        for (int i = 0; i < 20; i++) {
            decode(ctx.get(), some_rows(1, 30 + i), nullptr);
        }
        const int n = llama_perf_context(ctx.get()).n_reused;
        check(n == 19, "%s: 20 decodes reuse the graph %d times", on ? "HEX" : "f16", n);
    }
}

// ---- aborted decodes

struct countdown {
    int left; // calls until the abort, -1: never
    static bool callback(void * user) {
        int & left = ((countdown *) user)->left;
        return left >= 0 && left-- == 0;
    }
};

// Aborts a prompt at every few nodes of its graph. What was decoded before must be as if nothing had happened; with
// everything in the ring that is the f16 result.
static void aborts(const model_ptr & model) {
    for (const bool small : { false, true }) {
        hex_params p = preset("tiny");
        p.n_mean   = 32;
        p.n_recent = small ? 8 : 256;
        p.heavy    = small ? 0.2f : 0;
        p.refine   = small ? HEX_REFINE_HEX4 : HEX_REFINE_F16;
        setup s;
        s.n_seq    = 2;
        s.n_ubatch = 32; // two ubatches and more
        twin t(model.get(), s, p, true);
        countdown c = { -1 };
        llama_set_abort_callback(t.hex.get(), countdown::callback, &c);
        t.decode({ { 0, 20 }, { 1, 5 } });

        int n_aborted = 0;
        bool usable = t.ok();
        for (int left = 0; usable && left < 400; left += 7) {
            const int seq = left % 2, from = t.next_pos(seq);
            c.left = left;
            const int status = decode(t.hex.get(), some_rows(70, from, seq), nullptr);
            c.left = -1;
            if (status == 0) {
                llama_memory_seq_rm(t.mem(true), seq, from, -1);
            } else {
                n_aborted++;
                usable = status == 2;
            }
            // the ubatches before the aborted one stay: take them back
            llama_memory_seq_rm(t.mem(true), seq, from, -1);
            t.decode({ { 0, 1 }, { 1, 1 } });
            if (left % 5 == 0) {
                t.decode({ { seq, 9 } });
                t.remove(seq, t.next_pos(seq) - 10, -1);
            }
            usable = usable && t.ok();
        }
        // the bound of the small ring: lost refinements are base codes, as a rollback leaves them
        check(usable && n_aborted > 20 && t.max_kl < (small ? 1.0 : 1e-3) && t.rows.max_error < (small ? 0.2 : 0.01),
              "%d aborted prompts, %s: KL at most %.1e, refined rows within %.4f%s%s", n_aborted, small ? "small ring" : "all in the ring",
              t.max_kl, t.rows.max_error, t.ok() ? "" : "; ", t.why().c_str());
    }
}

// ---- adapters and embeddings

static hex_params all_refined() {
    hex_params p = preset("tiny");
    p.refine = HEX_REFINE_F16;
    p.n_sink = 4, p.n_recent = 256, p.heavy = 0, p.n_mean = 32;
    return p;
}

// A LoRA adapter on the Q and K matrices of all layers.
static bool write_adapter(const tiny_model & m, const char * path) {
    const int rank = 4;
    rng r = { 9 };
    ggml_context * ctx  = ggml_init({ (size_t) 1024*1024, nullptr, false });
    gguf_context * gguf = gguf_init_empty();
    gguf_set_val_str(gguf, "general.type", "adapter");
    gguf_set_val_str(gguf, "general.architecture", m.arch.c_str());
    gguf_set_val_str(gguf, "adapter.type", "lora");
    gguf_set_val_f32(gguf, "adapter.lora.alpha", (float) rank);
    const auto add = [&](const std::string & name, int n_in, int n_out) {
        ggml_tensor * t = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, n_in, n_out);
        ggml_set_name(t, name.c_str());
        for (int64_t i = 0; i < ggml_nelements(t); i++) {
            ((float *) t->data)[i] = 0.2f*(float) (r.below(2001) - 1000)/1000;
        }
        gguf_add_tensor(gguf, t);
    };
    for (int i = 0; i < m.n_layer; i++) {
        for (const char * which : { "attn_q", "attn_k" }) {
            const std::string name = "blk." + std::to_string(i) + "." + which + ".weight.lora_";
            add(name + "a", m.n_embd, rank);
            add(name + "b", rank, m.head_size*(which[5] == 'q' ? m.n_head : m.n_head_kv));
        }
    }
    const bool ok = gguf_write_to_file(gguf, path, false);
    gguf_free(gguf);
    ggml_free(ctx);
    return ok;
}

static void adapters(const tiny_model & shape) {
    const model_ptr model = load_tiny(shape); // it owns the adapter
    char path[] = "/tmp/hexkv-lora-XXXXXX";
    const int fd = mkstemp(path);
    llama_adapter_lora * lora = fd >= 0 && write_adapter(shape, path) ? llama_adapter_lora_init(model.get(), path) : nullptr;
    if (fd >= 0) {
        close(fd);
        unlink(path);
    }
    if (!lora) {
        check(false, "a LoRA adapter was loaded: %s", log_text.c_str());
        return;
    }
    twin t(model.get(), {}, all_refined(), false);
    const auto set = [&](float scale) {
        for (llama_context * ctx : { t.f16.get(), t.hex.get() }) {
            llama_set_adapters_lora(ctx, &lora, 1, &scale);
        }
    };
    for (const float scale : { 1.0f, 0.5f, 0.0f, 1.0f }) { // rows of all of them stay in the cache
        set(scale);
        t.decode({ { 0, 30 } });
        t.prompt(0, 8, 1);
    }
    std::vector<float> with, without;
    const int next = t.next_pos(0);
    decode(t.hex.get(), some_rows(1, next), &with);
    llama_memory_seq_rm(t.mem(true), 0, next, -1);
    set(0);
    decode(t.hex.get(), some_rows(1, next), &without);
    const double effect = kl_divergence(with.data(), without.data(), t.n_vocab);
    check(t.ok() && t.max_kl < 1e-3 && effect > 1e-2, "a LoRA adapter that changes: KL to f16 at most %.1e, with and without it %.1e%s%s", t.max_kl, effect,
          t.ok() ? "" : "; ", t.why().c_str());
}

static double cosine(const float * a, const float * b, int n) {
    double ab = 0, aa = 0, bb = 0;
    for (int i = 0; i < n; i++) {
        ab += a[i]*b[i], aa += a[i]*a[i], bb += b[i]*b[i];
    }
    return ab/sqrt(aa*bb);
}

static void embeddings(const model_ptr & model) {
    const int n_embd = llama_model_n_embd(model.get());
    for (const auto pooling : { LLAMA_POOLING_TYPE_MEAN, LLAMA_POOLING_TYPE_LAST }) {
        for (const char * name : { "all refined", "balanced" }) {
            context_ptr ctx[2];
            for (int h = 0; h < 2; h++) {
                setup s;
                s.n_seq = 2;
                llama_context_params p = context_params(s, h == 0 ? preset("off") : strcmp(name, "balanced") == 0 ? preset(name) : all_refined());
                p.embeddings   = true;
                p.pooling_type = pooling;
                ctx[h].reset(llama_init_from_model(model.get(), p));
                auto rows = some_rows(90, 0, 0), other = some_rows(40, 0, 1);
                if (pooling == LLAMA_POOLING_TYPE_LAST) { // the end of the text reads the rest from the cache
                    decode(ctx[h].get(), rows, nullptr);
                    rows = some_rows(20, 90, 0);
                }
                rows.insert(rows.end(), other.begin(), other.end());
                decode(ctx[h].get(), rows, nullptr);
            }
            double least = 1;
            for (int s = 0; s < 2; s++) {
                const float * a = llama_get_embeddings_seq(ctx[0].get(), s), * b = llama_get_embeddings_seq(ctx[1].get(), s);
                least = a && b ? std::min(least, cosine(a, b, n_embd)) : -1;
            }
            check(least > (strcmp(name, "balanced") == 0 ? 0.98 : 0.9999), "embeddings, %s, pooled by %s: cosine with those of f16 at least %.5f", name,
                  pooling == LLAMA_POOLING_TYPE_MEAN ? "mean" : "last token", least);
        }
    }
}

// ---- failures

// A context shift that cannot be computed is an error of the decode that asked for it, and leaves an empty, usable cache.
static void failed_shifts(const model_ptr & model, const char * name) {
    const context_ptr ctx = make(model, {}, preset("tiny")), fresh = make(model, {}, preset("tiny"));
    std::vector<float> expected, logits;
    decode(fresh.get(), some_rows(40), &expected);
    const auto mem = llama_get_memory(ctx.get());
    countdown c = { -1 };
    llama_set_abort_callback(ctx.get(), countdown::callback, &c);
    int n_failed = 0, n_lines = 0;
    bool ok = true;
    for (int left = 0; left < 60 && ok; left++) {
        ok = decode(ctx.get(), some_rows(40), &logits) == 0 && logits == expected;
        llama_memory_seq_rm(mem, 0, 4, 14);
        llama_memory_seq_add(mem, 0, 14, -1, -10);
        log_text.clear();
        c.left = left;
        const int status = decode(ctx.get(), some_rows(1, 30), nullptr);
        const bool reached = c.left < 0;
        c.left = -1;
        const int lines = log_lines_with("could not be computed");
        if (lines == 0) { // the shift was done, and the decode aborted
            const bool stock = log_lines_with("failed to compute K-shift") > 0; // of the sliding window: no error of llama_decode
            ok = ok && (status == 2 || (status == 0 && (!reached || stock))) && llama_memory_seq_pos_max(mem, 0) >= 29;
            llama_memory_clear(mem, true);
            continue;
        }
        n_failed++;
        n_lines += lines;
        ok = ok && status == -2 && llama_memory_seq_pos_max(mem, 0) == -1;
    }
    check(ok && n_failed > 2 && n_lines == n_failed, "%s: %d shifts failed: decode returned -2 with a line of log, and goes on from an empty cache", name, n_failed);
}

int main(int argc, char ** argv) {
    const int scale = argc > 1 ? atoi(argv[1]) : 1; // more random configurations
    llama_log_set(log_capture, nullptr);
    llama_backend_init();

    const tiny_model shape;
    const model_ptr model = load_tiny(shape);
    bad_configurations(model);
    tiny_model wide, window;
    wide.n_head = 8, wide.n_head_kv = 1, wide.head_size = 128, wide.n_layer = 2;
    window.arch = "gemma2", window.n_layer = 4;
    const model_ptr models[] = { load_tiny(shape), load_tiny(wide), load_tiny(window) };
    random_configurations(models, 3, 150*scale);
    cache_types(model);
    fallback();
    plain_types(model);
    statistics(model, shape, true,  1);
    statistics(model, shape, true,  4);
    statistics(model, shape, false, 2);
    counts(model);
    breakdown(model, shape);
    breakdown_by_buffer();
    sliding_window_bytes();
    shifts(model, false);
    shifts(models[2], true); // neither half may move
    states(model, preset("balanced"), true);
    states(model, channels(), false);
    graph_reuse(model);
    aborts(model);
    failed_shifts(model, "full attention");
    failed_shifts(models[2], "beside a sliding window");
    adapters(shape);
    embeddings(model);
    printf("# %.1f s\n", (double) clock()/CLOCKS_PER_SEC);
    return check_exit_code();
}
