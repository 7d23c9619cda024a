#include "hex_ops_cpu.h"

#include "../ggml/hex_view.h"

#include "ggml-cpu-impl.h"
#include "ggml-impl.h"

size_t ggml_hex_work_size(const struct ggml_tensor * op, int n_tasks) {
    GGML_ASSERT(ggml_hex_op_valid(op));
    if (op->op == GGML_OP_HEX_ATTN) {
        const struct hex_attn a = ggml_hex_view_attn(op);
        const size_t fast = hex_attn_work(&a, n_tasks);
        const size_t ref  = hex_attn_ref_work(&a);
        return fast > ref ? fast : ref;
    }
    const struct hex_commit c = ggml_hex_view_commit(op);
    return hex_commit_work(&c);
}

static void barrier(void * threadpool) {
    ggml_barrier(threadpool);
}

void ggml_compute_forward_hex_attn(const struct ggml_compute_params * params, struct ggml_tensor * dst) {
    GGML_ASSERT(ggml_hex_op_valid(dst));
    const struct hex_attn a = ggml_hex_view_attn(dst);
    if (params->use_ref) {
        hex_attn_ref(&a, params->wdata, params->ith);
    } else {
        hex_attn_run(&a, params->wdata, params->ith, params->nth, barrier, params->threadpool);
    }
}

void ggml_compute_forward_hex_commit(const struct ggml_compute_params * params, struct ggml_tensor * dst) {
    GGML_ASSERT(ggml_hex_op_valid(dst));
    const struct hex_commit c = ggml_hex_view_commit(dst);
    hex_commit_run(&c, params->wdata, params->ith, params->nth, barrier, params->threadpool);
}
