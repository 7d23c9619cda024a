// Saved and restored states and context shifts between random operations, on caches in which every cell is refined: the
// f16 cache, under the same operations, gives the expected logits.

#include "tier_fixture.h"

struct saved_state {
    std::vector<uint8_t> data[2]; // f16, HEX
    bool whole; // or one sequence, at 0
    std::map<llama_seq_id, std::vector<twin::cell>> seqs;
};

static saved_state save(twin & t, llama_seq_id s) { // -1: the whole context
    saved_state res;
    res.whole = s < 0;
    for (int h = 0; h < 2; h++) {
        llama_context * ctx = h ? t.hex.get() : t.f16.get();
        res.data[h].resize(s < 0 ? llama_state_get_size(ctx) : llama_state_seq_get_size(ctx, s));
        const size_t n = s < 0 ? llama_state_get_data(ctx, res.data[h].data(), res.data[h].size())
                               : llama_state_seq_get_data(ctx, res.data[h].data(), res.data[h].size(), s);
        if (n == 0 || n != res.data[h].size()) {
            t.fail("state was not saved");
        }
    }
    if (s < 0) {
        res.seqs = t.seqs;
    } else {
        res.seqs[0] = t.seqs[s];
    }
    return res;
}

static void restore(twin & t, const saved_state & st, llama_seq_id s) {
    t.n_step++;
    for (int h = 0; h < 2; h++) {
        llama_context * ctx = h ? t.hex.get() : t.f16.get();
        log_text.clear();
        const size_t n = s < 0 ? llama_state_set_data(ctx, st.data[h].data(), st.data[h].size())
                               : llama_state_seq_set_data(ctx, st.data[h].data(), st.data[h].size(), s);
        if (n != st.data[h].size()) {
            t.fail(std::string(h ? "HEX" : "f16") + " state was not restored: " + log_text);
        }
    }
    if (s < 0) {
        t.seqs = st.seqs;
    } else {
        t.seqs[s] = st.seqs.at(0);
        for (auto & c : t.seqs[s]) {
            c.id = t.next_id++;
        }
    }
    t.compare_positions();
}

// Positions belong to the cell, so a sequence that shares one cannot move alone.
static bool shares_cells(const twin & t, llama_seq_id s) {
    std::map<int, int> owners;
    for (const auto & [_, cells] : t.seqs) {
        for (const auto & c : cells) {
            owners[c.id]++;
        }
    }
    const auto own = t.seqs.find(s);
    return own != t.seqs.end() && std::any_of(own->second.begin(), own->second.end(), [&](const auto & c) { return owners[c.id] > 1; });
}

// As a context shift does: a range goes, what is behind it moves up; or a gap opens.
static void shift(twin & t, rng & r, llama_seq_id s) {
    const int n = t.length(s);
    if (n < 12 || shares_cells(t, s) || !llama_memory_can_shift(t.mem(true))) {
        return;
    }
    const bool up = r.chance(0.7);
    const int  at = r.below(n - 8), p0 = t.seqs[s][at].pos, p1 = t.seqs[s][at + r.range(1, 7)].pos;
    if (up) {
        t.remove(s, p0, p1);
    }
    t.n_step++;
    const int from = up ? p1 : p0, by = up ? p0 - p1 : r.range(1, 30);
    for (int h = 0; h < 2; h++) {
        llama_memory_seq_add(t.mem(h), s, from, -1, by);
    }
    for (auto & c : t.seqs[s]) {
        c.pos += c.pos >= from ? by : 0;
    }
    t.compare_positions();
}

// The first tokens move closer together, as self-extend does it: positions repeat, and what is behind them moves up.
static void compress(twin & t, rng & r, llama_seq_id s) {
    if (shares_cells(t, s)) {
        return;
    }
    const int by = r.range(2, 3), width = by*r.range(1, 5);
    if (t.next_pos(s) <= width || t.seqs[s][0].pos >= width || !llama_memory_can_shift(t.mem(true))) {
        return;
    }
    t.n_step++;
    for (int h = 0; h < 2; h++) {
        llama_memory_seq_div(t.mem(h), s, 0, width, by);
        llama_memory_seq_add(t.mem(h), s, width, -1, width/by - width);
    }
    for (auto & c : t.seqs[s]) {
        c.pos = c.pos < width ? c.pos/by : c.pos + width/by - width;
    }
    t.compare_positions();
}

