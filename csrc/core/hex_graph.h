// The backbone: which (layer, KV head) pairs refine which cells, and in which static slot. No stored index: every
// answer is computed from the fields below, identically in C and CUDA (formulas: hex_graph_impl.h).
#pragma once

#include "hex_config.h"

#ifdef __cplusplus
extern "C" {
#endif

struct hex_graph {
    int32_t  kind;    // enum hex_backbone
    uint32_t seed;    // of the accepted candidate
    int32_t  n_pairs; // P = layers x KV heads; for CHANNELS the channels of a row, its head size
    int32_t  degree;  // d: pairs per cell (channels per cell); divides n_pairs
    int32_t  period;  // P / d: cells per block; in every block each pair refines exactly one cell (all kinds but LOG)
    int32_t  n_cells; // of a stream: the range of LOG, and the limit of hostile indices
};

// Cell that static slot `slot` of pair `pair` refines; slot s covers cells [s*period, (s+1)*period), except for LOG.
// The cell can be >= n_cells in the last, partial block: such a slot stays empty.
// -1 for a pair or slot out of range, and always for NONE and CHANNELS, whose cells have no slots of their own.
int32_t hex_graph_cell(const struct hex_graph * g, int32_t pair, int32_t slot);

// Static slot of `cell` in pair `pair`, or -1 when the pair does not refine it or an index is out of range.
int32_t hex_graph_slot(const struct hex_graph * g, int32_t pair, int32_t cell);

// CHANNELS: whether `cell` keeps `channel` in high precision. Each cell keeps d channels; in every block of P/d cells
// each channel is kept once. False for the other kinds and for indices out of range.
bool hex_graph_channel(const struct hex_graph * g, int32_t cell, int32_t channel);

// Whether the fields fit each other, for graphs that come from op_params or a state file. The calls above are safe
// (no overflow, no division by zero) for every graph that passes, whatever the indices.
bool hex_graph_valid(const struct hex_graph * g);

// The certificate of the cells x pairs graph over the whole blocks of n_cells cells.
struct hex_certificate {
    double sigma2;    // second singular value of the normalised biadjacency matrix
    double ramanujan; // (sqrt(dL-1) + sqrt(dR-1)) / sqrt(dL*dR), dL = degree, dR = n_cells / period
    double factor;    // sigma2 / ramanujan
};

// Largest accepted factor: 1, so every accepted graph is a Ramanujan graph. Random candidates of 90 to 640 pairs
// measure 0.88 to 1.00, the sparsest the highest; about one in a hundred misses (table: RATIONALE.md).
#define HEX_CERTIFICATE_FACTOR 1.00
#define HEX_CERTIFICATE_MAX_PAIRS 2048 // 2.5 s of one core; the cost is cubic

// Computes it, exactly to rounding: all eigenvalues are accounted for, nothing depends on a start vector.
// False when there is none: NONE and LOG (not biregular), fewer than two whole blocks, no memory.
bool hex_graph_certify(const struct hex_graph * g, int32_t n_cells, struct hex_certificate * out);

// Builds the graph: for EXPANDER and CHANNELS, tries seed, seed+1, ... until the certificate over n_cells holds (at
// most 64 tries). Two cases pass without one: fewer than two whole blocks (*cert is zero then), and degree 1, where
// every pair is alone with its cells and sigma2 is 1 by construction. For the other kinds *cert is informative.
// cert may be NULL.
bool hex_graph_make(struct hex_graph * g, enum hex_backbone kind, uint32_t seed, int32_t n_pairs, int32_t degree,
                    int32_t n_cells, struct hex_certificate * cert, char * err, size_t err_size);

#ifdef __cplusplus
}
#endif
