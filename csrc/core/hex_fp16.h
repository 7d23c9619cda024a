// IEEE half precision, portable and exact (round to nearest even).
#pragma once

#include "hex_hd.h"

#include <stdint.h>
#include <string.h>

HEX_HD float hex_fp16_to_fp32(uint16_t h) {
    const uint32_t sign = (uint32_t) (h & 0x8000) << 16;
    const uint32_t rest = (uint32_t) (h & 0x7fff);
    uint32_t bits;
    float f;
    if (rest >= 0x7c00) { // inf, NaN
        bits = sign | 0x7f800000 | (rest & 0x3ff) << 13;
    } else if (rest >= 0x400) { // normal
        bits = sign | ((rest << 13) + 0x38000000);
    } else { // zero, subnormal
        const float v = (float) rest*0x1p-24f;
        memcpy(&bits, &v, sizeof(bits));
        bits |= sign;
    }
    memcpy(&f, &bits, sizeof(f));
    return f;
}

HEX_HD uint16_t hex_fp32_to_fp16(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof(bits));
    const uint16_t sign = (uint16_t) (bits >> 16 & 0x8000);
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) { // NaN
        return sign | 0x7e00;
    }
    if (bits >= 0x477ff000) { // rounds to inf
        return sign | 0x7c00;
    }
    if (bits < 0x38800000) { // subnormal: let the FPU round it
        float v;
        memcpy(&v, &bits, sizeof(v));
        v += 0.5f;
        memcpy(&bits, &v, sizeof(bits));
        return sign | (uint16_t) (bits - 0x3f000000);
    }
    bits += 0xfff + (bits >> 13 & 1);
    return sign | (uint16_t) ((bits - 0x38000000) >> 13);
}
