// Compiled with -mavx2 -mfma -mf16c.
#if defined(__x86_64__) || defined(_M_X64)
#define HEX_ATTN_TABLE hex_attn_kernels_avx2
#define HEX_LANES 16
#define W 8
#define HEX_CODES hex_codes_kernels_avx2
#include "hex_attn_kernels.inc"
#endif
