// What moves tokens without computing them again: context shifts, and states that are saved and restored.

#include "tier_fixture.h"

static hex_params all_refined(int n_mean) {
    hex_params p = preset("tiny");
    p.base_k = p.base_v = 1; // a row that lost its residual is far outside the bounds
    p.refine   = HEX_REFINE_F16;
    p.n_sink   = 4;
    p.n_recent = 300;
    p.heavy    = 0;
    p.n_mean   = n_mean;
    return p;
}

// ---- context shift

// Drops positions [p0, p1) of sequence 0 and moves what follows down, in both contexts.
static void shift(twin & t, int p0, int p1) {
    t.remove(0, p0, p1);
    for (const bool hex : { false, true }) {
        llama_memory_seq_add(t.mem(hex), 0, p1, -1, p0 - p1);
    }
    for (auto & c : t.seqs[0]) {
        c.pos -= c.pos >= p1 ? p1 - p0 : 0;
    }
}

static void shifts(const llama_model * model) {
    for (const int n_mean : { 0, 32 }) {
        twin t(model, {}, all_refined(n_mean), false);
        check(llama_memory_can_shift(t.mem(true)), "can shift");
        t.prompt(0, 120, 40);
        for (int i = 0; i < 10; i++) {
            shift(t, 4, 20);
            t.prompt(0, 16, i % 2 ? 1 : 16);
        }
        check(t.ok() && t.max_kl < 1e-3, "ten shifts, all refined, mean of %d rows: KL at most %.1e%s%s", n_mean, t.max_kl,
              t.ok() ? "" : "; ", t.why().c_str());
    }
    { // beside a sliding window, whose cache turns its rows, there is no frame
        tiny_model shape;
        shape.arch = "gemma2", shape.n_layer = 4;
        const model_ptr window = load_tiny(shape);
        twin still(window.get(), {}, all_refined(32), false), moved(window.get(), {}, all_refined(32), false);
        still.swa = moved.swa = true;
        still.prompt(0, 120, 40);
        moved.prompt(0, 120, 40);
        for (int i = 0; i < 10; i++) {
            shift(moved, 4, 20);
            still.remove(0, 104, -1);
            if (moved.length(0) == 0 || still.length(0) == 0) {
                break;
            }
            still.prompt(0, 16, 1);
            moved.prompt(0, 16, 1);
        }
        check(moved.ok() && moved.length(0) == 120 && moved.mean_kl() < 3*still.mean_kl() + 1e-5, "ten shifts, sliding window, all refined: mean KL %.1e, without shifts %.1e%s%s",
              moved.mean_kl(), still.mean_kl(), moved.ok() ? "" : "; ", moved.why().c_str());
    }
    for (const char * name : { "balanced", "tiny" }) { // the frame moves: of the rows without a residual only the kept ones are coded anew
        twin still(model, {}, preset(name), false), moved(model, {}, preset(name), false);
        still.prompt(0, 120, 40);
        moved.prompt(0, 120, 40);
        for (int i = 0; i < 10; i++) {
            still.remove(0, 104, -1);
            shift(moved, 4, 20);
            still.prompt(0, 16, 1);
            moved.prompt(0, 16, 1);
        }
        check(moved.ok() && moved.mean_kl() < 1.5*still.mean_kl(), "ten shifts, %s: mean KL %.1e, without shifts %.1e%s%s", name,
              moved.mean_kl(), still.mean_kl(), moved.ok() ? "" : "; ", moved.why().c_str());
    }
}

// ---- states

static context_ptr make(const llama_model * model, const setup & s, const hex_params & p) {
    return context_ptr(llama_init_from_model(const_cast<llama_model *>(model), context_params(s, p)));
}

static std::vector<row> text(uint64_t seed, int n, int pos = 0, int seq = 0) {
    rng r = { seed };
    std::vector<row> rows;
    for (int i = 0; i < n; i++) {
        rows.push_back({ seq, pos + i, r.below(100) });
    }
    return rows;
}

