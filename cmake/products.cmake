# What a build leaves behind: tools in build/bin, the library in build/lib, hexrun.
if (GGML_CUDA)
    find_package(CUDAToolkit REQUIRED)
    if (CUDAToolkit_VERSION VERSION_LESS 12.0)
        message(NOTICE "hexkv: error: CUDA ${CUDAToolkit_VERSION} in ${CUDAToolkit_BIN_DIR} is too old; install CUDA 12.0 or newer, and name it with -DCMAKE_CUDA_COMPILER=...")
        message(FATAL_ERROR "hexkv: CUDA is too old")
    endif()
endif()
set(HEXKV_BIN "${CMAKE_BINARY_DIR}/bin")
set(HEXKV_LIB "${CMAKE_BINARY_DIR}/lib")

# Upstream's test programs: two that `make test` runs, and those of `make test-upstream`.
set(upstream_tests test-llama-archs test-recurrent-state-rollback test-save-load-state test-state-restore-fragmented
    test-thread-safety)
foreach(test test-backend-ops test-quantize-fns ${upstream_tests})
    add_executable(${test} EXCLUDE_FROM_ALL "${HEXKV_LLAMA_DIR}/tests/${test}.cpp")
    target_link_libraries(${test} PRIVATE llama llama-common)
    target_include_directories(${test} PRIVATE "${CMAKE_SOURCE_DIR}/test") # */*_hex.h
    set_target_properties(${test} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${HEXKV_BIN}")
endforeach()

add_executable(llama-speculative-simple EXCLUDE_FROM_ALL "${HEXKV_LLAMA_DIR}/examples/speculative-simple/speculative-simple.cpp")
target_link_libraries(llama-speculative-simple PRIVATE llama-common llama)
set_target_properties(llama-speculative-simple PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${HEXKV_BIN}")

add_custom_target(upstream DEPENDS ${upstream_tests} llama-batched-bench llama-speculative-simple)
if (HEXKV_TESTS)
    add_dependencies(upstream measure_shifts)
endif()

# The kernel benchmark (test/bench/README.md). bench_* are programs of their own: test/CMakeLists.txt.
file(GLOB bench_sources CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/test/bench/*.cpp")
list(FILTER bench_sources EXCLUDE REGEX "/bench_[^/]*$")
add_executable(hexkv-bench EXCLUDE_FROM_ALL ${bench_sources})
target_link_libraries(hexkv-bench PRIVATE ggml ggml-cpu ggml-base)
target_include_directories(hexkv-bench PRIVATE "${HEXKV_CSRC}")
target_compile_options(hexkv-bench PRIVATE ${HEXKV_WARNINGS})
set_target_properties(hexkv-bench PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${HEXKV_BIN}")

add_custom_target(tools ALL DEPENDS
    hexkv-bench llama-bench llama-completion llama-perplexity llama-quantize llama-server
    test-backend-ops test-quantize-fns)
if (GGML_RPC)
    add_dependencies(tools ggml-rpc-server)
endif()

# The offline trainer of the codec's tables: ninja -C build train_tables && build/bin/train_tables.
add_executable(train_tables EXCLUDE_FROM_ALL "${HEXKV_CSRC}/tools/train_tables.c")
target_compile_options(train_tables PRIVATE -O3 -march=native -ffast-math)
target_link_libraries(train_tables PRIVATE m)
set_target_properties(train_tables PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${HEXKV_BIN}")

# libhexkv.a: everything that Go links, in one archive.
file(MAKE_DIRECTORY "${HEXKV_LIB}")
file(GLOB HEXKV_API_SOURCES CONFIGURE_DEPENDS "${HEXKV_CSRC}/hexkv*.cpp")
add_library(hexkv_api STATIC EXCLUDE_FROM_ALL ${HEXKV_API_SOURCES})
target_link_libraries(hexkv_api PUBLIC llama-common llama ggml)
target_include_directories(hexkv_api PRIVATE "${HEXKV_LLAMA_DIR}/vendor" "${HEXKV_LLAMA_DIR}/src")
target_compile_options(hexkv_api PRIVATE ${HEXKV_WARNINGS})

set(parts "")
foreach(part hexkv_api llama-common llama-common-base llama cpp-httplib vendor-hash ggml ggml-cpu ggml-cuda ggml-rpc ggml-base)
    if (TARGET ${part})
        list(APPEND parts ${part})
    endif()
endforeach()
list(TRANSFORM parts REPLACE "(.+)" "$<TARGET_FILE:\\1>" OUTPUT_VARIABLE archives)

# One object in which only hexkv_* is global (and C++ inline statics), for programs with another copy of llama.cpp.
add_custom_command(OUTPUT "${HEXKV_LIB}/libhexkv.a"
    COMMAND ${CMAKE_COMMAND} -E rm -f libhexkv.a
    COMMAND ${CMAKE_LINKER} -r -o libhexkv.o --whole-archive ${archives}
    COMMAND ${CMAKE_OBJCOPY} --wildcard "--keep-global-symbol=hexkv_*" libhexkv.o
    COMMAND ${CMAKE_AR} rcs libhexkv.a libhexkv.o
    COMMAND ${CMAKE_COMMAND} -E rm -f libhexkv.o
    WORKING_DIRECTORY "${HEXKV_LIB}"
    DEPENDS ${parts}
    COMMENT "Merging lib/libhexkv.a"
    VERBATIM)
add_custom_target(libhexkv ALL DEPENDS "${HEXKV_LIB}/libhexkv.a")

# hexrun. Go does not see that a static library changed, so the file is removed to force the link.
find_program(HEXKV_GO go)
if (NOT HEXKV_GO) # `make` asks for it; a machine that only measures can do without
    message(STATUS "hexkv: Go is missing, hexrun is not built")
    return()
endif()
file(GLOB_RECURSE go_files CONFIGURE_DEPENDS
    "${CMAKE_SOURCE_DIR}/binding/*" "${CMAKE_SOURCE_DIR}/hexkv/*" "${CMAKE_SOURCE_DIR}/cmd/*" "${CMAKE_SOURCE_DIR}/internal/*")
list(FILTER go_files EXCLUDE REGEX "_test\\.go$|/testdata/|\\.md$|/\\.[^/]*$")
set(cgo_ldflags "")
if (NOT HEXKV_LIB STREQUAL "${CMAKE_SOURCE_DIR}/build/lib") # which binding/doc.go names: a build elsewhere links its own
    set(cgo_ldflags "-L${HEXKV_LIB}")
endif()
if (GGML_CUDA)
    string(JOIN " " cgo_ldflags ${cgo_ldflags} "-L${CUDAToolkit_LIBRARY_DIR}" "-L${CUDAToolkit_LIBRARY_DIR}/stubs"
        -lcudart -lcublas -lcublasLt)
    if (NOT CUDAToolkit_LIBRARY_DIR IN_LIST CMAKE_CXX_IMPLICIT_LINK_DIRECTORIES) # else hexrun would not find them
        string(APPEND cgo_ldflags " -Wl,-rpath,${CUDAToolkit_LIBRARY_DIR}")
    endif()
    if (NOT GGML_CUDA_NO_VMM)
        string(APPEND cgo_ldflags " -lcuda")
    endif()
    if (GGML_CUDA_NCCL)
        find_library(HEXKV_NCCL nccl)
        if (HEXKV_NCCL)
            string(APPEND cgo_ldflags " ${HEXKV_NCCL}")
        endif()
    endif()
endif()
if (GGML_OPENMP)
    string(APPEND cgo_ldflags " -lgomp")
endif()
add_custom_command(OUTPUT "${HEXKV_BIN}/hexrun"
    COMMAND ${CMAKE_COMMAND} -E rm -f "${HEXKV_BIN}/hexrun"
    COMMAND ${CMAKE_COMMAND} -E env CGO_ENABLED=1 "CGO_LDFLAGS=${cgo_ldflags}"
        "${HEXKV_GO}" build -trimpath -o "${HEXKV_BIN}/hexrun" ./cmd/hexrun
    WORKING_DIRECTORY "${CMAKE_SOURCE_DIR}"
    DEPENDS "${HEXKV_LIB}/libhexkv.a" ${go_files} "${CMAKE_SOURCE_DIR}/csrc/hexkv.h"
        "${CMAKE_SOURCE_DIR}/go.mod"
    COMMENT "Building bin/hexrun"
    JOB_POOL console
    VERBATIM)
add_custom_target(hexrun ALL DEPENDS "${HEXKV_BIN}/hexrun")
