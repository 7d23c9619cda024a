// States that are not what they should be: cut anywhere, with flipped bits, of other versions, models and settings; whole
// contexts and sequences, in memory and in files, unified caches and streams, with and without a sliding window. Each is refused
// with a line of error, and leaves an empty cache that decodes as a new one does. The same bits under a checksum that fits may be
// taken, and do no harm.

#include "tier_fixture.h"

#include "llama/llama-hex-io.h"

#include <ctime>
#include <fstream>
#include <iterator>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const bool sanitized = true;
#else
static const bool sanitized = false;
#endif

static int         n_errors; // lines of log at the level of errors
static std::string error_text;

static void log_errors(ggml_log_level level, const char * text, void *) {
    if (level == GGML_LOG_LEVEL_ERROR) {
        n_errors++;
        error_text += text;
    }
}

using bytes = std::vector<uint8_t>;

static constexpr int N_ROWS = 40, N_OTHER = 9, N_AFTER = 4;

struct way { // in which a state is saved and restored
    bool whole, file, unified, swa;

    std::string name() const {
        return std::string(whole ? "context" : "sequence") + (file ? ", file" : ", memory") + (unified ? ", unified" : ", streams") + (swa ? ", sliding window" : "");
    }
};

static std::vector<row> some_rows(int n, int pos, int seq) {
    rng r = { 5 + (uint64_t) (seq*1000 + pos) };
    std::vector<row> rows;
    for (int i = 0; i < n; i++) {
        rows.push_back({ seq, pos + i, r.below(100) });
    }
    return rows;
}

static hex_params base_params() {
    hex_params p = preset("tiny");
    p.n_sink = 2, p.n_recent = 8, p.heavy = 0.03f, p.backbone = 0.25f, p.n_mean = 16;
    return p;
}

static context_ptr make(const model_ptr & model, const way & w, const hex_params & p) {
    setup s;
    s.n_seq = 2, s.unified = w.unified;
    return context_ptr(llama_init_from_model(model.get(), context_params(s, p)));
}

class states {
public:
    explicit states(const way & w) : w(w) {
        const int fd = mkstemp(path);
        if (fd >= 0) {
            close(fd);
        }
    }
    ~states() { unlink(path); }

    const way w;
    static constexpr size_t N_TOKENS = 5;

    bytes save(llama_context * ctx) const {
        const llama_token tokens[N_TOKENS] = { 1, 2, 3, 4, 5 };
        if (w.file) {
            if (w.whole) {
                llama_state_save_file(ctx, path, tokens, N_TOKENS);
            } else {
                llama_state_seq_save_file(ctx, path, 0, tokens, N_TOKENS);
            }
            std::ifstream in(path, std::ios::binary);
            return bytes(std::istreambuf_iterator<char>(in), {});
        }
        bytes data(w.whole ? llama_state_get_size(ctx) : llama_state_seq_get_size(ctx, 0));
        data.resize(w.whole ? llama_state_get_data(ctx, data.data(), data.size()) : llama_state_seq_get_data(ctx, data.data(), data.size(), 0));
        return data;
    }

    bool restore(llama_context * ctx, const bytes & data) const {
        n_errors = 0;
        error_text.clear();
        if (w.file) {
            std::ofstream(path, std::ios::binary).write((const char *) data.data(), (std::streamsize) data.size());
            llama_token tokens[16];
            size_t n = 0;
            return w.whole ? llama_state_load_file(ctx, path, tokens, 16, &n) : llama_state_seq_load_file(ctx, path, 0, tokens, 16, &n) > 0;
        }
        return (w.whole ? llama_state_set_data(ctx, data.data(), data.size()) : llama_state_seq_set_data(ctx, data.data(), data.size(), 0)) > 0;
    }

    size_t header() const { return w.file ? 12 + 4*N_TOKENS : w.whole ? 0 : 8; }
    // Where the cache begins: streams, cells, then position, sequences and sequence of the first cell.
    size_t body() const { return header() + (w.whole ? 4 + strlen(w.swa ? "gemma2" : "llama") : 0); }
    // Bytes outside the checksum whose value the cache does not depend on: the number of the sequence.
    bool is_free(size_t at) const { return !w.file && !w.whole && at >= 4 && at < 8; }

