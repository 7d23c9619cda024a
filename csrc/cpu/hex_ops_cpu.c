#include "hex_ops_cpu.h"

#include "hex_attn.h"
#include "hex_commit.h"

#include "../core/hex_bytes.h"
#include "../ggml/hex_ops.h"

#include "ggml-cpu-impl.h"
#include "ggml-impl.h"

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

static struct hex_attn make_attn(const struct ggml_tensor * dst) {
    const struct ggml_hex_op_params p = ggml_hex_get_params(dst);
    struct ggml_tensor * const srcs[7] = { dst->src[1], dst->src[2], dst->src[3], dst->src[4], dst->src[5], dst->src[6], dst->src[7] };

    struct hex_attn a = {
        .cache    = make_cache(&p, srcs),
        .n_head   = (int32_t) dst->src[0]->ne[2],
        .scale    = p.scale,
        .max_bias = p.max_bias,
        .softcap  = p.softcap,
        .q        = plain(dst->src[0]),
        .mask     = plain(dst->src[8]),
        .sinks    = dst->src[9] ? dst->src[9]->data : NULL,
        .out      = dst->data,
    };
    if (p.n_heavy > 0) {
        const struct ggml_tensor * q = dst->src[0];
        a.mass = (float *) dst->data + dst->src[2]->ne[0]*q->ne[2]*q->ne[1]*q->ne[3];
    }
    return a;
}

static struct hex_commit make_commit(const struct ggml_tensor * dst) {
    const struct ggml_hex_op_params p = ggml_hex_get_params(dst);
    struct ggml_tensor * const srcs[7] = { dst->src[0], dst->src[1], dst->src[3], dst->src[4], dst->src[5], dst->src[6], dst->src[7] };

    return (struct hex_commit) {
        .cache = make_cache(&p, srcs),
        .mass  = p.n_heavy > 0 ? dst->src[2]->data : NULL,
    };
}

size_t ggml_hex_work_size(const struct ggml_tensor * op, int n_tasks) {
    GGML_ASSERT(ggml_hex_op_valid(op));
    if (op->op == GGML_OP_HEX_ATTN) {
        const struct hex_attn a = make_attn(op);
        const size_t fast = hex_attn_work(&a, n_tasks);
        const size_t ref  = hex_attn_ref_work(&a);
        return fast > ref ? fast : ref;
    }
    const struct hex_commit c = make_commit(op);
    return hex_commit_work(&c);
}

static void barrier(void * threadpool) {
    ggml_barrier(threadpool);
}

void ggml_compute_forward_hex_attn(const struct ggml_compute_params * params, struct ggml_tensor * dst) {
    GGML_ASSERT(ggml_hex_op_valid(dst));
    const struct hex_attn a = make_attn(dst);
    if (params->use_ref) {
        hex_attn_ref(&a, params->wdata, params->ith);
    } else {
        hex_attn_run(&a, params->wdata, params->ith, params->nth, barrier, params->threadpool);
    }
}

void ggml_compute_forward_hex_commit(const struct ggml_compute_params * params, struct ggml_tensor * dst) {
    GGML_ASSERT(ggml_hex_op_valid(dst));
    const struct hex_commit c = make_commit(dst);
    hex_commit_run(&c, params->wdata, params->ith, params->nth, barrier, params->threadpool);
}
