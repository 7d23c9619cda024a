// CPU time of HEX_ATTN and HEX_COMMIT on one thread, for work on the kernels. Not a test; whole-op ratios to stock are
// measured elsewhere. usage: bench_attn [n_kv [decode|prefill|commit]]; commit: the commit of a decode step alone
#define _POSIX_C_SOURCE 199309L

#include "bench_cache.h"

#include <stdio.h>
#include <time.h>

static double cpu_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec*1e3 + t.tv_nsec*1e-6;
}

static void nothing(void * ctx) {
    (void) ctx;
}

static void run(const struct bench_shape b, int reps, int commits) {
    const struct hex_attn a = bench_attn(&b);
    void * work = malloc(hex_attn_work(&a, 1));
    double best = 1e9, best_commit = 1e9;
    for (int rep = 0; rep < reps; rep++) {
        const double t0 = cpu_ms();
        hex_attn_run(&a, work, 0, 1, nothing, NULL);
        const double t = cpu_ms() - t0;
        best = t < best ? t : best;
    }
    struct hex_commit cm = { .cache = a.cache, .mass = a.mass };
    void * cwork = malloc(hex_commit_work(&cm) + 64);
    for (int rep = 0; rep < commits; rep++) {
        const double t0 = cpu_ms();
        hex_commit_run(&cm, cwork, 0, 1, nothing, NULL);
        const double t = cpu_ms() - t0;
        best_commit = t < best_commit ? t : best_commit;
    }
    printf("%-7s D %3d  KV heads %d  group %d  cells %6d  rows %4d  K%dV%d r%d ring %d heavy %d: attention %9.3f ms, commit %8.3f ms\n",
           hex_isa_name(hex_isa_get()), b.head, b.n_head_kv, b.group, b.n_kv, b.n_tps, b.bits_k, b.bits_v, b.refine, b.n_ring, b.n_heavy,
           best, best_commit);
}

int main(int argc, char ** argv) {
    const int n_kv = argc > 1 ? atoi(argv[1]) : 8192;
    const char * only = argc > 2 ? argv[2] : "";
    const bool all = *only == 0;
    // a cache as `balanced` has it
    if (all || strcmp(only, "decode") == 0 || strcmp(only, "commit") == 0) {
        const int reps = *only == 'c' ? 1 : 100, commits = *only == 'c' ? 5000 : 100;
        run((struct bench_shape) {  64, 3, 3, n_kv, 1, 4, 2, 3, 256, n_kv/12 }, reps, commits);
        run((struct bench_shape) { 128, 8, 4, n_kv, 1, 4, 2, 3, 256, n_kv/12 }, reps, commits);
    }
    if (all || strcmp(only, "prefill") == 0) {
        run((struct bench_shape) {  64, 3, 3, n_kv, 512, 4, 2, 3, 256, n_kv/12 }, 3, 3);
        run((struct bench_shape) { 128, 8, 4, n_kv, 512, 4, 2, 3, 256, n_kv/12 }, 3, 3);
    }
    return 0;
}
