// Frames of a context shift (llama_kv_hex): each sequence of a shared stream has its own, so that rows which move alike are not
// coded again, whatever the others do; sequences that come to share cells come to share a frame.

#include "tier_fixture.h"

static std::vector<row> text(uint64_t seed, int n, int pos, int seq) {
    rng r = { seed };
    std::vector<row> rows;
    for (int i = 0; i < n; i++) {
        rows.push_back({ seq, pos + i, r.below(100) });
    }
    return rows;
}

static void move_by(twin & t, llama_seq_id s, int from, int by) {
    for (const bool hex : { false, true }) {
        llama_memory_seq_add(t.mem(hex), s, from, -1, by);
    }
    for (auto & c : t.seqs[s]) {
        c.pos += c.pos >= from ? by : 0;
    }
}

// As llama-server does it: p0 tokens stay, those up to p1 go, the others move up.
static void shift(twin & t, llama_seq_id s, int p0, int p1) {
    t.remove(s, p0, p1);
    move_by(t, s, p1, p0 - p1);
}

static hex_params refined(float heavy) { // all rows in f16: a row in a wrong frame is far outside the bounds
    hex_params p = preset("tiny");
    p.base_k = p.base_v = 1;
    p.refine = HEX_REFINE_F16;
    p.n_sink = 4, p.n_recent = 400, p.heavy = heavy, p.n_mean = 32;
    return p;
}

// The codes stay, so the logits are those without a move, but for the rounding of RoPE.
static void nothing_coded_again(const llama_model * model) {
    const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    setup s;
    s.n_seq = 3;
    const hex_params p = preset("tiny");
    const context_ptr a(llama_init_from_model(const_cast<llama_model *>(model), context_params(s, p)));
    const context_ptr b(llama_init_from_model(const_cast<llama_model *>(model), context_params(s, p)));
    int moved[3] = { 0, 0, 0 };
    for (const auto & c : { &a, &b }) {
        for (int seq = 0; seq < 3; seq++) {
            decode(c->get(), text(1 + seq, 60 + 10*seq, 0, seq), nullptr);
        }
    }
    double worst = 0;
    bool ok = true;
    for (int i = 0; i < 6; i++) {
        const int seq = i % 2; // the third never moves
        moved[seq] += 40 + 7*i;
        llama_memory_seq_add(llama_get_memory(a.get()), seq, 0, -1, 40 + 7*i);
        for (int other = 0; other < 3; other++) {
            std::vector<float> la, lb;
            const int pos = 60 + 10*other + i;
            ok &= decode(a.get(), text(9, 1, pos + moved[other], other), &la) == 0 && decode(b.get(), text(9, 1, pos, other), &lb) == 0;
            worst = std::max(worst, ok ? kl_divergence(la.data(), lb.data(), n_vocab) : INFINITY);
        }
    }
    check(ok && worst < 1e-5, "tiny: two of three sequences move in turns, and no row is coded again: KL at most %.1e", worst);
}

// What ten shifts add to a preset, beside a sequence that stays.
static void beside_another(const llama_model * model) {
    for (const char * name : { "balanced", "tiny" }) {
        setup s;
        s.n_seq = 2, s.n_ctx = 512;
        twin still(model, s, preset(name), false), moved(model, s, preset(name), false);
        for (twin * t : { &still, &moved }) {
            t->prompt(1, 130, 65);
            t->prompt(0, 120, 40);
            t->forget_kl();
        }
        for (int i = 0; i < 10; i++) {
            still.remove(0, 104, -1);
            shift(moved, 0, 4, 20);
            still.prompt(0, 16, 1);
            moved.prompt(0, 16, 1);
        }
        check(moved.ok() && still.ok() && moved.mean_kl() < 1.5*still.mean_kl(), "ten shifts beside another sequence, %s: mean KL %.1e, without shifts %.1e%s%s",
              name, moved.mean_kl(), still.mean_kl(), moved.ok() ? "" : "; ", moved.why().c_str());
    }
}

