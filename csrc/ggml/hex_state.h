// Layout of the state of one (stream, KV head): 32-bit words, integers and floats side by side, so that one tensor
// holds all of it and a state file needs nothing else. Plain C: used by the byte accounting, the ops and CUDA alike.
//
//   word                    type   what
//   0                       int32  rows seen so far, until the mean freezes
//   1                       int32  1 once the mean is frozen
//   2                       float  [head_k]   sum of the K rows seen, then their mean
//   and with heavy hitters only:
//   2 + head_k              float  [n_ring]   scores of the ring slots
//     + n_ring              int32  [n_heavy]  cell + 1 of each heavy slot, 0 = empty
//     + n_heavy             float  [n_heavy]  their scores
#pragma once

#include "../core/hex_hd.h"

#include <stddef.h>
#include <stdint.h>

#define HEX_STATE_ROWS   0
#define HEX_STATE_FROZEN 1
#define HEX_STATE_MEAN   2

HEX_HD size_t hex_state_ring_score(int32_t head_k) {
    return HEX_STATE_MEAN + (size_t) head_k;
}

HEX_HD size_t hex_state_heavy_cell(int32_t head_k, int32_t n_ring) {
    return hex_state_ring_score(head_k) + (size_t) n_ring;
}

HEX_HD size_t hex_state_heavy_score(int32_t head_k, int32_t n_ring, int32_t n_heavy) {
    return hex_state_heavy_cell(head_k, n_ring) + (size_t) n_heavy;
}

// Without heavy hitters nothing competes, and no score is kept.
HEX_HD size_t hex_state_size(int32_t head_k, int32_t n_ring, int32_t n_heavy) {
    return n_heavy > 0 ? hex_state_heavy_score(head_k, n_ring, n_heavy) + (size_t) n_heavy
                       : hex_state_ring_score(head_k);
}
