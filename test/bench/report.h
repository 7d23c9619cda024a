// Rows of results on stdout: a Markdown table, a JSON array, CSV. Each row is printed when it is known.
#pragma once

#include "workload.h"

#include <map>
#include <string>

struct row {
    std::string op, cache, isa;
    struct shape shape = {};
    int    threads = 0, rounds = 0;
    double ms = 0, ms_median = 0, ms_f16 = 0; // the best round, the median; the best round of f16
    double with_commit = 0;                   // attention only: ratio to f16 when both store the ubatch as well; 0: not measured
    size_t bytes = 0;                         // decode only: read from the cache
    double gb_per_s = 0, share = 0;           // bytes/ms; of the bandwidth of memory
};

class report {
public:
    report(const std::string & format, const std::map<int, double> & gb_per_s);
    void add(const row & r);
    void end();

private:
    const std::string format;
    int n_rows = 0;
};
