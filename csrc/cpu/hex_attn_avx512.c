// Compiled with the AVX-512 flags of hex_isa.h.
#if defined(__x86_64__) || defined(_M_X64)
#define HEX_ATTN_TABLE hex_attn_kernels_avx512
#define HEX_LANES 32
#define W 16
#define HEX_CODES hex_codes_kernels_avx512
#include "hex_attn_kernels.inc"
#endif