static std::vector<uint8_t> save(llama_context * ctx, int seq) {
    std::vector<uint8_t> data(seq < 0 ? llama_state_get_size(ctx) : llama_state_seq_get_size(ctx, seq));
    const size_t n = seq < 0 ? llama_state_get_data(ctx, data.data(), data.size()) : llama_state_seq_get_data(ctx, data.data(), data.size(), seq);
    data.resize(n);
    return data;
}

static bool load(llama_context * ctx, const std::vector<uint8_t> & data, int seq) {
    return (seq < 0 ? llama_state_set_data(ctx, data.data(), data.size()) : llama_state_seq_set_data(ctx, data.data(), data.size(), seq)) == data.size();
}

// 30 rows more in each context, one by one; the largest KL between the two.
static double continue_both(llama_context * a, llama_context * b, int n_vocab, int pos, int seq_b, bool * same) {
    double max_kl = 0;
    *same = true;
    for (int i = 0; i < 30; i++) {
        std::vector<float> la, lb;
        if (decode(a, text(100 + i, 1, pos + i), &la) != 0 || decode(b, text(100 + i, 1, pos + i, seq_b), &lb) != 0) {
            return INFINITY;
        }
        *same &= la == lb;
        max_kl = std::max(max_kl, kl_divergence(la.data(), lb.data(), n_vocab));
    }
    return max_kl;
}

static void round_trips(const llama_model * model, int n_vocab) {
    for (const char * name : { "balanced", "tiny", "paper" }) {
        for (const int n : { 20, 90, 200 }) { // before and after the mean freezes, ring full or not
            for (const int seq : { -1, 0 }) {
                hex_params p = preset(name);
                p.n_mean  = 64;
                p.backbone = strcmp(name, "paper") == 0 ? 0.25f : 0.0f;
                const context_ptr a = make(model, {}, p), b = make(model, {}, p);
                std::vector<float> logits;
                decode(a.get(), text(1, n), &logits);
                const auto data = save(a.get(), seq);
                bool same = false;
                const bool read = !data.empty() && load(b.get(), data, seq);
                const double kl = read ? continue_both(a.get(), b.get(), n_vocab, n, 0, &same) : INFINITY;
                check(read && same, "%s, %d tokens, %s: restored into an empty cache, identical logits (KL %.1e)", name, n, seq < 0 ? "whole" : "sequence", kl);
            }
        }
    }
}

// Cells come back side by side, so those behind a hole are elsewhere than they were. Residuals go with their cells, but a backbone
// refines cells by their index: those that are not in it any more lose theirs.
static void with_a_hole(const llama_model * model, int n_vocab) {
    for (const char * name : { "balanced", "tiny", "paper" }) {
        for (const int seq : { -1, 0 }) {
            hex_params p = preset(name), off = preset("off");
            const bool backbone = strcmp(name, "paper") == 0;
            p.n_mean   = 64;
            p.backbone = backbone ? 0.25f : 0.0f;
            const context_ptr a = make(model, {}, p), b = make(model, {}, p), f16 = make(model, {}, off);
            for (const auto & c : { &a, &f16 }) {
                decode(c->get(), text(1, 150), nullptr);
                llama_memory_seq_rm(llama_get_memory(c->get()), 0, 20, 41);
                llama_memory_seq_rm(llama_get_memory(c->get()), 0, 60, 67);
            }
            const bool read = load(b.get(), save(a.get(), seq), seq);
            double max_kl = 0, own = 0, restored = 0; // a to b, f16 to a, f16 to b
            bool ok = read;
            for (int i = 0; i < 30 && ok; i++) {
                std::vector<float> la, lb, lf;
                const auto next = text(100 + i, 1, 150 + i);
                ok = decode(a.get(), next, &la) == 0 && decode(b.get(), next, &lb) == 0 && decode(f16.get(), next, &lf) == 0;
                if (ok) {
                    max_kl = std::max(max_kl, kl_divergence(la.data(), lb.data(), n_vocab));
                    own      += kl_divergence(lf.data(), la.data(), n_vocab)/30;
                    restored += kl_divergence(lf.data(), lb.data(), n_vocab)/30;
                }
            }
            check(ok && (backbone ? restored < 1.5*own : max_kl < 1e-3), "%s, holes, %s: KL to f16 %.1e, restored %.1e, at most %.1e between them", name,
                  seq < 0 ? "whole" : "sequence", own, restored, max_kl);
        }
    }
}

