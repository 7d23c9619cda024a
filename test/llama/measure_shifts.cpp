// What ten context shifts add to the error of a cache: measure_shifts MODEL TEXT [WINDOWS [beside]]
//
// Two experiments, each on WINDOWS windows of the text (8), against an F32 cache:
//  - moves: 896 tokens are read, moved ten times, up and down in turn, and the next 96 are predicted. Every row is coded again
//    ten times: far more than a context shift does, which discards a row after one or two moves.
//  - context shifts: a full context of 512 keeps its first 4 tokens, discards half of the others, moves the rest, and is filled
//    again; ten times, as llama-completion and llama-server do. After each, 32 tokens are predicted, which makes ten windows of
//    one run, and WINDOWS/2 runs. "Without" discards the same tokens and moves nothing.
// A row of the table: KL divergence without and with the shifts, what they add, with standard errors over the windows. What f16
// adds is the floor: it turns its rows in f16, and a model with quantized weights answers any small change with a larger one.
// With `beside` the cache is shared with another sequence, which stays where it is, as in llama-server's other slots.
// Exit code 1: shifts add more than half of what a preset has without them.

#include "core/hex_config.h"

#include "llama.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

static constexpr int N_SHIFT = 10, UBATCH = 128, UBATCH_LOGITS = 32; // reading, predicting
static constexpr int N_READ = 896, N_PREDICT = 96, DISTANCE = 61;            // moves
static constexpr int N_CTX = 512, N_KEEP = 4, N_FULL = 508, N_FIRST = 32;    // context shifts
static constexpr int N_HALF = (N_FULL - N_KEEP)/2;
static constexpr int MOVES_TOKENS = N_READ + N_PREDICT, SHIFTS_TOKENS = N_FULL + N_SHIFT*N_HALF;

static int n_beside = 0; // tokens of the other sequence

struct cache {
    const char * name;
    ggml_type    type;
    const char * preset; // nullptr: stock
};

using log_probs = std::vector<float>;

[[noreturn]] static void die(const std::string & why) {
    fprintf(stderr, "measure_shifts: error: %s\n", why.c_str());
    exit(1);
}

static void append_log_probs(llama_context * ctx, int n, log_probs & out) {
    const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(ctx)));
    for (int i = 0; i < n; i++) {
        const float * logits = llama_get_logits_ith(ctx, i);
        const float max = *std::max_element(logits, logits + n_vocab);
        double sum = 0;
        for (int t = 0; t < n_vocab; t++) { sum += expf(logits[t] - max); }
        for (int t = 0; t < n_vocab; t++) { out.push_back(logits[t] - max - (float) log(sum)); }
    }
}

// Log-probabilities go to `out` where that is given.
static void decode(llama_context * ctx, const llama_token * tokens, int n, int pos, log_probs * out, llama_seq_id seq = 0) {
    const int step = out ? UBATCH_LOGITS : UBATCH;
    for (int at = 0; at < n; at += step) {
        const int m = std::min(step, n - at);
        llama_batch batch = llama_batch_init(m, 0, 1);
        for (int i = 0; i < m; i++) {
            batch.token[i] = tokens[at + i], batch.pos[i] = pos + at + i;
            batch.n_seq_id[i] = 1, batch.seq_id[i][0] = seq, batch.logits[i] = out != nullptr;
        }
        batch.n_tokens = m;
        const int status = llama_decode(ctx, batch);
        llama_batch_free(batch);
        if (status != 0) {
            die("llama_decode returned " + std::to_string(status));
        }
        if (out) {
            append_log_probs(ctx, m, *out);
        }
    }
}

static llama_context * new_context(llama_model * model, const cache & c, int n_ctx, const llama_token * text) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = n_ctx + n_beside, params.n_seq_max = n_beside > 0 ? 2 : 1, params.kv_unified = true;
    params.n_batch = params.n_ubatch = UBATCH, params.n_threads = params.n_threads_batch = 1;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.type_k = params.type_v = c.type;
    if (c.preset) {
        hex_params_preset(&params.hex, c.preset);
    }
    llama_context * ctx = llama_init_from_model(model, params);
    if (!ctx) {
        die(std::string("no context with ") + c.name);
    }
    decode(ctx, text, n_beside, 0, nullptr, 1);
    return ctx;
}

