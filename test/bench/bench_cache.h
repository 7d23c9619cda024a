// A cache in which every cell holds a token, with attention and commit of a ubatch on it: for programs that measure kernels.
// Rows are random codes; the same numbers on every machine.
#pragma once

#include "cpu/hex_attn.h"
#include "cpu/hex_commit.h"
#include "core/hex_bytes.h"
#include "core/hex_codec.h"
#include "ggml/hex_meta.h"
#include "ggml/hex_state.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct bench_shape { int head, n_head_kv, group, n_kv, n_tps, bits_k, bits_v, refine, n_ring, n_heavy; };

static uint32_t bench_random(void) {
    static uint32_t seed = 1;
    seed = seed*1664525u + 1013904223u;
    return seed >> 8;
}

// About Gaussian, without libm.
static float bench_gauss(void) {
    float sum = -6;
    for (int i = 0; i < 12; i++) {
        sum += (float) bench_random()*0x1p-24f;
    }
    return sum;
}

static float * bench_gausses(size_t n) {
    float * x = malloc(n*sizeof(float));
    for (size_t i = 0; i < n; i++) {
        x[i] = bench_gauss();
    }
    return x;
}

// n blocks of random codes whose samples are about 1.
static char * bench_blocks(int bits, size_t n) {
    char * blocks = malloc(n*hex_block_size(bits)), * block = blocks;
    for (size_t i = 0; i < n; i++, block += hex_block_size(bits)) {
        for (int j = 0; j < 8*bits; j++) {
            block[j] = (char) bench_random();
        }
        const uint16_t word = (uint16_t) (((19u << (3 + bits)) + bench_random() % (1u << (3 + bits))) << (8 - bits));
        memcpy(block + 8*bits, &word, 2);
    }
    return blocks;
}

static struct hex_attn bench_attn(const struct bench_shape * b) {
    const int head = b->head, n_head_kv = b->n_head_kv, n_kv = b->n_kv, n_tps = b->n_tps, n_ring = b->n_ring, n_heavy = b->n_heavy;
    const int n_head = n_head_kv*b->group;
    struct hex_attn a = {
        .cache = { .head_k = head, .head_v = head, .n_head_kv = n_head_kv, .n_tps = n_tps, .n_stream = 1, .n_kv = n_kv,
                   .n_ctx = n_kv, .bits_k = b->bits_k, .bits_v = b->bits_v, .n_ring = n_ring, .n_heavy = n_heavy, .n_mean = 256,
                   .half_life = 256, .unbias = 1, .refine = (enum hex_refine) b->refine },
        .n_head = n_head, .scale = 1/sqrtf((float) head),
    };
    struct hex_cache * c = &a.cache;
    c->slot_size = hex_slot_size(c->refine, head, head);

    const size_t row_k = hex_block_size(b->bits_k)*(size_t) head/64, row_v = hex_block_size(b->bits_v)*(size_t) head/64;
    const size_t n_slots = (size_t) (n_ring + n_heavy), words = hex_state_size(head, n_ring, n_heavy);
    a.q      = (struct hex_tensor) { (char *) bench_gausses((size_t) head*n_head*n_tps), { 4, (size_t) head*n_head*4, (size_t) head*4, 0 } };
    c->k_cur = (struct hex_tensor) { (char *) bench_gausses((size_t) head*n_head_kv*n_tps), { 4, (size_t) head*4, (size_t) head*n_head_kv*4, 0 } };
    c->v_cur = (struct hex_tensor) { (char *) bench_gausses((size_t) head*n_head_kv*n_tps), { 4, (size_t) head*4, (size_t) head*n_head_kv*4, 0 } };
    c->k_base = (struct hex_tensor) { bench_blocks(b->bits_k, (size_t) n_head_kv*n_kv*head/64), { row_k, row_k, row_k*n_head_kv, row_k*n_head_kv*n_kv } };
    c->v_base = (struct hex_tensor) { bench_blocks(b->bits_v, (size_t) n_head_kv*n_kv*head/64), { row_v, row_v, row_v*n_head_kv, row_v*n_head_kv*n_kv } };
    c->pool   = (struct hex_tensor) { bench_blocks(b->refine, c->slot_size*n_slots*n_head_kv/hex_block_size(b->refine)), { 1, c->slot_size, c->slot_size*n_slots, 0 } };
    c->state  = (struct hex_tensor) { calloc(words*n_head_kv, 4), { 4, words*4, words*4*n_head_kv, 0 } };

    // meta: the ubatch takes the last cells, everything before is valid; heavy hitters are spread
    const size_t meta_words = hex_meta_words(n_tps, n_ring, n_kv);
    int32_t * meta = calloc(meta_words, 4);
    c->meta = (struct hex_tensor) { (char *) meta, { 4, meta_words*4, 0, 0 } };
    struct hex_meta_row * rows = (struct hex_meta_row *) meta;
    const int old = n_kv - n_tps;
    for (int i = 0; i < n_tps; i++) {
        const int slot = n_tps - i <= n_ring ? (n_tps - i - 1) % n_ring : -1;
        rows[i] = (struct hex_meta_row) { old + i, slot, n_tps - i, slot >= 0 ? old - n_ring + slot : -1, n_ring, 0 };
    }
    int32_t * ring = meta + n_tps*HEX_META_ROW_WORDS;
    for (int i = 0; i < n_ring; i++) {
        ring[i] = old - n_ring + i;
    }
    uint32_t * bits = (uint32_t *) ring + n_ring;
    for (int i = 0; i < old; i++) {
        bits[i/32] |= 1u << (i % 32);
    }
    for (int h = 0; h < n_head_kv; h++) {
        int32_t * st = hex_state(c, 0, h);
        st[HEX_STATE_FROZEN] = 1;
        for (int i = 0; i < n_heavy; i++) {
            st[hex_state_heavy_cell(head, n_ring) + i] = 1 + (int) ((int64_t) i*(old - n_ring)/n_heavy);
        }
    }
    uint16_t * mask = calloc((size_t) n_kv*n_tps, 2);
    for (int t = 0; t < n_tps; t++) {
        for (int j = old + t + 1; j < n_kv; j++) {
            mask[(size_t) t*n_kv + j] = 0xfc00;
        }
    }
    a.mask = (struct hex_tensor) { (char *) mask, { 2, (size_t) n_kv*2, 0, 0 } };
    a.out  = malloc((size_t) head*n_head*n_tps*4);
    a.mass = malloc((size_t) n_head_kv*(n_ring + 2*n_heavy + n_tps)*4);
    return a;
}
