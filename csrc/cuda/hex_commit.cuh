// HEX_COMMIT in CUDA. The same bits as csrc/cpu/hex_commit.c.
#pragma once

#include "hex_cuda.cuh"

#include "../cpu/hex_commit.h"

// Bytes of device memory that a run needs for itself.
size_t hex_commit_cuda_work(const struct hex_cache & c);

// Whether the kernels support the case; data pointers need not be set yet.
bool hex_commit_cuda_supported(const struct hex_cache & c);

// Starts the kernels. False, and nothing is started, when they do not support the case.
bool hex_commit_cuda(const struct hex_commit & cm, void * work, cudaStream_t stream);
