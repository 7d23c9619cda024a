// Identities of the refinement tier: when every cell is refined with f16 residuals, the HEX cache gives what the f16
// cache gives, after whatever happened to its sequences. The base is one bit, so a single missing or stale residual
// is far outside the bound. Each way of refining everything is tried: ring, heavy hitters, backbone, and mixtures in
// which residuals move from one tier to another.

#include "tier_fixture.h"

#include <ctime>

static const double KL_EQUAL = 1e-3;

static hex_params everything(int sink, int recent, float heavy, float backbone, int n_mean) {
    hex_params p = preset("tiny");
    p.base_k = p.base_v = 1;
    p.refine   = HEX_REFINE_F16;
    p.n_sink   = sink;
    p.n_recent = recent;
    p.heavy    = heavy;
    p.backbone = backbone;
    p.n_mean   = n_mean;
    return p;
}

static void report(const twin & t, const char * what, const char * how, double max_kl = KL_EQUAL) {
    check(t.ok() && t.max_kl < max_kl && t.rows.max_error < 0.01, "%s, %s: KL at most %.1e of %ld rows, refined rows within %.1e (%ld ring, %ld heavy, %ld static)%s%s",
          how, what, t.max_kl, t.n_kl, t.rows.max_error, t.rows.n_refined[0], t.rows.n_refined[1], t.rows.n_refined[2],
          t.ok() ? "" : "; ", t.why().c_str());
}

struct coverage {
    const char * name;
    hex_params   params;
    int          max_live; // cells in use up to which everything is refined
};

static void scenarios(const llama_model * model, const coverage & c) {
    for (const int piece : { 1, 7, 64, 200 }) {
        twin t(model, {}, c.params, true);
        t.prompt(0, piece == 1 ? 60 : std::min(200, c.max_live), piece);
        t.prompt(0, 5, 1);
        report(t, ("prompt in ubatches of " + std::to_string(piece)).c_str(), c.name);
    }
    {
        setup s;
        s.n_ubatch = 24; // a batch of several ubatches
        twin t(model, s, c.params, true);
        t.prompt(0, 110, 110);
        t.prompt(0, 3, 1);
        report(t, "a batch of five ubatches", c.name);
    }
    {
        twin t(model, {}, c.params, true);
        t.prompt(0, 60, 20);
        for (const int n : { 1, 10, 33, 2 }) { // as speculative decoding does
            t.remove(0, t.next_pos(0) - n, -1);
            t.decode({ { 0, n + 1 } });
            t.prompt(0, 2, 1);
        }
        report(t, "rollback", c.name);
        t.remove(0, 0, -1);
        t.prompt(0, 90, 30);
        report(t, "the whole sequence removed, again", c.name);
        t.remove(0, 20, 50);
        t.prompt(0, 40, 8);
        report(t, "a range in the middle removed, its cells used again", c.name);
        t.remove(0, 0, 2);
        t.prompt(0, 3, 1);
        report(t, "sinks removed", c.name);
        t.clear(true);
        t.prompt(0, 70, 35);
        report(t, "cleared", c.name);
        t.clear(false);
        t.prompt(0, 70, 35);
        report(t, "cleared without its data", c.name);
    }
    for (const bool unified : { true, false }) {
        setup s;
        s.n_seq   = 4;
        s.unified = unified;
        const std::string how = std::string(c.name) + (unified ? ", unified" : ", streams");
        twin t(model, s, c.params, true);
        t.decode({ { 0, 9 }, { 1, 9 } });
        t.decode({ { 0, 1 }, { 1, 1 }, { 2, 1 }, { 3, 1 } });
        t.decode({ { 2, 17 } });
        t.decode({ { 1, 3 }, { 3, 12 } });
        t.decode({ { 0, 1 }, { 1, 1 }, { 2, 1 }, { 3, 1 } });
        report(t, "four sequences", how.c_str());

        t.remove(1, 0, -1);
        t.decode({ { 2, 11 } });
        t.decode({ { 1, 14 } });
        report(t, "cells of one sequence go to another", how.c_str());

        t.copy(0, 3, unified ? 6 : -1);
        t.decode({ { 0, 2 }, { 3, 2 } });
        t.remove(0, 0, -1);
        t.decode({ { 0, 8 }, { 3, 5 } });
        t.copy(3, 1, -1);
        t.copy(1, 2, -1);
        t.remove(3, 4, -1);
        t.decode({ { 1, 2 }, { 2, 2 }, { 3, 2 } });
        t.decode({ { 0, 1 }, { 1, 1 }, { 2, 1 }, { 3, 1 } });
        report(t, "seq_cp", how.c_str());

        t.keep(1);
        t.decode({ { 0, 10 }, { 1, 4 }, { 2, 10 } });
        t.decode({ { 0, 1 }, { 1, 1 }, { 2, 1 }, { 3, 1 } });
        report(t, "seq_keep", how.c_str());
    }
}

