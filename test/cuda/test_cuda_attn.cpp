// HEX_ATTN in CUDA, run on the CPU, against csrc/cpu/hex_attn_ref.c. Random shapes, masks, slot states, valid and hostile.
#include "ops/attn_case.h"

#include "cuda/hex_attn.cu"
#include "cuda/hex_attn_mass.cu"

#include "core/check.h"
#include "core/hex_config.h"

// K, V, queries and weights are rounded to f16: 2^-12 of each, and logits of up to some tens turn that into a few per mille
// of a weight.
struct limits { double out, row, mass; }; // NMSE of a case, of one output row, of the mass of one KV head
static const limits LIMIT_F16 = { 6e-6, 1e-4, 2e-5 };

struct worst { double out = 0, row = 0, mass = 0; };

static bool compare(const attn_data & a, const std::vector<float> & out, const std::vector<float> & mass, worst & w) {
    const size_t n = (size_t) a.c.sh.head_v;
    const double e = nmse(a.out.data(), out.data(), out.size());
    double row = 0, m = 0, all = 0;
    for (const float v : out) {
        all += (double) v*(double) v;
    }
    for (size_t i = 0; i < out.size(); i += n) {
        double err = 0, sum = 0;
        for (size_t j = i; j < i + n; j++) {
            err += pow((double) a.out[j] - (double) out[j], 2);
            sum += pow((double) out[j], 2);
        }
        row = std::max(row, err == 0 ? 0 : err/(sum + 1e-3*all*(double) n/(double) out.size())); // weights below 2^-25 are 0 in f16
    }
    bool ok = true;
    const size_t n_heavy = (size_t) a.c.sh.n_heavy, head = (size_t) a.c.sh.n_ring + 2*n_heavy + (size_t) a.c.n_tps;
    for (size_t i = 0; i < mass.size(); i += head) {
        m = std::max(m, nmse(&a.mass[i], &mass[i], head - n_heavy));
        ok = ok && memcmp(&a.mass[i + head - n_heavy], &mass[i + head - n_heavy], 4*n_heavy) == 0; // counts are exact
    }
    w.out  = std::max(w.out, e);
    w.row  = std::max(w.row, row);
    w.mass = std::max(w.mass, m);
    return ok && e <= LIMIT_F16.out && row <= LIMIT_F16.row && m <= LIMIT_F16.mass; // NaN fails
}

static void describe(int i, const attn_case & c, const char * what, const worst & w) {
    printf("case %d %s: head %d/%d x%d group %d, tokens %d x%d, n_kv %d of %d, hex%d/hex%d refine %d, ring %d heavy %d graph %d, "
           "mask %s%s%s%s%s%s; NMSE %.1e row %.1e mass %.1e\n", i, what, c.sh.head_k, c.sh.head_v, c.sh.n_head_kv, c.group, c.n_tps, c.sh.n_stream, c.n_kv, c.sh.n_ctx,
           c.sh.bits_k, c.sh.bits_v, c.sh.refine, c.sh.n_ring, c.sh.n_heavy, c.sh.graph_kind, mask_names[c.mask], c.alibi ? " alibi" : "",
           c.softcap ? " softcap" : "", c.sinks ? " sinks" : "", c.hostile ? " hostile" : "", c.frozen ? " frozen" : "", w.out, w.row, w.mass);
}

