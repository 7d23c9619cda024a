// The attention kernels against three others: an independent one in double precision (below), the reference of
// csrc/cpu, and ggml_flash_attn_ext. Random shapes, masks, slot states, valid and hostile.
#include "attn_case.h"

#ifndef HEX_TEST_WITHOUT_GGML // neon.sh
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow" // ggml-backend.h
#include "ggml/hex_ops.h"

#include "ggml-cpu.h"
#include "ggml.h"
#pragma GCC diagnostic pop
#endif

#include "core/check.h"

#include <algorithm>
#include <map>
#include <string>

// Float sums of up to some thousand terms in another order, and exp good to 2 ulp.
struct limits { double out, row, mass; }; // NMSE of a case, of one output row, of the mass
static const limits LIMIT_FLOATS = { 1e-10, 1e-8, 1e-10 };
static const limits LIMIT_CODES  = { 3e-7,  4e-6, 1e-6 }; // queries of 15 bits, weights of 16
static const limits LIMIT_COARSE = { 1e-3,  3e-2, 1e-3 }; // of 8 bits, where logits are of ordinary size; near a tie a row is off by more: test_coarse.cpp is strict

// ---- attention in double precision, from the description in hex_ops.h

struct model_result { std::vector<float> out, mass; };

static model_result model_attn(attn_data & a) {
    const attn_case & c = a.c;
    const shape & sh = c.sh;
    cache_data & d = a.d;
    const int32_t n_head = sh.n_head_kv*c.group, n_slots = d.n_slots, n_ranked = sh.n_ring + sh.n_heavy;
    const size_t n_mass = (size_t) n_ranked + (size_t) c.n_tps + (size_t) sh.n_heavy;
    model_result res;
    res.out.resize(a.out.size());
    std::vector<double> mass(a.mass.size());
    const float n_log2 = exp2f(floorf(log2f((float) n_head)));

    for (int32_t s = 0; s < sh.n_stream; s++) {
        for (int32_t h = 0; h < sh.n_head_kv; h++) {
            // every cell decoded once, in its best precision: the first slot that names it
            std::vector<int32_t> slot_of((size_t) c.n_kv, -1);
            for (int32_t i = n_slots - 1; i >= 0; i--) {
                const int32_t cell = d.slot_cell(s, h, i);
                if (cell >= 0 && cell < c.n_kv) {
                    slot_of[(size_t) cell] = i;
                }
            }
            std::vector<double> k((size_t) c.n_kv*sh.head_k), v((size_t) c.n_kv*sh.head_v);
            for (int32_t cell = 0; cell < c.n_kv; cell++) {
                if (!d.bit(s, cell)) {
                    slot_of[(size_t) cell] = -1;
                    continue;
                }
                d.decode_base(true,  s, h, cell, &k[(size_t) cell*sh.head_k]);
                d.decode_base(false, s, h, cell, &v[(size_t) cell*sh.head_v]);
                if (slot_of[(size_t) cell] < 0) {
                    d.add_channels(true,  s, h, cell, &k[(size_t) cell*sh.head_k]);
                    d.add_channels(false, s, h, cell, &v[(size_t) cell*sh.head_v]);
                } else {
                    d.add_residual(true,  s, h, slot_of[(size_t) cell], &k[(size_t) cell*sh.head_k]);
                    d.add_residual(false, s, h, slot_of[(size_t) cell], &v[(size_t) cell*sh.head_v]);
                }
            }
            double * m = mass.empty() ? nullptr : &mass[(size_t) (s*sh.n_head_kv + h)*n_mass];

            for (int32_t row = 0; row < c.n_tps; row++) {
                for (int32_t g = 0; g < c.group; g++) {
                    const int32_t qh = h*c.group + g;
                    const float * q = (const float *) (a.q.as<char>() + a.q_stream*(size_t) s + a.q_row*(size_t) row + a.q_head*(size_t) qh);
                    double slope = 1;
                    if (c.alibi) {
                        slope = qh < n_log2 ? pow(2, -8/n_log2*(qh + 1)) : pow(2, -4/n_log2*(2*(qh - n_log2) + 1));
                    }
                    std::vector<double> p((size_t) (c.n_kv + c.n_tps), -INFINITY);
                    double max = c.sinks ? (double) a.sinks[(size_t) qh] : -INFINITY;
                    for (int32_t i = 0; i < c.n_kv + c.n_tps; i++) {
                        const bool    raw  = i >= c.n_kv;
                        const int32_t cell = raw ? d.rows(s)[i - c.n_kv].cell : i;
                        if (cell < 0 || cell >= c.n_kv || (!raw && !d.bit(s, cell))) {
                            continue;
                        }
                        const uint16_t bias = c.mask == MASK_NONE ? 0 : a.mask_at(s, row)[cell];
                        if (bias == 0xfc00) {
                            continue;
                        }
                        const float * kr = raw ? d.cur(true, s, h, i - c.n_kv) : nullptr;
                        double x = 0;
                        for (int32_t j = 0; j < sh.head_k; j++) {
                            x += (double) q[j]*(raw ? (double) kr[j] : k[(size_t) cell*sh.head_k + j]);
                        }
                        x += raw || slot_of[(size_t) cell] >= 0 ? 0 : a.noise(s, h, cell, q);
                        x *= (double) a.scale;
                        x = c.softcap ? 5*tanh(x/5) : x;
                        p[(size_t) i] = x + slope*(double) hex_fp16_to_fp32(bias);
                        max = std::max(max, p[(size_t) i]);
                    }
                    double sum = c.sinks ? exp((double) a.sinks[(size_t) qh] - max) : 0;
                    for (double & x : p) {
                        x = x == -INFINITY ? 0 : exp(x - max);
                        sum += x;
                    }
                    std::vector<double> o((size_t) sh.head_v);
                    for (int32_t i = 0; i < c.n_kv + c.n_tps; i++) {
                        const double w = p[(size_t) i] = sum > 0 ? p[(size_t) i]/sum : 0;
                        const float * vr = i >= c.n_kv ? d.cur(false, s, h, i - c.n_kv) : nullptr;
                        for (int32_t j = 0; w != 0 && j < sh.head_v; j++) {
                            o[(size_t) j] += w*(vr ? (double) vr[j] : v[(size_t) i*sh.head_v + j]);
                        }
                    }
                    float * dst = &res.out[(((size_t) s*c.n_tps + row)*n_head + qh)*sh.head_v];
                    std::copy(o.begin(), o.end(), dst);

                    for (int32_t cell = 0; m && cell < c.n_kv; cell++) {
                        const int32_t slot = slot_of[(size_t) cell];
                        if (slot < 0 || slot >= n_ranked) {
                            continue;
                        }
                        m[slot] += p[(size_t) cell];
                        if (g == 0 && slot >= sh.n_ring) {
                            m[n_ranked + c.n_tps + slot - sh.n_ring] += c.mask == MASK_NONE || a.mask_at(s, row)[cell] != 0xfc00;
                        }
                    }
                    for (int32_t i = 0; m && i < c.n_tps; i++) {
                        m[n_ranked + i] += p[(size_t) (c.n_kv + i)];
                    }
                }
            }
        }
    }
    res.mass.assign(mass.begin(), mass.end());
    return res;
}