// out[0]: without, out[1]: with ten moves. The reading is shared by way of a saved state.
static void moves(llama_model * model, const cache & c, const llama_token * text, log_probs out[2]) {
    llama_context * ctx = new_context(model, c, 1024, text);
    llama_memory_t mem = llama_get_memory(ctx);
    decode(ctx, text, N_READ, 0, nullptr);
    std::vector<uint8_t> state(llama_state_get_size(ctx));
    llama_state_get_data(ctx, state.data(), state.size());
    for (int moved = 0; moved < 2; moved++) {
        if (moved && llama_state_set_data(ctx, state.data(), state.size()) != state.size()) {
            die("the state was not restored");
        }
        int pos = N_READ;
        for (int i = 0; i < N_SHIFT; i++) {
            if (moved) {
                const int by = i % 2 == 0 ? DISTANCE : -DISTANCE;
                llama_memory_seq_add(mem, 0, 0, -1, by);
                pos += by;
            }
            decode(ctx, text + N_READ, 1, pos, nullptr); // the rows are turned now
            llama_memory_seq_rm(mem, 0, pos, -1);
        }
        decode(ctx, text + N_READ, N_PREDICT, pos, &out[moved]);
    }
    llama_free(ctx);
}

// out[0]: discards only, out[1]: context shifts.
static void shifts(llama_model * model, const cache & c, const llama_token * text, log_probs out[2]) {
    for (int moved = 0; moved < 2; moved++) {
        llama_context * ctx = new_context(model, c, N_CTX, text);
        llama_memory_t mem = llama_get_memory(ctx);
        decode(ctx, text, N_FULL, 0, nullptr);
        int at = N_FULL, pos = N_FULL, first = N_KEEP; // `first`: the position behind the tokens that are kept
        for (int i = 0; i < N_SHIFT; i++) {
            llama_memory_seq_rm(mem, 0, first, first + N_HALF);
            if (moved) {
                llama_memory_seq_add(mem, 0, first + N_HALF, -1, -N_HALF);
                pos -= N_HALF;
            } else {
                first += N_HALF;
            }
            decode(ctx, text + at, N_FIRST, pos, &out[moved]);
            decode(ctx, text + at + N_FIRST, N_HALF - N_FIRST, pos + N_FIRST, nullptr);
            at += N_HALF, pos += N_HALF;
        }
        llama_free(ctx);
    }
}

// Mean KL of each n_blocks-th part of the tokens.
static void divergence(const log_probs & p, const log_probs & q, int n_tokens, int n_blocks, std::vector<double> & out) {
    const size_t n = p.size()/n_blocks;
    for (int b = 0; b < n_blocks; b++) {
        double sum = 0;
        for (size_t i = b*n; i < (b + 1)*n; i++) {
            sum += expf(p[i])*(p[i] - q[i]);
        }
        out.push_back(sum*n_blocks/n_tokens);
    }
}

struct estimate {
    double mean = 0, error = 0; // standard error

    explicit estimate(const std::vector<double> & x) {
        for (const double v : x) { mean += v/x.size(); }
        for (const double v : x) { error += (v - mean)*(v - mean); }
        error = x.size() > 1 ? sqrt(error/(x.size() - 1)/x.size()) : NAN;
    }
};

struct measured {
    std::vector<double> without, with; // KL by window
};

