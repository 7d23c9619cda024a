// What the RPC backend gains: a worker checks a graph before it computes it, and a lost worker is named.
#pragma once

#include "hex_ops.h"

#include "ggml-backend.h"
#include "ggml-impl.h"

#define HEX_RPC_ASSERT(ok, endpoint) \
    if (!(ok)) GGML_ABORT("the RPC worker %s is gone or gave no valid answer, and the layers on it are lost; " \
                          "look at its log, start it again, and then this program", (endpoint).c_str())

// A graph may come from anyone, and the worker's device may lack the HEX kernels.
static inline bool hex_rpc_computable(ggml_backend_t backend, const struct ggml_cgraph * graph) {
    for (int i = 0; i < graph->n_nodes; ++i) {
        const struct ggml_tensor * node = graph->nodes[i];
        if (node && (node->op == GGML_OP_HEX_ATTN || node->op == GGML_OP_HEX_COMMIT) && !ggml_backend_supports_op(backend, node)) {
            GGML_LOG_ERROR("%s cannot run %s: it is damaged, or this device has no HEX kernels; start the worker with --device CPU\n",
                    ggml_backend_name(backend), ggml_op_name(node->op));
            return false;
        }
    }
    return true;
}
