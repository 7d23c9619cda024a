// NEON: the compiler's baseline on 64-bit ARM, so the floats need no flags.
#if defined(__aarch64__)
#define HEX_ATTN_TABLE hex_attn_kernels_neon
#define HEX_LANES 16
#define W 4
#define HEX_CODES hex_codes_kernels_neon
#include "hex_attn_kernels.inc"
#endif