// Rows that belong to several sequences, and attention that is not causal.
static void unusual_batches(const llama_model * model, const coverage & c) {
    {
        setup s;
        s.n_seq = 3;
        twin t(model, s, c.params, true);
        t.decode_shared(3, 20);
        t.decode({ { 0, 3 }, { 1, 2 }, { 2, 1 } });
        t.remove(0, 0, -1); // its cells live on in the others
        t.decode({ { 0, 12 }, { 1, 4 }, { 2, 4 } });
        t.remove(1, 0, -1);
        t.remove(2, 0, -1);
        t.decode_shared(1, 9);
        t.decode({ { 0, 1 }, { 1, 7 }, { 2, 1 } });
        report(t, "rows of several sequences", c.name);
    }
    {
        twin t(model, {}, c.params, true);
        t.prompt(0, 20, 10);
        for (const auto & ctx : { t.f16.get(), t.hex.get() }) {
            llama_set_causal_attn(ctx, false);
        }
        t.prompt(0, 30, 15); // as the tokens of an image are
        for (const auto & ctx : { t.f16.get(), t.hex.get() }) {
            llama_set_causal_attn(ctx, true);
        }
        t.prompt(0, 20, 5);
        report(t, "attention that is not causal", c.name);
    }
}

// After any prompt the ring holds the sinks and the last rows, and nothing else.
static void ring_contents(const llama_model * model) {
    for (const int piece : { 1, 5, 12, 13, 100 }) {
        twin t(model, {}, everything(4, 12, 0.5f, 0, 32), true);
        t.rows.positions = true;
        t.prompt(0, 100, piece);
        t.prompt(0, 1, 1); // shows the ring before it: cells are positions here
        std::vector<int> want = { 0, 1, 2, 3 };
        for (int i = 88; i < 100; i++) {
            want.push_back(i);
        }
        check(t.ok() && t.rows.ring_cells == want, "ring after a prompt in ubatches of %d: sinks and the last 12, queries counted%s%s", piece,
              t.ok() ? "" : "; ", t.why().c_str());
    }
}

// The backbone deals a cell to `degree` pairs of all layers and heads, not to the same heads in every layer.
static void backbone_contents(const llama_model * model, int n_pairs) {
    for (const float share : { 0.25f, 0.5f }) {
        twin t(model, {}, everything(0, 0, 0, share, 0), true);
        t.prompt(0, 100, 20);
        t.rows.restart();
        t.prompt(0, 1, 1);
        bool exact = t.rows.n_static.size() == 100;
        for (const auto & [_, n] : t.rows.n_static) {
            exact = exact && n == (int) (share*(float) n_pairs);
        }
        check(t.ok() && exact, "backbone = %g: every cell is in %g of %d pairs", (double) share, (double) share*n_pairs, n_pairs);
    }
}

// The cache runs full: a status from decode, and the context goes on.
static void full_cache(const llama_model * model) {
    for (const bool unified : { true, false }) {
        setup s;
        s.n_seq   = 2;
        s.unified = unified;
        const char * how = unified ? "full cache, unified" : "full cache, streams";
        twin t(model, s, everything(4, 300, 0, 0, 32), true);
        t.prompt(0, 200, 50);
        if (unified) {
            t.prompt(1, 50, 25);
        } else {
            t.prompt(0, 50, 25);
        }
        report(t, "nearly full", how);

        bool refused = true;
        for (const auto & ctx : { t.f16.get(), t.hex.get() }) {
            std::vector<row> batch;
            for (int i = 0; i < 10; i++) {
                batch.push_back({ 0, t.next_pos(0) + i, i });
            }
            refused = refused && decode(ctx, batch, nullptr) == 1;
        }
        check(refused, "%s: a batch that does not fit returns 1", how);

        t.prompt(0, 6, 1);
        report(t, "filled to the last cell", how);
        t.remove(0, 30, 33);
        t.decode({ { 0, 3 } });
        t.remove(0, 100, -1);
        t.prompt(0, 60, 30);
        report(t, "cells used again", how);
    }
}

