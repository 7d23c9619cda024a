// Any CPU: whatever vectors the compiler's baseline has.
#define HEX_ATTN_TABLE hex_attn_kernels_generic
#define HEX_LANES 16
#define W 4
#include "hex_attn_kernels.inc"
