// HEX ops in ggml-cuda: what its call sites use. NVIDIA devices from Turing on; others refuse the ops.
#pragma once

#include "ggml-cuda/common.cuh"

#if defined(GGML_USE_HIP) || defined(GGML_USE_MUSA)
static inline bool ggml_cuda_hex_supported(int, const ggml_tensor *) { return false; }
static inline void ggml_cuda_op_hex_attn  (ggml_backend_cuda_context &, ggml_tensor *) {}
static inline void ggml_cuda_op_hex_commit(ggml_backend_cuda_context &, ggml_tensor *) {}
#else
bool ggml_cuda_hex_supported(int device, const ggml_tensor * op);
void ggml_cuda_op_hex_attn  (ggml_backend_cuda_context & ctx, ggml_tensor * dst);
void ggml_cuda_op_hex_commit(ggml_backend_cuda_context & ctx, ggml_tensor * dst);
#endif