// ---- runs

// Work of exactly the size that was asked for, filled with rubbish.
static void run(struct hex_attn a, int nth, bool ref, rng & r) {
    buffer work(ref ? hex_attn_ref_work(&a) : hex_attn_work(&a, nth));
    work.fill(r);
    team t;
    t.run(nth, [&](int ith) {
        if (ref) {
            hex_attn_ref(&a, work.as<void>(), ith);
        } else {
            hex_attn_run(&a, work.as<void>(), ith, nth, team::wait, &t);
        }
    });
}

struct worst { double out = 0, row = 0, mass = 0; };

static bool compare(const attn_data & a, const std::vector<float> & out, const std::vector<float> & mass, worst & w) {
    const size_t n = (size_t) a.c.sh.head_v;
    const double e = nmse(a.out.data(), out.data(), out.size());
    double row = 0;
    for (size_t i = 0; i < out.size(); i += n) {
        row = std::max(row, nmse(&a.out[i], &out[i], n));
    }
    double m = 0;
    bool ok = true;
    const size_t n_heavy = (size_t) a.c.sh.n_heavy, head = (size_t) a.c.sh.n_ring + 2*n_heavy + (size_t) a.c.n_tps;
    for (size_t i = 0; i < mass.size(); i += head) {
        m = std::max(m, nmse(&a.mass[i], &mass[i], head - n_heavy));
        ok = ok && memcmp(&a.mass[i + head - n_heavy], &mass[i + head - n_heavy], 4*n_heavy) == 0; // counts are exact
    }
    w.out  = std::max(w.out, e);
    w.row  = std::max(w.row, row);
    w.mass = std::max(w.mass, m);
    const limits & most = hex_isa_get() < HEX_ISA_AVX2 ? LIMIT_FLOATS : hex_coarse_get() ? LIMIT_COARSE : LIMIT_CODES;
    return ok && e <= most.out && row <= most.row && m <= most.mass; // NaN fails
}