    // With the checksum that belongs to it: what reads the state has to notice by itself.
    bytes sealed(bytes data) const {
        llama_hex_sum sum;
        if (w.file) {
            llama_token tokens[N_TOKENS];
            memcpy(tokens, data.data() + 12, sizeof(tokens));
            const uint64_t front = llama_hex_sum_of(tokens, N_TOKENS);
            sum.add(&front, sizeof(front));
        }
        sum.add(data.data() + header(), data.size() - 8 - header());
        const uint64_t value = sum.get();
        memcpy(data.data() + data.size() - 8, &value, 8);
        return data;
    }

private:
    char path[32] = "/tmp/hexkv-fuzz-XXXXXX";
};

// A context that states are tried on. It holds the tokens of the last comparison, so there is something to be emptied.
class target {
public:
    target(const model_ptr & model, const states & st, const hex_params & p) : st(st), ctx(make(model, st.w, p)) {
        decode(ctx.get(), some_rows(N_AFTER, 0, 0), &expected);
    }

    long n_refused = 0, n_accepted = 0;
    int  most_lines = 0;
    std::string broken;

    // Empty, a line of error, and the next decode is that of a new context.
    void refuses(const bytes & data, const std::string & what, const char * log = nullptr) {
        if (!broken.empty()) {
            return;
        }
        if (st.restore(ctx.get(), data)) {
            broken = what + " was accepted";
            return;
        }
        n_refused++;
        most_lines = std::max(most_lines, n_errors);
        const auto mem = llama_get_memory(ctx.get());
        if (n_errors < 1 || (log && error_text.find(log) == std::string::npos)) {
            broken = what + ": refused without the line of error that was expected: " + error_text;
        } else if (llama_memory_seq_pos_max(mem, 0) != -1 || llama_memory_seq_pos_max(mem, 1) != -1) {
            broken = what + ": the cache is not empty";
        } else {
            decodes_as_new(what);
        }
    }

    // Whether it is taken or not: the context stays usable.
    void survives(const bytes & data, const std::string & what) {
        if (!broken.empty()) {
            return;
        }
        const auto mem = llama_get_memory(ctx.get());
        if (!st.restore(ctx.get(), data) && (llama_memory_seq_pos_max(mem, 0) != -1 || llama_memory_seq_pos_max(mem, 1) != -1)) {
            broken = what + ": refused, and the cache is not empty";
            return;
        }
        llama_memory_clear(mem, true);
        decodes_as_new(what);
    }

    void accepts(const bytes & data, const std::string & what) {
        if (!broken.empty()) {
            return;
        }
        if (!st.restore(ctx.get(), data) || llama_memory_seq_pos_max(llama_get_memory(ctx.get()), 0) != N_ROWS - 1) {
            broken = what + " was refused: " + error_text;
            return;
        }
        n_accepted++;
        std::vector<float> logits;
        if (decode(ctx.get(), some_rows(1, N_ROWS, 0), &logits) != 0 || !std::isfinite(logits[0])) {
            broken = what + ": accepted, and not usable";
        }
        llama_memory_clear(llama_get_memory(ctx.get()), true);
        decodes_as_new(what);
    }

private:
    const states & st;
    context_ptr ctx;
    std::vector<float> expected, logits;

    void decodes_as_new(const std::string & what) {
        if (decode(ctx.get(), some_rows(N_AFTER, 0, 0), &logits) != 0 || logits != expected) {
            broken = what + ": the context does not decode as a new one";
        }
    }
};

static bytes with_word(bytes data, size_t at, uint32_t value) {
    memcpy(data.data() + at, &value, sizeof(value));
    return data;
}

static std::vector<size_t> tiers(const bytes & data) {
    std::vector<size_t> res;
    const char magic[] = "HEXT";
    for (auto it = data.begin(); (it = std::search(it, data.end(), magic, magic + 4)) != data.end(); ++it) {
        res.push_back((size_t) (it - data.begin()));
    }
    return res;
}

static bytes saved_by(const model_ptr & model, const states & st, const hex_params & p) {
    const context_ptr ctx = make(model, st.w, p);
    decode(ctx.get(), some_rows(N_ROWS, 0, 0), nullptr);
    if (st.w.whole) {
        decode(ctx.get(), some_rows(N_OTHER, 0, 1), nullptr);
    }
    return st.save(ctx.get());
}

