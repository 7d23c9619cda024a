#include "check.h"

#include "cpu/hex_isa.h"

#include "ggml-cpu.h"

#include <cmath>
#include <cstdio>

static double nmse(const std::vector<float> & a, const std::vector<float> & b) { // of a against b
    double err = 0, sum = 0;
    for (size_t i = 0; i < a.size(); i++) {
        err += ((double) a[i] - (double) b[i])*((double) a[i] - (double) b[i]);
        sum += (double) b[i]*(double) b[i];
    }
    return err == 0 ? 0 : err/sum;
}

static bool report(const char * what, double err, double limit) {
    const bool ok = err <= limit; // false for NaN
    printf("  %-52s %.1e  %s\n", what, err, ok ? "ok" : "WRONG");
    return ok;
}

// The reference would take minutes for a whole prefill.
static shape reduced(shape s) {
    if (s.n_tps > 1) {
        s.n_tps = 130; // and not a multiple of the tiles
        s.n_kv  = 1024;
    }
    return s;
}

static bool check_shape(ggml_backend_t backend, const shape & s, const cache_type & f16, const cache_type & hex) {
    // the stock op over f16 sums values in f16, which costs more than what is compared here: the decoded rows are F32
    const cache_type f32 = { "f32", GGML_TYPE_F32, GGML_TYPE_F32, {} };
    cache_type plain = hex;
    plain.hex.unbias = 0; // the stock op knows no correction of the coding noise
    workload w(backend, s, { f32, hex, f16, plain });
    printf("%s: %s, %d queries, %d x %d cells, head size %d, %d KV heads, group %d\n",
           hex.name.c_str(), s.op, s.n_q(), s.n_stream, s.n_kv, s.head, s.n_head_kv, s.group);

    w.attend(2);
    hex_coarse_set(0);
    w.attend(1);
    const std::vector<float> fast = w.output(1), fast_mass = w.mass(1);

    ggml_backend_cpu_set_use_ref(backend, true);
    w.attend(1);
    ggml_backend_cpu_set_use_ref(backend, false);
    bool ok = report("attention, fast path against reference", nmse(fast, w.output(1)), 1e-6);
    ok = report("attention mass, fast path against reference", nmse(fast_mass, w.mass(1)), 1e-6) && ok;

    w.attend(3);
    w.copy_decoded(3, 0);
    w.attend(0);
    ok = report("attention, HEX against the stock op, decoded rows", nmse(w.output(3), w.output(0)), 1e-6) && ok;
    // the codec's own error, which is large where the rows are random: V of one bit, not shrunk, has 0.26/(1 - 0.26)
    ok = report("attention, HEX against the stock op, f16", nmse(fast, w.output(2)), hex.type_v == GGML_TYPE_HEX1 ? 0.4 : 0.2) && ok;

    // 8 bits of queries and weights beside rows that are coded with less
    hex_coarse_set(1);
    w.attend(3);
    ok = report("attention, coarse where that is allowed", nmse(w.output(3), w.output(0)), 2e-4) && ok;

    // codes and tables are the same bits on every path; the mass that both start from is the fast path's
    workload ref(backend, s, { hex });
    const enum hex_isa isa = hex_isa_get();
    ref.attend(0);
    w.attend(1);
    ref.prepare_store(0);
    w.prepare_store(1);
    w.store(1);
    hex_isa_set(HEX_ISA_REF);
    ref.store(0);
    hex_isa_set(isa);
    const std::vector<uint8_t> a = w.contents(1), b = ref.contents(0);
    size_t n_diff = 0;
    for (size_t i = 0; i < a.size(); i++) {
        n_diff += a[i] != b[i];
    }
    return report("commit, bytes that differ from the reference", (double) n_diff, 0) && ok;
}

bool check(ggml_backend_t backend, const std::vector<shape> & shapes, const options & o) {
    bool ok = true;
    ggml_backend_cpu_set_n_threads(backend, o.threads[0]);
    for (const shape & s : shapes) {
        for (const cache_type & c : o.caches) {
            if (c.hex.enabled) {
                ok = check_shape(backend, reduced(s), o.caches[0], c) && ok;
            }
        }
    }
    printf("%s\n", ok ? "all results agree" : "some results are wrong");
    return ok;
}
