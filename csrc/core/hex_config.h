// Configuration of a HEX cache: plain data, validated here, used by every layer above.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Codec of the residual that a refined cell holds on top of its base code.
enum hex_refine {
    HEX_REFINE_NONE = 0,
    HEX_REFINE_HEX1 = 1,
    HEX_REFINE_HEX2 = 2,
    HEX_REFINE_HEX3 = 3,
    HEX_REFINE_HEX4 = 4,
    HEX_REFINE_Q8_0 = 8,
    HEX_REFINE_F16  = 16,
};

// Rule that chooses the static backbone. All but EXPANDER and NONE exist for comparison at equal bytes.
enum hex_backbone {
    HEX_BACKBONE_NONE     = 0,
    HEX_BACKBONE_EXPANDER = 1,
    HEX_BACKBONE_RANDOM   = 2,
    HEX_BACKBONE_STRIDED  = 3,
    HEX_BACKBONE_LOG      = 4, // log-spaced cells
    HEX_BACKBONE_CHANNELS = 5, // token x channel mask, the paper's own reading
};

// All fields are plain values; a zeroed struct is a disabled (stock) cache.
struct hex_params {
    bool              enabled;
    int32_t           base_k;        // bits of the K base code, 1..4
    int32_t           base_v;        // bits of the V base code, 1..4
    enum hex_refine   refine;        // residual codec
    int32_t           n_sink;        // first positions of each sequence, always refined
    int32_t           n_recent;      // most recent tokens of each sequence; -1 = with the sinks, 1/16 of the context, 32..256
    float             heavy;         // share of the context held by heavy hitters, 0..1
    float             backbone;      // share of the context held by the backbone, 0..1
    enum hex_backbone backbone_kind;
    uint32_t          seed;          // of the backbone
    int32_t           n_mean;        // rows whose mean centres K, 0 = no centring
    int32_t           half_life;     // of heavy-hitter scores, in queries
    float             unbias;        // share of the biases of coding noise, on logits and on V, that is taken off, 0..1
};

// Fills *p from a preset: "off", "tiny", "compact", "balanced", "quality", "paper".
// Returns false for an unknown name. hex_preset_name(i) lists them, NULL after the last.
bool         hex_params_preset(struct hex_params * p, const char * name);
const char * hex_preset_name(int i);

// Names as the command line spells them; parsing is exact. Return false / NULL when unknown.
bool         hex_refine_parse  (const char * name, enum hex_refine * out);
const char * hex_refine_name   (enum hex_refine r);
bool         hex_backbone_parse(const char * name, enum hex_backbone * out);
const char * hex_backbone_name (enum hex_backbone k);

// Checks every field; on failure writes one sentence (value, allowed range, remedy) to err.
bool hex_params_validate(const struct hex_params * p, char * err, size_t err_size);

// The plan: params resolved for one context. Slots are per (layer, KV head) and per stream.
struct hex_plan {
    int32_t n_ctx;      // cells per stream
    int32_t n_ring_seq; // ring slots of one sequence: n_sink + n_recent
    int32_t n_ring;     // ring slots of a stream: n_ring_seq * sequences in the stream, at most n_ctx
    int32_t n_sink;
    int32_t n_recent;
    int32_t n_heavy;    // heavy * n_ctx, at most what ring and backbone leave
    int32_t degree;     // d: pairs that refine a cell, 0 = no backbone; CHANNELS: channels kept of every 64
    int32_t period;     // cells per block of the backbone graph: n_pairs / d; CHANNELS: 64 / d
    int32_t n_static;   // static slots: ceil(n_ctx / period), 0 without backbone; CHANNELS: slots for the kept channels
                        // of a block of cells, so that bytes are comparable
    int32_t n_slots;    // n_ring + n_heavy + n_static
};

// n_pairs = layers x KV heads of the cache; n_seq = sequences that share one stream (an automatic n_recent divides the
// context among them). The degree is the divisor of n_pairs nearest to backbone * n_pairs. Without a residual codec
// there are no slots at all. Errors as hex_params_validate; more slots than cells are clamped, not refused.
bool hex_plan_make(struct hex_plan * plan, const struct hex_params * p,
                   int32_t n_ctx, int32_t n_seq, int32_t n_pairs, char * err, size_t err_size);

#ifdef __cplusplus
}
#endif
