// The formulas of the backbone, in plain 32-bit integer arithmetic: included by hex_graph.c, the CPU kernels' hot loops
// and CUDA. See hex_graph.h for what they mean; nothing here checks the graph itself (hex_graph_valid does).
#pragma once

#include "hex_graph.h"
#include "hex_hd.h"

// Integer hash "lowbias32" of C. Wellons, https://nullprogram.com/blog/2018/07/31/ (public domain).
HEX_HD uint32_t hex_hash32(uint32_t x) {
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    x ^= x >> 16;
    return x;
}

// Keyed pseudo-random permutation of [0, n), n <= 2^30: a Feistel network over digits 0..m-1, m = ceil(sqrt(n)), with
// addition modulo m for the usual exclusive or (generalized Feistel of J. Black and P. Rogaway, "Ciphers with Arbitrary
// Finite Domains", 2002), and their cycle walking: a value in [n, m*m) is permuted again until it falls inside, rarely
// more than once. Six rounds: with four, small domains are visibly non-uniform (RATIONALE.md).
HEX_HD uint32_t hex_permute(uint32_t x, uint32_t n, uint32_t key) {
    uint32_t m = 1;
    while (m*m < n) {
        m++;
    }
    do {
        uint32_t l = x / m;
        uint32_t r = x % m;
        for (uint32_t round = 0; round < 6; round++) {
            const uint32_t f = (uint32_t) ((uint64_t) hex_hash32(key + (round << 28) + r) * m >> 32); // in [0, m)
            const uint32_t t = l + f;
            l = r;
            r = t < m ? t : t - m;
        }
        x = l*m + r;
    } while (x >= n);
    return x;
}

// Key of one block. Hashed twice, so that neighbouring seeds and blocks share nothing.
HEX_HD uint32_t hex_graph_key(const struct hex_graph * g, int32_t block) {
    return hex_hash32(hex_hash32(g->seed) + (uint32_t) block);
}

// Which of the block's `period` cells the pair refines. EXPANDER and CHANNELS: the permutation deals the P pairs out to
// P/d cells, d to each. RANDOM: an independent uniform choice, by the high word of a product. STRIDED: the same in
// every block.
HEX_HD int32_t hex_graph_offset(const struct hex_graph * g, int32_t pair, int32_t block) {
    if (g->kind == HEX_BACKBONE_STRIDED) {
        return pair % g->period;
    }
    const uint32_t key = hex_graph_key(g, block);
    if (g->kind == HEX_BACKBONE_RANDOM) {
        return (int32_t) ((uint64_t) hex_hash32(key + (uint32_t) pair) * (uint32_t) g->period >> 32);
    }
    return (int32_t) hex_permute((uint32_t) pair, (uint32_t) g->n_pairs, key) / g->degree;
}

// LOG. 2^(x / 2^16), linear between powers of two as the mantissa of a float is; x < 31 * 2^16. And its inverse.
HEX_HD int32_t hex_exp2_linear(int32_t x) {
    const uint64_t mantissa = ((uint64_t) 1 << 16) + ((uint32_t) x & 0xffff);
    return (int32_t) (mantissa << (x >> 16) >> 16);
}

HEX_HD int32_t hex_log2_linear(int32_t y) {
    int32_t e = 0;
    while (y >> e > 1) {
        e++;
    }
    return (e << 16) + (int32_t) (((uint64_t) (uint32_t) y << 16 >> e) - ((uint64_t) 1 << 16));
}

HEX_HD int32_t hex_graph_n_slots(const struct hex_graph * g) {
    return g->degree > 0 ? g->n_cells / g->period + (g->n_cells % g->period != 0) : 0;
}

// Cell of slot s of m over n cells: s + 2^(s*L/(m-1)) - 1 with 2^L = n - m + 1, the same for all pairs. The first slot
// is cell 0, the last is cell n-1 (in very long contexts a few cells before it), and steps of at least 1 grow
// geometrically: dense at the start, where instructions are. Spacing by recency would move with every token; a static
// rule cannot do it.
HEX_HD int32_t hex_graph_log_cell(const struct hex_graph * g, int32_t slot) {
    const int32_t m = hex_graph_n_slots(g);
    if (m < 2) {
        return slot;
    }
    const int64_t length = hex_log2_linear(g->n_cells - m + 1);
    return slot + hex_exp2_linear((int32_t) (length * slot / (m - 1))) - 1;
}

HEX_HD int32_t hex_graph_cell_impl(const struct hex_graph * g, int32_t pair, int32_t slot) {
    if (g->kind == HEX_BACKBONE_NONE || g->kind == HEX_BACKBONE_CHANNELS
        || pair < 0 || pair >= g->n_pairs || slot < 0 || slot >= hex_graph_n_slots(g)) {
        return -1;
    }
    return g->kind == HEX_BACKBONE_LOG ? hex_graph_log_cell(g, slot)
                                       : slot * g->period + hex_graph_offset(g, pair, slot);
}

HEX_HD int32_t hex_graph_slot_impl(const struct hex_graph * g, int32_t pair, int32_t cell) {
    if (g->kind == HEX_BACKBONE_NONE || g->kind == HEX_BACKBONE_CHANNELS
        || pair < 0 || pair >= g->n_pairs || cell < 0 || cell >= g->n_cells) {
        return -1;
    }
    int32_t slot = cell / g->period; // every kind but LOG has one slot per block
    if (g->kind == HEX_BACKBONE_LOG) {
        int32_t end = hex_graph_n_slots(g); // binary search for the last slot whose cell is not beyond `cell`
        slot = 0;
        while (end - slot > 1) {
            const int32_t mid = slot + (end - slot) / 2;
            if (hex_graph_log_cell(g, mid) <= cell) {
                slot = mid;
            } else {
                end = mid;
            }
        }
    }
    return hex_graph_cell_impl(g, pair, slot) == cell ? slot : -1;
}

HEX_HD bool hex_graph_channel_impl(const struct hex_graph * g, int32_t cell, int32_t channel) {
    if (g->kind != HEX_BACKBONE_CHANNELS
        || channel < 0 || channel >= g->n_pairs || cell < 0 || cell >= g->n_cells) {
        return false;
    }
    return hex_graph_offset(g, channel, cell / g->period) == cell % g->period;
}
