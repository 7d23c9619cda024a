# This file only delegates: CMakeLists.txt builds, scripts/ fetch, test/run.sh tests.
#
#   make              everything: tools, libhexkv, hexrun
#   make demo         builds what it needs, fetches the default model, compares caches, chats
#   make test         every test
#   make test-upstream  llama.cpp's own suites with HEX off and on, RPC workers, its tools: test/README.md
#   make cuda-toolkit nvcc for machines without CUDA, in build/cuda-toolkit: what csrc/cuda is compiled with in the tests
#   make stock        the same llama.cpp without patches, in build/stock/bin
#   make lab          the measurements of docs/quality.md, hours; LAB=presets,base for some, LAB=report for the document alone
#   make sanitize     C and C++ tests under address and undefined sanitizers
#   make clean        removes what was compiled; make distclean also the sources and models that were fetched
#
# Variables: JOBS=2, CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_CUDA=ON", LLAMA_CPP_DIR=..., HEXKV_MODEL_FILE=...
# GGML_CUDA=1 builds for NVIDIA GPUs (CUDA 12.0 or newer, Turing or later).
JOBS ?=
ifdef GGML_CUDA
override CMAKE_ARGS += -DGGML_CUDA=$(if $(filter 0 OFF off,$(GGML_CUDA)),OFF,ON)
endif
ninja = cmake --build build --target $(1) -- $(if $(JOBS),-j $(JOBS))
MAKEFLAGS += --no-print-directory
.NOTPARALLEL: # Ninja is

.PHONY: all configure libs model check demo test test-upstream stock lab sanitize cuda-toolkit clean distclean
all: configure
	@$(call ninja,all)

configure:
	@bash scripts/configure.sh $(CMAKE_ARGS)

libs: configure
	@$(call ninja,libhexkv hexrun)

model:
	@bash scripts/preflight.sh model
	@bash scripts/model.sh

check: # before the long build, not after it
	@bash scripts/preflight.sh build model

demo: check libs model
	@bash scripts/demo.sh

test: check all model
	@bash test/run.sh

test-upstream: check all model
	@JOBS='$(JOBS)' bash test/upstream.sh

stock:
	@bash scripts/preflight.sh build
	@JOBS='$(JOBS)' bash scripts/stock.sh

lab: check all model
	@bash test/lab/run.sh $(LAB)

sanitize:
	@bash scripts/preflight.sh build
	@JOBS='$(JOBS)' bash scripts/sanitize.sh

cuda-toolkit:
	@bash scripts/cuda-toolkit.sh

clean:
	@bash scripts/clean.sh

distclean:
	@bash scripts/clean.sh all
