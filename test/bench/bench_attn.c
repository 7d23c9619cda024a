// CPU time of HEX_ATTN and HEX_COMMIT on one thread, for work on the kernels. Not a test; whole-op ratios to stock are
// measured elsewhere. usage: bench_attn [n_kv [decode|prefill|commit]]; commit: the commit of a decode step alone
#define _POSIX_C_SOURCE 199309L

#include "cpu/hex_attn.h"
#include "cpu/hex_commit.h"
#include "core/hex_bytes.h"
#include "core/hex_codec.h"
#include "ggml/hex_meta.h"
#include "ggml/hex_state.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double cpu_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec*1e3 + t.tv_nsec*1e-6;
}

static void nothing(void * ctx) {
    (void) ctx;
}

static float gauss(void) {
    const float u = (rand() + 1.0f)/(RAND_MAX + 2.0f), v = (rand() + 1.0f)/(RAND_MAX + 2.0f);
    return sqrtf(-2*logf(u))*cosf(6.2831853f*v);
}

static float * randoms(size_t n) {
    float * x = malloc(n*sizeof(float));
    for (size_t i = 0; i < n; i++) {
        x[i] = gauss();
    }
    return x;
}

static void run(int head, int n_head_kv, int group, int n_kv, int n_tps, int bits_k, int bits_v, int refine, int n_ring,
                int n_heavy, int reps, int commits) {
    const int n_head = n_head_kv*group;
    struct hex_attn a = {
        .cache = { .head_k = head, .head_v = head, .n_head_kv = n_head_kv, .n_tps = n_tps, .n_stream = 1, .n_kv = n_kv,
                   .n_ctx = n_kv, .bits_k = bits_k, .bits_v = bits_v, .n_ring = n_ring, .n_heavy = n_heavy, .n_mean = 256,
                   .half_life = 256, .refine = (enum hex_refine) refine },
        .n_head = n_head, .scale = 1/sqrtf((float) head), .unbias = 1,
    };
    struct hex_cache * c = &a.cache;
    c->slot_size = hex_slot_size(c->refine, head, head);

    const size_t row_k = hex_block_size(bits_k)*(size_t) head/64, row_v = hex_block_size(bits_v)*(size_t) head/64;
    const size_t n_slots = (size_t) (n_ring + n_heavy), words = hex_state_size(head, n_ring, n_heavy);
    a.q      = (struct hex_tensor) { (char *) randoms((size_t) head*n_head*n_tps), { 4, (size_t) head*n_head*4, (size_t) head*4, 0 } };
    c->k_cur = (struct hex_tensor) { (char *) randoms((size_t) head*n_head_kv*n_tps), { 4, (size_t) head*4, (size_t) head*n_head_kv*4, 0 } };
    c->v_cur = (struct hex_tensor) { (char *) randoms((size_t) head*n_head_kv*n_tps), { 4, (size_t) head*4, (size_t) head*n_head_kv*4, 0 } };
    c->k_base = (struct hex_tensor) { malloc(row_k*n_head_kv*n_kv), { row_k, row_k, row_k*n_head_kv, row_k*n_head_kv*n_kv } };
    c->v_base = (struct hex_tensor) { malloc(row_v*n_head_kv*n_kv), { row_v, row_v, row_v*n_head_kv, row_v*n_head_kv*n_kv } };
    c->pool   = (struct hex_tensor) { malloc(c->slot_size*n_slots*n_head_kv), { 1, c->slot_size, c->slot_size*n_slots, 0 } };
    c->state  = (struct hex_tensor) { calloc(words*n_head_kv, 4), { 4, words*4, words*4*n_head_kv, 0 } };

    float * x = randoms((size_t) head);
    for (size_t i = 0; i < (size_t) n_head_kv*n_kv; i++) {
        x[i % head] = gauss();
        hex_quantize(bits_k, x, c->k_base.data + i*row_k, head);
        hex_quantize(bits_v, x, c->v_base.data + i*row_v, head);
    }
    for (size_t i = 0; i < n_slots*n_head_kv*2; i++) {
        hex_quantize(refine, x, c->pool.data + i*c->slot_size/2, head);
    }

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

    void * work = malloc(hex_attn_work(&a, 1));
    double best = 1e9, best_commit = 1e9;
    for (int rep = 0; rep < reps; rep++) {
        const double t0 = cpu_ms();
        hex_attn_run(&a, work, 0, 1, nothing, NULL);
        const double t = cpu_ms() - t0;
        best = t < best ? t : best;
    }
    struct hex_commit cm = { .cache = *c, .mass = a.mass };
    void * cwork = malloc(hex_commit_work(&cm) + 64);
    for (int rep = 0; rep < commits; rep++) {
        const double t0 = cpu_ms();
        hex_commit_run(&cm, cwork, 0, 1, nothing, NULL);
        const double t = cpu_ms() - t0;
        best_commit = t < best_commit ? t : best_commit;
    }
    printf("%-7s D %3d  KV heads %d  group %d  cells %6d  rows %4d  K%dV%d r%d ring %d heavy %d: attention %9.3f ms, commit %8.3f ms\n",
           hex_isa_name(hex_isa_get()), head, n_head_kv, group, n_kv, n_tps, bits_k, bits_v, refine, n_ring, n_heavy, best, best_commit);
}

int main(int argc, char ** argv) {
    const int n_kv = argc > 1 ? atoi(argv[1]) : 8192;
    const char * only = argc > 2 ? argv[2] : "";
    const bool all = *only == 0;
    // a cache as `balanced` has it
    if (all || strcmp(only, "decode") == 0 || strcmp(only, "commit") == 0) {
        const int reps = *only == 'c' ? 1 : 100, commits = *only == 'c' ? 5000 : 100;
        run( 64, 3, 3, n_kv, 1, 4, 2, 3, 256, n_kv/12, reps, commits);
        run(128, 8, 4, n_kv, 1, 4, 2, 3, 256, n_kv/12, reps, commits);
    }
    if (all || strcmp(only, "prefill") == 0) {
        run( 64, 3, 3, n_kv, 512, 4, 2, 3, 256, n_kv/12, 3, 3);
        run(128, 8, 4, n_kv, 512, 4, 2, 3, 256, n_kv/12, 3, 3);
    }
    return 0;
}
