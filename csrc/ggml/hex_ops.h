// The two ggml ops of a HEX cache: constructors, parameters, checks.
#pragma once

#include "../core/hex_graph.h"

#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

// Bits of a base type: 1..4 for GGML_TYPE_HEX1..GGML_TYPE_HEX4, 0 for any other type.
static inline int hex_type_bits(enum ggml_type type) {
    return type >= GGML_TYPE_HEX1 && type <= GGML_TYPE_HEX4 ? (int) type - (int) GGML_TYPE_HEX1 + 1 : 0;
}

// op_params of both ops: 16 words, all there are.
struct ggml_hex_op_params {
    float    scale;    // of the logits, as in ggml_flash_attn_ext
    float    max_bias; // ALiBi
    float    softcap;  // logit soft-cap, 0 = none
    int32_t  refine;   // enum hex_refine
    int32_t  n_ring;   // slots per stream and KV head
    int32_t  n_heavy;
    int32_t  n_static;
    int32_t  n_mean;   // rows whose mean centres K, 0 = none
    int32_t  half_life;// of scores, in queries
    int32_t  n_ctx;    // cells per stream
    int32_t  graph_kind;
    uint32_t graph_seed;
    int32_t  n_pairs;  // of the backbone graph
    int32_t  degree;
    int32_t  pair0;    // pair of KV head 0 of this layer
    float    unbias;   // share of the biases that coding noise causes which is taken off, 0..1
};

// Attention over the cache as it was, plus the ubatch's own rows in full precision. Writes no source.
//
//   q       F32 [head_k, n_tps, n_head, n_stream]        permuted as for ggml_flash_attn_ext
//   k_cur   F32 [head_k, n_head_kv, n_tps*n_stream]      rows of the ubatch, rotated like the cache
//   v_cur   F32 [head_v, n_head_kv, n_tps*n_stream]
//   k_base  hexN [head_k, n_head_kv, n_kv, n_stream]     cells
//   v_base  hexN [head_v, n_head_kv, n_kv, n_stream]
//   pool    I8  [slot_size, n_slots, n_head_kv, n_stream] residuals: K row, then V row; NULL without slots
//   state   I32 [words, n_head_kv, n_stream]              hex_state.h
//   meta    I32 [words, n_stream]                         hex_meta.h
//   mask    F16 [n_kv, n_tps, 1, n_stream] or NULL
//   sinks   F32 [n_head] or NULL
//
// The logit of a cell without residual has the error scale*(q . e), e the coding error of its key, which has mean zero; the
// mean of its exponential is exp(scale^2 |q|^2 var(e)/2). That exponent, times `unbias`, is added before the soft-cap,
// with var(e) = hex_code_noise*d^2 in each block of scale d. Without it the cells that are not refined get too little weight.
//
// Result: F32, 1-D: the attention output [head_v, n_head, n_tps*n_stream], then the mass (see ggml_hex_attn_mass).
GGML_API struct ggml_tensor * ggml_hex_attn(
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
        const struct ggml_hex_op_params * params);

// View of the attention output, F32 [head_v*n_head, n_tokens].
GGML_API struct ggml_tensor * ggml_hex_attn_out(struct ggml_context * ctx, struct ggml_tensor * attn);

// View of the attention mass, F32, 1-D. Per stream and KV head: mass of each ring slot, each heavy slot, each row of
// the ubatch (summed over the ubatch's queries and the query heads of the group), then for each heavy slot the number
// of queries that could see it. Only with n_heavy > 0; one unused element otherwise.
GGML_API struct ggml_tensor * ggml_hex_attn_mass(struct ggml_context * ctx, struct ggml_tensor * attn);

// Stores the ubatch: base codes (of V with hex_unbias), residuals, scores, map, means. Sources as above, with mass from ggml_hex_attn_mass
// (it makes commit run after attention). Returns a view of k_base, as ggml_set_rows.
GGML_API struct ggml_tensor * ggml_hex_commit(
        struct ggml_context * ctx,
        struct ggml_tensor  * k_cur,
        struct ggml_tensor  * v_cur,
        struct ggml_tensor  * mass,
        struct ggml_tensor  * k_base,
        struct ggml_tensor  * v_base,
        struct ggml_tensor  * pool,
        struct ggml_tensor  * state,
        struct ggml_tensor  * meta,
        const struct ggml_hex_op_params * params);

GGML_API struct ggml_hex_op_params ggml_hex_get_params(const struct ggml_tensor * op);

// The backbone graph of the parameters; all zero without static slots.
GGML_API struct hex_graph ggml_hex_get_graph(const struct ggml_hex_op_params * params);

// Mass floats of one (stream, KV head).
GGML_API int64_t ggml_hex_mass_size(const struct ggml_hex_op_params * params, int64_t n_tps);

// Checks types, shapes, strides and parameters of a HEX op; false means it must not run.
// Graphs that come over RPC and hand-made ones are not trusted.
GGML_API bool ggml_hex_op_valid(const struct ggml_tensor * op);

#ifdef __cplusplus
}
#endif