static void run(const way & w, const model_ptr & model, int n_cuts, int n_flips, uint64_t seed, long totals[3]) {
    const states st(w);
    const bytes good = saved_by(model, st, base_params());
    target t(model, st, base_params());
    rng r = { seed };
    t.accepts(good, "the state itself");

    // cut at every length in the headers and behind the last row, and anywhere
    std::vector<size_t> cuts;
    const std::vector<size_t> tier = tiers(good);
    const auto all = [&](size_t from, size_t to) {
        for (size_t n = from; n < std::min(to, good.size()); n += sanitized ? 3 : 1) { cuts.push_back(n); }
    };
    all(0, st.body() + 60);
    for (const size_t at : tier) { all(at - 8, at + 64); }
    all(good.size() - 24, good.size());
    for (int i = 0; i < n_cuts; i++) { cuts.push_back((size_t) (r.next() % good.size())); }
    for (const size_t n : cuts) {
        t.refuses(bytes(good.begin(), good.begin() + (long) n), "a state of " + std::to_string(n) + " of " + std::to_string(good.size()) + " bytes");
    }
    if (w.file && w.whole) {
        bytes longer = good;
        longer.push_back(0);
        t.refuses(longer, "a byte behind the state");
    }

    for (int i = 0; i < n_flips; i++) {
        const size_t at = (size_t) (r.next() % good.size());
        const int   bit = r.below(8);
        bytes bad = good;
        bad[at] ^= (uint8_t) (1 << bit);
        const std::string what = "bit " + std::to_string(bit) + " of byte " + std::to_string(at) + " flipped";
        if (st.is_free(at)) {
            t.accepts(bad, what);
        } else {
            t.refuses(bad, what);
        }
        if (at >= st.header()) {
            t.survives(st.sealed(bad), what + ", sealed");
        }
    }
    if (!w.file) {
        bytes more = good;
        more.resize(good.size() + 1000);
        t.accepts(more, "a state in a larger buffer");
    }

    // what no flip is likely to hit
    for (const uint32_t version : { 0u, 1u, 2u, 4u }) {
        t.refuses(st.sealed(with_word(good, tier[0] + 4, version)), "version " + std::to_string(version), ("it has version " + std::to_string(version)).c_str());
    }
    for (const uint32_t n : { 0u, 257u, 0x7fffffffu, 0xffffffffu }) {
        t.refuses(with_word(good, st.body() + 4, n), std::to_string(n) + " cells");
        t.survives(st.sealed(with_word(good, st.body() + 4, n)), std::to_string(n) + " cells, sealed");
    }
    for (const int32_t pos : { -1, -2, INT32_MIN, 1 << 30 }) {
        t.refuses(with_word(good, st.body() + 8, (uint32_t) pos), "position " + std::to_string(pos));
        t.survives(st.sealed(with_word(good, st.body() + 8, (uint32_t) pos)), "position " + std::to_string(pos) + ", sealed");
    }
    for (const uint32_t n : { 0u, 2u, 0xffffffffu }) {
        t.refuses(with_word(good, st.body() + 12, n), std::to_string(n) + " sequences of a cell");
        t.survives(st.sealed(with_word(good, st.body() + 12, n)), std::to_string(n) + " sequences of a cell, sealed");
    }
    t.accepts(good, "the state itself, at the end");

    totals[0] += (long) cuts.size(), totals[1] += n_flips, totals[2] += t.n_refused;
    check(t.broken.empty(), "%s: %zu bytes, %zu cuts and %d flips, %ld refused with at most %d lines, %ld accepted%s%s", w.name().c_str(), good.size(),
          cuts.size(), n_flips, t.n_refused, t.most_lines, t.n_accepted, t.broken.empty() ? "" : "; ", t.broken.c_str());
}

