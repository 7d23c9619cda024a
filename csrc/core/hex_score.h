// The arithmetic of scores that has to give the same bits on the CPU and in CUDA: plain float operations, one rounding
// each. Files that include it are compiled without contraction and without fast-math.
#pragma once

#include "hex_hd.h"

#include <stdint.h>
#include <string.h>

// A score that is not finite would stay so, and nothing competes with it.
HEX_HD float hex_finite_or_0(float x) {
    return x - x == 0.0f ? x : 0.0f;
}

// 2^-x for x >= 0, to 2e-7; 0 from 126 on. The libraries' exp2f differ in the last bit.
HEX_HD float hex_exp2_minus(float x) {
    if (!(x < 126.0f)) {
        return 0.0f;
    }
    const int32_t n = (int32_t) x;
    const float   f = (x - (float) n)*-0.69314718056f; // 2^-frac(x) = e^f, f in (-ln 2, 0]
    float y = 1.0f/5040;
    y = y*f + 1.0f/720;
    y = y*f + 1.0f/120;
    y = y*f + 1.0f/24;
    y = y*f + 1.0f/6;
    y = y*f + 0.5f;
    y = y*f + 1.0f;
    y = y*f + 1.0f;
    const uint32_t bits = (uint32_t) (127 - n) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof(scale));
    return y*scale;
}

// What is left of a score after n_seen > 0 queries.
HEX_HD float hex_score_keep(float n_seen, int32_t half_life) {
    return hex_exp2_minus(n_seen/(float) half_life);
}

// The moving average of a heavy hitter's score over the n_seen > 0 queries of a ubatch; keep: hex_score_keep of them.
HEX_HD float hex_score_update(float score, float mass, float n_seen, float keep) {
    return hex_finite_or_0(keep*score + (1.0f - keep)*mass/n_seen);
}
