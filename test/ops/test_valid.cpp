// ggml_hex_op_valid: what the ops are given is not trusted. A good op passes; an op with one thing wrong does not.
#include "core/check.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow" // ggml-backend.h
#include "ggml/hex_meta.h"
#include "ggml/hex_ops.h"
#include "ggml/hex_state.h"

#include "core/hex_bytes.h"
#include "ggml.h"
#pragma GCC diagnostic pop

#include <climits>
#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

enum { N_STREAM = 2, N_HEAD_KV = 2, GROUP = 2, N_TPS = 3, N_KV = 50, N_CTX = 70 };

struct ops {
    struct ggml_context * ctx;
    struct ggml_hex_op_params p;
    struct ggml_tensor * attn, * commit;

    explicit ops(bool channels) {
        ctx = ggml_init({ 4u << 20, nullptr, true });
        p = {};
        p.scale      = 0.1f;
        p.refine     = channels ? HEX_REFINE_F16 : HEX_REFINE_HEX4;
        p.n_ring     = 5;
        p.n_heavy    = 7;
        p.n_mean     = 8;
        p.half_life  = 64;
        p.unbias     = 1;
        p.n_ctx      = N_CTX;
        p.graph_kind = channels ? HEX_BACKBONE_CHANNELS : HEX_BACKBONE_EXPANDER;
        p.n_pairs    = channels ? 64 : 12;
        p.degree     = channels ? 8 : 2;
        p.pair0      = 4;
        const int period = p.n_pairs/p.degree;
        p.n_static   = (N_CTX + period - 1)/period;
        const int n_slots = p.n_ring + p.n_heavy + p.n_static;

        struct ggml_tensor * q     = ggml_permute(ctx, ggml_new_tensor_4d(ctx, GGML_TYPE_F32, 128, N_HEAD_KV*GROUP, N_TPS, N_STREAM), 0, 2, 1, 3);
        struct ggml_tensor * k     = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, 128, N_HEAD_KV, N_TPS*N_STREAM);
        struct ggml_tensor * v     = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, 64, N_HEAD_KV, N_TPS*N_STREAM);
        struct ggml_tensor * kb    = ggml_new_tensor_4d(ctx, GGML_TYPE_HEX3, 128, N_HEAD_KV, N_KV, N_STREAM);
        struct ggml_tensor * vb    = ggml_new_tensor_4d(ctx, GGML_TYPE_HEX2, 64, N_HEAD_KV, N_KV, N_STREAM);
        struct ggml_tensor * pool  = ggml_new_tensor_4d(ctx, GGML_TYPE_I8, (int64_t) hex_slot_size((enum hex_refine) p.refine, 128, 64), n_slots, N_HEAD_KV, N_STREAM);
        struct ggml_tensor * state = ggml_new_tensor_3d(ctx, GGML_TYPE_I32, (int64_t) hex_state_size(128, p.n_ring, p.n_heavy), N_HEAD_KV, N_STREAM);
        struct ggml_tensor * meta  = ggml_new_tensor_2d(ctx, GGML_TYPE_I32, (int64_t) hex_meta_words(N_TPS, p.n_ring, N_CTX), N_STREAM);
        struct ggml_tensor * mask  = ggml_new_tensor_4d(ctx, GGML_TYPE_F16, N_KV, N_TPS, 1, N_STREAM);
        struct ggml_tensor * sinks = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, N_HEAD_KV*GROUP);
        attn   = ggml_hex_attn(ctx, q, k, v, kb, vb, pool, state, meta, mask, sinks, &p);
        commit = ggml_hex_commit(ctx, k, v, ggml_hex_attn_mass(ctx, attn), kb, vb, pool, state, meta, &p);
    }
    ~ops() { ggml_free(ctx); }
};

// One wrong thing, tried on both ops where both have it.
struct flaw {
    const char * what;
    std::function<void(struct ggml_hex_op_params & p)> params;
    int src; // of HEX_ATTN; -1: none, -2: the op itself
    std::function<void(struct ggml_tensor * t)> change; // NULL: the source is missing
};

static void set_params(struct ggml_tensor * op, const struct ggml_hex_op_params & p) {
    memcpy(op->op_params, &p, sizeof(p));
}

// Source of HEX_COMMIT that is source i of HEX_ATTN, -1: it has none.
static int commit_src(int i) {
    static const int of[10] = { -1, 0, 1, 3, 4, 5, 6, 7, -1, -1 };
    return of[i];
}

