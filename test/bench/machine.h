// The machine under hexkv-bench: a clock, who else uses the CPUs, how fast memory is read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

double now_ms();

// CPU time that other processes use, in cores, since the object was made. Negative when the system does not tell.
class others {
public:
    others();
    double cores() const;

private:
    double busy0, own0, time0;
};

// Memory larger than the last-level cache.
class memory {
public:
    memory();
    void   sweep() const;                      // reads it once: what the caches held is gone
    double read_gb_per_s(int n_threads) const; // the best of a few passes

private:
    std::vector<uint64_t> data;
};
