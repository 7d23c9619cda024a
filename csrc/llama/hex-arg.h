// The HEX options of llama.cpp's command-line tools; common/arg.cpp and tools/llama-bench include this.
#pragma once

#include "core/hex_options.h"

#include <stdexcept>
#include <string>

static inline void hex_arg_set(hex_options & o, const char * name, const std::string & value) {
    char err[256];
    if (!hex_options_set(&o, name, value.c_str(), err, sizeof(err))) {
        throw std::invalid_argument(err);
    }
}

// Throws std::invalid_argument when the options contradict each other.
static inline hex_params hex_arg_resolve(const hex_options & o) {
    hex_params p;
    char err[256];
    if (!hex_options_resolve(&o, &p, err, sizeof(err))) {
        throw std::invalid_argument(err);
    }
    return p;
}

// A preset, and options by their names without "hex-", as in "balanced:heavy=0.1:recent=64": one entry of a list (llama-bench).
static inline hex_params hex_arg_resolve(const std::string & text) {
    hex_options o = {};
    size_t end = text.find(':');
    hex_arg_set(o, "hex", text.substr(0, end));
    while (end != std::string::npos) {
        const size_t begin = end + 1;
        end = text.find(':', begin);
        const std::string option = text.substr(begin, end == std::string::npos ? end : end - begin);
        const size_t equals = option.find('=');
        if (equals == std::string::npos) {
            throw std::invalid_argument("'" + option + "' in '" + text + "' is no option; write NAME=VALUE, as in balanced:heavy=0.1");
        }
        std::string name = option.substr(0, equals);
        for (char & c : name) {
            c = c == '_' ? '-' : c;
        }
        hex_arg_set(o, ("hex-" + name).c_str(), option.substr(equals + 1));
    }
    return hex_arg_resolve(o);
}

#define HEX_ARG(NAME, HINT, HELP, ENV) \
    add_opt(common_arg({"--" NAME}, HINT, HELP, [](common_params & params, const std::string & value) { \
        hex_arg_set(params.hex, NAME, value); \
    }).set_env(ENV));

// Expands where common/arg.cpp adds its options.
#define HEX_ARGS \
    HEX_ARG("hex", "PRESET", "compressed KV cache: off, tiny, compact, balanced, quality or paper (default: off)\n" \
                             "sets the cache types and everything below; single options override it", "LLAMA_ARG_HEX") \
    HEX_ARG("hex-refine", "CODEC", "residual of refined cells: none, hex1, hex2, hex3, hex4, q8_0 or f16", "LLAMA_ARG_HEX_REFINE") \
    HEX_ARG("hex-sink", "N", "first tokens of a sequence that stay refined", "LLAMA_ARG_HEX_SINK") \
    HEX_ARG("hex-recent", "N", "recent tokens of a sequence that are refined (-1: from the context)", "LLAMA_ARG_HEX_RECENT") \
    HEX_ARG("hex-heavy", "F", "heavy hitters, as a share of the context", "LLAMA_ARG_HEX_HEAVY") \
    HEX_ARG("hex-backbone", "F", "static backbone, as a share of the context", "LLAMA_ARG_HEX_BACKBONE") \
    HEX_ARG("hex-backbone-kind", "KIND", "expander, random, strided, log, channels or none", "LLAMA_ARG_HEX_BACKBONE_KIND") \
    HEX_ARG("hex-seed", "N", "seed of the backbone", "LLAMA_ARG_HEX_SEED") \
    HEX_ARG("hex-mean", "N", "rows whose mean centres K (0: no centring)", "LLAMA_ARG_HEX_MEAN") \
    HEX_ARG("hex-half-life", "N", "half-life of heavy-hitter scores, in queries", "LLAMA_ARG_HEX_HALF_LIFE") \
    HEX_ARG("hex-unbias", "F", "share of the bias of coding noise on attention that is taken off", "LLAMA_ARG_HEX_UNBIAS")