// The random cases of the CPU's test, less what is refused, on the sizes that are supported.
static attn_case cuda_case(rng & r, int i, double budget) {
    static const int32_t sizes[] = { 64, 64, 128, 256 }, few[] = { 1, 1, 2, 3 }, many[] = { 5, 17, 40, 70 };
    attn_case c = random_case(r, 5e5); // smaller ones may not exist
    c.sh.head_k = c.sh.head_v = r.pick(sizes);
    c.n_tps     = i % 2 == 0 ? r.pick(few) : r.pick(many);
    c.huge      = false; // beyond f16
    if (c.sh.graph_kind == HEX_BACKBONE_CHANNELS) {
        c.sh.graph_kind = HEX_BACKBONE_EXPANDER;
        set_graph(c.sh, r);
    }
    if (i % 16 < 2) { // several chunks in a range
        c.sh.head_k = c.sh.head_v = 64;
        c.sh.n_head_kv = c.sh.n_stream = 1;
        c.group     = r.range(1, 3);
        c.sh.n_ctx  = 3000;
        c.n_kv      = r.range(HEX_CHUNK, 3000);
        if (c.sh.refine != HEX_REFINE_NONE) {
            set_graph(c.sh, r);
        }
        return c;
    }
    while ((double) c.n_tps*c.group*c.sh.n_head_kv*c.sh.n_stream*(c.n_kv + c.n_tps)*c.sh.head_k > 64*budget) {
        if (c.sh.n_stream > 1)       { c.sh.n_stream--; }
        else if (c.n_kv > 150)       { c.n_kv /= 2; }
        else if (c.sh.n_head_kv > 1) { c.sh.n_head_kv--; }
        else if (c.group > 4)        { c.group /= 2; }
        else { break; }
    }
    return c;
}

static int run_cuda(attn_data & a, const hex_cuda_device & dev, rng & r) {
    std::fill(a.out .begin(), a.out .end(), NAN); // every element must be written
    std::fill(a.mass.begin(), a.mass.end(), NAN);
    const struct hex_attn at = a.attn();
    buffer work(hex_attn_cuda_work(at, dev));
    work.fill(r);
    return hex_attn_cuda(at, work.as<void>(), dev, nullptr);
}

static void test_random(int n_cases, double budget) {
    rng r { 20260303 };
    worst all;
    int bad = 0, bad_order = 0, bad_sources = 0, n_few = 0, n_split = 0, n_chunks = 0;
    for (int i = 0; i < n_cases; i++) {
        const attn_case c = cuda_case(r, i, budget);
        attn_data a(c, r);
        const attn_data before = a;
        const struct hex_attn at = a.attn();
        buffer work(hex_attn_ref_work(&at));
        hex_attn_ref(&at, work.as<void>(), 0);
        const std::vector<float> ref_out = a.out, ref_mass = a.mass;

        const hex_cuda_device dev = { i % 16 < 2 ? 1 : r.range(1, 60), r.chance(0.2) ? 80000u : 99*1024u };
        n_few   += few_rows(at);
        n_split += make_args(at, dev, nullptr).n_split > 1;
        n_chunks += make_args(at, dev, nullptr).range > HEX_CHUNK;
        worst w;
        if (!run_cuda(a, dev, r) || !compare(a, ref_out, ref_mass, w)) {
            describe(i, c, "differs", w);
            bad++;
        }
        all.out = std::max(all.out, w.out), all.row = std::max(all.row, w.row), all.mass = std::max(all.mass, w.mass);
        const std::vector<float> out = a.out, mass = a.mass;
        if (i % 4 == 0) { // the threads of the second run go in another order
            run_cuda(a, dev, r);
            if (memcmp(out.data(), a.out.data(), 4*out.size()) != 0 || (!mass.empty() && memcmp(mass.data(), a.mass.data(), 4*mass.size()) != 0)) {
                describe(i, c, "order of threads", w);
                bad_order++;
            }
        }
        bad_sources += !(a.d.k_base == before.d.k_base && a.d.v_base == before.d.v_base && a.d.pool == before.d.pool && a.d.state == before.d.state &&
                         a.d.meta == before.d.meta && a.d.k_cur == before.d.k_cur && a.d.v_cur == before.d.v_cur && a.q == before.q && a.mask == before.mask);
    }
    check(bad == 0, "HEX_ATTN in CUDA equals the reference: %d cases, NMSE at most %.1e (row %.1e, mass %.1e)", n_cases, all.out, all.row, all.mass);
    check(n_cases < 100 || (n_few >= n_cases/4 && n_cases - n_few >= n_cases/4 && n_split >= n_cases/8 && n_chunks >= n_cases/32),
          "%d of them are decoding, %d split the cells, %d have ranges of several chunks", n_few, n_split, n_chunks);
    check(bad_order == 0, "the order of threads makes no difference, bit for bit");
    check(bad_sources == 0, "no source is written");
}

