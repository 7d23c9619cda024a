#include "hex_ops.h"

#include "../core/hex_bytes.h"
#include "../core/hex_codec.h"
#include "../core/hex_graph_impl.h"
#include "hex_meta.h"
#include "hex_state.h"

#include "ggml-impl.h"

#include <string.h>

static_assert(sizeof(struct ggml_hex_op_params) <= GGML_MAX_OP_PARAMS, "hex op_params too large");

struct ggml_hex_op_params ggml_hex_get_params(const struct ggml_tensor * op) {
    struct ggml_hex_op_params p;
    memcpy(&p, op->op_params, sizeof(p));
    return p;
}

struct hex_graph ggml_hex_get_graph(const struct ggml_hex_op_params * p) {
    struct hex_graph g = {0};
    if (p->n_static > 0) {
        g.kind    = p->graph_kind;
        g.seed    = p->graph_seed;
        g.n_pairs = p->n_pairs;
        g.degree  = p->degree;
        g.period  = p->degree > 0 ? p->n_pairs/p->degree : 0;
        g.n_cells = p->n_ctx;
    }
    return g;
}

int64_t ggml_hex_mass_size(const struct ggml_hex_op_params * p, int64_t n_tps) {
    return p->n_heavy > 0 ? (int64_t) p->n_ring + 2*(int64_t) p->n_heavy + n_tps : 0;
}

struct ggml_tensor * ggml_hex_attn(
        struct ggml_context * ctx,
        struct ggml_tensor  * q,
        struct ggml_tensor  * k_cur,
        struct ggml_tensor  * v_cur,
        struct ggml_tensor  * k_base,
        struct ggml_tensor  * v_base,
        struct ggml_tensor  * pool,
        struct ggml_tensor  * state,
        struct ggml_tensor  * meta,
        struct ggml_tensor  * mask,
        struct ggml_tensor  * sinks,
        const struct ggml_hex_op_params * params) {
    const int64_t n_out  = v_cur->ne[0]*q->ne[2]*q->ne[1]*q->ne[3];
    const int64_t n_mass = ggml_hex_mass_size(params, q->ne[1])*k_cur->ne[1]*q->ne[3];

    struct ggml_tensor * result = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, n_out + (n_mass > 0 ? n_mass : 1));

    result->op     = GGML_OP_HEX_ATTN;
    result->src[0] = q;
    result->src[1] = k_cur;
    result->src[2] = v_cur;
    result->src[3] = k_base;
    result->src[4] = v_base;
    result->src[5] = pool;
    result->src[6] = state;
    result->src[7] = meta;
    result->src[8] = mask;
    result->src[9] = sinks;

    ggml_set_op_params(result, params, sizeof(*params));
    GGML_ASSERT(ggml_hex_op_valid(result));

    return result;
}

static int64_t hex_attn_n_out(const struct ggml_tensor * attn) {
    const struct ggml_tensor * q = attn->src[0];
    return attn->src[2]->ne[0]*q->ne[2]*q->ne[1]*q->ne[3];
}

struct ggml_tensor * ggml_hex_attn_out(struct ggml_context * ctx, struct ggml_tensor * attn) {
    const struct ggml_tensor * q = attn->src[0];
    const int64_t n_embd = attn->src[2]->ne[0]*q->ne[2];
    return ggml_view_2d(ctx, attn, n_embd, q->ne[1]*q->ne[3], n_embd*sizeof(float), 0);
}

struct ggml_tensor * ggml_hex_attn_mass(struct ggml_context * ctx, struct ggml_tensor * attn) {
    const int64_t n_out = hex_attn_n_out(attn);
    return ggml_view_1d(ctx, attn, attn->ne[0] - n_out, n_out*sizeof(float));
}

