// The command line of hexkv-bench.
#pragma once

#include "workload.h"

#include <string>
#include <vector>

struct options {
    std::vector<int>         threads = { 1, 2 };
    std::vector<std::string> ops     = { "decode", "prefill", "decode_batch", "commit" };
    std::vector<cache_type>  caches; // the first one is f16
    std::vector<int>         cells;  // empty: those of the shapes
    std::string              output  = "md";
    int  rounds = 0; // 0: as many as fit in a time
    bool quick = false, check = false, warm = false;

    bool has(const char * op) const;
};

// Does not return for -h, nor for wrong input: one sentence on stderr, exit code 2.
options parse_options(int argc, char ** argv);