// Rows of every scale, each the only one that a query sees: the output is the row, to half precision.
static void test_scales() {
    rng r { 11 };
    double worst_error = 0; // in units of 2^-11: three factors, each rounded
    for (int k = 1; k <= 4; k++) {
        attn_case c;
        c.sh.bits_v = k;
        c.sh.refine = HEX_REFINE_NONE;
        c.sh.n_ctx = c.n_kv = c.n_tps = 256;
        c.mask = MASK_RANDOM;
        attn_data a(c, r);
        memset(a.d.bitmap(0), 0xff, 32);
        for (int32_t i = 0; i < 256; i++) {
            a.d.rows(0)[i].cell = -1;
            for (int32_t cell = 0; cell < 256; cell++) { a.mask_at(0, i)[cell] = cell == i ? 0 : 0xfc00; }
            const uint16_t word = (uint16_t) (((uint32_t) i*(1u << k) + (uint32_t) r.below(1 << k)) << (8 - k));
            memcpy(a.d.base(false, 0, 0, i) + 8*k, &word, 2);
        }
        run_cuda(a, { 1, 99*1024 }, r);
        for (int32_t i = 0; i < 256; i++) {
            double want[64];
            a.d.decode_base(false, 0, 0, i, want);
            for (int32_t j = 0; j < 64; j++) {
                const double unit = std::max(fabs(want[j])*0x1p-11, 0x1p-24), e = fabs(want[j] - (double) a.out[(size_t) i*64 + j])/unit;
                worst_error = e <= worst_error ? worst_error : e; // NaN stays
            }
        }
    }
    check(worst_error <= 3, "rows of every scale are decoded to f16's precision: at most %.2f units off", worst_error);
}

// Caches of many cells: more ranges than a warp has lanes, and ranges of several chunks.
static void test_long() {
    rng r { 12000 };
    int bad = 0, n = 0, most_ranges = 0, most_chunks = 0;
    worst all;
    for (const int32_t n_tps : { 1, 40 }) { // 4 and 40 query rows: the kernels of decoding and of prefill
        for (const int32_t n_kv : { 12000, 17000 }) {
            attn_case c;
            c.sh.bits_k = 4;
            c.sh.bits_v = 2;
            c.sh.refine = HEX_REFINE_HEX4;
            c.sh.n_ring = 256;
            c.sh.n_heavy = n_kv/16;
            c.sh.n_ctx  = c.n_kv = n_kv;
            c.group  = n_tps == 1 ? 4 : 1;
            c.n_tps  = n_tps;
            c.mask   = MASK_CAUSAL;
            c.sinks  = n_kv == 12000;
            c.frozen = true;
            attn_data a(c, r);
            const struct hex_attn at = a.attn();
            buffer work(hex_attn_ref_work(&at));
            hex_attn_ref(&at, work.as<void>(), 0);
            const std::vector<float> ref_out = a.out, ref_mass = a.mass;
            for (const int n_sm : { 1, 60, 132 }) {
                const hex_cuda_device dev = { n_sm, 99*1024 };
                const attn_args p = make_args(at, dev, nullptr);
                most_ranges = std::max(most_ranges, (int) p.n_split);
                most_chunks = std::max(most_chunks, (int) (p.range + HEX_CHUNK - 1)/HEX_CHUNK);
                worst w;
                if (!run_cuda(a, dev, r) || !compare(a, ref_out, ref_mass, w)) {
                    describe(n, c, "long", w);
                    bad++;
                }
                all.out = std::max(all.out, w.out), all.row = std::max(all.row, w.row), all.mass = std::max(all.mass, w.mass);
                n++;
            }
        }
    }
    check(bad == 0, "caches of 12,000 and 17,000 cells: %d cases, NMSE at most %.1e (row %.1e, mass %.1e)", n, all.out, all.row, all.mass);
    check(most_ranges > 2*HEX_WARP && most_chunks > 8, "up to %d ranges, and up to %d chunks in one", most_ranges, most_chunks);
}