// Sequences whose frames differ come to share cells: by a copy, or by a batch of tokens for both.
static void joined(const llama_model * model) {
    setup s;
    s.n_seq = 3, s.n_ctx = 512;
    for (const bool batch : { false, true }) {
        for (const int longer : { 0, 1 }) { // which of the two the other's rows follow
            twin t(model, s, refined(0), false);
            t.prompt(longer, 90, 30);
            t.prompt(1 - longer, 40, 20);
            t.prompt(2, 30, 30);
            shift(t, 0, 4, 14);
            shift(t, 1, 4, 20);
            t.decode({ { 0, 1 }, { 1, 1 }, { 2, 1 } });
            if (batch) { // more than one ubatch: the later ones see the earlier ones' cells
                const int pos = std::max(t.next_pos(0), t.next_pos(1)); // llama_decode asks that both begin and end alike
                for (const int seq : { 0, 1 }) {
                    move_by(t, seq, 1, pos - t.next_pos(seq));
                }
                t.decode_shared(2, 70);
            } else { // the whole of 0 behind 1
                move_by(t, 0, 0, t.next_pos(1) + 3);
                for (const bool hex : { false, true }) {
                    llama_memory_seq_cp(t.mem(hex), 0, 1, 0, -1);
                }
                t.seqs[1].insert(t.seqs[1].end(), t.seqs[0].begin(), t.seqs[0].end());
            }
            for (int i = 0; i < 5; i++) {
                t.decode({ { 1, 1 }, { 2, 1 } });
                t.decode({ { 0, 1 } });
            }
            check(t.ok() && t.max_kl < 1e-3, "sequences in different frames share %s, the %s one is longer: KL at most %.1e%s%s",
                  batch ? "new tokens" : "a copy", longer ? "second" : "first", t.max_kl, t.ok() ? "" : "; ", t.why().c_str());
        }
    }
}

// A sequence that begins anew, and one that is copied, beside one that has moved.
static void begun_and_copied(const llama_model * model) {
    for (const bool unified : { true, false }) {
        setup s;
        s.n_seq = 3, s.n_ctx = 512, s.unified = unified;
        twin t(model, s, refined(0), false);
        t.prompt(0, 100, 50);
        t.prompt(1, 50, 50);
        for (int i = 0; i < 4; i++) {
            shift(t, 0, 4, 24);
            t.prompt(0, 16, 8);
            t.copy(0, 2, -1);
            t.decode({ { 0, 1 }, { 1, 1 }, { 2, 1 } });
            std::map<int, int> moved; // cells that the copy shares: a shift of it moves them in both
            shift(t, 2, 2, 12);
            for (const auto & c : t.seqs[2]) {
                moved[c.id] = c.pos;
            }
            for (auto & c : t.seqs[0]) {
                c.pos = moved.count(c.id) ? moved[c.id] : c.pos;
            }
            t.remove(2, 0, -1);
            t.remove(1, 0, -1);
            t.prompt(1, 20, 20);
            t.prompt(0, 1, 1);
        }
        check(t.ok() && t.max_kl < 1e-3, "%s: begun anew and copied beside a moved sequence: KL at most %.1e%s%s", unified ? "shared cells" : "streams",
              t.max_kl, t.ok() ? "" : "; ", t.why().c_str());
    }
}

// Layers without RoPE (every fourth of SmolLM3) are not turned. Truth: the second text read where it is now, before the two share a
// sequence; stock's shift turns these layers too.
static void layers_without_rope() {
    tiny_model shape;
    shape.arch = "smollm3", shape.n_layer = 4;
    const model_ptr model = load_tiny(shape);
    const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model.get()));
    setup s;
    s.n_seq = 2, s.n_ctx = 512;
    std::vector<float> logits[2];
    bool ok = true;
    for (const bool moved : { false, true }) {
        const context_ptr ctx(llama_init_from_model(model.get(), context_params(s, refined(0))));
        const auto mem = llama_get_memory(ctx.get());
        ok &= decode(ctx.get(), text(1, 20, 0, 1), nullptr) == 0 && decode(ctx.get(), text(2, 100, moved ? 20 : 70, 0), nullptr) == 0;
        if (moved) {
            llama_memory_seq_add(mem, 0, 0, -1, 50);
        }
        llama_memory_seq_cp(mem, 1, 0, -1, -1);
        ok &= decode(ctx.get(), text(3, 1, 170, 0), &logits[moved]) == 0;
    }
    const double kl = ok ? kl_divergence(logits[0].data(), logits[1].data(), n_vocab) : INFINITY;
    check(kl < 1e-4, "a layer without RoPE: KL %.1e to the text read where it is now", kl);
}

int main() {
    llama_log_set(log_capture, nullptr);
    llama_backend_init();
    tiny_model small;
    small.n_layer = 2;
    const model_ptr model = load_tiny(small);
    nothing_coded_again(model.get());
    beside_another(model.get());
    joined(model.get());
    begun_and_copied(model.get());
    layers_without_rope();
    return check_exit_code();
}
