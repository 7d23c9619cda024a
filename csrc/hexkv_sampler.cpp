// Samplers: llama.cpp's sampler chain and grammars.
#include "hexkv_impl.h"
#include "hexkv_session.h"

#pragma GCC diagnostic push // upstream's headers are not ours to fix
#pragma GCC diagnostic ignored "-Wshadow"
#include "llama-grammar.h"
#pragma GCC diagnostic pop

#include <cmath>

using namespace hexkv;

struct hexkv_sampler {
    std::shared_ptr<Model>        model;
    SamplerPtr                    chain;
    SamplerPtr                    grammar; // may be empty
    std::vector<llama_token_data> candidates;
};

namespace {

const size_t max_grammar = 1 << 20; // bytes
const int    max_depth   = 200;     // nested parentheses: the parser recurses

// Where llama.cpp's parser stopped: "line 3: expecting ::= at ..."
std::string where(const std::string & grammar, const std::string & what) {
    const size_t at = what.find(" at ");
    if (at == std::string::npos) {
        return what;
    }
    const std::string rest = what.substr(at + 4);
    const size_t      pos  = rest.size() <= grammar.size() ? grammar.size() - rest.size() : 0;
    if (grammar.compare(pos, std::string::npos, rest) != 0) {
        return what.substr(0, 200);
    }
    size_t line = 1;
    for (size_t i = 0; i < pos; i++) {
        line += grammar[i] == '\n';
    }
    std::string near = rest.substr(0, rest.find('\n'));
    if (near.size() > 40) {
        near = near.substr(0, 40) + "...";
    }
    return "line " + std::to_string(line) + ": " + what.substr(0, at) + (near.empty() ? " at the end" : " at '" + near + "'");
}

const char * skip_space(const char * p) {
    for (; *p; p++) {
        if (*p == '#') {
            p += strcspn(p, "\r\n");
            if (!*p) {
                break;
            }
        } else if (!strchr(" \t\r\n", *p)) {
            break;
        }
    }
    return p;
}

// Parses as llama_grammar_parser::parse does, which writes its error to stderr; here it becomes the status.
hexkv_status check_grammar(const Model & m, const std::string & text, hexkv_error * e) {
    if (text.size() > max_grammar) {
        return fail(e, HEXKV_ERR_GRAMMAR, "the grammar has %zu bytes; use at most %zu", text.size(), max_grammar);
    }
    const size_t bad = utf8_valid(text.data(), text.size());
    if (bad < text.size()) {
        return fail(e, HEXKV_ERR_UTF8, "the grammar is not valid UTF-8 at offset %zu; convert it to UTF-8", bad);
    }
    int depth = 0;
    for (const char c : text) {
        depth += (c == '(') - (c == ')' && depth > 0);
        if (depth > max_depth) {
            return fail(e, HEXKV_ERR_GRAMMAR, "the grammar nests more than %d parentheses; name the inner parts as rules", max_depth);
        }
    }
    llama_grammar_parser parser(m.vocab);
    try {
        for (const char * p = skip_space(text.c_str()); *p;) {
            p = parser.parse_rule(p);
        }
    } catch (const std::bad_alloc &) {
        throw;
    } catch (const std::exception & x) {
        return fail(e, HEXKV_ERR_GRAMMAR, "the grammar is wrong: %s", where(text, x.what()).c_str());
    }
    for (const auto & [name, id] : parser.symbol_ids) {
        if (id >= parser.rules.size() || parser.rules[id].empty()) {
            return fail(e, HEXKV_ERR_GRAMMAR, "the grammar uses the rule '%.60s' but does not define it", name.c_str());
        }
    }
    if (parser.symbol_ids.find("root") == parser.symbol_ids.end()) {
        return fail(e, HEXKV_ERR_GRAMMAR, "the grammar has no rule 'root'; add root ::= ...");
    }
    return HEXKV_OK;
}

hexkv_status check_number(hexkv_error * e, const char * name, float value, float lo, float hi) {
    return value >= lo && value <= hi ? HEXKV_OK // false for NaN
        : fail(e, HEXKV_ERR_CONFIG, "%s = %g is out of range; use %g to %g", name, static_cast<double>(value),
               static_cast<double>(lo), static_cast<double>(hi));
}

hexkv_status check(const hexkv_sampler_params & p, hexkv_error * e) {
    hexkv_status s;
    if ((s = check_number(e, "temperature", p.temperature, 0, 100)) != HEXKV_OK ||
        (s = check_number(e, "top-p", p.top_p, 0, 1)) != HEXKV_OK ||
        (s = check_number(e, "min-p", p.min_p, 0, 1)) != HEXKV_OK ||
        (s = check_number(e, "repeat penalty", p.repeat, 0, 100)) != HEXKV_OK ||
        (s = check_number(e, "frequency penalty", p.frequency, -100, 100)) != HEXKV_OK ||
        (s = check_number(e, "presence penalty", p.presence, -100, 100)) != HEXKV_OK ||
        (s = check_number(e, "top-k", static_cast<float>(p.top_k), 0, 1e9f)) != HEXKV_OK ||
        (s = check_number(e, "penalty last-n", static_cast<float>(p.last_n), 0, 1 << 20)) != HEXKV_OK) {
        return s;
    }
    return HEXKV_OK;
}

void fill(hexkv_sampler * g, const float * logits) {
    g->candidates.resize(static_cast<size_t>(g->model->info.n_vocab));
    for (size_t i = 0; i < g->candidates.size(); i++) {
        g->candidates[i] = { static_cast<llama_token>(i), logits[i], 0.0f };
    }
    int32_t n = 0;
    const llama_token * suppress = llama_vocab_get_suppress_tokens(g->model->vocab, &n);
    for (int32_t i = 0; i < n; i++) {
        if (suppress[i] >= 0 && suppress[i] < g->model->info.n_vocab) {
            g->candidates[static_cast<size_t>(suppress[i])].logit = -INFINITY;
        }
    }
}

// Whether the grammar takes this token next.
bool allowed(hexkv_sampler * g, llama_token token) {
    llama_token_data       one   = { token, 1.0f, 0.0f };
    llama_token_data_array array = { &one, 1, -1, false };
    llama_sampler_apply(g->grammar.get(), &array);
    return one.logit != -INFINITY;
}

// The chain asserts that something is left to choose from.
bool usable(const hexkv_sampler * g) {
    bool any = false;
    for (const llama_token_data & c : g->candidates) {
        if (std::isnan(c.logit) || c.logit == INFINITY) {
            return false;
        }
        any = any || c.logit > -INFINITY;
    }
    return any;
}

llama_token choose(hexkv_sampler * g) {
    llama_token_data_array array = { g->candidates.data(), g->candidates.size(), -1, false };
    llama_sampler_apply(g->chain.get(), &array);
    return array.selected >= 0 && static_cast<size_t>(array.selected) < array.size ? array.data[array.selected].id : LLAMA_TOKEN_NULL;
}

} // namespace

