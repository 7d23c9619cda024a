// hexkv-bench: stock and HEX ops of one shape in turns, and how much longer or shorter each takes than f16. README.md.
#include "check.h"
#include "machine.h"
#include "options.h"
#include "report.h"

#include "cpu/hex_isa.h"

#include "ggml-cpu.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <map>
#include <thread>

static const shape all_shapes[] = {
    // op              per stream, streams, cells, head, KV heads, group
    { "decode",          1, 1,  8192, 128, 8, 4 },
    { "decode",          1, 1, 32768, 128, 8, 4 },
    { "decode",          1, 1,  8192,  64, 3, 3 },
    { "prefill",       512, 1,  8192, 128, 8, 4 },
    { "prefill",       512, 1,  8192,  64, 3, 3 },
    { "decode_batch",    1, 8,  4096, 128, 8, 4 },
};

// Those of the attention ops that were asked for. `commit` alone means that of every shape.
static std::vector<shape> wanted_shapes(const options & o) {
    std::vector<shape> shapes;
    for (shape s : all_shapes) {
        if (!o.has(s.op) && o.ops != std::vector<std::string> { "commit" }) {
            continue;
        }
        s.n_tps = o.quick ? std::min(s.n_tps, 64) : s.n_tps;
        if (o.cells.empty()) {
            shapes.push_back(s);
        }
        const auto same = [&](const shape & t) { return strcmp(t.op, s.op) == 0 && t.head == s.head; };
        if (std::none_of(shapes.begin(), shapes.end(), same)) { // decode of a head size has two shapes
            for (int n : o.cells) {
                s.n_kv = n;
                shapes.push_back(s);
            }
        }
    }
    return shapes;
}

// Threads that wait for the next graph, as llama.cpp's programs keep them: a graph of one op is too short to start
// threads for it.
struct thread_pool {
    ggml_backend_t    backend;
    ggml_threadpool_t pool;

    thread_pool(ggml_backend_t backend, int n) : backend(backend) {
        ggml_threadpool_params p = ggml_threadpool_params_default(n);
        pool = ggml_threadpool_new(&p);
        ggml_backend_cpu_set_threadpool(backend, pool);
        ggml_backend_cpu_set_n_threads(backend, n);
    }
    ~thread_pool() {
        ggml_backend_cpu_set_threadpool(backend, nullptr);
        ggml_threadpool_free(pool);
    }
};

struct samples {
    std::vector<double> attend, store; // ms of each round
};

// A B C A B C ...: what disturbs the machine for a while disturbs all of them.
static std::vector<samples> measure(workload & w, const memory & mem, const options & o, bool attend, bool store, bool prefill) {
    const int    min_rounds = o.rounds ? o.rounds : prefill ? (o.quick ? 1 : 3) : 5;
    const int    max_rounds = o.rounds ? o.rounds : 200;
    const double budget     = o.rounds ? 0 : o.quick ? 1000 : 5000;

    std::vector<samples> all(w.size());
    if (!prefill || !attend) { // once without a clock; a prefill is too long for it, and too long to need it
        for (size_t i = 0; i < w.size(); i++) {
            w.attend(i);
        }
    }
    const double start = now_ms();
    for (int round = 0; round < min_rounds || (round < max_rounds && now_ms() - start < budget); round++) {
        for (size_t i = 0; attend && i < w.size(); i++) {
            if (!o.warm) {
                mem.sweep();
            }
            const double t = now_ms();
            w.attend(i);
            all[i].attend.push_back(now_ms() - t);
        }
        for (size_t i = 0; store && i < w.size(); i++) {
            double took = 0;
            for (int turn = 0; turn < 2; turn++) { // the second counts: in a model the layer before has stored as well
                w.prepare_store(i);
                const double t = now_ms();
                w.store(i);
                took = now_ms() - t;
            }
            all[i].store.push_back(took);
        }
    }
    return all;
}

static void set_times(row & r, const std::vector<double> & sorted, const std::vector<double> & f16) {
    r.ms        = sorted.front();
    r.ms_median = sorted[sorted.size()/2];
    r.ms_f16    = f16.front();
    r.rounds    = (int) sorted.size();
}

// Rows of attention, then rows of commit. The first cache is f16.
static void add_rows(report & out, row r, const options & o, std::vector<samples> & all, const workload & w, double gb_per_s) {
    for (samples & ms : all) {
        std::sort(ms.attend.begin(), ms.attend.end());
        std::sort(ms.store.begin(), ms.store.end());
    }
    const samples & f16 = all[0];
    for (size_t i = 0; i < all.size() && !f16.attend.empty(); i++) {
        r.op    = r.shape.op;
        r.cache = o.caches[i].name;
        set_times(r, all[i].attend, f16.attend);
        if (!f16.store.empty()) {
            r.with_commit = (r.ms + all[i].store.front())/(r.ms_f16 + f16.store.front());
        }
        if (r.shape.n_tps == 1) {
            r.bytes    = w.bytes_read(i);
            r.gb_per_s = 1e-6*(double) r.bytes/r.ms;
            r.share    = r.gb_per_s/gb_per_s;
        }
        out.add(r);
    }
    r.bytes = 0;
    r.with_commit = 0;
    for (size_t i = 0; i < all.size() && !f16.store.empty(); i++) {
        r.op    = "commit";
        r.cache = o.caches[i].name;
        set_times(r, all[i].store, f16.store);
        out.add(r);
    }
}

static void warn_when_busy(const others & o, const char * when) {
    const double cores = o.cores();
    if (cores > 0.1) {
        fprintf(stderr, "hexkv-bench: warning: %s, other processes used %.1f of %u cores; "
                "repeat on an idle machine before you trust a ratio.\n", when, cores, std::thread::hardware_concurrency());
    }
}

int main(int argc, char ** argv) {
    const options o = parse_options(argc, argv);
    const std::vector<shape> shapes = wanted_shapes(o);

    const ggml_backend_t backend = ggml_backend_cpu_init();
    if (o.check) {
        const bool ok = check(backend, shapes, o);
        ggml_backend_free(backend);
        return ok ? 0 : 1;
    }

    others before;
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    warn_when_busy(before, "just before the start");

    const others meanwhile;
    const memory mem;
    std::map<int, double> gb_per_s;
    for (int t : o.threads) {
        gb_per_s[t] = mem.read_gb_per_s(t);
    }
    report out(o.output, gb_per_s);
    for (const shape & s : shapes) {
        workload w(backend, s, o.caches);
        for (int t : o.threads) {
            const thread_pool pool(backend, t);
            std::vector<samples> all = measure(w, mem, o, o.has(s.op), o.has("commit"), s.n_tps > 1);
            row r;
            r.shape   = s;
            r.isa     = hex_isa_name(hex_isa_get());
            r.threads = t;
            add_rows(out, r, o, all, w, gb_per_s[t]);
        }
    }
    out.end();
    warn_when_busy(meanwhile, "during the run");
    ggml_backend_free(backend);
    return 0;
}
