// The codec on the fastest path of this machine.
#include "hex_codec_cpu.h"

#include "hex_isa.h"

void hex_block_unpack(int k, const void * block, int8_t out[HEX_BLOCK]) {
    HEX_DISPATCH_DECODER(block_unpack, k, block, out);
}

void hex_dequantize(int k, const void * blocks, float * y, int64_t n) {
    HEX_DISPATCH_DECODER(dequantize, k, blocks, y, n);
}

void hex_quantize(int k, const float * x, void * blocks, int64_t n) {
    HEX_DISPATCH(quantize, k, x, blocks, n);
}
