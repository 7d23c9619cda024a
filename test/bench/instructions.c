// One kernel of one shape, for callgrind to count the instructions of measured(): instructions.sh.
// usage: instructions CASE (HEXKV_ISA says which path)
//        instructions --step CASE: counts them itself, also those that valgrind does not know; exit code 77: cannot
//        instructions --list, --compiler, --isa (the best of this CPU)
#include "bench_cache.h"

#include "cpu/hex_isa.h"

#include <signal.h>
#include <stdio.h>

#if defined(__linux__) && defined(__x86_64__)
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>
#define CAN_STEP 1
#else
#define CAN_STEP 0
#endif

#define CELLS 2048

// short: few enough for --step, which takes some 20 microseconds an instruction
static const struct { const char * name, * what; struct bench_shape b; bool is_short; } cases[] = {
    { "decode-64",   "HEX_ATTN",   {  64, 1, 3, CELLS,  1, 4, 2, 3, 256, 176 }, true },
    { "decode-128",  "HEX_ATTN",   { 128, 1, 4, CELLS,  1, 4, 2, 3, 256, 176 } },
    { "decode-64-no-scores",  "HEX_ATTN without mass", {  64, 1, 3, CELLS, 1, 4, 2, 3, 256, 176 } },
    { "decode-128-no-scores", "HEX_ATTN without mass", { 128, 1, 4, CELLS, 1, 4, 2, 3, 256, 176 } },
    { "prefill-64",  "HEX_ATTN",   {  64, 1, 3, CELLS, 64, 4, 2, 3, 256, 176 } },
    { "prefill-128", "HEX_ATTN",   { 128, 1, 4, CELLS, 64, 4, 2, 3, 256, 176 } },
    { "prefill-64-short", "HEX_ATTN", { 64, 1, 3, 256, 16, 4, 2, 3, 32, 22 }, true },
    { "commit-64",   "HEX_COMMIT", {  64, 1, 3, CELLS,  1, 4, 2, 3, 256, 176 }, true },
    { "commit-128",  "HEX_COMMIT", { 128, 1, 4, CELLS, 64, 4, 2, 3, 256, 176 } },
    { "encode-1",    "encode",     { .bits_k = 1 } },
    { "encode-2",    "encode",     { .bits_k = 2 } },
    { "encode-3",    "encode",     { .bits_k = 3 }, true },
    { "encode-4",    "encode",     { .bits_k = 4 } },
    { "decode-row-3","decode",     { .bits_k = 3 }, true },
    { "decode-row-4","decode",     { .bits_k = 4 }, true },
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
    if (strncmp(cases[i].what, "HEX_ATTN", 8) == 0) {
        hex_attn_run(&attn, work, 0, 1, nothing, NULL);
    } else if (strcmp(cases[i].what, "HEX_COMMIT") == 0) {
        hex_commit_run(&commit, commit_work, 0, 1, nothing, NULL);
    } else if (strcmp(cases[i].what, "encode") == 0) {
        hex_quantize(cases[i].b.bits_k, x, blocks, BLOCKS*HEX_BLOCK);
    } else {
        hex_dequantize(cases[i].b.bits_k, blocks, x, BLOCKS*HEX_BLOCK);
    }
}

static void prepare(int i) {
    hex_isa_get(); // asks the environment the first time
    if (cases[i].b.head > 0) {
        attn   = bench_attn(&cases[i].b);
        work   = malloc(hex_attn_work(&attn, 1));
        commit = (struct hex_commit) { attn.cache, attn.mass };
        commit_work = malloc(hex_commit_work(&commit) + 64);
        memset(attn.mass, 0, sizeof(float)*(size_t) (cases[i].b.n_ring + 2*cases[i].b.n_heavy + cases[i].b.n_tps)); // commit runs alone
        if (strstr(cases[i].what, "without mass")) {
            attn.mass = NULL;
        }
    } else {
        x      = bench_gausses(BLOCKS*HEX_BLOCK);
        blocks = bench_blocks(cases[i].b.bits_k, BLOCKS);
    }
}

// A child calls measured(), instruction by instruction. `rep` counts each of its turns.
static int count_steps(int i) {
#if CAN_STEP
    const pid_t child = fork();
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) {
            _exit(77);
        }
        prepare(i);
        raise(SIGSTOP);
        measured(i);
        _exit(0);
    }
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) {
        return 77; // as in a sandbox without ptrace
    }
    // the child's addresses are the parent's: a breakpoint on the first instruction of measured()
    const uintptr_t start = (uintptr_t) measured;
    const long code = ptrace(PTRACE_PEEKTEXT, child, (void *) start, NULL);
    struct user_regs_struct regs;
    ptrace(PTRACE_POKETEXT, child, (void *) start, (void *) ((code & ~0xffL) | 0xcc));
    ptrace(PTRACE_CONT, child, NULL, NULL);
    waitpid(child, &status, 0);
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP || ptrace(PTRACE_GETREGS, child, NULL, &regs) != 0) {
        kill(child, SIGKILL);
        return 1;
    }
    ptrace(PTRACE_POKETEXT, child, (void *) start, (void *) code);
    regs.rip = start;
    ptrace(PTRACE_SETREGS, child, NULL, &regs);
    const unsigned long long stack = regs.rsp;
    long n = 0;
    while (regs.rsp <= stack) { // until it has returned
        ptrace(PTRACE_SINGLESTEP, child, NULL, NULL);
        waitpid(child, &status, 0);
        if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP || ptrace(PTRACE_GETREGS, child, NULL, &regs) != 0) {
            kill(child, SIGKILL);
            return 1;
        }
        n++;
    }
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    printf("%ld\n", n);
    return 0;
#else
    (void) i;
    return 77;
#endif
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
    if (strcmp(arg, "--isa") == 0) {
        printf("%s\n", hex_isa_name(hex_isa_best()));
        return 0;
    }
    const bool step = argc > 2 && strcmp(arg, "--step") == 0;
    arg = step ? argv[2] : arg;
    for (int i = 0; i < N_CASES; i++) {
        if (strcmp(arg, "--list") == 0) {
            printf("%s%s\n", cases[i].name, cases[i].is_short ? " short" : "");
            continue;
        }
        if (strcmp(arg, cases[i].name) != 0) {
            continue;
        }
        if (step) {
            return count_steps(i);
        }
        prepare(i);
        measured(i);
        return 0;
    }
    return strcmp(arg, "--list") == 0 ? 0 : 2;
}
