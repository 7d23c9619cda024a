// The HEX ops as plain pointers, strides and sizes: what the kernels of every backend take. The op must be valid.
#pragma once

#include "../cpu/hex_attn.h"
#include "../cpu/hex_commit.h"
#include "hex_ops.h"

#ifdef __cplusplus
extern "C" {
#endif

GGML_API struct hex_attn   ggml_hex_view_attn  (const struct ggml_tensor * op);
GGML_API struct hex_commit ggml_hex_view_commit(const struct ggml_tensor * op);

#ifdef __cplusplus
}
#endif