int main(int argc, char ** argv) {
    if (argc < 3) {
        die("usage: measure_shifts MODEL TEXT [WINDOWS [beside]]");
    }
    const int n_windows = argc > 3 ? atoi(argv[3]) : 8;
    n_beside = argc > 4 && strcmp(argv[4], "beside") == 0 ? 128 : 0;
    llama_log_set([](ggml_log_level level, const char * text, void *) { if (level == GGML_LOG_LEVEL_ERROR) { fputs(text, stderr); } }, nullptr);
    llama_model * model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!model) {
        die(std::string(argv[1]) + " is no model that can be loaded");
    }
    std::ifstream file(argv[2]);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    std::vector<llama_token> tokens(text.size() + 8);
    const int n = llama_tokenize(llama_model_get_vocab(model), text.data(), (int) text.size(), tokens.data(), (int) tokens.size(), true, false);

    const cache reference = { "f32", GGML_TYPE_F32, nullptr };
    const cache caches[] = {
        { "f16",          GGML_TYPE_F16,  nullptr    },
        { "q8_0",         GGML_TYPE_Q8_0, nullptr    },
        { "q4_0",         GGML_TYPE_Q4_0, nullptr    },
        { "hex:balanced", GGML_TYPE_F16,  "balanced" },
        { "hex:tiny",     GGML_TYPE_F16,  "tiny"     },
    };
    struct experiment {
        const char * name;
        void (*run)(llama_model *, const cache &, const llama_token *, log_probs[2]);
        int  n_tokens, n_predicted, n_blocks, n_runs;
    };
    const experiment experiments[] = {
        { "ten moves",          moves,  MOVES_TOKENS,  N_PREDICT,       1,       n_windows   },
        { "ten context shifts", shifts, SHIFTS_TOKENS, N_SHIFT*N_FIRST, N_SHIFT, n_windows/2 },
    };
    std::vector<std::string> verdicts;
    bool ok = true;
    for (const experiment & e : experiments) {
        const int n_fit = std::min(e.n_runs, n/e.n_tokens);
        if (n_fit < 2) {
            die("two pieces of " + std::to_string(e.n_tokens) + " tokens do not fit in the " + std::to_string(n) + " of " + argv[2]);
        }
        std::vector<measured> results(std::size(caches));
        for (int w = 0; w < n_fit; w++) {
            const llama_token * at = tokens.data() + w*(n/n_fit);
            log_probs expected[2];
            e.run(model, reference, at, expected);
            if (e.run == moves) {
                expected[1] = expected[0]; // the text has not changed; the rows of F32 turn to within its precision
            }
            for (size_t i = 0; i < std::size(caches); i++) {
                log_probs got[2];
                e.run(model, caches[i], at, got);
                divergence(expected[0], got[0], e.n_predicted, e.n_blocks, results[i].without);
                divergence(expected[1], got[1], e.n_predicted, e.n_blocks, results[i].with);
            }
            fprintf(stderr, "%s: run %d of %d\n", e.name, w + 1, n_fit);
        }
        printf("\n| %s, %d windows | KL without | with | added |\n|---|--:|--:|--:|\n", e.name, n_fit*e.n_blocks);
        for (size_t i = 0; i < std::size(caches); i++) {
            const measured & m = results[i];
            std::vector<double> added, above; // above: what is added, less half of what is there without
            for (size_t w = 0; w < m.with.size(); w++) {
                added.push_back(m.with[w] - m.without[w]);
                above.push_back(added[w] - m.without[w]/2);
            }
            const estimate a(m.without), b(m.with), c(added), d(above);
            printf("| %s | %.4f ± %.4f | %.4f ± %.4f | %+.4f ± %.4f |\n", caches[i].name, a.mean, a.error, b.mean, b.error, c.mean, c.error);
            if (caches[i].preset) {
                char line[256];
                snprintf(line, sizeof(line), "%s %s add less than half of what %s has without them: %.0f%% (added - half: %+.4f ± %.4f)",
                    d.mean < 0 ? "ok" : "FAIL", e.name, caches[i].name, 100*c.mean/a.mean, d.mean, d.error);
                ok = ok && d.mean < 0;
                verdicts.push_back(line);
            }
        }
        fflush(stdout);
    }
    llama_model_free(model);
    printf("\n");
    for (const std::string & v : verdicts) {
        printf("%s\n", v.c_str());
    }
    return ok ? 0 : 1;
}