static void describe(int i, const attn_case & c, const char * what) {
    printf("case %d %s: head %d/%d x%d group %d, tokens %d x%d, n_kv %d of %d, hex%d/hex%d refine %d, ring %d heavy %d graph %d, "
           "mask %s%s%s%s%s%s%s\n", i, what, c.sh.head_k, c.sh.head_v, c.sh.n_head_kv, c.group, c.n_tps, c.sh.n_stream, c.n_kv, c.sh.n_ctx,
           c.sh.bits_k, c.sh.bits_v, c.sh.refine, c.sh.n_ring, c.sh.n_heavy, c.sh.graph_kind, mask_names[c.mask], c.alibi ? " alibi" : "",
           c.softcap ? " softcap" : "", c.sinks ? " sinks" : "", c.hostile ? " hostile" : "", c.huge ? " huge" : "", c.frozen ? " frozen" : "");
}

static void test_random(int n_cases, double budget) {
    rng r { 20260101 };
    const enum hex_isa best = hex_isa_best();
    const int best_coarse = best == HEX_ISA_AVX512 ? HEX_ISA_AVX512 + 1 : best; // one path more
    worst of_ref, of_isa[4];
    int bad_ref = 0, bad_isa[4] = {}, bad_threads = 0, bad_sources = 0, n_runs = 0, n_coarse = 0;
    const int n_random = n_cases;
    n_cases += sanitized ? 2 : (int) (sizeof(many_rows)/sizeof(many_rows[0]));

    for (int i = 0; i < n_cases; i++) {
        const attn_case c = i < n_random ? random_case(r, budget) : many_rows_case(r, many_rows[i - n_random]);
        if (i < n_random) {
            cover(c);
        }
        attn_data a(c, r);
        const attn_data before = a;
        const model_result want = model_attn(a);

        run(a.attn(), 2, true, r);
        if (!compare(a, want.out, want.mass, of_ref)) {
            describe(i, c, "reference");
            bad_ref++;
        }
        const std::vector<float> ref_out = a.out, ref_mass = a.mass;

        for (int isa = 0; isa <= best_coarse; isa++) {
            hex_isa_set((enum hex_isa) isa);
            hex_coarse_set(isa > HEX_ISA_AVX512);
            const bool judged = !hex_coarse_get() || !c.huge; // 8 bits of large logits choose other cells
            n_coarse += hex_coarse_get() && judged && c.n_tps*c.group > 32 && c.sh.refine <= HEX_REFINE_HEX4;
            std::vector<float> out1, mass1;
            for (int nth = 1; nth <= 3; nth++) {
                std::fill(a.out .begin(), a.out .end(), NAN); // every element must be written
                std::fill(a.mass.begin(), a.mass.end(), NAN);
                run(a.attn(), nth, false, r);
                n_runs++;
                if (nth == 1) {
                    out1  = a.out;
                    mass1 = a.mass;
                    const bool finite = std::all_of(out1.begin(), out1.end(), [](float x) { return std::isfinite(x); });
                    if (judged ? !compare(a, ref_out, ref_mass, of_isa[isa]) : !finite) {
                        describe(i, c, hex_isa_name(hex_isa_get()));
                        bad_isa[isa]++;
                    }
                } else if (memcmp(out1.data(), a.out.data(), 4*out1.size()) != 0 || (!mass1.empty() && memcmp(mass1.data(), a.mass.data(), 4*mass1.size()) != 0)) {
                    describe(i, c, "threads");
                    bad_threads++;
                }
            }
        }
        if (!(a.d.k_base == before.d.k_base && a.d.v_base == before.d.v_base && a.d.pool == before.d.pool && a.d.state == before.d.state &&
              a.d.meta == before.d.meta && a.d.k_cur == before.d.k_cur && a.d.v_cur == before.d.v_cur && a.q == before.q && a.mask == before.mask)) {
            describe(i, c, "sources");
            bad_sources++;
        }
    }
    hex_isa_set(best);
    hex_coarse_set(true);

    check(bad_ref == 0, "hex_attn_ref equals attention in double precision: %d cases, NMSE at most %.1e (row %.1e, mass %.1e)", n_cases, of_ref.out, of_ref.row, of_ref.mass);
    for (int isa = 0; isa <= (int) best; isa++) {
        check(bad_isa[isa] == 0, "hex_attn_run on %s, precise, equals hex_attn_ref: NMSE at most %.1e (row %.1e, mass %.1e)", hex_isa_name((enum hex_isa) isa),
              of_isa[isa].out, of_isa[isa].row, of_isa[isa].mass);
    }
    if (best_coarse > (int) best) {
        check(bad_isa[best_coarse] == 0 && n_coarse > 0, "hex_attn_run on %s, coarse, is near hex_attn_ref: %d cases, NMSE at most %.1e (mass %.1e)", hex_isa_name(best),
              n_coarse, of_isa[best_coarse].out, of_isa[best_coarse].mass);
    }
    check(bad_threads == 0, "1, 2 and 3 threads give the same bits in %d runs", n_runs);
    check(bad_sources == 0, "no source is written");
}

