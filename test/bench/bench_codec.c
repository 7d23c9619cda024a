// Nanoseconds per block of 64 samples, for each type and instruction set. Not a test.
//
// "row of 64" encodes one block per call, as a cache with heads of 64 does; the other columns take long rows.
#include "core/hex_codec.h"
#include "cpu/hex_isa.h"
#include "cpu/hex_vec_dot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { BLOCKS = 2048, N = BLOCKS * HEX_BLOCK };

static float x[N], y[N];
static uint8_t blocks[BLOCKS * 34];
static hex_block_q8_0 q8[N / 32];
static float sink;

static void encode_rows(int k)   { hex_quantize(k, x, blocks, N); }
static void decode(int k)        { hex_dequantize(k, blocks, y, N); }
static void dot(int k)           { hex_vec_dot(k, N, &sink, blocks, q8); }

static void encode_blocks(int k) {
    for (int i = 0; i < BLOCKS; i++) {
        hex_quantize(k, x + i*HEX_BLOCK, blocks + (size_t) i*hex_block_size(k), HEX_BLOCK);
    }
}

static void unpack(int k) {
    int8_t v[HEX_BLOCK];
    for (int i = 0; i < BLOCKS; i++) {
        hex_block_unpack(k, blocks + (size_t) i*hex_block_size(k), v);
    }
    sink = (float) v[0];
}

static double seconds(void) {
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double) t.tv_sec + 1e-9 * (double) t.tv_nsec;
}

// The best of many short runs: what disturbs a run only makes it longer.
static double nanoseconds(void (* run)(int k), int k) {
    double best = HUGE_VAL;
    const double start = seconds();
    for (int i = 0; i < 3 || (i < 1000 && seconds() - start < 0.1); i++) {
        const double t = seconds();
        run(k);
        best = fmin(best, seconds() - t);
    }
    return best * 1e9 / BLOCKS;
}

int main(void) {
    uint32_t seed = 1;
    for (int i = 0; i < N; i++) {
        float sum = -6.0f; // of 12 uniforms: about Gaussian
        for (int j = 0; j < 12; j++) {
            seed = seed * 1664525u + 1013904223u;
            sum += (float) (seed >> 8) * 0x1p-24f;
        }
        x[i] = sum;
        q8[i / 32].d = 0x3c00;
        q8[i / 32].qs[i % 32] = (int8_t) (seed >> 24);
    }
    printf("%-6s %-7s %10s %10s %10s %10s %10s   ns per block of 64\n",
           "type", "isa", "encode", "row of 64", "decode", "unpack", "vec_dot");
    for (int k = 1; k <= 4; k++) {
        for (enum hex_isa isa = HEX_ISA_REF; isa <= hex_isa_best(); isa++) {
            hex_isa_set(isa);
            printf("hex%-3d %-7s", k, hex_isa_name(isa));
            void (* const runs[])(int) = { encode_rows, encode_blocks, decode, unpack, dot };
            for (size_t i = 0; i < sizeof(runs)/sizeof(*runs); i++) {
                printf(" %10.1f", nanoseconds(runs[i], k));
            }
            printf("\n");
        }
    }
    return 0;
}