struct ggml_tensor * ggml_hex_commit(
        struct ggml_context * ctx,
        struct ggml_tensor  * k_cur,
        struct ggml_tensor  * v_cur,
        struct ggml_tensor  * mass,
        struct ggml_tensor  * k_base,
        struct ggml_tensor  * v_base,
        struct ggml_tensor  * pool,
        struct ggml_tensor  * state,
        struct ggml_tensor  * meta,
        const struct ggml_hex_op_params * params) {
    struct ggml_tensor * result = ggml_view_tensor(ctx, k_base);

    result->op     = GGML_OP_HEX_COMMIT;
    result->src[0] = k_cur;
    result->src[1] = v_cur;
    result->src[2] = mass;
    result->src[3] = k_base;
    result->src[4] = v_base;
    result->src[5] = pool;
    result->src[6] = state;
    result->src[7] = meta;

    ggml_set_op_params(result, params, sizeof(*params));
    GGML_ASSERT(ggml_hex_op_valid(result));

    return result;
}

// Elements of `type` side by side, and every row at an address that suits them.
static bool rows_of(const struct ggml_tensor * t, enum ggml_type type) {
    if (!t || t->type != type || t->nb[0] != ggml_type_size(type)) {
        return false;
    }
    for (int i = 0; i < GGML_MAX_DIMS; i++) {
        if (t->ne[i] < 0 || t->nb[i] % t->nb[0] != 0) {
            return false;
        }
    }
    return true;
}

static bool base_rows(const struct ggml_tensor * t, int64_t head, int64_t n_head_kv) {
    return t && hex_type_bits(t->type) > 0 && t->ne[0] == head && t->ne[1] == n_head_kv && t->ne[2] >= 0 && t->ne[3] > 0 &&
           t->nb[1] == ggml_row_size(t->type, head);
}

// The parts that both ops share.
static bool cache_valid(const struct ggml_hex_op_params * p,
        const struct ggml_tensor * k_cur,  const struct ggml_tensor * v_cur,
        const struct ggml_tensor * k_base, const struct ggml_tensor * v_base,
        const struct ggml_tensor * pool,   const struct ggml_tensor * state, const struct ggml_tensor * meta) {
    if (!rows_of(k_cur, GGML_TYPE_F32) || !rows_of(v_cur, GGML_TYPE_F32) || !rows_of(state, GGML_TYPE_I32) ||
        !rows_of(meta, GGML_TYPE_I32) || !k_base || !v_base) {
        return false;
    }

    const int64_t n_head_kv = k_cur->ne[1];
    const int64_t n_tokens  = k_cur->ne[2];
    const int64_t n_stream  = k_base->ne[3];

    if (k_cur->ne[0] < 1 || v_cur->ne[0] < 1 || n_head_kv < 1 || k_cur->ne[0] % HEX_BLOCK != 0 || v_cur->ne[0] % HEX_BLOCK != 0 || k_cur->ne[3] != 1 || v_cur->ne[3] != 1 ||
        v_cur->ne[1] != n_head_kv || v_cur->ne[2] != n_tokens || n_stream < 1 || n_tokens % n_stream != 0) {
        return false;
    }
    if (!base_rows(k_base, k_cur->ne[0], n_head_kv) || !base_rows(v_base, v_cur->ne[0], n_head_kv) ||
        v_base->ne[2] != k_base->ne[2] || v_base->ne[3] != n_stream || k_base->ne[2] > p->n_ctx) {
        return false;
    }

    if (p->n_ring < 0 || p->n_heavy < 0 || p->n_static < 0 || p->n_mean < 0 || p->n_ctx < 1 || p->half_life < 1 || !(p->unbias >= 0 && p->unbias <= 1) ||
        p->n_ctx > (1 << 30) || p->n_ring > p->n_ctx || p->n_heavy > p->n_ctx || n_tokens/n_stream > (1 << 30)) {
        return false;
    }
    const struct hex_graph graph = ggml_hex_get_graph(p);
    if (p->n_static > 0 && (!hex_graph_valid(&graph) || p->n_static != hex_graph_n_slots(&graph))) {
        return false;
    }
    if (p->n_static > 0 && graph.kind == HEX_BACKBONE_CHANNELS) {
        if (p->n_pairs != HEX_BLOCK || p->refine != HEX_REFINE_F16) {
            return false;
        }
    } else if (p->n_static > 0 && (p->pair0 < 0 || p->pair0 > p->n_pairs - n_head_kv)) {
        return false;
    }

    const int64_t n_slots = (int64_t) p->n_ring + p->n_heavy + p->n_static;
    if (n_slots > 0) {
        const size_t slot_size = hex_slot_size((enum hex_refine) p->refine, k_cur->ne[0], v_cur->ne[0]);
        if (slot_size == 0 || !rows_of(pool, GGML_TYPE_I8) || (size_t) pool->ne[0] != slot_size ||
            pool->ne[1] != n_slots || pool->nb[1] != slot_size || pool->ne[2] != n_head_kv || pool->ne[3] != n_stream) {
            return false;
        }
    }

    return (size_t) state->ne[0] == hex_state_size(k_cur->ne[0], p->n_ring, p->n_heavy) &&
           state->ne[1] == n_head_kv && state->ne[2] == n_stream && state->ne[3] == 1 &&
           (size_t) meta->ne[0] == hex_meta_words(n_tokens/n_stream, p->n_ring, p->n_ctx) && meta->ne[1] == n_stream &&
           meta->ne[2] == 1 && meta->ne[3] == 1;
}

