// HEX_ATTN in CUDA: what csrc/cpu/hex_attn_ref.c computes, with K, V and queries rounded to f16.
#pragma once

#include "hex_cuda.cuh"

#include "../cpu/hex_attn.h"

// Bytes of device memory that a run needs for itself.
size_t hex_attn_cuda_work(const struct hex_attn & a, const struct hex_cuda_device & dev);

// Whether the kernels support the case; data pointers need not be set yet.
bool hex_attn_cuda_supported(const struct hex_attn & a, const struct hex_cuda_device & dev);

// Starts the kernels. False, and nothing is started, when they do not support the case.
bool hex_attn_cuda(const struct hex_attn & a, void * work, const struct hex_cuda_device & dev, cudaStream_t stream);
