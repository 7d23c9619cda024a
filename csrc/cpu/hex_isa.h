// Run-time choice of the CPU path. HEXKV_ISA=ref|avx2|avx512 (ref|neon on ARM) forces one; a path that the CPU lacks falls to the next, with a line on stderr.
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

enum hex_isa {
    HEX_ISA_REF    = 0,
    HEX_ISA_AVX2   = 1, // AVX2, FMA, F16C
    HEX_ISA_NEON   = 1, // on 64-bit ARM, in the place of AVX2
    HEX_ISA_AVX512 = 2, // AVX-512 F, BW, DQ, VL, VBMI, VNNI
};

enum hex_isa hex_isa_best(void);            // what the CPU has
enum hex_isa hex_isa_get(void);             // what is used: best, HEXKV_ISA or hex_isa_set
void         hex_isa_set(enum hex_isa isa); // for tests and benchmarks; clamped to hex_isa_best()
const char * hex_isa_name(enum hex_isa isa);

// Whether attention may be coarse where it costs nothing (hex_attn_codes.c). HEXKV_COARSE=0 forbids it, 1 allows it as without.
int  hex_coarse_get(void);
void hex_coarse_set(int on); // for tests and benchmarks

#ifdef __cplusplus
}
#endif