// Into a cache that holds another sequence already, with a mean of its own: other cells, K rows coded again.
static void into_company(const llama_model * model, int n_vocab) {
    setup two;
    two.n_seq = 2, two.n_ctx = 1024;
    for (const char * name : { "all refined", "balanced", "tiny" }) {
        const bool full = strcmp(name, "all refined") == 0;
        const hex_params p = full ? all_refined(32) : preset(name);
        const int n = full ? 80 : 400; // the presets' mean is of 256 rows
        const context_ptr f16 = make(model, two, preset("off")), a = make(model, two, p), b = make(model, two, p), c = make(model, two, p), d = make(model, two, p);
        for (const auto & ctx : { &f16, &a }) {
            decode(ctx->get(), text(1, n), nullptr);
        }
        for (const auto & ctx : { &b, &c }) {
            decode(ctx->get(), text(2, n - 30, 0, 1), nullptr);
        }
        decode(d.get(), text(3, n - 60, 0, 1), nullptr);
        // into b; into c, saved there before a decode has coded the rows relative to its mean, and into d
        const auto data = save(a.get(), 0);
        const bool read = load(b.get(), data, 0) && load(c.get(), data, 0) && load(d.get(), save(c.get(), 0), 0);
        double own = 0, once = 0, twice = 0; // KL to f16
        bool ok = read;
        for (int i = 0; i < 30 && ok; i++) {
            std::vector<float> f, x;
            const auto next = text(100 + i, 1, n + i);
            const auto kl = [&](const context_ptr & ctx) {
                ok &= decode(ctx.get(), next, &x) == 0;
                return kl_divergence(f.data(), x.data(), n_vocab)/30;
            };
            ok = decode(f16.get(), next, &f) == 0;
            own += kl(a), once += kl(b), twice += kl(d);
        }
        const double bound = full ? 1e-4 : 1.6*own;
        check(ok && once < bound && twice < bound, "%s: mean KL to f16 %.1e, restored beside another sequence %.1e, again from there %.1e", name, own, once, twice);
    }
}

// Out of a cache with another sequence and back: nothing has changed, so no row is coded again.
static void back_and_forth(const llama_model * model, int n_vocab) {
    setup two;
    two.n_seq = 2, two.n_ctx = 768;
    for (const char * name : { "balanced", "tiny" }) {
        for (const int n_cycles : { 1, 20 }) {
            const hex_params p = preset(name);
            const context_ptr a = make(model, two, p), b = make(model, two, p);
            for (const auto & c : { &a, &b }) {
                decode(c->get(), text(2, 150, 0, 1), nullptr);
                decode(c->get(), text(1, 400), nullptr);
            }
            bool read = true, same = false;
            for (int i = 0; i < n_cycles && read; i++) {
                read = load(b.get(), save(b.get(), 0), 0);
            }
            const double kl = read ? continue_both(a.get(), b.get(), n_vocab, 400, 0, &same) : INFINITY;
            check(read && same, "%s: saved and restored %d times beside another sequence, identical logits (KL %.1e)", name, n_cycles, kl);
        }
    }
}

// What HEX_ATTN finds: the cells of the ring, and of each layer and head the heavy slots and the scores of the ring's cells.
struct slots {
    std::vector<int> ring;
    struct head { std::map<int, float> heavy, ring; };
    std::map<std::string, head> heads;

