# Where the files of csrc/ go. llama.cpp's own CMake lists are not patched: sources are added to its targets from here.
#
#   csrc/core/*.c, csrc/ggml/*, csrc/cpu/hex_isa*, csrc/cpu/hex_codec*   ggml-base  (types need the codec)
#   csrc/cpu/* (the rest)                                                ggml-cpu   (kernels)
#   csrc/cuda/*.cu                                                       ggml-cuda
#   csrc/llama/*.cpp                                                     llama
#   csrc/hexkv*.cpp                                                      hexkv_api  (products.cmake)
#   csrc/tools/*.c                                                       programs   (products.cmake)
#
# The suffix of a file names its instruction set (*_avx2.c, *_avx512.c, *_neon.c); which one runs is decided at run time.
# A new file is picked up by the next build.
set(HEXKV_CSRC "${CMAKE_SOURCE_DIR}/csrc")

if (CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
    set(HEXKV_FLAGS_avx2   -mavx2 -mfma -mf16c -mbmi -mbmi2)
    set(HEXKV_FLAGS_avx512 ${HEXKV_FLAGS_avx2} -mavx512f -mavx512bw -mavx512cd -mavx512dq -mavx512vl -mavx512vbmi
                           -mavx512vnni)
    if (HEXKV_SANITIZE AND CMAKE_C_COMPILER_ID STREQUAL "GNU")
        list(APPEND HEXKV_FLAGS_avx512 "--param=asan-use-after-return=0") # its frames are not 64-byte aligned: PR 110027
    endif()
    # a forced path is the code that a CPU with no more than that runs, also where ggml is compiled for this machine
    list(APPEND HEXKV_FLAGS_avx2 -mno-avx512f)
    set(HEXKV_OTHER_ISA "_neon\\.")
else()
    set(HEXKV_OTHER_ISA "_(avx2|avx512)\\.")
endif()

set(HEXKV_WARNINGS -Wall -Wextra -Wcast-qual -Wpointer-arith -Wno-unused-function)

# Files of csrc/ that match the globs, less other machines' instruction sets.
function(hexkv_glob out)
    list(TRANSFORM ARGN PREPEND "${HEXKV_CSRC}/")
    file(GLOB files CONFIGURE_DEPENDS ${ARGN})
    list(FILTER files EXCLUDE REGEX "${HEXKV_OTHER_ISA}")
    set(${out} ${files} PARENT_SCOPE)
endfunction()

hexkv_glob(HEXKV_CODEC_SOURCES cpu/hex_isa*.c cpu/hex_codec*.c)
hexkv_glob(HEXKV_CORE_SOURCES  core/*.c)
hexkv_glob(HEXKV_GGML_SOURCES  ggml/*.c ggml/*.cpp)
hexkv_glob(HEXKV_CPU_SOURCES   cpu/*.c cpu/*.cpp)
hexkv_glob(HEXKV_LLAMA_SOURCES llama/*.cpp)
hexkv_glob(HEXKV_CUDA_SOURCES  cuda/*.cu)
if (HEXKV_CODEC_SOURCES)
    list(REMOVE_ITEM HEXKV_CPU_SOURCES ${HEXKV_CODEC_SOURCES})
endif()

# HEX_COMMIT stores the bits of the CPU's encoder; ggml-cuda is built with -use_fast_math, which these take back.
set(HEXKV_CUDA_EXACT -ftz=false -prec-div=true -prec-sqrt=true -fmad=false)

# Adds sources to a target of any directory, each with the flags of its instruction set. Floating-point contraction is
# off: a path must give the same bits whether or not the compiler may fuse; kernels call FMA intrinsics where they want.
function(hexkv_target_sources target)
    if (NOT ARGN)
        return()
    endif()
    target_sources(${target} PRIVATE ${ARGN})
    set_source_files_properties(${ARGN} TARGET_DIRECTORY ${target} PROPERTIES SKIP_UNITY_BUILD_INCLUSION ON)
    foreach(file IN LISTS ARGN)
        set(flags "")
        if (file MATCHES "\\.(c|cpp)$")
            set(contract off)
            if (file MATCHES "/hex_attn_[a-z0-9]+\\.c$") # the inner loops of attention are compared by tolerance
                set(contract fast)
            endif()
            set(flags ${HEXKV_WARNINGS} -ffp-contract=${contract})
        endif()
        if (file MATCHES "\\.c$")
            list(APPEND flags -Wshadow -Werror=implicit-function-declaration -Wstrict-prototypes -Wmissing-prototypes)
        endif()
        if (file MATCHES "/hex_commit\\.cu$")
            list(APPEND flags ${HEXKV_CUDA_EXACT})
        endif()
        if (file MATCHES "_(avx2|avx512)\\.(c|cpp)$")
            list(APPEND flags ${HEXKV_FLAGS_${CMAKE_MATCH_1}})
        endif()
        set_source_files_properties("${file}" TARGET_DIRECTORY ${target} PROPERTIES COMPILE_OPTIONS "${flags}")
    endforeach()
endfunction()

# Called after llama.cpp's targets exist. Headers are included as "core/hex_config.h" from patched files and bindings.
function(hexkv_add_sources)
    target_include_directories(ggml-base PUBLIC "$<BUILD_INTERFACE:${HEXKV_CSRC}>")
    hexkv_target_sources(ggml-base ${HEXKV_CORE_SOURCES} ${HEXKV_CODEC_SOURCES} ${HEXKV_GGML_SOURCES})
    hexkv_target_sources(ggml-cpu ${HEXKV_CPU_SOURCES})
    if (TARGET llama)
        hexkv_target_sources(llama ${HEXKV_LLAMA_SOURCES})
    endif()
    if (TARGET ggml-cuda)
        hexkv_target_sources(ggml-cuda ${HEXKV_CUDA_SOURCES})
    endif()
endfunction()
