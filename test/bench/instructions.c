// One kernel of one shape, for callgrind to count the instructions of measured(): instructions.sh.
// usage: instructions CASE (HEXKV_ISA says which path), instructions --list, instructions --compiler
#include "bench_cache.h"

#include <stdio.h>

#define CELLS 2048

static const struct { const char * name, * what; struct bench_shape b; } cases[] = {
    { "decode-64",   "HEX_ATTN",   {  64, 1, 3, CELLS,  1, 4, 2, 3, 256, 176 } },
    { "decode-128",  "HEX_ATTN",   { 128, 1, 4, CELLS,  1, 4, 2, 3, 256, 176 } },
    { "prefill-64",  "HEX_ATTN",   {  64, 1, 3, CELLS, 64, 4, 2, 3, 256, 176 } },
    { "prefill-128", "HEX_ATTN",   { 128, 1, 4, CELLS, 64, 4, 2, 3, 256, 176 } },
    { "commit-64",   "HEX_COMMIT", {  64, 1, 3, CELLS,  1, 4, 2, 3, 256, 176 } },
    { "commit-128",  "HEX_COMMIT", { 128, 1, 4, CELLS, 64, 4, 2, 3, 256, 176 } },
    { "encode-1",    "encode",     { .bits_k = 1 } },
    { "encode-2",    "encode",     { .bits_k = 2 } },
    { "encode-3",    "encode",     { .bits_k = 3 } },
    { "encode-4",    "encode",     { .bits_k = 4 } },
    { "decode-row-3","decode",     { .bits_k = 3 } },
    { "decode-row-4","decode",     { .bits_k = 4 } },
};
#define N_CASES ((int) (sizeof(cases)/sizeof(cases[0])))
#define BLOCKS 16

static struct hex_attn   attn;
static struct hex_commit commit;
static void  * work, * commit_work, * blocks;
static float * x;

static void nothing(void * ctx) {
    (void) ctx;
}

// The counting starts and ends with this call.
__attribute__((noinline)) void measured(int i);
void measured(int i) {
    if (strcmp(cases[i].what, "HEX_ATTN") == 0) {
        hex_attn_run(&attn, work, 0, 1, nothing, NULL);
    } else if (strcmp(cases[i].what, "HEX_COMMIT") == 0) {
        hex_commit_run(&commit, commit_work, 0, 1, nothing, NULL);
    } else if (strcmp(cases[i].what, "encode") == 0) {
        hex_quantize(cases[i].b.bits_k, x, blocks, BLOCKS*HEX_BLOCK);
    } else {
        hex_dequantize(cases[i].b.bits_k, blocks, x, BLOCKS*HEX_BLOCK);
    }
}

int main(int argc, char ** argv) {
    const char * arg = argc > 1 ? argv[1] : "";
    if (strcmp(arg, "--compiler") == 0) {
#ifdef __clang__
        printf("clang %d\n", __clang_major__);
#else
        printf("gcc %d\n", __GNUC__);
#endif
        return 0;
    }
    for (int i = 0; i < N_CASES; i++) {
        if (strcmp(arg, "--list") == 0) {
            printf("%s\n", cases[i].name);
            continue;
        }
        if (strcmp(arg, cases[i].name) != 0) {
            continue;
        }
        if (cases[i].b.head > 0) {
            attn   = bench_attn(&cases[i].b);
            work   = malloc(hex_attn_work(&attn, 1));
            commit = (struct hex_commit) { attn.cache, attn.mass };
            commit_work = malloc(hex_commit_work(&commit) + 64);
            memset(attn.mass, 0, sizeof(float)*(size_t) (256 + 2*176 + cases[i].b.n_tps)); // commit runs alone
        } else {
            x      = bench_gausses(BLOCKS*HEX_BLOCK);
            blocks = bench_blocks(cases[i].b.bits_k, BLOCKS);
        }
        measured(i);
        return 0;
    }
    return strcmp(arg, "--list") == 0 ? 0 : 2;
}