    static bool callback(ggml_tensor * t, bool ask, void * user) {
        if (t->op == GGML_OP_HEX_ATTN && !ask) {
            ((slots *) user)->attn(t);
        }
        return t->op == GGML_OP_HEX_ATTN || !ask;
    }

private:
    void attn(const ggml_tensor * t) {
        const ggml_hex_op_params p = ggml_hex_get_params(t);
        const ggml_tensor * k = t->src[3], * state = t->src[6];
        const int32_t * table = hex_meta_ring((const int32_t *) t->src[7]->data, t->src[0]->ne[1]);
        ring.assign(table, table + p.n_ring);
        std::sort(ring.begin(), ring.end());
        for (int h = 0; h < k->ne[1]; h++) {
            head & to = heads[std::string(t->name) + " " + std::to_string(h)];
            to = {};
            const int32_t * st = (const int32_t *) ((const char *) state->data + h*state->nb[1]);
            for (int i = 0; i < p.n_heavy; i++) {
                const int cell = st[hex_state_heavy_cell((int) k->ne[0], p.n_ring) + i] - 1;
                if (cell >= 0) {
                    to.heavy[cell] = ((const float *) st)[hex_state_heavy_score((int) k->ne[0], p.n_ring, p.n_heavy) + i];
                }
            }
            for (int i = 0; i < p.n_ring; i++) {
                to.ring[table[i]] = ((const float *) st)[hex_state_ring_score((int) k->ne[0]) + i];
            }
        }
    }
};

// Into a smaller ring: the newest tokens are in it, and the others compete for heavy slots as if they had left it.
static void smaller_ring(const llama_model * model) {
    const int n = 150, n_recent[2] = { 60, 20 };
    slots seen[2];
    context_ptr ctx[2];
    hex_params p = preset("balanced");
    p.heavy = 0.15f;
    for (int i = 0; i < 2; i++) {
        p.n_recent = n_recent[i];
        llama_context_params cp = context_params({}, p);
        cp.cb_eval = slots::callback, cp.cb_eval_user_data = &seen[i];
        ctx[i].reset(llama_init_from_model(const_cast<llama_model *>(model), cp));
    }
    decode(ctx[0].get(), text(1, n - 30), nullptr);
    for (int i = n - 30; i < n; i++) {
        decode(ctx[0].get(), text(i, 1, i), nullptr);
    }
    const bool read = load(ctx[1].get(), save(ctx[0].get(), 0), 0);
    for (const auto & c : ctx) {
        decode(c.get(), text(2, 1, n), nullptr);
    }
    std::vector<int> newest;
    for (int i = 0; i < p.n_sink; i++)         { newest.push_back(i); }
    for (int i = n - p.n_recent; i < n; i++) { newest.push_back(i); }

    int n_slots = 0, n_wrong = 0, n_left = 0; // heavy slots of all heads, cells that should not be there, cells that the ring left
    for (const auto & [name, small] : seen[1].heads) {
        const auto & large = seen[0].heads[name];
        std::vector<std::pair<float, int>> rank;
        for (const auto & [cell, score] : large.heavy) {
            rank.push_back({ score, cell });
        }
        for (int cell = n - n_recent[0]; cell < n - n_recent[1]; cell++) {
            rank.push_back({ large.ring.at(cell)/(float) (n - cell), cell });
        }
        std::sort(rank.rbegin(), rank.rend());
        rank.resize(std::min(rank.size(), small.heavy.size()));
        for (const auto & [score, cell] : rank) {
            const auto it = small.heavy.find(cell);
            n_wrong += it == small.heavy.end() || std::fabs(it->second - score) > 1e-6f;
            n_left  += cell >= n - n_recent[0];
            n_slots++;
        }
    }
    check(read && seen[1].ring == newest && n_slots > 0 && n_wrong == 0 && n_left > 0 && n_left < n_slots,
          "into a smaller ring: cells %d to %d of %d are recent, %d of %d heavy slots hold what left the ring, %d wrong",
          seen[1].ring.size() > 4 ? seen[1].ring[4] : -1, seen[1].ring.empty() ? -1 : seen[1].ring.back(), n, n_left, n_slots, n_wrong);
}

