#include "hex_isa.h"

#include "hex_codec_cpu.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if HEX_ARM
static const char * const names[] = { "ref", "neon" };
#else
static const char * const names[] = { "ref", "avx2", "avx512" };
#endif

enum hex_isa hex_isa_best(void) {
#if HEX_X86
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
        return HEX_ISA_REF;
    }
    if (__builtin_cpu_supports("avx512f")  && __builtin_cpu_supports("avx512bw")   &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")   &&
        __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni")) {
        return HEX_ISA_AVX512;
    }
    return HEX_ISA_AVX2; // every CPU with AVX2 and FMA has F16C and BMI
#elif HEX_ARM
    return HEX_ISA_NEON; // every 64-bit one has it
#else
    return HEX_ISA_REF;
#endif
}

static enum hex_isa clamped(enum hex_isa isa) {
    const enum hex_isa best = hex_isa_best();
    return isa < best ? isa : best;
}

static enum hex_isa from_environment(void) {
    static atomic_flag said = ATOMIC_FLAG_INIT; // threads may ask at the same time
    const char * want = getenv("HEXKV_ISA");
    const enum hex_isa best = hex_isa_best();
    for (int i = 0; want && i < (int) (sizeof(names) / sizeof(names[0])); i++) {
        if (strcmp(want, names[i]) == 0) {
            if ((enum hex_isa) i <= best) {
                return (enum hex_isa) i;
            }
            if (!atomic_flag_test_and_set(&said)) {
                fprintf(stderr, "hexkv: HEXKV_ISA=%s is more than this CPU has, taking %s\n", want, names[best]);
            }
            return best;
        }
    }
    if (want && *want && !atomic_flag_test_and_set(&said)) {
        fprintf(stderr, "hexkv: HEXKV_ISA=%s is not one of", want);
        for (size_t i = 0; i < sizeof(names)/sizeof(names[0]); i++) {
            fprintf(stderr, " %s", names[i]);
        }
        fprintf(stderr, ", taking %s\n", names[best]);
    }
    return best;
}

static atomic_int current = -1; // -1: not asked yet. Threads that race to ask get the same answer.

enum hex_isa hex_isa_get(void) {
    int isa = atomic_load_explicit(&current, memory_order_relaxed);
    if (isa < 0) {
        int unset = -1;
        isa = (int) from_environment();
        if (!atomic_compare_exchange_strong(&current, &unset, isa)) {
            isa = unset; // hex_isa_set came between
        }
    }
    return (enum hex_isa) isa;
}

void hex_isa_set(enum hex_isa isa) {
    atomic_store(&current, (int) clamped(isa));
}

const char * hex_isa_name(enum hex_isa isa) {
    return (size_t) isa < sizeof(names)/sizeof(names[0]) ? names[isa] : "unknown";
}

static int coarse_from_environment(void) {
    static atomic_flag said = ATOMIC_FLAG_INIT;
    const char * want = getenv("HEXKV_COARSE");
    if (want && *want && strcmp(want, "0") != 0 && strcmp(want, "1") != 0 && !atomic_flag_test_and_set(&said)) {
        fprintf(stderr, "hexkv: HEXKV_COARSE=%s is not one of 0 1, taking 1\n", want);
    }
    return !(want && strcmp(want, "0") == 0);
}

static atomic_int coarse = -1; // -1: not asked yet

int hex_coarse_get(void) {
    int on = atomic_load_explicit(&coarse, memory_order_relaxed);
    if (on < 0) {
        int unset = -1;
        on = coarse_from_environment();
        if (!atomic_compare_exchange_strong(&coarse, &unset, on)) {
            on = unset; // hex_coarse_set came between
        }
    }
    return on;
}

void hex_coarse_set(int on) {
    atomic_store(&coarse, on != 0);
}