// Self-extend as llama-completion does it (tools/completion, grp_attn_n and grp_attn_w): every stored row must be the row that was
// computed, turned. llama_kv_cells::pos_div notes the opposite of the shift that it makes (p_old - pos, where pos_add
// notes the new position less the old); stock turns its rows by that, so a HEX cache does.
static void self_extend(const llama_model * model, int ga_n, int ga_w) {
    hex_params p = preset("tiny");
    p.base_k = p.base_v = 1;
    p.refine = HEX_REFINE_F16;
    p.n_sink = 4, p.n_recent = 256, p.heavy = 0, p.n_mean = 32;
    twin t(model, {}, p, true);
    std::vector<int> pos; // of each cell: tokens come in order and none goes
    int ga_i = 0, n_calls = 0, n_turned = 0;
    for (int step = 0; step < 12 && t.ok(); step++) {
        const int n = step == 0 ? 3*ga_w : step % 3 ? 1 : ga_w/2;
        for (int i = 0; i < n; i++) {
            pos.push_back(t.next_pos(0) + i);
        }
        t.decode({ { 0, n } });

        std::vector<int> shift(pos.size());
        const auto add = [&](int p0, int p1, int by) {
            for (int h = 0; h < 2; h++) { llama_memory_seq_add(t.mem(h), 0, p0, p1, by); }
            for (size_t i = 0; i < pos.size(); i++) {
                if (pos[i] >= p0 && pos[i] < p1) { pos[i] += by, shift[i] += by; }
            }
        };
        const auto div = [&](int p0, int p1, int by) {
            for (int h = 0; h < 2; h++) { llama_memory_seq_div(t.mem(h), 0, p0, p1, by); }
            for (size_t i = 0; i < pos.size(); i++) {
                if (pos[i] >= p0 && pos[i] < p1) { shift[i] += pos[i] - pos[i]/by, pos[i] /= by; }
            }
        };
        int n_past = pos.back() + 1;
        while (n_past >= ga_i + ga_w) {
            const int ib = (ga_n*ga_i)/ga_w, bd = (ga_w/ga_n)*(ga_n - 1), dd = (ga_w/ga_n) - ib*bd - ga_w;
            add(ga_i, n_past, ib*bd);
            div(ga_i + ib*bd, ga_i + ib*bd + ga_w, ga_n);
            add(ga_i + ib*bd + ga_w, n_past + ib*bd, dd);
            n_past -= bd;
            ga_i += ga_w/ga_n;
            n_calls += 3;
        }
        std::map<int, int> alike = { { 0, 0 } };
        int common = 0; // rows that most others move with stay as they are
        for (const int s : shift) {
            alike[s]++;
        }
        for (const auto & [s, n] : alike) {
            common = n > alike[common] ? s : common;
        }
        for (size_t i = 0; i < pos.size(); i++) {
            t.seqs[0][i].pos = pos[i];
            if (shift[i] != common) {
                t.rows.turn((int) i, shift[i] - common);
                n_turned++;
            }
        }
        t.compare_positions();
    }
    t.decode({ { 0, 1 } });
    check(t.ok() && n_turned > 0 && t.rows.max_error < 0.003 && t.max_kl < 1e-3, "self-extend by %d in %d: %d calls, %d rows turned, rows within %.5f, KL at most %.1e%s%s",
          ga_n, ga_w, n_calls, n_turned, t.rows.max_error, t.max_kl, t.ok() ? "" : "; ", t.why().c_str());
}

// Restored twice before a decode, beside a sequence with a mean of its own: what the first restore has left to code again must not
// fall on the rows of the second one.
static void restored_twice(const llama_model * model) {
    hex_params p = preset("tiny");
    p.base_k = p.base_v = 1;
    p.refine = HEX_REFINE_F16;
    p.n_sink = 4, p.n_recent = 256, p.heavy = 0, p.n_mean = 32;
    setup s;
    s.n_seq = 3;
    twin t(model, s, p, false);
    t.prompt(0, 60, 60);
    const saved_state a = save(t, 0);
    t.remove(0, 0, -1); // the cache begins again, with the mean of what comes next
    t.prompt(1, 60, 60);
    const saved_state b = save(t, 1);
    t.prompt(1, 4, 1);
    for (const auto & [first, second] : { std::pair(&a, &a), { &b, &a }, { &a, &b } }) {
        for (const saved_state * state : { first, second }) {
            t.remove(0, 0, -1);
            restore(t, *state, 0);
        }
        restore(t, a, 2);
        t.decode({ { 0, 2 }, { 1, 2 }, { 2, 2 } });
        t.remove(2, 0, -1);
    }
    check(t.ok() && t.max_kl < 1e-3, "three restores before a decode: KL at most %.1e%s%s", t.max_kl, t.ok() ? "" : "; ", t.why().c_str());
}