// Checkpoints, as llama-server takes them: of the sliding window alone, or with the rows left on the device. A text is gone on
// with, taken back and restored; a context that never went on gives the expected logits.
static void checkpoints() {
    for (const char * arch : { "llama", "gemma2" }) {
        tiny_model shape;
        shape.arch = arch, shape.n_layer = 4;
        const model_ptr model = load_tiny(shape);
        const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model.get()));
        const bool window = shape.arch == "gemma2";
        for (const int flags : { 0, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY, LLAMA_STATE_SEQ_FLAGS_ON_DEVICE, LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY | LLAMA_STATE_SEQ_FLAGS_ON_DEVICE }) {
            const bool partial = flags & LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY;
            if (partial && !window) {
                continue; // nothing partial there: all of it is saved
            }
            setup two;
            two.n_seq = 2, two.n_ctx = 512;
            const hex_params p = all_refined(32);
            const context_ptr a = make(model.get(), two, p), b = make(model.get(), two, p);
            for (const auto & c : { &a, &b }) {
                decode(c->get(), text(2, 60, 0, 1), nullptr);
                decode(c->get(), text(1, 100), nullptr);
            }
            std::vector<uint8_t> data(llama_state_seq_get_size_ext(b.get(), 0, flags));
            const size_t n = llama_state_seq_get_data_ext(b.get(), data.data(), data.size(), 0, flags);
            decode(b.get(), text(5, 20, 100), nullptr);
            if (partial) {
                llama_memory_seq_rm(llama_get_memory(b.get()), 0, 100, -1);
            }
            const bool read = n == data.size() && llama_state_seq_set_data_ext(b.get(), data.data(), data.size(), 0, flags) == n;
            bool same;
            const double kl = read ? continue_both(a.get(), b.get(), n_vocab, 100, 0, &same) : INFINITY;

            // and one that is refused
            data[data.size()/2] ^= 1;
            const bool taken = llama_state_seq_set_data_ext(b.get(), data.data(), data.size(), 0, flags) > 0;
            const auto mem = llama_get_memory(b.get());
            const bool kept = llama_memory_seq_pos_max(mem, 0) == -1 && llama_memory_seq_pos_max(mem, 1) == 59;
            std::vector<float> la, lb;
            decode(a.get(), text(6, 1, 60, 1), &la);
            decode(b.get(), text(6, 1, 60, 1), &lb);
            const double kl_other = kl_divergence(la.data(), lb.data(), n_vocab);
            check(read && kl < 1e-3 && !taken && kept && kl_other < 1e-3, "%s, checkpoint%s%s: %zu bytes, KL at most %.1e; a damaged one leaves the other sequence, KL %.1e", arch,
                  partial ? " of the window" : "", flags & LLAMA_STATE_SEQ_FLAGS_ON_DEVICE ? " on the device" : "", n, kl, kl_other);
        }
    }
}

// RoPE of some models makes rows longer (attn_factor, and YaRN on top of it). A turn of a stored row must not: with one layer, K
// depends on token and position alone, so a cache that has read the text where it is now is the truth. Stock's shift, which
// scales the moved rows once more each time, is not.
static void attention_factor() {
    tiny_model shape;
    shape.n_layer = 1;
    const model_ptr model = load_tiny(shape);
    const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model.get()));
    for (const bool yarn : { false, true }) {
        for (const bool neighbour : { false, true }) { // with one there is no frame: all moved rows are coded again
            setup two;
            two.n_seq = 2, two.n_ctx = 512;
            llama_context_params p = context_params(two, all_refined(32));
            if (yarn) {
                p.rope_scaling_type = LLAMA_ROPE_SCALING_TYPE_YARN;
                p.rope_freq_scale   = 0.25f; // 1 + 0.1 ln 4 = 1.14
                p.yarn_orig_ctx     = 128;
            } else {
                p.yarn_attn_factor = 1.1f;
            }
            const context_ptr hex(llama_init_from_model(model.get(), p));
            p.hex = {};
            const context_ptr f16(llama_init_from_model(model.get(), p));

            std::vector<row> rows = text(1, 120);
            decode(hex.get(), rows, nullptr);
            if (neighbour) {
                decode(hex.get(), text(2, 150, 0, 1), nullptr);
            }
            const auto mem = llama_get_memory(hex.get());
            for (int i = 0; i < 10; i++) {
                llama_memory_seq_rm (mem, 0, 4, 20);
                llama_memory_seq_add(mem, 0, 20, -1, -16);
                rows.erase(rows.begin() + 4, rows.begin() + 20);
                const auto more = text(10 + i, 16, 104);
                decode(hex.get(), more, nullptr);
                rows.insert(rows.end(), more.begin(), more.end());
            }
            std::vector<float> a, b;
            for (size_t i = 0; i < rows.size(); i++) {
                rows[i].pos = (int) i;
            }
            decode(f16.get(), rows, nullptr);
            decode(f16.get(), text(3, 1, 120), &a);
            decode(hex.get(), text(3, 1, 120), &b);
            const double kl = kl_divergence(a.data(), b.data(), n_vocab);
            check(kl < 1e-4, "ten shifts, %s%s: KL %.1e to the text read where it is now", yarn ? "YaRN" : "attention factor 1.1",
                  neighbour ? ", beside another sequence" : "", kl);
        }
    }
}

