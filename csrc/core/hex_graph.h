// The backbone: which (layer, KV head) pairs refine which cells, and in which static slot. No stored index: every
// answer is computed from (kind, seed, n_pairs, degree), identically in C and CUDA.
#pragma once

#include "hex_config.h"

#ifdef __cplusplus
extern "C" {
#endif

struct hex_graph {
    int32_t  kind;    // enum hex_backbone
    uint32_t seed;    // of the accepted candidate
    int32_t  n_pairs; // P = layers x KV heads
    int32_t  degree;  // d: pairs per cell; divides n_pairs
    int32_t  period;  // P / d: cells per block; in every block each pair refines exactly one cell (expander)
};

// Cell that static slot `slot` of pair `pair` refines; slot s covers cells [s*period, (s+1)*period).
// The cell can be >= n_ctx in the last, partial block: such a slot stays empty. (0 <= pair < n_pairs.)
int32_t hex_graph_cell(const struct hex_graph * g, int32_t pair, int32_t slot);

// Static slot of `cell` in pair `pair`, or -1 when the pair does not refine it.
static inline int32_t hex_graph_slot(const struct hex_graph * g, int32_t pair, int32_t cell) {
    const int32_t slot = cell / g->period;
    return hex_graph_cell(g, pair, slot) == cell ? slot : -1;
}

// The certificate of the cells x pairs graph over n_cells cells.
struct hex_certificate {
    double sigma2;    // second singular value of the normalised biadjacency matrix
    double ramanujan; // (sqrt(dL-1) + sqrt(dR-1)) / sqrt(dL*dR), dL = degree, dR = n_cells / period
    double factor;    // sigma2 / ramanujan
};
#define HEX_CERTIFICATE_FACTOR 1.10 // largest accepted factor

bool hex_graph_certify(const struct hex_graph * g, int32_t n_cells, struct hex_certificate * out);

// Builds the graph: for EXPANDER, tries seed, seed+1, ... until the certificate over n_cells holds (at most 64 tries).
bool hex_graph_make(struct hex_graph * g, enum hex_backbone kind, uint32_t seed, int32_t n_pairs, int32_t degree,
                    int32_t n_cells, struct hex_certificate * cert, char * err, size_t err_size);

#ifdef __cplusplus
}
#endif
