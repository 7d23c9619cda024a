#include "hex_view.h"

#include "../core/hex_bytes.h"

#include <string.h>

static struct hex_tensor plain(const struct ggml_tensor * t) {
    struct hex_tensor p = {0};
    if (t) {
        p.data = t->data;
        memcpy(p.nb, t->nb, sizeof(p.nb));
    }
    return p;
}

// srcs: k_cur, v_cur, k_base, v_base, pool, state, meta
static struct hex_cache make_cache(const struct ggml_hex_op_params * p, struct ggml_tensor * const srcs[7]) {
    const struct ggml_tensor * k_cur = srcs[0];
    const struct ggml_tensor * k     = srcs[2];

    struct hex_cache c = {
        .head_k    = (int32_t) k_cur->ne[0],
        .head_v    = (int32_t) srcs[1]->ne[0],
        .n_head_kv = (int32_t) k_cur->ne[1],
        .n_tps     = (int32_t) (k_cur->ne[2]/k->ne[3]),
        .n_stream  = (int32_t) k->ne[3],
        .n_kv      = (int32_t) k->ne[2],
        .n_ctx     = p->n_ctx,
        .bits_k    = hex_type_bits(k->type),
        .bits_v    = hex_type_bits(srcs[3]->type),
        .n_ring    = p->n_ring,
        .n_heavy   = p->n_heavy,
        .n_static  = p->n_static,
        .n_mean    = p->n_mean,
        .half_life = p->half_life,
        .unbias    = p->unbias,
        .pair0     = p->pair0,
        .refine    = (enum hex_refine) p->refine,
        .graph     = ggml_hex_get_graph(p),
        .k_cur     = plain(srcs[0]),
        .v_cur     = plain(srcs[1]),
        .k_base    = plain(srcs[2]),
        .v_base    = plain(srcs[3]),
        .pool      = plain(srcs[4]),
        .state     = plain(srcs[5]),
        .meta      = plain(srcs[6]),
    };
    c.slot_size = hex_slot_size(c.refine, c.head_k, c.head_v);
    return c;
}

struct hex_attn ggml_hex_view_attn(const struct ggml_tensor * op) {
    const struct ggml_hex_op_params p = ggml_hex_get_params(op);
    struct ggml_tensor * const srcs[7] = { op->src[1], op->src[2], op->src[3], op->src[4], op->src[5], op->src[6], op->src[7] };

    struct hex_attn a = {
        .cache    = make_cache(&p, srcs),
        .n_head   = (int32_t) op->src[0]->ne[2],
        .scale    = p.scale,
        .max_bias = p.max_bias,
        .softcap  = p.softcap,
        .q        = plain(op->src[0]),
        .mask     = plain(op->src[8]),
        .sinks    = op->src[9] ? op->src[9]->data : NULL,
        .out      = op->data,
    };
    if (p.n_heavy > 0) {
        const struct ggml_tensor * q = op->src[0];
        a.mass = (float *) op->data + op->src[2]->ne[0]*q->ne[2]*q->ne[1]*q->ne[3];
    }
    return a;
}

struct hex_commit ggml_hex_view_commit(const struct ggml_tensor * op) {
    const struct ggml_hex_op_params p = ggml_hex_get_params(op);
    struct ggml_tensor * const srcs[7] = { op->src[0], op->src[1], op->src[3], op->src[4], op->src[5], op->src[6], op->src[7] };

    return (struct hex_commit) {
        .cache = make_cache(&p, srcs),
        .mass  = p.n_heavy > 0 ? op->src[2]->data : NULL,
    };
}