hexkv_status hexkv_sampler_open(hexkv_model * m, const hexkv_sampler_params * p, hexkv_sampler ** out, hexkv_error * e) {
    return guard(e, [&] {
        if (!m || !p || !out) {
            return fail(e, HEXKV_ERR_INVALID, "hexkv_sampler_open: NULL argument");
        }
        *out = nullptr;
        NoAbort      no_abort;
        hexkv_status s = check(*p, e);
        if (s != HEXKV_OK) {
            return s;
        }
        auto g   = std::make_unique<hexkv_sampler>();
        g->model = m->p;
        if (p->grammar && *p->grammar) {
            s = check_grammar(*g->model, p->grammar, e);
            if (s != HEXKV_OK) {
                return s;
            }
            Capture log;
            g->grammar.reset(llama_sampler_init_grammar(g->model->vocab, p->grammar, "root"));
            if (!g->grammar) {
                return fail(e, HEXKV_ERR_GRAMMAR, "the grammar is wrong: %s", log.text("llama.cpp gives no reason").c_str());
            }
        }
        const float   repeat = p->repeat == 0 ? 1.0f : p->repeat;
        const int32_t last_n = p->last_n == 0 ? 64 : p->last_n;

        llama_sampler_chain_params cp = llama_sampler_chain_default_params();
        g->chain.reset(llama_sampler_chain_init(cp));
        const auto add = [&](llama_sampler * part) {
            if (!part) {
                throw std::runtime_error("llama.cpp refuses a sampler");
            }
            llama_sampler_chain_add(g->chain.get(), part);
        };
        if (repeat != 1.0f || p->frequency != 0 || p->presence != 0) {
            add(llama_sampler_init_penalties(g->model->info.n_vocab, last_n, repeat, p->frequency, p->presence));
        }
        if (p->temperature == 0) {
            add(llama_sampler_init_greedy());
        } else {
            if (p->top_k > 0) {
                add(llama_sampler_init_top_k(p->top_k));
            }
            if (p->top_p > 0 && p->top_p < 1) {
                add(llama_sampler_init_top_p(p->top_p, 1));
            }
            if (p->min_p > 0) {
                add(llama_sampler_init_min_p(p->min_p, 1));
            }
            add(llama_sampler_init_temp(p->temperature));
            add(llama_sampler_init_dist(p->seed));
        }
        *out = g.release();
        return HEXKV_OK;
    });
}