static bool attn_valid(const struct ggml_tensor * op, const struct ggml_hex_op_params * p) {
    const struct ggml_tensor * q     = op->src[0];
    const struct ggml_tensor * k_cur = op->src[1];
    const struct ggml_tensor * mask  = op->src[8];
    const struct ggml_tensor * sinks = op->src[9];

    if (!rows_of(q, GGML_TYPE_F32) || !cache_valid(p, k_cur, op->src[2], op->src[3], op->src[4], op->src[5], op->src[6], op->src[7])) {
        return false;
    }
    if (q->ne[0] != k_cur->ne[0] || q->ne[2] % k_cur->ne[1] != 0 || q->ne[3] != op->src[3]->ne[3] ||
        q->ne[1]*q->ne[3] != k_cur->ne[2]) {
        return false;
    }
    if (mask && (!rows_of(mask, GGML_TYPE_F16) || mask->ne[0] < op->src[3]->ne[2] ||
                 mask->ne[1] < q->ne[1] || mask->ne[2] != 1 || mask->ne[3] != q->ne[3])) {
        return false;
    }
    if (sinks && (!rows_of(sinks, GGML_TYPE_F32) || sinks->ne[0] != q->ne[2] || !ggml_is_vector(sinks))) {
        return false;
    }
    const int64_t n_mass = ggml_hex_mass_size(p, q->ne[1])*k_cur->ne[1]*q->ne[3];
    return rows_of(op, GGML_TYPE_F32) && ggml_is_vector(op) && op->ne[0] == hex_attn_n_out(op) + (n_mass > 0 ? n_mass : 1);
}

static bool commit_valid(const struct ggml_tensor * op, const struct ggml_hex_op_params * p) {
    const struct ggml_tensor * k_cur = op->src[0];
    const struct ggml_tensor * mass  = op->src[2];

    if (!cache_valid(p, k_cur, op->src[1], op->src[3], op->src[4], op->src[5], op->src[6], op->src[7])) {
        return false;
    }
    const int64_t n_stream = op->src[3]->ne[3];
    const int64_t n_mass   = ggml_hex_mass_size(p, k_cur->ne[2]/n_stream)*k_cur->ne[1]*n_stream;
    return rows_of(mass, GGML_TYPE_F32) && ggml_is_vector(mass) && mass->ne[0] >= n_mass;
}

bool ggml_hex_op_valid(const struct ggml_tensor * op) {
    const struct ggml_hex_op_params p = ggml_hex_get_params(op);

    return op->op == GGML_OP_HEX_ATTN ? attn_valid(op, &p) : commit_valid(op, &p);
}