// ---- values that are not numbers

// A query row that is NaN, or one of the ubatch's rows of K, against the reference: what NaN reaches is NaN, but no mass; everything else
// is right.
static void test_nan() {
    rng r { 3 };
    const enum hex_isa best = hex_isa_best();
    const int n_paths = (int) best + 1 + (best == HEX_ISA_AVX512);
    int n_cases = 0, bad = 0, n_nan = 0;
    for (const enum hex_refine refine : { HEX_REFINE_HEX3, HEX_REFINE_F16 }) { // codes, floats
        for (const int32_t n_tps : { 1, 5, 70, 200 }) {
            if (sanitized && n_tps > 70) {
                continue;
            }
            for (int kind = 0; kind < 8; kind++) {
                attn_case c;
                c.sh.refine   = refine;
                c.sh.n_stream = 2;
                c.sh.n_ctx    = c.n_kv = 700;
                c.sh.n_ring   = 100;
                c.sh.n_heavy  = 100;
                c.group   = 3;
                c.n_tps   = n_tps;
                c.mask    = MASK_CAUSAL;
                c.frozen  = true;
                c.softcap = kind & 1;
                c.sinks   = kind & 2;
                const bool in_k = kind & 4;
                attn_data a(c, r);
                for (int32_t s = 0; s < 2; s++) {
                    for (int32_t i = 0; i < n_tps; i++) { // the last cells are the ubatch's
                        const int32_t cell = c.n_kv - n_tps + i;
                        a.d.rows(s)[i].cell = cell;
                        a.d.bitmap(s)[cell/32] &= ~(1u << cell % 32);
                        std::fill_n(a.d.cur(true,  s, 0, i), 64, r.gauss());
                        std::fill_n(a.d.cur(false, s, 0, i), 64, r.gauss());
                    }
                    for (int32_t i = 0; i < n_tps; i++) {
                        a.fill_mask_row(r, s, i);
                    }
                }
                const int32_t row = n_tps/2;
                (in_k ? a.d.cur(true, 1, 0, row) : (float *) (a.q.as<char>() + a.q_stream + a.q_row*(size_t) row + a.q_head))[r.below(64)] = NAN;

                run(a.attn(), 1, true, r);
                const std::vector<float> want = a.out;
                for (int path = 0; path < n_paths; path++, n_cases++) {
                    hex_isa_set((enum hex_isa) path);
                    hex_coarse_set(path > HEX_ISA_AVX512);
                    std::fill(a.out.begin(), a.out.end(), 0.0f);
                    run(a.attn(), 2, false, r);
                    const double most = hex_coarse_get() ? LIMIT_COARSE.row : LIMIT_CODES.row; // floats too: a row that cancels out can be off by 1e-8
                    bool ok = true;
                    for (size_t i = 0; i < want.size(); i += 64) {
                        bool nan = true;
                        for (size_t j = i; j < i + 64; j++) {
                            nan = nan && std::isnan(a.out[j]);
                        }
                        n_nan += nan;
                        ok = ok && (std::isnan(want[i]) ? nan : nmse(&a.out[i], &want[i], 64) <= most);
                    }
                    for (const float m : a.mass) {
                        ok = ok && std::isfinite(m);
                    }
                    if (!ok) {
                        bad++;
                        printf("NaN in %s: %s%s, refine %d, %d tokens%s%s\n", in_k ? "K" : "a query", hex_isa_name(hex_isa_get()), hex_coarse_get() ? ", coarse" : "",
                               (int) refine, n_tps, c.softcap ? ", softcap" : "", c.sinks ? ", sinks" : "");
                    }
                }
            }
        }
    }
    hex_isa_set(best);
    hex_coarse_set(true);
    check(bad == 0 && n_nan > 0, "a row that NaN reaches is NaN, as in hex_attn_ref, the others and all masses are right: %d runs, %d rows", n_cases, n_nan);
}