// ---- frames: rows that move together are not coded again

static void frames(const llama_model * model, int n_vocab) {
    // everything moves, far enough that the frame must go back; all rows refined, so turned rows and others are the f16 result
    twin t(model, {}, all_refined(32), false);
    t.prompt(0, 100, 25);
    for (int i = 0; i < 8; i++) {
        const int by = i % 4 == 3 ? -30000 : 15000;
        for (const bool hex : { false, true }) {
            llama_memory_seq_add(t.mem(hex), 0, 0, -1, by);
        }
        for (auto & c : t.seqs[0]) {
            c.pos += by;
        }
        t.prompt(0, 5, 1);
    }
    check(t.ok() && t.max_kl < 1e-3, "moved by 15000 and more: KL at most %.1e%s%s", t.max_kl, t.ok() ? "" : "; ", t.why().c_str());

    // moved and not: the same codes, so the same logits but for the rounding of RoPE
    setup two;
    two.n_seq = 2;
    for (const bool neighbour : { false, true }) {
        const hex_params p = preset("tiny");
        const context_ptr a = make(model, two, p), b = make(model, two, p);
        std::vector<float> la, lb;
        for (const auto & c : { &a, &b }) {
            decode(c->get(), text(1, 150), nullptr);
            if (neighbour) {
                decode(c->get(), text(2, 50, 0, 1), nullptr);
            }
        }
        llama_memory_seq_add(llama_get_memory(a.get()), 0, 0, -1, 77);
        decode(a.get(), text(3, 1, neighbour ? 50 : 150 + 77, neighbour), &la);
        decode(b.get(), text(3, 1, neighbour ? 50 : 150,      neighbour), &lb);
        const double kl = kl_divergence(la.data(), lb.data(), n_vocab);
        check(neighbour ? la == lb : kl < 1e-5, "tiny: %s, KL %.1e", neighbour ? "a sequence beside the one that moved reads the same" : "all rows moved, none was coded again", kl);
    }

    // states between caches whose frames differ, alone and beside another sequence
    for (const bool beside : { false, true }) {
        const hex_params p = all_refined(0);
        const context_ptr a = make(model, two, p), b = make(model, two, p);
        std::vector<float> logits;
        decode(a.get(), text(1, 80), &logits);
        llama_memory_seq_add(llama_get_memory(a.get()), 0, 4, -1, 33);
        decode(a.get(), text(4, 1, 113), &logits);
        if (beside) {
            decode(b.get(), text(2, 60, 0, 1), &logits);
        }
        bool same;
        const bool read = load(b.get(), save(a.get(), 0), 0);
        const auto again = save(b.get(), 0); // before a decode has turned its rows
        const double kl = read ? continue_both(a.get(), b.get(), n_vocab, 114, 0, &same) : INFINITY;
        const context_ptr c = make(model, two, p), d = make(model, two, p);
        const bool twice = load(c.get(), again, 0) && load(d.get(), save(a.get(), 0), 0);
        const double kl_twice = twice ? continue_both(d.get(), b.get(), n_vocab, 144, 0, &same) : INFINITY;
        check(read && twice && kl < 1e-3 && kl_twice < 1e-3 && (beside || same), "a state of a moved cache%s: KL at most %.1e and %.1e",
              beside ? ", beside another sequence" : "", kl, kl_twice);
    }
    // saved between a move and the decode that turns the rows
    const context_ptr a = make(model, {}, all_refined(32)), b = make(model, {}, all_refined(32));
    std::vector<float> logits;
    decode(a.get(), text(1, 80), &logits);
    llama_memory_seq_rm(llama_get_memory(a.get()), 0, 4, 30);
    llama_memory_seq_add(llama_get_memory(a.get()), 0, 30, -1, -26);
    bool same;
    const bool read = load(b.get(), save(a.get(), 0), 0);
    const double kl = read ? continue_both(a.get(), b.get(), n_vocab, 54, 0, &same) : INFINITY;
    check(read && kl < 1e-3, "a state saved before its moved rows were turned: KL at most %.1e", kl);
}