// Every preset has kernels on a device with the 64 KB of shared memory that Turing has.
static void test_turing() {
    rng r { 64 };
    int bad = 0, n = 0, n_small = 0;
    worst all;
    for (const char * preset : { "tiny", "compact", "balanced", "quality", "paper" }) {
        for (const int32_t head : { 64, 128, 256 }) {
            for (const int32_t n_tps : { 1, 40 }) {
                hex_params hp;
                hex_params_preset(&hp, preset);
                attn_case c;
                c.sh.head_k = c.sh.head_v = head;
                c.sh.bits_k = hp.base_k;
                c.sh.bits_v = hp.base_v;
                c.sh.refine = hp.refine;
                c.sh.unbias = hp.unbias;
                c.sh.n_ring = c.sh.n_heavy = 100;
                c.sh.n_ctx  = c.n_kv = 2000; // several chunks
                c.group  = 2;
                c.n_tps  = n_tps;
                c.mask   = MASK_CAUSAL;
                c.frozen = true;
                attn_data a(c, r);
                const struct hex_attn at = a.attn();
                const hex_cuda_device dev = { 1, 65536 };
                n_small += pick_kernel(at, dev).chunk < HEX_CHUNK;
                if (strcmp(preset, "balanced") == 0) {
                    const attend_kernel kernel = pick_kernel(at, { 1, 227*1024 }); // where there is enough
                    printf("     head %d, %s: %zu bytes of shared memory for %d threads\n", head, n_tps == 1 ? "decode" : "prefill", kernel.shared, kernel.threads);
                }
                buffer work(hex_attn_ref_work(&at));
                hex_attn_ref(&at, work.as<void>(), 0);
                const std::vector<float> ref_out = a.out, ref_mass = a.mass;
                worst w;
                if (!run_cuda(a, dev, r) || !compare(a, ref_out, ref_mass, w)) {
                    describe(n, c, preset, w);
                    bad++;
                }
                all.out = std::max(all.out, w.out), all.row = std::max(all.row, w.row), all.mass = std::max(all.mass, w.mass);
                n++;
            }
        }
    }
    check(bad == 0, "64 KB of shared memory serve every preset, head size and number of rows: %d cases, NMSE at most %.1e (row %.1e, mass %.1e)", n, all.out, all.row, all.mass);
    check(n_small >= 3, "%d of them with chunks of fewer cells", n_small);
}

static attn_case two_kv_heads(int32_t head, int32_t group, int32_t n_tps) {
    attn_case c;
    c.sh.head_k = c.sh.head_v = head;
    c.sh.n_head_kv = 2;
    c.sh.n_ring = c.sh.n_heavy = 30;
    c.sh.n_ctx  = c.n_kv = 300;
    c.group  = group;
    c.n_tps  = n_tps;
    c.mask   = MASK_CAUSAL;
    c.frozen = true;
    return c;
}

// What is left of them can then be compared.
static void zero_nan(std::initializer_list<std::vector<float> *> all) {
    for (std::vector<float> * x : all) {
        std::replace_if(x->begin(), x->end(), [](float v) { return std::isnan(v); }, 0.0f);
    }
}

