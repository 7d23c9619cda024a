// What ten context shifts add to the error of a cache: measure_shifts MODEL TEXT [WINDOWS]
//
// A window of text is read into a cache; then all its tokens are moved once or ten times, up and down in turn; then the next
// tokens are predicted. The same is done without moving. The KL divergence of each from an f16 cache that was not moved, and what
// ten shifts add, is a row of the table. (A context shift that discards half moves a row once or twice before it is discarded.)
// Exit code 1: ten shifts add more than half of what a preset has without them.

#include "core/hex_config.h"

#include "llama.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

static constexpr int N_READ = 896, N_PREDICT = 96, N_SHIFT = 10, DISTANCE = 61, N_CTX = 1024, UBATCH = 64;

struct cache {
    const char * name;
    ggml_type    type;
    const char * preset; // nullptr: stock
};

[[noreturn]] static void die(const std::string & why) {
    fprintf(stderr, "measure_shifts: error: %s\n", why.c_str());
    exit(1);
}

static void decode(llama_context * ctx, const llama_token * tokens, int n, int pos, bool logits) {
    for (int at = 0; at < n; at += UBATCH) {
        const int m = std::min(UBATCH, n - at);
        llama_batch batch = llama_batch_init(m, 0, 1);
        for (int i = 0; i < m; i++) {
            batch.token[i] = tokens[at + i], batch.pos[i] = pos + at + i;
            batch.n_seq_id[i] = 1, batch.seq_id[i][0] = 0, batch.logits[i] = logits;
        }
        batch.n_tokens = m;
        const int status = llama_decode(ctx, batch);
        llama_batch_free(batch);
        if (status != 0) {
            die("llama_decode returned " + std::to_string(status));
        }
    }
}

// Log-probabilities of the tokens after the window.
static std::vector<float> predict(llama_model * model, const cache & c, const llama_token * text, int n_shifts) {
    llama_context_params params = llama_context_default_params();
    params.n_ctx = N_CTX, params.n_batch = params.n_ubatch = UBATCH, params.n_threads = params.n_threads_batch = 1;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.type_k = params.type_v = c.type;
    if (c.preset) {
        hex_params_preset(&params.hex, c.preset);
    }
    llama_context * ctx = llama_init_from_model(model, params);
    if (!ctx) {
        die(std::string("no context with ") + c.name);
    }
    llama_memory_t mem = llama_get_memory(ctx);
    decode(ctx, text, N_READ, 0, false);
    int pos = N_READ;
    for (int i = 0; i < N_SHIFT; i++) {
        if (i < n_shifts) {
            const int by = i % 2 == 0 ? DISTANCE : -DISTANCE;
            llama_memory_seq_add(mem, 0, 0, -1, by);
            pos += by;
        }
        decode(ctx, text + N_READ, 1, pos, false); // the rows are turned now
        llama_memory_seq_rm(mem, 0, pos, -1);
    }

    const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    std::vector<float> res;
    for (int at = 0; at < N_PREDICT; at += UBATCH/2) {
        decode(ctx, text + N_READ + at, UBATCH/2, pos + at, true);
        for (int i = 0; i < UBATCH/2; i++) {
            const float * logits = llama_get_logits_ith(ctx, i);
            float max = logits[0];
            double sum = 0;
            for (int t = 0; t < n_vocab; t++) { max = std::max(max, logits[t]); }
            for (int t = 0; t < n_vocab; t++) { sum += exp(logits[t] - max); }
            for (int t = 0; t < n_vocab; t++) { res.push_back(logits[t] - max - (float) log(sum)); }
        }
    }
    llama_free(ctx);
    return res;
}

static double divergence(const std::vector<float> & p, const std::vector<float> & q) {
    double sum = 0;
    for (size_t i = 0; i < p.size(); i++) {
        sum += exp(p[i])*(p[i] - q[i]);
    }
    return sum/N_PREDICT;
}

int main(int argc, char ** argv) {
    if (argc < 3) {
        die("usage: measure_shifts MODEL TEXT [WINDOWS]");
    }
    const int n_windows = argc > 3 ? atoi(argv[3]) : 2;
    llama_log_set([](ggml_log_level level, const char * text, void *) { if (level == GGML_LOG_LEVEL_ERROR) { fputs(text, stderr); } }, nullptr);
    llama_model * model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!model) {
        die(std::string(argv[1]) + " is no model that can be loaded");
    }
    std::ifstream file(argv[2]);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    std::vector<llama_token> tokens(text.size() + 8);
    const int n = llama_tokenize(llama_model_get_vocab(model), text.data(), (int) text.size(), tokens.data(), (int) tokens.size(), true, false);
    if (n_windows < 1 || n < n_windows*(N_READ + N_PREDICT)) {
        die(std::to_string(n_windows) + " windows of " + std::to_string(N_READ + N_PREDICT) + " tokens do not fit in the " + std::to_string(n) + " of " + argv[2]);
    }

    const cache caches[] = {
        { "f16",          GGML_TYPE_F16,  nullptr    },
        { "q8_0",         GGML_TYPE_Q8_0, nullptr    },
        { "q4_0",         GGML_TYPE_Q4_0, nullptr    },
        { "hex:balanced", GGML_TYPE_F16,  "balanced" },
        { "hex:tiny",     GGML_TYPE_F16,  "tiny"     },
    };
    std::vector<std::vector<float>> reference;
    std::vector<std::string> verdicts;
    bool ok = true;
    printf("| cache | KL | after a shift | after %d | added |\n|---|--:|--:|--:|--:|\n", N_SHIFT);
    for (const cache & c : caches) {
        double kl[3] = {};
        for (int w = 0; w < n_windows; w++) {
            const llama_token * at = tokens.data() + w*(n/n_windows);
            for (int i = 0; i < 3; i++) {
                const int n_shifts[] = { 0, 1, N_SHIFT };
                const auto q = predict(model, c, at, n_shifts[i]);
                if (c.type == GGML_TYPE_F16 && !c.preset && i == 0) {
                    reference.push_back(q);
                }
                kl[i] += divergence(reference[w], q)/n_windows;
            }
        }
        printf("| %s | %.4f | %.4f | %.4f | %+.4f |\n", c.name, kl[0], kl[1], kl[2], kl[2] - kl[0]);
        fflush(stdout);
        if (c.preset) {
            const bool little = kl[2] - kl[0] < kl[0]/2;
            ok = ok && little;
            verdicts.push_back(std::string(little ? "ok" : "FAIL") + " ten shifts add less than half of what " + c.name + " has without them");
        }
    }
    llama_model_free(model);
    for (const std::string & v : verdicts) {
        printf("%s\n", v.c_str());
    }
    return ok ? 0 : 1;
}
