// Functions that C and CUDA share. HEX_HD: for the host and the device; HEX_DEVICE_FN: for one of them, whichever
// compiles the file.
#pragma once

#if defined(__CUDACC__)
#    define HEX_HD        static inline __host__ __device__
#    define HEX_DEVICE_FN static inline __device__
#else
#    define HEX_HD        static inline
#    define HEX_DEVICE_FN static inline
#endif
