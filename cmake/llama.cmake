# The pinned llama.cpp: fetched and patched at configure time, then built as part of this project.
set(HEXKV_LLAMA_DIR "${CMAKE_SOURCE_DIR}/build/llama.cpp" CACHE PATH "The unpacked, patched llama.cpp")

function(hexkv_run script)
    execute_process(COMMAND bash "${CMAKE_SOURCE_DIR}/${script}" RESULT_VARIABLE status)
    if (NOT status EQUAL 0)
        message(FATAL_ERROR "hexkv: ${script} failed; the reason is the line above that starts with `hexkv: error:`")
    endif()
endfunction()

if (HEXKV_NO_PATCH OR DEFINED ENV{HEXKV_NO_PATCH})
    message(STATUS "hexkv: HEXKV_NO_PATCH is set, ${HEXKV_LLAMA_DIR} is built as it is")
else()
    hexkv_run(scripts/llama.sh)
    hexkv_run(patches/apply.sh)
endif()
# A changed, new or removed patch configures again; apply.sh then writes only the files that differ.
file(GLOB patches CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/patches/*.patch")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${patches} "${CMAKE_SOURCE_DIR}/patches/PIN")

# llama.cpp's options as hexkv wants them.
set(BUILD_SHARED_LIBS     OFF)
set(GGML_BACKEND_DL       OFF)
set(LLAMA_BUILD_COMMON    ON)
set(LLAMA_BUILD_TOOLS     ON)
set(LLAMA_BUILD_SERVER    OFF) # added below, without the web page
set(LLAMA_BUILD_TESTS     OFF) # the two that are wanted are in products.cmake
set(LLAMA_BUILD_EXAMPLES  OFF)
set(LLAMA_BUILD_APP       OFF)
set(LLAMA_BUILD_UI        OFF)
set(LLAMA_USE_PREBUILT_UI OFF) # the default downloads while building
set(LLAMA_OPENSSL         OFF)
set(LLAMA_TOOLS_INSTALL   OFF)
set(LLAMA_ALL_WARNINGS    OFF) # of upstream's files; ours have their own (sources.cmake)
set(GGML_RPC_RDMA         OFF) # it is found by chance, and would be one more library for Go to link
option(GGML_CUDA_NCCL "Collectives of NCCL between GPUs: only split mode `tensor` uses them, which a HEX cache does not" OFF)
set(GGML_CCACHE           OFF) # a launcher of the user's choice (CMAKE_C_COMPILER_LAUNCHER) still works

# A fixed build name: a commit in build/llama.cpp must not relink everything.
file(STRINGS "${CMAKE_SOURCE_DIR}/patches/PIN" release REGEX "^RELEASE=")
string(REPLACE "RELEASE=" "" HEXKV_LLAMA_RELEASE "${release}")
set(LLAMA_BUILD_NUMBER 0)
set(GIT_EXE true) # ggml asks git for its own commit: `true` says nothing
set(LLAMA_BUILD_COMMIT "${HEXKV_LLAMA_RELEASE}-hexkv-${PROJECT_VERSION}")

if (HEXKV_SANITIZE)
    set(GGML_NATIVE             OFF)
    set(GGML_LLAMAFILE          OFF)
    set(GGML_RPC                OFF)
    set(GGML_BUILD_TESTS        OFF)
    set(GGML_BUILD_EXAMPLES     OFF)
    if (HEXKV_SANITIZE STREQUAL "thread")
        set(sanitizers thread)
    else()
        set(sanitizers address,undefined)
        add_compile_options(-fno-sanitize-recover=undefined)
    endif()
    add_compile_options(-fsanitize=${sanitizers} -fno-omit-frame-pointer)
    add_link_options(-fsanitize=${sanitizers})
endif()

# CUDA of this machine, else what `make cuda-toolkit` installed; that has no driver library, so no virtual memory either.
if (GGML_CUDA AND NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
    set(toolkit "${CMAKE_SOURCE_DIR}/build/cuda-toolkit")
    find_program(HEXKV_NVCC nvcc PATHS /usr/local/cuda/bin)
    if (HEXKV_NVCC)
        set(CMAKE_CUDA_COMPILER "${HEXKV_NVCC}" CACHE FILEPATH "CUDA compiler")
    elseif (EXISTS "${toolkit}/bin/nvcc")
        set(CMAKE_CUDA_COMPILER "${toolkit}/bin/nvcc" CACHE FILEPATH "CUDA compiler")
        set(CUDAToolkit_ROOT    "${toolkit}"          CACHE PATH     "CUDA toolkit")
        set(GGML_CUDA_NO_VMM ON CACHE BOOL "No virtual memory of CUDA devices")
        message(STATUS "hexkv: CUDA is compiled with ${toolkit}")
    else()
        message(NOTICE "hexkv: error: nvcc is missing; install CUDA 12 or newer, or run `make cuda-toolkit` to compile without a GPU")
        message(FATAL_ERROR "hexkv: no compiler for CUDA")
    endif()
endif()

add_subdirectory("${HEXKV_LLAMA_DIR}" llama EXCLUDE_FROM_ALL)
if (HEXKV_SANITIZE STREQUAL "thread")
    target_compile_options(ggml-cpu PRIVATE -fno-sanitize=thread) # the server runs with one compute thread: a token would take seconds
endif()

# llama-server without its web page. Upstream's target for the page's files runs in every build, even when there are
# none; here its script runs once, while configuring.
function(hexkv_add_server)
    set(PROJECT_SOURCE_DIR "${HEXKV_LLAMA_DIR}")
    set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
    set(ui "${CMAKE_BINARY_DIR}/llama/tools/ui")
    file(MAKE_DIRECTORY "${ui}")
    if (NOT EXISTS "${ui}/ui.cpp")
        execute_process(
            COMMAND ${CMAKE_COMMAND} "-DUI_SOURCE_DIR=${HEXKV_LLAMA_DIR}/tools/ui" "-DUI_BINARY_DIR=${ui}"
                "-DLLAMA_SOURCE_DIR=${HEXKV_LLAMA_DIR}" -DHF_ENABLED=OFF -DBUILD_UI=OFF -DLLAMA_UI_GZIP=OFF
                -P "${HEXKV_LLAMA_DIR}/scripts/ui-assets.cmake"
            OUTPUT_QUIET ERROR_QUIET)
    endif()
    add_library(llama-ui STATIC EXCLUDE_FROM_ALL "${ui}/ui.cpp")
    target_include_directories(llama-ui PUBLIC "${ui}")
    add_custom_target(llama-ui-assets)
    add_subdirectory("${HEXKV_LLAMA_DIR}/tools/server" llama/tools/server EXCLUDE_FROM_ALL)
endfunction()
hexkv_add_server()