// A query that is not a number gives such an output, and disturbs no other.
static void test_not_a_number() {
    rng r { 9 };
    int bad = 0, n = 0;
    for (const int32_t head : { 64, 128, 256 }) {
        for (const int32_t n_tps : { 1, 40 }) {
            const attn_case c = two_kv_heads(head, 2, n_tps);
            attn_data a(c, r);
            const size_t i_nan = (size_t) ((n_tps - 1)*4 + 1); // the last token, head 1 of 4
            ((float *) (a.q.as<char>() + a.q_row*(size_t) (n_tps - 1) + a.q_head))[head - 3] = NAN;
            const struct hex_attn at = a.attn();
            buffer work(hex_attn_ref_work(&at));
            hex_attn_ref(&at, work.as<void>(), 0);
            std::vector<float> ref_out = a.out, ref_mass = a.mass;
            bool ok = run_cuda(a, { 4, 99*1024 }, r);
            for (size_t i = 0; i < a.out.size(); i++) {
                const bool not_a_number = i/(size_t) head == i_nan;
                ok = ok && std::isnan(ref_out[i]) == not_a_number && std::isnan(a.out[i]) == not_a_number;
            }
            for (size_t i = 0; i < a.mass.size(); i++) {
                ok = ok && std::isnan(ref_mass[i]) == std::isnan(a.mass[i]);
            }
            zero_nan({ &ref_out, &ref_mass, &a.out, &a.mass });
            worst w;
            if (!compare(a, ref_out, ref_mass, w) || !ok) {
                describe(n, c, "not a number", w);
                bad++;
            }
            n++;
        }
    }
    check(bad == 0, "a query that is not a number gives such an output and disturbs no other: %d cases", n);
}

// V of a row that is not a number gives such an output to the query rows that see it, in its channels, and disturbs no other.
static void test_v_not_a_number() {
    rng r { 10 };
    int bad = 0, n = 0, n_spoiled = 0, n_other = 0;
    for (const int32_t head : { 64, 128, 256 }) {
        for (const int32_t n_tps : { 1, 3, 40 }) {
            const attn_case c = two_kv_heads(head, 3, n_tps);
            attn_data a(c, r);
            a.d.cur(false, 0, 1, n_tps/2)[head - 5] = a.d.cur(false, 0, 1, n_tps/2)[2] = NAN; // of one KV head
            const struct hex_attn at = a.attn();
            buffer work(hex_attn_ref_work(&at));
            hex_attn_ref(&at, work.as<void>(), 0);
            std::vector<float> ref_out = a.out;
            const std::vector<float> ref_mass = a.mass;
            bool ok = run_cuda(a, { 4, 99*1024 }, r);
            for (size_t i = 0; i < a.out.size(); i++) {
                ok = ok && std::isnan(ref_out[i]) == std::isnan(a.out[i]);
                (std::isnan(ref_out[i]) ? n_spoiled : n_other)++;
            }
            zero_nan({ &ref_out, &a.out });
            worst w;
            if (!compare(a, ref_out, ref_mass, w) || !ok) {
                describe(n, c, "V not a number", w);
                bad++;
            }
            n++;
        }
    }
    check(bad == 0, "V that is not a number spoils what sees it and nothing else: %d cases", n);
    check(n_spoiled > 0 && n_other > 10*n_spoiled, "%d values of the output and not the %d others", n_spoiled, n_other);
}

// Refused rather than computed wrongly.
static void test_refused() {
    rng r { 5 };
    const hex_cuda_device dev = { 1, 99*1024 };
    attn_case c;
    c.sh.head_k = 192;
    c.sh.head_v = 128;
    attn_data a(c, r);
    check(!run_cuda(a, dev, r), "head sizes 192 and 128 are refused");
    c.sh.head_k = c.sh.head_v = 64;
    c.sh.refine = HEX_REFINE_F16;
    c.sh.graph_kind = HEX_BACKBONE_CHANNELS;
    set_graph(c.sh, r);
    attn_data b(c, r);
    check(!run_cuda(b, dev, r), "a backbone of channels is refused");
}

int main(int argc, char ** argv) {
    const int n_cases = argc > 1 ? atoi(argv[1]) : sanitized ? 12 : 400;
    test_random(n_cases, sanitized ? 1e4 : 4e4);
    test_scales();
    if (!sanitized) {
        test_long();
    }
    test_turing();
    test_not_a_number();
    test_v_not_a_number();
    test_refused();
    return check_exit_code();
}