static bool refused(struct ggml_tensor * op, const flaw & f, int src, const struct ggml_hex_op_params & good) {
    struct ggml_hex_op_params p = good;
    if (f.params) {
        f.params(p);
        set_params(op, p);
    }
    struct ggml_tensor * t = src >= 0 ? op->src[src] : src == -2 ? op : nullptr;
    const struct ggml_tensor copy = t ? *t : *op;
    if (t && f.change) {
        f.change(t);
    } else if (t) {
        op->src[src] = nullptr;
    }
    const bool valid = ggml_hex_op_valid(op);
    if (t) {
        *t = copy;
        if (src >= 0) {
            op->src[src] = t;
        }
    }
    set_params(op, good);
    return !valid;
}

typedef struct ggml_hex_op_params params;
typedef struct ggml_tensor tensor;

static const flaw flaws[] = {
    { "n_ring",     [](params & p) { p.n_ring  = -1; }, -1, {} },
    { "n_ring",     [](params & p) { p.n_ring += 1;  }, -1, {} },
    { "n_ring",     [](params & p) { p.n_ring  = N_CTX + 1; }, -1, {} },
    { "n_ring",     [](params & p) { p.n_ring  = INT_MAX; }, -1, {} },
    { "n_heavy",    [](params & p) { p.n_heavy = -1; }, -1, {} },
    { "n_heavy",    [](params & p) { p.n_heavy = 0;  }, -1, {} },
    { "n_heavy",    [](params & p) { p.n_heavy = INT_MAX; p.n_ring = INT_MAX; }, -1, {} },
    { "ring and heavy", [](params & p) { p.n_heavy--; p.n_ring++; }, -1, {} },
    { "n_static",   [](params & p) { p.n_static -= 1; }, -1, {} },
    { "n_static",   [](params & p) { p.n_static  = -1; }, -1, {} },
    { "static for heavy", [](params & p) { p.n_static -= 1; p.n_heavy += 1; }, -1, {} },
    { "n_mean",     [](params & p) { p.n_mean    = -1; }, -1, {} },
    { "half_life",  [](params & p) { p.half_life = 0; }, -1, {} },
    { "unbias",     [](params & p) { p.unbias = -0.1f; }, -1, {} },
    { "unbias",     [](params & p) { p.unbias = 1.1f; }, -1, {} },
    { "unbias",     [](params & p) { p.unbias = std::nanf(""); }, -1, {} },
    { "n_ctx",      [](params & p) { p.n_ctx = N_KV - 1; }, -1, {} },
    { "n_ctx",      [](params & p) { p.n_ctx = 0; }, -1, {} },
    { "n_ctx",      [](params & p) { p.n_ctx = INT_MAX; }, -1, {} },
    { "refine",     [](params & p) { p.refine = HEX_REFINE_NONE; }, -1, {} },
    { "refine",     [](params & p) { p.refine = HEX_REFINE_HEX3; }, -1, {} },
    { "refine",     [](params & p) { p.refine = 7; }, -1, {} },
    { "graph_kind", [](params & p) { p.graph_kind = HEX_BACKBONE_NONE; }, -1, {} },
    { "graph_kind", [](params & p) { p.graph_kind = 99; }, -1, {} },
    { "n_pairs",    [](params & p) { p.n_pairs = 0; }, -1, {} },
    { "n_pairs",    [](params & p) { p.n_pairs = p.degree; }, -1, {} },
    { "n_pairs",    [](params & p) { p.n_pairs += 1; }, -1, {} },
    { "degree",     [](params & p) { p.degree = 0; }, -1, {} },
    { "degree",     [](params & p) { p.degree = -1; }, -1, {} },

    { "no k_cur",   {}, 1, {} },
    { "no v_cur",   {}, 2, {} },
    { "no k_base",  {}, 3, {} },
    { "no v_base",  {}, 4, {} },
    { "no pool",    {}, 5, {} },
    { "no state",   {}, 6, {} },
    { "no meta",    {}, 7, {} },
    { "no q",       {}, 0, {} },

    { "type of q",      {}, 0, [](tensor * t) { t->type = GGML_TYPE_F16; } },
    { "type of k_cur",  {}, 1, [](tensor * t) { t->type = GGML_TYPE_F16; } },
    { "type of v_cur",  {}, 2, [](tensor * t) { t->type = GGML_TYPE_I32; } },
    { "type of k_base", {}, 3, [](tensor * t) { t->type = GGML_TYPE_Q8_0; } },
    { "type of k_base", {}, 3, [](tensor * t) { t->type = GGML_TYPE_HEX4; } },
    { "type of v_base", {}, 4, [](tensor * t) { t->type = GGML_TYPE_F16; } },
    { "type of pool",   {}, 5, [](tensor * t) { t->type = GGML_TYPE_I32; } },
    { "type of state",  {}, 6, [](tensor * t) { t->type = GGML_TYPE_F32; } },
    { "type of meta",   {}, 7, [](tensor * t) { t->type = GGML_TYPE_I64; } },
    { "type of mask",   {}, 8, [](tensor * t) { t->type = GGML_TYPE_F32; } },
    { "type of sinks",  {}, 9, [](tensor * t) { t->type = GGML_TYPE_F16; } },

    { "gaps in q",      {}, 0, [](tensor * t) { t->nb[0] = 8; } },
    { "gaps in k_cur",  {}, 1, [](tensor * t) { t->nb[0] = 8; } },
    { "gaps in k_base", {}, 3, [](tensor * t) { t->nb[1] += 26; } },
    { "gaps in pool",   {}, 5, [](tensor * t) { t->nb[1] += 2; } },
    { "gaps in state",  {}, 6, [](tensor * t) { t->nb[0] = 8; } },
    { "odd rows of q",     {}, 0, [](tensor * t) { t->nb[1] += 1; } },
    { "odd rows of v_cur", {}, 2, [](tensor * t) { t->nb[2] += 2; } },
    { "odd rows of state", {}, 6, [](tensor * t) { t->nb[1] += 1; } },
    { "odd rows of meta",  {}, 7, [](tensor * t) { t->nb[1] += 3; } },
    { "odd rows of mask",  {}, 8, [](tensor * t) { t->nb[1] += 1; } },

    { "mask of too few cells",   {}, 8, [](tensor * t) { t->ne[0] = N_KV - 1; } },
    { "mask of too few rows",    {}, 8, [](tensor * t) { t->ne[1] = N_TPS - 1; } },
    { "mask per head",           {}, 8, [](tensor * t) { t->ne[2] = N_HEAD_KV; } },
    { "mask of one stream",      {}, 8, [](tensor * t) { t->ne[3] = 1; } },
    { "too few sinks",           {}, 9, [](tensor * t) { t->ne[0] = 1; } },
    { "heads that do not divide", {}, 0, [](tensor * t) { t->ne[2] = 3; } },
    { "result too short",        {}, -2, [](tensor * t) { t->ne[0] -= 1; } },
};