// A unified cache takes more sequences than n_seq_max; the ring was not planned for them. Whoever gets no slot competes
// as a heavy hitter; no slot may be given twice.
static void many_sequences(const llama_model * model) {
    hex_params p = everything(2, 4, 0.3f, 0, 32);
    setup s;
    s.n_seq = 2;
    twin t(model, s, p, true);
    rng r = { 3 };
    for (int i = 0; i < 60 && t.ok(); i++) {
        std::map<llama_seq_id, int> counts;
        for (int k = r.range(1, 6); k > 0; k--) {
            counts[r.below(12)] = r.range(1, 6);
        }
        t.decode(counts);
        const int seq = r.below(12);
        if (t.live() > 150 || r.chance(0.2)) {
            t.remove(seq, r.chance(0.5) ? 0 : t.next_pos(seq)/2, -1);
        }
        if (t.live() > 200) {
            t.remove(-1, 0, -1);
        }
    }
    check(t.ok() && t.rows.max_error < 0.01, "more sequences than n_seq_max: refined rows within %.1e (%ld ring, %ld heavy)%s%s",
          t.rows.max_error, t.rows.n_refined[0], t.rows.n_refined[1], t.ok() ? "" : "; ", t.why().c_str());
}

static void random_identity(const llama_model * model, const coverage & c, bool unified, int n_seq, int n_steps, uint64_t seed) {
    setup s;
    s.n_seq   = n_seq;
    s.unified = unified;
    twin t(model, s, c.params, true);
    rng r = { seed };
    random_operations(t, r, n_steps, c.max_live);
    report(t, (std::to_string(t.n_step) + " random operations").c_str(),
           (std::string(c.name) + (n_seq == 1 ? ", one sequence" : unified ? ", unified" : ", streams")).c_str());
}

int main(int argc, char ** argv) {
    llama_log_set(log_capture, nullptr);
    llama_backend_init();

    const clock_t start = clock();
    const auto lap = [&](const char * what) { printf("# %s done at %.1f s\n", what, (double) (clock() - start)/CLOCKS_PER_SEC); };
    const int scale = argc > 1 ? atoi(argv[1]) : 1; // more random steps

    tiny_model small;
    small.n_layer = 2;
    const model_ptr model = load_tiny(small);
    const coverage all[] = {
        { "ring",                   everything(4, 256, 0, 0,    32), 252 },
        { "heavy",                  everything(0, 0,   1, 0,    32), 256 },
        { "backbone",               everything(0, 0,   0, 1,    32), 256 },
        { "ring and heavy",         everything(4, 12,  1, 0,    32), 192 },
        { "ring, heavy, backbone",  everything(2, 6,   1, 0.5f, 40), 100 },
        { "ring, heavy, no mean",   everything(4, 12,  1, 0,     0), 192 },
    };
    for (const auto & c : all) {
        scenarios(model.get(), c);
        unusual_batches(model.get(), c);
        lap(c.name);
    }
    ring_contents(model.get());
    backbone_contents(model.get(), 4);
    full_cache(model.get());
    lap("full cache");
    many_sequences(model.get());
    lap("many sequences");
    uint64_t seed = 1;
    for (const auto & c : all) {
        random_identity(model.get(), c, true,  4, 250*scale, seed++);
        random_identity(model.get(), c, false, 3, 250*scale, seed++);
        random_identity(model.get(), c, true,  1, 100*scale, seed++);
        lap(c.name);
    }

    tiny_model wide; // one KV head for a group of eight
    wide.n_head = 8, wide.n_head_kv = 1, wide.head_size = 128, wide.n_layer = 2;
    tiny_model window; // every other layer has a cache of its own, without a tier
    window.arch = "gemma2";
    const model_ptr others[] = { load_tiny(wide), load_tiny(window) };
    for (const auto & other : others) {
        const coverage mixed = { other == others[0] ? "head 128, group 8" : "gemma2", everything(4, 12, 1, 0.5f, 32), 110 };
        for (const bool unified : { true, false }) {
            setup s;
            s.n_seq   = 3;
            s.unified = unified;
            twin t(other.get(), s, mixed.params, true);
            t.swa = other == others[1];
            rng r = { seed++ };
            random_operations(t, r, 150*scale, mixed.max_live);
            report(t, (std::to_string(t.n_step) + " random operations").c_str(), (std::string(mixed.name) + (unified ? ", unified" : ", streams")).c_str(), t.swa ? 5e-3 : KL_EQUAL); // the window is q8_0
        }
    }
    lap("other shapes");
    return check_exit_code();
}
