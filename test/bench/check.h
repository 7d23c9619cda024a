// hexkv-bench --check: is what the benchmark times also right?
#pragma once

#include "options.h"

// Prints a line per comparison. False when one is off.
bool check(ggml_backend_t backend, const std::vector<shape> & shapes, const options & o);