// ---- refined cells on the coarse path

// Where nearly all probability is on refined cells, prefill with 8 bits is as precise as without.
static void test_refined_precise() {
    static const double LIMIT = 1e-6;
    if (hex_isa_best() < HEX_ISA_AVX512) {
        return; // no other path has coarse products
    }
    rng r { 5 };
    double most = 0;
    int n_cases = 0, bad = 0;
    for (int bits = 1; bits <= 4; bits++) {
        for (const int32_t n_tps : { 16, 96 }) { // items of 32 and of 64 rows
            for (const bool softcap : { false, true }) {
                attn_case c;
                c.sh.head_k   = c.sh.head_v = bits % 2 ? 64 : 128;
                c.sh.bits_k   = bits;
                c.sh.bits_v   = r.range(1, 4);
                c.sh.refine   = (enum hex_refine) r.range(HEX_REFINE_HEX1, HEX_REFINE_HEX4);
                c.sh.n_ctx    = c.n_kv = 1000;
                c.sh.n_heavy  = 300;
                c.group   = 8;
                c.n_tps   = n_tps;
                c.mask    = MASK_BIASED;
                c.frozen  = true;
                c.softcap = softcap;
                attn_data a(c, r);
                std::vector<bool> refined((size_t) c.n_kv);
                for (int32_t i = 0; i < c.sh.n_heavy; i++) {
                    a.d.heavy(0, 0)[i] = 3*i + 1 + 1;
                    refined[(size_t) (3*i + 1)] = true;
                }
                memset(a.d.bitmap(0), 0xff, 4*(size_t) (c.sh.n_ctx/32));
                for (int32_t i = 0; i < n_tps; i++) {
                    a.d.rows(0)[i].cell = -1;
                    for (int32_t cell = 0; cell < c.n_kv; cell++) {
                        a.mask_at(0, i)[cell] = hex_fp32_to_fp16(refined[(size_t) cell] ? 0.0f : -40.0f);
                    }
                }
                run(a.attn(), 1, true, r);
                const std::vector<float> want = a.out;
                run(a.attn(), 1, false, r);
                const double e = nmse(a.out.data(), want.data(), want.size());
                most = std::max(most, e);
                bad += !(e <= LIMIT);
                n_cases++;
            }
        }
    }
    check(bad == 0, "products with refined cells are precise where others are coarse: %d cases, NMSE at most %.1e", n_cases, most);
}

