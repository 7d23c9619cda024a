#include "hex_ops_cuda.cuh"

#include "hex_attn.cuh"
#include "hex_commit.cuh"

#include "../ggml/hex_view.h"

static hex_cuda_device device_of(int id) {
    const auto & info = ggml_cuda_info().devices[id];
    return { info.nsm, info.smpbo };
}

bool ggml_cuda_hex_supported(int device, const ggml_tensor * op) {
    const int cc = ggml_cuda_info().devices[device].cc;
    if (cc < GGML_CUDA_CC_TURING || ggml_cuda_highest_compiled_arch(cc) < GGML_CUDA_CC_TURING || !ggml_hex_op_valid(op)) {
        return false;
    }
    if (op->op == GGML_OP_HEX_ATTN) {
        return hex_attn_cuda_supported(ggml_hex_view_attn(op), device_of(device));
    }
    return hex_commit_cuda_supported(ggml_hex_view_commit(op).cache);
}

void ggml_cuda_op_hex_attn(ggml_backend_cuda_context & ctx, ggml_tensor * dst) {
    GGML_ASSERT(ggml_hex_op_valid(dst));
    const hex_attn a = ggml_hex_view_attn(dst);
    const hex_cuda_device dev = device_of(ctx.device);
    ggml_cuda_pool_alloc<char> work(ctx.pool(), hex_attn_cuda_work(a, dev));
    GGML_ASSERT(hex_attn_cuda(a, work.get(), dev, ctx.stream()));
    CUDA_CHECK(cudaGetLastError());
}

void ggml_cuda_op_hex_commit(ggml_backend_cuda_context & ctx, ggml_tensor * dst) {
    GGML_ASSERT(ggml_hex_op_valid(dst));
    const hex_commit c = ggml_hex_view_commit(dst);
    ggml_cuda_pool_alloc<char> work(ctx.pool(), hex_commit_cuda_work(c.cache));
    GGML_ASSERT(hex_commit_cuda(c, work.get(), ctx.stream()));
    CUDA_CHECK(cudaGetLastError());
}
