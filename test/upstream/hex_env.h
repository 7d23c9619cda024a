// For upstream's test programs that take no options: the environment variables of `--hex` and `--threads` act on them.
#pragma once

#include "llama/hex-arg.h"

#include "llama.h"

#include <cstdlib>

static inline void hex_env(llama_context_params & params) {
    if (const char * preset = std::getenv("LLAMA_ARG_HEX")) {
        hex_options o = {};
        hex_arg_set(o, "hex", preset);
        params.hex = hex_arg_resolve(o);
    }
    if (const char * threads = std::getenv("LLAMA_ARG_THREADS")) {
        params.n_threads = params.n_threads_batch = std::atoi(threads);
    }
}