void hexkv_sampler_close(hexkv_sampler * g) { delete g; }

hexkv_status hexkv_sample(hexkv_sampler * g, hexkv_session * s, int32_t row, int32_t * token, hexkv_error * e) {
    return guard(e, [&] {
        if (!g || !s || !token || g->model != s->model) {
            return fail(e, HEXKV_ERR_INVALID, "hexkv_sample: sampler and session must be of one model");
        }
        float *      logits = nullptr;
        hexkv_status status = logits_row(s, row, &logits, e);
        if (status != HEXKV_OK) {
            return status;
        }
        NoAbort no_abort;
        fill(g, logits);
        if (!usable(g)) {
            return fail(e, HEXKV_ERR_INTERNAL, "the model's logits are not finite; the file may be damaged");
        }
        // The sampled token first, the whole vocabulary only if the grammar refuses it: far cheaper.
        *token = choose(g);
        if (g->grammar && *token != LLAMA_TOKEN_NULL && !allowed(g, *token)) {
            fill(g, logits);
            llama_token_data_array array = { g->candidates.data(), g->candidates.size(), -1, false };
            llama_sampler_apply(g->grammar.get(), &array);
            if (!usable(g)) {
                return fail(e, HEXKV_ERR_GRAMMAR, "the grammar allows no token here; check that it can go on or end");
            }
            *token = choose(g);
        }
        return *token != LLAMA_TOKEN_NULL ? HEXKV_OK : fail(e, HEXKV_ERR_INTERNAL, "the sampler chose no token");
    });
}

hexkv_status hexkv_accept(hexkv_sampler * g, int32_t token, bool generated, hexkv_error * e) {
    return guard(e, [&] {
        if (!g || token < 0 || token >= g->model->info.n_vocab) {
            return fail(e, HEXKV_ERR_INVALID, "token %d is not in the vocabulary", token);
        }
        NoAbort no_abort;
        if (g->grammar && generated) {
            if (!allowed(g, token)) { // llama.cpp would abort
                return fail(e, HEXKV_ERR_GRAMMAR, "the grammar does not allow token %d here", token);
            }
            llama_sampler_accept(g->grammar.get(), token);
        }
        llama_sampler_accept(g->chain.get(), token);
        return HEXKV_OK;
    });
}

void hexkv_sampler_reset(hexkv_sampler * g) {
    guard(nullptr, [&] {
        llama_sampler_reset(g->chain.get());
        if (g->grammar) {
            llama_sampler_reset(g->grammar.get());
        }
        return HEXKV_OK;
    });
}
