#include "machine.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <thread>

double now_ms() {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Seconds that the CPUs of the machine were busy since it started; steal counts, what a hypervisor takes is gone as well.
static double busy_seconds() {
    unsigned long long user, nice, system, idle, iowait, irq, softirq, steal;
    FILE * f = fopen("/proc/stat", "r");
    const int n = f ? fscanf(f, "cpu %llu %llu %llu %llu %llu %llu %llu %llu",
                             &user, &nice, &system, &idle, &iowait, &irq, &softirq, &steal) : 0;
    if (f) {
        fclose(f);
    }
    return n == 8 ? (double) (user + nice + system + irq + softirq + steal)/(double) sysconf(_SC_CLK_TCK) : -1;
}

static double own_seconds() {
    rusage u = {};
    getrusage(RUSAGE_SELF, &u);
    return (double) (u.ru_utime.tv_sec + u.ru_stime.tv_sec) + 1e-6*(double) (u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

others::others() : busy0(busy_seconds()), own0(own_seconds()), time0(now_ms()) {}

double others::cores() const {
    const double busy = busy_seconds();
    return busy < 0 || busy0 < 0 ? -1 : std::max(0.0, (busy - busy0 - (own_seconds() - own0))/(1e-3*(now_ms() - time0)));
}

static size_t sweep_bytes() {
    const size_t MiB = 1 << 20;
    const long l3 = sysconf(_SC_LEVEL3_CACHE_SIZE); // 0 or -1 where it is not known
    return std::clamp(l3 > 0 ? 2*(size_t) l3 : 256*MiB, 64*MiB, 1024*MiB);
}

memory::memory() : data(sweep_bytes()/sizeof(uint64_t), 1) {}

static std::atomic<uint64_t> sink; // what is read has to be used

static void read_words(const uint64_t * x, size_t n) {
    uint64_t sum[32] = {}; // enough independent sums for any vector width
    for (size_t i = 0; i + 32 <= n; i += 32) {
        for (size_t j = 0; j < 32; j++) {
            sum[j] += x[i + j];
        }
    }
    uint64_t all = 0;
    for (uint64_t s : sum) {
        all += s;
    }
    sink.store(all, std::memory_order_relaxed);
}

void memory::sweep() const { read_words(data.data(), data.size()); }

double memory::read_gb_per_s(int n_threads) const {
    const size_t part = data.size()/(size_t) n_threads;
    double best = 0;
    for (int pass = 0; pass < 8; pass++) {
        const double start = now_ms();
        std::vector<std::thread> threads;
        for (int i = 1; i < n_threads; i++) {
            threads.emplace_back(read_words, &data[part*(size_t) i], part);
        }
        read_words(data.data(), part);
        for (auto & t : threads) {
            t.join();
        }
        best = std::max(best, 1e-6*(double) (part*(size_t) n_threads*sizeof(uint64_t))/(now_ms() - start));
    }
    return best;
}
