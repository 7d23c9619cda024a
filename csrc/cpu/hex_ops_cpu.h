// The CPU backend's entry points for HEX_ATTN and HEX_COMMIT: ggml tensors in, kernels of hex_attn.h and hex_commit.h.
#pragma once

#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ggml_compute_params;

void   ggml_compute_forward_hex_attn  (const struct ggml_compute_params * params, struct ggml_tensor * dst);
void   ggml_compute_forward_hex_commit(const struct ggml_compute_params * params, struct ggml_tensor * dst);
size_t ggml_hex_work_size(const struct ggml_tensor * op, int n_tasks); // bytes of params->wdata

#ifdef __cplusplus
}
#endif