int main() {
    int n = 0;
    for (const bool channels : { false, true }) {
        ops o(channels);
        check(ggml_hex_op_valid(o.attn) && ggml_hex_op_valid(o.commit), "good ops are valid, %s", channels ? "channels" : "expander");
        for (const flaw & f : flaws) {
            n++;
            if (!refused(o.attn, f, f.src, o.p)) {
                check(false, "%s: HEX_ATTN is valid", f.what);
            }
            const int src = f.src >= 0 ? commit_src(f.src) : f.src;
            if (f.src != -2 && (f.src < 0 || src >= 0) && !refused(o.commit, f, src, o.p)) {
                check(false, "%s: HEX_COMMIT is valid", f.what);
            }
        }
        // every extent of every source, one too many, none, negative
        for (struct ggml_tensor * op : { o.attn, o.commit }) {
            for (int i = 0; i < 10 && op->src[i]; i++) {
                for (int d = 0; d < 4; d++) {
                    for (const int64_t ne : { (int64_t) -64, (int64_t) 0, op->src[i]->ne[d] + 1, op->src[i]->ne[d] + 64, (int64_t) 1 << 40 }) {
                        const bool is_mask = op == o.attn && i == 8, is_mass = op == o.commit && i == 2;
                        if ((is_mask && d < 2 && ne > 0) || (is_mass && d == 0 && ne > 0)) {
                            continue; // more of them is no harm
                        }
                        const flaw f = { "extent", {}, i, [&](tensor * t) { t->ne[d] = ne; } };
                        n++;
                        if (!refused(op, f, i, o.p)) {
                            check(false, "%s with ne[%d] = %lld of source %d is valid", ggml_op_name(op->op), d, (long long) ne, i);
                        }
                    }
                }
            }
        }
    }
    {
        ops o(false);
        const flaw pair[] = {
            { "pair0", [](params & p) { p.pair0 = -1; }, -1, {} },
            { "pair0", [](params & p) { p.pair0 = p.n_pairs - 1; }, -1, {} },
        };
        check(refused(o.attn, pair[0], -1, o.p) && refused(o.attn, pair[1], -1, o.p), "pair0 out of range is refused");
        ops c(true);
        const flaw pairs = { "n_pairs", [](params & p) { p.n_pairs = 128; p.degree = 16; }, -1, {} };
        check(refused(c.attn, pairs, -1, c.p), "channels of another number than 64 are refused");
    }
    check(true, "%d flaws tried", n);
    return check_exit_code();
}