// ---- ggml_flash_attn_ext

#ifndef HEX_TEST_WITHOUT_GGML
struct flash_case {
    int32_t head, n_head_kv, group, n_tps, n_stream, n_kv;
    int bits_k, bits_v;
    bool alibi, softcap, sinks;
};

// Without slots, mean and visible rows of its own, HEX_ATTN is flash attention over the same codes. Flash attention
// rounds q to q8_0 when K is quantized; a q that q8_0 holds exactly takes that away.
static double flash_case_error(const flash_case & f, rng & r) {
    struct ggml_init_params params = { 64u << 20, nullptr, false };
    struct ggml_context * ctx = ggml_init(params);
    const int64_t d = f.head, n_head = f.n_head_kv*f.group, ns = f.n_stream;

    const auto type = [](int bits) { return (enum ggml_type) (GGML_TYPE_HEX1 + bits - 1); };
    struct ggml_tensor * q    = ggml_new_tensor_4d(ctx, GGML_TYPE_F32, d, n_head, f.n_tps, ns);
    struct ggml_tensor * k    = ggml_new_tensor_4d(ctx, type(f.bits_k), d, f.n_head_kv, f.n_kv, ns);
    struct ggml_tensor * v    = ggml_new_tensor_4d(ctx, type(f.bits_v), d, f.n_head_kv, f.n_kv, ns);
    struct ggml_tensor * cur  = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, d, f.n_head_kv, f.n_tps*ns);
    struct ggml_tensor * mask = ggml_new_tensor_4d(ctx, GGML_TYPE_F16, f.n_kv, f.n_tps, 1, ns);
    struct ggml_tensor * sink = f.sinks ? ggml_new_tensor_1d(ctx, GGML_TYPE_F32, n_head) : nullptr;
    struct ggml_tensor * state = ggml_new_tensor_3d(ctx, GGML_TYPE_I32, (int64_t) hex_state_size(f.head, 0, 0), f.n_head_kv, ns);
    struct ggml_tensor * meta  = ggml_new_tensor_2d(ctx, GGML_TYPE_I32, (int64_t) hex_meta_words(f.n_tps, 0, f.n_kv), ns);

    for (int64_t i = 0; i < ggml_nelements(q); i++) {
        ((float *) q->data)[i] = i % 32 == 0 ? 127 : (float) r.range(-127, 127);
    }
    for (int64_t i = 0; i < ggml_nelements(cur); i++) {
        ((float *) cur->data)[i] = r.gauss();
    }
    random_blocks(r, f.bits_k, 1, (char *) k->data, (int32_t) ggml_nelements(k));
    random_blocks(r, f.bits_v, 1, (char *) v->data, (int32_t) ggml_nelements(v));
    for (int64_t i = 0; i < ggml_nelements(mask); i++) {
        ((uint16_t *) mask->data)[i] = r.chance(0.2) ? 0xfc00 : hex_fp32_to_fp16(-(float) r.uniform());
    }
    for (int64_t i = 0; i < (sink ? n_head : 0); i++) {
        ((float *) sink->data)[i] = r.gauss();
    }
    memset(state->data, 0, ggml_nbytes(state));
    memset(meta->data, 0xff, ggml_nbytes(meta)); // rows without cells; every cell is valid

    struct ggml_hex_op_params p = {};
    p.scale     = 2/sqrtf((float) f.head)/73; // 73 is about the RMS of q
    p.max_bias  = f.alibi ? 8.0f : 0.0f;
    p.softcap   = f.softcap ? 5.0f : 0.0f;
    p.half_life = 1;
    p.n_ctx     = f.n_kv;

    struct ggml_tensor * qp    = ggml_permute(ctx, q, 0, 2, 1, 3);
    struct ggml_tensor * attn  = ggml_hex_attn(ctx, qp, cur, cur, k, v, nullptr, state, meta, mask, sink, &p);
    struct ggml_tensor * out   = ggml_hex_attn_out(ctx, attn);
    struct ggml_tensor * flash = ggml_flash_attn_ext(ctx, qp, ggml_permute(ctx, k, 0, 2, 1, 3), ggml_permute(ctx, v, 0, 2, 1, 3), mask, p.scale, p.max_bias, p.softcap);
    ggml_flash_attn_ext_add_sinks(flash, sink);

    struct ggml_cgraph * graph = ggml_new_graph(ctx);
    ggml_build_forward_expand(graph, out);
    ggml_build_forward_expand(graph, flash);
    ggml_graph_compute_with_ctx(ctx, graph, 2);

    const double e = ggml_nelements(out) == ggml_nelements(flash) ?
        nmse((const float *) out->data, (const float *) flash->data, (size_t) ggml_nelements(out)) : INFINITY;
    ggml_free(ctx);
    return e;
}