// Damaged and foreign states: refused, and the cache is empty and usable.
static void damaged(const llama_model * model) {
    const hex_params p = preset("balanced");
    const context_ptr a = make(model, {}, p), b = make(model, {}, p);
    std::vector<float> logits, fresh;
    decode(a.get(), text(1, 60), &logits);
    const auto good = save(a.get(), 0);

    int n_refused = 0, n_tried = 0;
    bool usable = true;
    const auto attempt = [&](const std::vector<uint8_t> & data, bool must_fail) {
        n_tried++;
        const bool read = load(b.get(), data, 0);
        n_refused += !read;
        if (must_fail && read) {
            usable = false;
        }
        llama_memory_clear(llama_get_memory(b.get()), true);
        usable &= decode(b.get(), text(1, 60), &fresh) == 0 && fresh == logits;
        llama_memory_clear(llama_get_memory(b.get()), true);
    };
    for (size_t n = 1; n < good.size(); n += std::max<size_t>(1, good.size()/60)) {
        attempt(std::vector<uint8_t>(good.begin(), good.begin() + n), true);
    }
    rng r = { 3 };
    for (int i = 0; i < 150; i++) { // a changed code is a valid code; what must not happen is a crash or a bad cache after it
        auto data = good;
        for (int k = 0; k < 3; k++) {
            data[r.below(i % 2 ? 600 : (int) data.size())] ^= (uint8_t) (1 << r.below(8));
        }
        attempt(data, false);
    }
    check(usable, "%d damaged states, %d refused: the cache is as good as new after each", n_tried, n_refused);

    const hex_params off = preset("off");
    hex_params other = p;
    other.n_mean = 0;
    setup plain;
    plain.type_k = GGML_TYPE_HEX4, plain.type_v = GGML_TYPE_HEX2;
    const context_ptr f16 = make(model, {}, off), codes = make(model, plain, off), differs = make(model, {}, other);
    decode(codes.get(), text(1, 60), &logits);
    const auto stock = save(codes.get(), 0); // a refused state empties the sequence
    check(!load(f16.get(), good, 0), "a HEX state into an f16 cache: refused");
    check(!load(codes.get(), good, 0), "a HEX state into plain hex4, hex2 types: refused");
    check(!load(differs.get(), good, 0), "a HEX state into other settings: refused");
    check(!stock.empty() && !load(b.get(), stock, 0), "a state of plain types into a HEX cache: refused");
}

int main(void) {
    llama_log_set(log_capture, nullptr);
    llama_backend_init();
    {
        const model_ptr model = load_tiny(tiny_model());
        const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model.get()));
        shifts(model.get());
        attention_factor();
        round_trips(model.get(), n_vocab);
        with_a_hole(model.get(), n_vocab);
        into_company(model.get(), n_vocab);
        back_and_forth(model.get(), n_vocab);
        smaller_ring(model.get());
        checkpoints();
        frames(model.get(), n_vocab);
        damaged(model.get());
    }
    llama_backend_free();
    return check_exit_code();
}
