// Whether a device can run the HEX ops: it is asked about ops of the model's own shape before the cache is laid out.

#include "llama-kv-hex.h"

#include "ggml/hex_meta.h"
#include "ggml/hex_state.h"

#include "ggml-backend.h"
#include "ggml-cpp.h"

bool llama_hex_has_kernels(ggml_backend_dev_t dev, const hex_params & params, int32_t head_k, int32_t head_v, int32_t n_head, int32_t n_head_kv) {
    if (ggml_backend_dev_type(dev) == GGML_BACKEND_DEVICE_TYPE_CPU) {
        return true;
    }
    const int64_t n_kv = 256; // small and full: every tier that the settings can have
    ggml_hex_op_params p = {};
    p.scale     = 1;
    p.refine    = params.refine;
    p.n_ring    = params.refine == HEX_REFINE_NONE ? 0 : 64;
    p.n_heavy   = params.refine == HEX_REFINE_NONE ? 0 : 64;
    p.n_mean    = params.n_mean;
    p.half_life = params.half_life;
    p.n_ctx     = n_kv;

    ggml_context_ptr owner(ggml_init({ 32*ggml_tensor_overhead(), nullptr, true }));
    ggml_context * ctx = owner.get();
    const auto f32   = [&](int64_t a, int64_t b, int64_t c) { return ggml_new_tensor_4d(ctx, GGML_TYPE_F32, a, b, c, 1); };
    const auto codes = [&](int bits, int64_t head) { return ggml_new_tensor_4d(ctx, (ggml_type) (GGML_TYPE_HEX1 + bits - 1), head, n_head_kv, n_kv, 1); };

    ggml_tensor * q      = f32(head_k, 1, n_head);
    ggml_tensor * k_cur  = f32(head_k, n_head_kv, 1);
    ggml_tensor * v_cur  = f32(head_v, n_head_kv, 1);
    ggml_tensor * k_base = codes(params.base_k, head_k);
    ggml_tensor * v_base = codes(params.base_v, head_v);
    ggml_tensor * pool   = p.n_ring == 0 ? nullptr :
        ggml_new_tensor_4d(ctx, GGML_TYPE_I8, hex_slot_size(params.refine, head_k, head_v), p.n_ring + p.n_heavy, n_head_kv, 1);
    ggml_tensor * state  = ggml_new_tensor_3d(ctx, GGML_TYPE_I32, hex_state_size(head_k, p.n_ring, p.n_heavy), n_head_kv, 1);
    ggml_tensor * meta   = ggml_new_tensor_2d(ctx, GGML_TYPE_I32, hex_meta_words(1, p.n_ring, p.n_ctx), 1);
    ggml_tensor * mask   = ggml_new_tensor_4d(ctx, GGML_TYPE_F16, n_kv, 1, 1, 1);

    ggml_tensor * attn   = ggml_hex_attn(ctx, q, k_cur, v_cur, k_base, v_base, pool, state, meta, mask, nullptr, &p);
    ggml_tensor * commit = ggml_hex_commit(ctx, k_cur, v_cur, ggml_hex_attn_mass(ctx, attn), k_base, v_base, pool, state, meta, &p);
    return ggml_backend_dev_supports_op(dev, attn) && ggml_backend_dev_supports_op(dev, commit);
}