// Sound states of other caches.
static void others(const way & w, const model_ptr & model, const tiny_model & shape) {
    const states st(w);
    target t(model, st, base_params());
    const hex_params p = base_params();
    tiny_model deep = shape, wide = shape, heads = shape, weights = shape;
    deep.n_layer += 2, wide.head_size = 128, heads.n_head_kv = 4, weights.seed++;
    t.refuses(saved_by(load_tiny(deep),  st, p), "more layers");
    t.refuses(saved_by(load_tiny(wide),  st, p), "larger heads");
    t.refuses(saved_by(load_tiny(heads), st, p), "more heads");
    t.refuses(saved_by(load_tiny(weights), st, p), "other weights", "another model");
    hex_params q[7] = { p, p, p, p, p, p, p };
    q[0].base_k = p.base_k%4 + 1;
    q[1].base_v = p.base_v%4 + 1;
    q[2].refine = p.refine == HEX_REFINE_HEX2 ? HEX_REFINE_HEX4 : HEX_REFINE_HEX2;
    q[3].n_sink++;
    q[4].n_mean = 32;
    q[5].unbias = 0.5f*p.unbias;
    q[6].enabled = false;
    const char * what[] = { "other bits of K", "other bits of V", "other refinement", "other sinks", "other mean", "other unbias", "a stock cache" };
    const char * log[]  = { "type", "type", "use the settings", "use the settings", "use the settings", "use the settings", "without a HEX tier" };
    for (int i = 0; i < 7; i++) {
        t.refuses(saved_by(model, st, q[i]), what[i], log[i]);
    }
    // what only decides how many cells are refined may differ: residuals that find no slot are dropped
    hex_params fewer = p;
    fewer.n_recent /= 2, fewer.heavy /= 2, fewer.backbone = 0, fewer.half_life *= 2;
    t.accepts(saved_by(model, st, fewer), "fewer slots");
    fewer.n_recent *= 4, fewer.heavy *= 4;
    t.accepts(saved_by(model, st, fewer), "more slots");
    // and a stock cache takes none of a HEX cache; what it does then is upstream's
    hex_params off = p;
    off.enabled = false;
    const context_ptr stock = make(model, w, off);
    const bool taken = st.restore(stock.get(), saved_by(model, st, p));
    check(t.broken.empty() && !taken && n_errors > 0, "%s: states of other caches are refused, %ld%s%s", w.name().c_str(), t.n_refused, t.broken.empty() ? "" : "; ", t.broken.c_str());
}

// A refused sequence takes nothing from another: neither cells nor, in a unified cache, heavy slots.
static void neighbours(const model_ptr & model, bool unified, bool file) {
    const int n_other = 200;
    const way w = { false, file, unified, false };
    const states st(w);
    hex_params p = base_params();
    p.heavy = 0.1f, p.backbone = 0;
    bytes bad = saved_by(model, st, p);
    bad.back() ^= 1;
    const context_ptr ctx = make(model, w, p), same = make(model, w, p);
    for (const auto & c : { &ctx, &same }) {
        decode(c->get(), some_rows(n_other, 0, 1), nullptr);
    }
    const bool taken = st.restore(ctx.get(), bad);
    const auto mem = llama_get_memory(ctx.get());
    const bool kept = llama_memory_seq_pos_max(mem, 0) == -1 && llama_memory_seq_pos_max(mem, 1) == n_other - 1;
    double kl = 0;
    bool equal = true;
    for (int i = 0; i < 10; i++) {
        std::vector<float> a, b;
        decode(ctx.get(),  some_rows(1, n_other + i, 1), &a);
        decode(same.get(), some_rows(1, n_other + i, 1), &b);
        equal &= a == b;
        kl = std::max(kl, kl_divergence(b.data(), a.data(), (int) a.size()));
    }
    check(!taken && kept && equal, "%s: a refused sequence leaves the other as it was, KL %.1e", w.name().c_str(), kl);
}

int main(int argc, char ** argv) {
    const int scale = argc > 1 ? atoi(argv[1]) : 1;
    llama_log_set(log_errors, nullptr);
    llama_backend_init();
    tiny_model plain, window;
    plain.n_layer  = 2;
    window.n_layer = 4, window.arch = "gemma2";
    const model_ptr models[2] = { load_tiny(plain), load_tiny(window) };

    for (int i = 0; i < 4; i++) {
        neighbours(models[0], (i & 1) != 0, (i & 2) != 0);
    }

    const int n_cuts = sanitized ? 20 : 200*scale, n_flips = sanitized ? 20 : 130*scale;
    long totals[3] = {};
    for (int i = 0; i < 16; i++) {
        const way w = { (i & 1) != 0, (i & 2) != 0, (i & 4) != 0, (i & 8) != 0 };
        run(w, models[w.swa], n_cuts, n_flips, 1 + (uint64_t) i, totals);
        others(w, models[w.swa], w.swa ? window : plain);
    }
    printf("# %ld cuts, %ld flips, %ld states refused, %.1f s\n", totals[0], totals[1], totals[2], (double) clock()/CLOCKS_PER_SEC);
    return check_exit_code();
}