static void test_flash() {
    static const double LIMIT = 1e-7;
    hex_coarse_set(false);
    static const int32_t sizes[] = { 64, 128, 256 };
    rng r { 7 };
    double most = 0;
    int n = 0, bad = 0;
    for (int bits_k = 1; bits_k <= 4; bits_k++) {
        for (int bits_v = 1; bits_v <= 4; bits_v++) {
            for (const int32_t n_tps : { 1, 3, 70 }) {
                const flash_case f = { r.pick(sizes), r.range(1, 3), r.pick(groups), n_tps, r.range(1, 2), r.range(1, 300), bits_k, bits_v,
                                       r.chance(0.5), r.chance(0.5), r.chance(0.5) };
                const double e = flash_case_error(f, r);
                most = std::max(most, e);
                n++;
                if (!(e <= LIMIT)) {
                    bad++;
                    printf("flash case %d: NMSE %g, head %d x%d group %d tokens %d x%d n_kv %d hex%d/hex%d alibi %d softcap %d sinks %d\n", n, e, f.head,
                           f.n_head_kv, f.group, f.n_tps, f.n_stream, f.n_kv, f.bits_k, f.bits_v, f.alibi, f.softcap, f.sinks);
                }
            }
        }
    }
    hex_coarse_set(true);
    check(bad == 0, "without slots HEX_ATTN is ggml_flash_attn_ext over the same codes: %d cases, NMSE at most %.1e", n, most);
}
#endif

int main(int argc, char ** argv) {
    const int n_cases = argc > 1 ? atoi(argv[1]) : sanitized ? 60 : 400;
    test_random(n_cases, sanitized ? 4e5 : 5e5);
    test_nan();
    test_refined_precise();
#ifndef HEX_TEST_WITHOUT_GGML
    ggml_cpu_init();
    test_flash();
#endif

    const auto least = std::min_element(covered.begin(), covered.end(), [](const auto & a, const auto & b) { return a.second < b.second; });
    check(sanitized || argc > 1 || (covered.size() == N_COVERED && least->second >= 10), "%zu values of parameters were covered, %s the least with %d cases",
          covered.size(), least->first.c_str(), least->second);
    return check_exit_code();
}
