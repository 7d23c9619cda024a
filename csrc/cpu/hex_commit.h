// HEX_COMMIT on the CPU: what ggml_hex_commit (csrc/ggml/hex_ops.h) does.
#pragma once

#include "hex_cache.h"

#ifdef __cplusplus
extern "C" {
#endif

struct hex_commit {
    struct hex_cache cache;
    const float *    mass; // as hex_attn.mass; NULL without heavy slots
};

// All threads ith of nth call it; work is shared by them. The result does not depend on nth.
void   hex_commit_run(const struct hex_commit * c, void * work, int ith, int nth, hex_barrier barrier, void * barrier_ctx);
size_t hex_commit_work(const struct hex_commit * c);

#ifdef __cplusplus
}
#endif