static void run(const llama_model * model, const char * name, const hex_params & p, bool unified, int max_live, int n_rounds, uint64_t seed) {
    setup s;
    s.n_seq   = 3;
    s.unified = unified;
    twin t(model, s, p, false);
    rng r = { seed };
    std::vector<saved_state> kept;
    for (int i = 0; i < n_rounds && t.ok(); i++) {
        random_operations(t, r, r.range(1, 6), max_live);
        if (!unified) { // llama.cpp copies streams at the next decode, and saves what is there before
            if (t.length(0) >= max_live) {
                t.remove(0, 0, -1);
            }
            t.decode({ { 0, 1 } });
        }
        const int seq = r.below(s.n_seq), kind = r.below(15);
        if (kind < 4 && t.length(seq) > 0) {
            kept.push_back(save(t, seq));
        } else if (kind < 5) {
            kept.push_back(save(t, -1));
        } else if (kind > 9) {
            if (kind > 12) {
                compress(t, r, seq);
            } else {
                shift(t, r, seq);
            }
            if (t.length(seq) > 0 && (unified ? t.live() : t.length(seq)) < max_live) {
                t.decode({ { seq, 1 } });
            }
        } else if (!kept.empty()) {
            const saved_state & st = kept[r.below((int) kept.size())];
            std::map<llama_seq_id, int> counts;
            if (st.whole) {
                restore(t, st, -1);
                counts = { { 0, 1 }, { 1, 1 }, { 2, 1 } };
            } else {
                t.remove(seq, 0, -1);
                if ((unified ? t.live() : 0) + (int) st.seqs.at(0).size() <= max_live) {
                    restore(t, st, seq);
                    counts[seq] = 1;
                }
            }
            for (int k = 0; k < s.n_seq; k++) {
                if ((unified ? t.live() : t.length(k)) + 3 > max_live) {
                    counts.clear();
                }
            }
            if (!counts.empty()) {
                t.decode(counts);
            }
        }
        if (t.max_kl > 1e-3) {
            t.fail("KL");
        }
    }
    check(t.ok() && t.max_kl < 1e-3, "%s, %s: %zu states, %ld operations, KL at most %.1e of %ld%s%s", name, unified ? "unified" : "streams",
          kept.size(), t.n_step, t.max_kl, t.n_kl, t.ok() ? "" : "; ", t.why().c_str());
}

int main(int argc, char ** argv) {
    llama_log_set(log_capture, nullptr);
    llama_backend_init();
    const int scale = argc > 1 ? atoi(argv[1]) : 1;
    tiny_model small;
    small.n_layer = 2;
    const model_ptr model = load_tiny(small);
    self_extend(model.get(), 2, 16);
    self_extend(model.get(), 4, 16);
    self_extend(model.get(), 3, 24);
    restored_twice(model.get());
    uint64_t seed = 1;
    struct { const char * name; int sink, recent; float heavy, backbone; int n_mean, max_live; } cases[] = {
        { "ring", 4, 256, 0, 0, 32, 252 }, { "ring, no mean", 4, 256, 0, 0, 0, 252 }, { "heavy", 0, 0, 1, 0, 32, 256 }, { "backbone", 0, 0, 0, 1, 32, 256 },
        { "ring and heavy", 4, 12, 1, 0, 32, 180 }, { "ring, heavy, backbone", 2, 6, 1, 0.5f, 40, 90 },
    };
    for (const auto & c : cases) {
        hex_params p = preset("tiny");
        p.base_k = p.base_v = 1;
        p.refine = HEX_REFINE_F16;
        p.n_sink = c.sink, p.n_recent = c.recent, p.heavy = c.heavy, p.backbone = c.backbone, p.n_mean = c.n_mean;
        run(model.get(), c.name, p, true,  c.max_live, 60*scale, seed++);
        run(model.get(), c.name, p, false, c.max_live, 60*scale, seed++);
    }
    return check_exit_code();
}
