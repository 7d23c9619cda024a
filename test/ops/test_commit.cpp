// HEX_COMMIT against a slow model of what it promises (csrc/ggml/hex_ops.h, hex_meta.h): which
// cells are refined in which slot after a sequence of ubatches, and that every row reads back as what was stored.
// The test plays the host: it places rows, frees cells, hands out ring slots, reuses cells.
#include "fixture.h"

#include "cpu/hex_attn.h"
#include "cpu/hex_commit.h"

#include "core/check.h"

#include <algorithm>
#include <string>

// Mean squared error of the codecs per unit of energy: the codec's goals (Gaussian samples), q8_0 and f16 by their
// step sizes.
static double codec_error(int kind) {
    switch (kind) {
        case 1:  return 0.285;
        case 2:  return 0.080;
        case 3:  return 0.0235;
        case 4:  return 0.0066;
        case HEX_REFINE_Q8_0: return 1.0e-4;
        case HEX_REFINE_F16:  return 2.4e-7;
    }
    return 1;
}

// ---- the model

struct model_heavy { int32_t cell = -1; double score = -1; };

struct model_head {
    std::vector<double> ring_score;
    std::vector<model_heavy> heavy;
    std::vector<double> mean;
    int32_t n_rows = 0;
    bool frozen = false;
};

// A row as it was given and as it should read back.
struct stored {
    std::vector<float> x, base, refined; // decoded without and with the residual, mean included
    bool recoded = false;

    void code(const std::vector<float> & row, const float * mean, float unbias, int bits, enum hex_refine refine) {
        const size_t n = row.size();
        std::vector<float> y = row;
        for (size_t i = 0; mean && i < n; i++) {
            y[i] -= mean[i];
        }
        std::vector<char> block(base_size(bits, (int32_t) n));
        base.resize(n);
        hex_quantize(bits, y.data(), block.data(), (int64_t) n);
        if (unbias > 0) {
            hex_unbias(bits, y.data(), block.data(), (int64_t) n, unbias);
        }
        hex_dequantize_ref(bits, block.data(), base.data(), (int64_t) n);

        std::vector<float> z(n), dec(n);
        for (size_t i = 0; i < n; i++) {
            z[i] = y[i] - base[i];
        }
        if (refine == HEX_REFINE_F16) {
            for (size_t i = 0; i < n; i++) {
                dec[i] = hex_fp16_to_fp32(hex_fp32_to_fp16(z[i]));
            }
        } else if (refine == HEX_REFINE_Q8_0) {
            for (size_t b = 0; b < n; b += 32) {
                float most = 0;
                for (size_t i = b; i < b + 32; i++) {
                    most = std::max(most, fabsf(z[i]));
                }
                const float d = most/127, inverse = d > 0 ? 1/d : 0;
                for (size_t i = b; i < b + 32; i++) {
                    dec[i] = hex_fp16_to_fp32(hex_fp32_to_fp16(d))*roundf(z[i]*inverse);
                }
            }
        } else if (refine != HEX_REFINE_NONE) {
            block.resize(base_size((int) refine, (int32_t) n));
            hex_quantize((int) refine, z.data(), block.data(), (int64_t) n);
            hex_dequantize_ref((int) refine, block.data(), dec.data(), (int64_t) n);
        }
        refined.resize(n);
        for (size_t i = 0; i < n; i++) {
            base[i] += mean ? mean[i] : 0;
            refined[i] = base[i] + dec[i];
        }
    }
};

struct stored_row { stored k, v; };

struct host_stream {
    std::vector<bool>    used; // cells
    std::vector<int32_t> ring; // slot -> cell, -1: free
};

struct world {
    shape sh;
    cache_data d;
    rng & r;
    std::vector<host_stream> host;
    std::vector<model_head> heads;     // [stream][head]
    std::vector<stored_row> rows;      // [stream][head][cell]
    double near_tie = INFINITY;        // least relative distance of two scores that were compared
    int n_evicted = 0, n_won = 0, n_displaced = 0, n_reused = 0, n_dead = 0, n_recoded = 0, n_read = 0, n_refined = 0;
    struct mean_error { double sum = 0; int n = 0; } base_error, refined_error; // in units of the codec's error
    std::string problem;
    bool ties = false; // only a few scores, exact in floats, so that many are equal

    world(const shape & s, rng & rr) : sh(s), d(s), r(rr), host((size_t) s.n_stream), heads((size_t) s.n_stream*s.n_head_kv),
            rows((size_t) s.n_stream*s.n_head_kv*s.n_ctx) {
        for (auto & h : host) {
            h.used.resize((size_t) s.n_ctx);
            h.ring.assign((size_t) s.n_ring, -1);
        }
        for (auto & h : heads) {
            h.ring_score.resize((size_t) s.n_ring);
            h.heavy.resize((size_t) s.n_heavy);
            h.mean.resize((size_t) s.head_k);
        }
        // slots hold rubbish before they are used
        d.pool.fill(r);
    }

    model_head & head(int32_t s, int32_t h) { return heads[(size_t) (s*sh.n_head_kv + h)]; }
    stored_row & row_of(int32_t s, int32_t h, int32_t cell) { return rows[(size_t) (s*sh.n_head_kv + h)*sh.n_ctx + cell]; }

    void fail(const char * what, int32_t s, int32_t h, int32_t i) {
        if (problem.empty()) {
            problem = std::string(what) + ", stream " + std::to_string(s) + " head " + std::to_string(h) + " index " + std::to_string(i);
        }
    }

    bool is_static(int32_t h, int32_t cell) {
        for (int32_t i = 0; i < d.n_static; i++) {
            if (d.slot_cell(0, h, sh.n_ring + sh.n_heavy + i) == cell) {
                return true;
            }
        }
        return false;
    }

    // ---- the host's half

    // Frees cells, picks cells and ring slots for n rows per stream, writes meta and rows. False: no room.
    void begin(int32_t n, double p_ring, double p_remove) {
        d.new_ubatch(n);
        for (int32_t s = 0; s < sh.n_stream; s++) {
            host_stream & hs = host[(size_t) s];
            for (int32_t cell = 0; cell < sh.n_ctx; cell++) {
                if (hs.used[(size_t) cell] && r.chance(p_remove)) {
                    remove(s, cell);
                }
            }
            int32_t n_free = (int32_t) std::count(hs.used.begin(), hs.used.end(), false);
            while (n_free < n) {
                const int32_t cell = r.below(sh.n_ctx);
                if (hs.used[(size_t) cell]) {
                    remove(s, cell);
                    n_free++;
                }
            }
            std::fill(d.ring(s), d.ring(s) + sh.n_ring, -1);
            std::copy(hs.ring.begin(), hs.ring.end(), d.ring(s));
            for (int32_t cell = 0; cell < sh.n_ctx; cell++) {
                d.bitmap(s)[cell/32] |= hs.used[(size_t) cell] ? 1u << cell % 32 : 0;
            }
            std::vector<bool> taken((size_t) sh.n_ring);
            int32_t at = r.chance(0.5) ? 0 : r.below(sh.n_ctx);
            for (int32_t i = 0; i < n; i++) {
                while (hs.used[(size_t) (at % sh.n_ctx)]) {
                    at++;
                }
                struct hex_meta_row & row = d.rows(s)[i];
                row = { at % sh.n_ctx, -1, n - i, -1, 0, r.chance(0.1) };
                hs.used[(size_t) row.cell] = true;
                n_reused += !row_of(s, 0, row.cell).k.x.empty();
                const int32_t slot = sh.n_ring > 0 ? r.below(sh.n_ring) : -1;
                if (slot >= 0 && !taken[(size_t) slot] && r.chance(p_ring)) {
                    taken[(size_t) slot] = true;
                    row.ring_slot = slot;
                    if (hs.ring[(size_t) slot] >= 0) {
                        row.evict_cell = hs.ring[(size_t) slot];
                        row.evict_seen = ties ? 1 << r.below(3) : r.range(1, 200);
                        n_evicted++;
                    }
                    hs.ring[(size_t) slot] = row.cell;
                }
            }
        }
    }

    void remove(int32_t s, int32_t cell) {
        host_stream & hs = host[(size_t) s];
        hs.used[(size_t) cell] = false;
        std::replace(hs.ring.begin(), hs.ring.end(), cell, -1);
        n_dead++;
    }

    // ---- the device's half, by the book

    void model_mean(int32_t s, int32_t h) {
        model_head & m = head(s, h);
        if (sh.n_mean == 0 || m.frozen) {
            return;
        }
        for (int32_t i = 0; i < d.n_tps && m.n_rows < sh.n_mean; i++) {
            if (d.rows(s)[i].is_sink) {
                continue;
            }
            for (int32_t j = 0; j < sh.head_k; j++) {
                m.mean[(size_t) j] += (double) d.cur(true, s, h, i)[j];
            }
            m.n_rows++;
        }
        if (m.n_rows < sh.n_mean) {
            return;
        }
        m.frozen = true;
        for (double & x : m.mean) {
            x /= sh.n_mean;
        }
        for (int32_t cell = 0; cell < sh.n_ctx; cell++) { // what is stored is coded again
            if (!d.bit(s, cell)) {
                continue;
            }
            bool refined = is_static(h, cell);
            for (int32_t i = 0; i < sh.n_ring; i++) {
                refined = refined || d.ring(s)[i] == cell;
            }
            for (const auto & e : m.heavy) {
                refined = refined || e.cell == cell;
            }
            stored & k = row_of(s, h, cell).k;
            const std::vector<float> was = refined ? k.refined : with_channels(k, cell);
            k.code(was, d.mean(s, h), 0, sh.bits_k, sh.refine); // the mean itself is checked elsewhere
            k.recoded = true;
            n_recoded++;
        }
    }

    // An unrefined row: the base, but for the channels that a CHANNELS backbone keeps.
    std::vector<float> with_channels(const stored & row, int32_t cell) {
        const struct hex_graph g = d.graph();
        std::vector<float> y = row.base;
        for (size_t i = 0; i < y.size() && g.kind == HEX_BACKBONE_CHANNELS; i++) {
            y[i] = hex_graph_channel(&g, cell, (int32_t) i % 64) ? row.refined[i] : y[i];
        }
        return y;
    }

    bool compete(model_head & m, int32_t cell, double score) {
        size_t weakest = 0;
        for (size_t i = 1; i < m.heavy.size(); i++) {
            weakest = m.heavy[i].score < m.heavy[weakest].score ? i : weakest; // equal scores: the lower slot
        }
        model_heavy & w = m.heavy[weakest];
        if (!ties && w.score >= 0 && (score > 0 || w.score > 0)) {
            near_tie = std::min(near_tie, fabs(score - w.score)/std::max(score, w.score));
        }
        if (!(score > w.score)) {
            return false;
        }
        n_displaced += w.cell >= 0;
        n_won++;
        w = { cell, score };
        return true;
    }

    void model_heavy_hitters(int32_t s, int32_t h, const float * mass) {
        model_head & m = head(s, h);
        const float * heavy_mass = mass + sh.n_ring, * row_mass = heavy_mass + sh.n_heavy, * n_seen = row_mass + d.n_tps;

        for (int32_t i = 0; i < sh.n_ring; i++) {
            m.ring_score[(size_t) i] += (double) mass[i];
        }
        for (int32_t i = 0; i < sh.n_heavy; i++) {
            model_heavy & e = m.heavy[(size_t) i];
            if (e.cell >= 0 && !d.bit(s, e.cell)) {
                e = {};
            }
            if (e.cell >= 0 && n_seen[i] > 0) {
                const double keep = exp2(-(double) n_seen[i]/sh.half_life);
                e.score = keep*e.score + (1 - keep)*(double) heavy_mass[i]/(double) n_seen[i];
            }
        }
        for (int32_t i = 0; i < d.n_tps; i++) {
            const struct hex_meta_row & row = d.rows(s)[i];
            if (row.ring_slot >= 0 && row.evict_cell >= 0 && !is_static(h, row.evict_cell)) {
                compete(m, row.evict_cell, m.ring_score[(size_t) row.ring_slot]/row.evict_seen);
            }
        }
        for (int32_t i = 0; i < d.n_tps; i++) {
            const struct hex_meta_row & row = d.rows(s)[i];
            if (row.ring_slot >= 0) {
                m.ring_score[(size_t) row.ring_slot] = (double) row_mass[i];
            } else if (!is_static(h, row.cell)) {
                compete(m, row.cell, (double) row_mass[i]/row.n_seen);
            }
        }
    }

    void model_rows(int32_t s, int32_t h) {
        const model_head & m = head(s, h);
        for (int32_t i = 0; i < d.n_tps; i++) {
            stored_row & row = row_of(s, h, d.rows(s)[i].cell);
            row.k.x.assign(d.cur(true,  s, h, i), d.cur(true,  s, h, i) + sh.head_k);
            row.v.x.assign(d.cur(false, s, h, i), d.cur(false, s, h, i) + sh.head_v);
            row.k.code(row.k.x, m.frozen ? d.mean(s, h) : nullptr, 0, sh.bits_k, sh.refine);
            row.v.code(row.v.x, nullptr, sh.unbias, sh.bits_v, sh.refine);
            row.k.recoded = false;
        }
    }

    // ---- checks

    void check_state(int32_t s, int32_t h) {
        const model_head & m = head(s, h);
        const int32_t * state = d.head_state(s, h);
        if (sh.n_mean > 0 && (state[HEX_STATE_FROZEN] != m.frozen || state[HEX_STATE_ROWS] != m.n_rows)) {
            fail("rows of the mean", s, h, state[HEX_STATE_ROWS]);
        }
        for (int32_t i = 0; i < sh.head_k && m.frozen; i++) {
            if (!(fabs((double) d.mean(s, h)[i] - m.mean[(size_t) i]) <= 1e-5*(1 + fabs(m.mean[(size_t) i])))) {
                fail("mean", s, h, i);
            }
        }
        const auto differs = [](float a, double b) { return !(fabs((double) a - b) <= 1e-5*fabs(b) + 1e-12); };
        for (int32_t i = 0; i < sh.n_heavy; i++) {
            if (d.heavy(s, h)[i] != m.heavy[(size_t) i].cell + 1) {
                fail("cell of heavy slot", s, h, i);
            }
            if (differs(d.heavy_score(s, h)[i], m.heavy[(size_t) i].score)) {
                fail("score of heavy slot", s, h, i);
            }
        }
        for (int32_t i = 0; i < sh.n_ring && sh.n_heavy > 0; i++) {
            if (host[(size_t) s].ring[(size_t) i] >= 0 && differs(d.ring_score(s, h)[i], m.ring_score[(size_t) i])) {
                fail("score of ring slot", s, h, i);
            }
        }
    }

    void check_row(bool k, int32_t s, int32_t h, int32_t cell, int32_t slot, const std::vector<double> & y) {
        const stored & row = k ? row_of(s, h, cell).k : row_of(s, h, cell).v;
        const std::vector<float> want = slot >= 0 ? row.refined : with_channels(row, cell);
        const float * mean = k && head(s, h).frozen ? d.mean(s, h) : nullptr;
        double size = 0, off = 0, err = 0, energy = 0;
        for (size_t i = 0; i < y.size(); i++) {
            size   += (double) want[i]*(double) want[i];
            off    += ((double) want[i]  - y[i])*((double) want[i]  - y[i]);
            err    += ((double) row.x[i] - y[i])*((double) row.x[i] - y[i]);
            energy += pow((double) row.x[i] - (mean ? (double) mean[i] : 0), 2);
        }
        if (!(off <= 1e-12*size)) {
            fail((std::string(slot < 0 ? "unrefined " : "refined ") + (k ? "K" : "V") + " reads back wrong, cell").c_str(), s, h, cell);
        }
        // far enough from other rows for anything that is stale to show
        const double limit = codec_error(k ? sh.bits_k : sh.bits_v)*energy*(slot < 0 ? 1 : codec_error(sh.refine)) + 1e-13*size;
        if (!row.recoded && d.graph().kind != HEX_BACKBONE_CHANNELS) {
            if (!(err <= 100*limit)) {
                fail("a row is not what was stored, cell", s, h, cell);
            }
            mean_error & e = slot < 0 ? base_error : refined_error;
            e.sum += err/limit;
            e.n++;
        }
        n_read++;
    }

    void check_rows(int32_t s, int32_t h) {
        std::vector<std::vector<int32_t>> slots_of((size_t) sh.n_ctx);
        const auto hold = [&](int32_t cell, int32_t slot) {
            if (cell >= 0 && cell < sh.n_ctx && host[(size_t) s].used[(size_t) cell]) {
                slots_of[(size_t) cell].push_back(slot);
            }
        };
        for (int32_t i = 0; i < sh.n_ring; i++) {
            hold(host[(size_t) s].ring[(size_t) i], i); // the ring table of the next ubatch
        }
        for (int32_t i = sh.n_ring; i < d.n_slots; i++) {
            hold(d.slot_cell(s, h, i), i);
        }
        for (int32_t cell = 0; cell < sh.n_ctx; cell++) {
            if (!host[(size_t) s].used[(size_t) cell]) {
                continue;
            }
            for (const bool k : { true, false }) {
                std::vector<double> base((size_t) (k ? sh.head_k : sh.head_v));
                d.decode_base(k, s, h, cell, base.data());
                if (slots_of[(size_t) cell].empty()) {
                    std::vector<double> y = base;
                    d.add_channels(k, s, h, cell, y.data());
                    check_row(k, s, h, cell, -1, y);
                    check_channels(k, s, h, cell, y);
                }
                for (const int32_t slot : slots_of[(size_t) cell]) {
                    std::vector<double> y = base;
                    d.add_residual(k, s, h, slot, y.data());
                    check_row(k, s, h, cell, slot, y);
                    n_refined++;
                }
            }
        }
    }

    // CHANNELS: the channels that a cell keeps are as good as f16.
    void check_channels(bool k, int32_t s, int32_t h, int32_t cell, const std::vector<double> & y) {
        const struct hex_graph g = d.graph();
        const std::vector<float> & x = k ? row_of(s, h, cell).k.x : row_of(s, h, cell).v.x;
        double most = 0;
        for (const float v : x) {
            most = std::max(most, fabs((double) v));
        }
        for (size_t i = 0; i < x.size() && g.kind == HEX_BACKBONE_CHANNELS; i++) {
            if (hex_graph_channel(&g, cell, (int32_t) i % 64) && !(fabs((double) x[i] - y[i]) <= 2e-3*most)) {
                fail("a kept channel reads back wrong, cell", s, h, cell);
            }
        }
    }

    // ---- one ubatch

    std::vector<float> random_mass() {
        const size_t n = (size_t) sh.n_ring + 2*(size_t) sh.n_heavy + (size_t) d.n_tps;
        std::vector<float> mass(n*heads.size());
        for (size_t sh_i = 0; sh_i < heads.size(); sh_i++) {
            const int32_t s = (int32_t) sh_i/sh.n_head_kv;
            float * m = &mass[n*sh_i];
            for (int32_t i = 0; i < sh.n_ring; i++) {
                m[i] = d.ring(s)[i] < 0 ? 0 : ties ? 0.25f*(float) r.below(4) : (float) r.uniform();
            }
            for (int32_t i = 0; i < sh.n_heavy; i++) {
                const int32_t seen = ties ? 0 : r.below(d.n_tps + 1);
                m[sh.n_ring + i] = seen ? (float) (r.uniform()*r.uniform()*seen) : 0;
                m[sh.n_ring + sh.n_heavy + d.n_tps + i] = (float) seen;
            }
            for (int32_t i = 0; i < d.n_tps; i++) {
                m[sh.n_ring + sh.n_heavy + i] = ties ? 0.25f*(float) (r.below(4)*(d.n_tps - i)) : (float) (r.uniform()*r.uniform()*(d.n_tps - i));
            }
        }
        return mass;
    }

    void random_rows() {
        for (int32_t s = 0; s < sh.n_stream; s++) {
            for (int32_t h = 0; h < sh.n_head_kv; h++) {
                for (int32_t i = 0; i < d.n_tps; i++) {
                    const float size = r.chance(0.1) ? 20.0f : 1.0f; // now and then a loud token
                    rng mu { (uint64_t) (h + 77*s + 1) };
                    for (int32_t j = 0; j < sh.head_k; j++) {
                        d.cur(true, s, h, i)[j] = size*r.gauss() + 1.5f*mu.gauss();
                    }
                    for (int32_t j = 0; j < sh.head_v; j++) {
                        d.cur(false, s, h, i)[j] = size*r.gauss();
                    }
                }
            }
        }
    }

    int32_t n_kv() {
        int32_t last = 0;
        for (const auto & hs : host) {
            for (int32_t cell = 0; cell < sh.n_ctx; cell++) {
                last = hs.used[(size_t) cell] ? std::max(last, cell + 1) : last;
            }
        }
        return last;
    }

    static void commit(cache_data & d, int32_t n_kv, const std::vector<float> & mass, int nth, rng & r) {
        struct hex_commit cm = {};
        cm.cache = d.view(n_kv);
        cm.mass  = d.sh.n_heavy > 0 ? mass.data() : nullptr;
        buffer work(hex_commit_work(&cm));
        work.fill(r);
        team t;
        t.run(nth, [&](int ith) { hex_commit_run(&cm, work.as<void>(), ith, nth, team::wait, &t); });
    }

    static bool same(const cache_data & a, const cache_data & b) {
        return a.k_base == b.k_base && a.v_base == b.v_base && a.pool == b.pool && a.state == b.state;
    }
    static bool same_sources(const cache_data & a, const cache_data & b) {
        return a.meta == b.meta && a.k_cur == b.k_cur && a.v_cur == b.v_cur;
    }

    void ubatch(int32_t n, double p_ring, double p_remove) {
        begin(n, p_ring, p_remove);
        random_rows();
        const std::vector<float> mass = random_mass();
        const int32_t used = n_kv(), cells = used + r.below(sh.n_ctx - used + 1);

        const cache_data before = d;
        cache_data other[2] = { d, d };
        commit(d, cells, mass, 1, r);
        commit(other[0], cells, mass, 2, r);
        commit(other[1], cells, mass, 3, r);
        if (!same(d, other[0]) || !same(d, other[1])) {
            fail("threads make a difference", 0, 0, n);
        }
        if (!same_sources(d, before)) {
            fail("a source was written", 0, 0, n);
        }

        const size_t n_mass = (size_t) sh.n_ring + 2*(size_t) sh.n_heavy + (size_t) n;
        for (int32_t s = 0; s < sh.n_stream; s++) {
            for (int32_t h = 0; h < sh.n_head_kv; h++) {
                model_mean(s, h);
                if (sh.n_heavy > 0) {
                    model_heavy_hitters(s, h, &mass[n_mass*(size_t) (s*sh.n_head_kv + h)]);
                }
                model_rows(s, h);
                check_state(s, h);
                check_rows(s, h);
            }
        }
    }
};

// ---- sequences of ubatches

static const enum hex_refine refines[] = { HEX_REFINE_HEX1, HEX_REFINE_HEX2, HEX_REFINE_HEX3, HEX_REFINE_HEX4, HEX_REFINE_Q8_0, HEX_REFINE_F16 };
static const enum hex_backbone graphs[] = { HEX_BACKBONE_NONE, HEX_BACKBONE_NONE, HEX_BACKBONE_EXPANDER, HEX_BACKBONE_RANDOM,
                                            HEX_BACKBONE_STRIDED, HEX_BACKBONE_LOG, HEX_BACKBONE_CHANNELS };

static shape random_shape(rng & r) {
    static const int32_t heads[][2] = { { 64, 64 }, { 128, 128 }, { 192, 128 }, { 256, 256 }, { 64, 128 } };
    shape s;
    const int hd = r.chance(0.6) ? 0 : r.below(5);
    s.head_k    = heads[hd][0];
    s.head_v    = heads[hd][1];
    s.n_head_kv = r.range(1, 3);
    s.n_stream  = r.range(1, 2);
    s.n_ctx     = r.range(20, 150);
    s.bits_k    = r.range(1, 4);
    s.bits_v    = r.range(1, 4);
    s.refine    = r.pick(refines);
    s.n_ring    = r.chance(0.15) ? 0 : r.below(s.n_ctx/3 + 1);
    s.n_heavy   = r.chance(0.15) ? 0 : r.below(s.n_ctx/3 + 1);
    s.graph_kind = r.pick(graphs);
    s.padded    = r.chance(0.5);
    s.n_mean    = r.chance(0.3) ? 0 : r.range(1, 100);
    s.half_life = r.range(1, 100);
    s.unbias    = r.chance(0.3) ? 0 : r.chance(0.5) ? 1 : 0.3f;
    set_graph(s, r);
    return s;
}

static void test_sequences(int n_sequences, int n_ubatches) {
    rng r { 42 };
    int bad = 0, n_ubatch = 0, evicted = 0, won = 0, displaced = 0, reused = 0, dead = 0, recoded = 0, read = 0, refined = 0;
    double tie = INFINITY;
    world::mean_error base, refined_error;
    for (int i = 0; i < n_sequences; i++) {
        const shape s = random_shape(r);
        world w(s, r);
        w.ties = r.chance(0.2);
        const double p_ring = r.pick((const double[]) { 0, 0.5, 1 }), p_remove = r.pick((const double[]) { 0, 0.02, 0.3 });
        for (int u = 0; u < n_ubatches && w.problem.empty(); u++) {
            const int32_t most = std::min(s.n_ctx/2, r.chance(0.5) ? 4 : 40);
            w.ubatch(r.range(1, most), p_ring, p_remove);
            n_ubatch++;
        }
        base.sum += w.base_error.sum; base.n += w.base_error.n;
        refined_error.sum += w.refined_error.sum; refined_error.n += w.refined_error.n;
        if (!w.problem.empty()) {
            bad++;
            printf("sequence %d: %s (head %d/%d x%d, streams %d, n_ctx %d, hex%d/hex%d refine %d, ring %d heavy %d static %d of graph %d, mean %d, least gap %g)\n",
                   i, w.problem.c_str(), s.head_k, s.head_v, s.n_head_kv, s.n_stream, s.n_ctx, s.bits_k, s.bits_v, s.refine, s.n_ring, s.n_heavy,
                   w.d.n_static, s.graph_kind, s.n_mean, w.near_tie);
        }
        tie = std::min(tie, w.near_tie);
        evicted += w.n_evicted; won += w.n_won; displaced += w.n_displaced; reused += w.n_reused; dead += w.n_dead; recoded += w.n_recoded;
        read += w.n_read; refined += w.n_refined;
    }
    check(bad == 0, "commit does what the model says: %d sequences, %d ubatches, 1 to 3 threads the same bits", n_sequences, n_ubatch);
    printf("     %d evicted, %d won a heavy slot, %d displaced, %d removed, %d cells reused, %d rows coded again, nearest scores %.1e apart\n",
           evicted, won, displaced, dead, reused, recoded, tie);
    check(base.sum <= base.n && refined_error.sum <= 1.5*refined_error.n, "%d rows read back, %d of them refined: mean error %.2f (refined %.2f) of what the codecs promise for Gaussian rows",
          read, refined, base.sum/base.n, refined_error.sum/refined_error.n);
}

// ---- hostile inputs: anything goes but crashes, races and numbers that are none

static int32_t any_index(rng & r, int32_t n) {
    static const int32_t nasty[] = { -1, -2, INT_MIN, INT_MAX, 1 << 20 };
    return r.chance(0.15) ? r.pick(nasty) : r.below(n + 2);
}

static void test_hostile(int n_cases) {
    rng r { 4711 };
    int bad = 0;
    for (int i = 0; i < n_cases; i++) {
        shape s = random_shape(r);
        s.refine = s.graph_kind == HEX_BACKBONE_CHANNELS || r.chance(0.8) ? s.refine : HEX_REFINE_NONE;
        if (s.refine == HEX_REFINE_NONE) {
            s.n_ring = s.n_heavy = 0;
            s.graph_kind = HEX_BACKBONE_NONE;
        }
        cache_data d(s);
        d.k_base.fill(r);
        d.v_base.fill(r);
        d.new_ubatch(r.range(1, 70));
        d.k_cur.fill(r); // all floats: NaN, infinite, huge, denormal
        d.v_cur.fill(r);
        const int32_t n_kv = r.chance(0.3) ? s.n_ctx : r.range(1, s.n_ctx);
        for (int32_t st = 0; st < s.n_stream; st++) {
            for (int32_t j = 0; j < (s.n_ctx + 31)/32; j++) {
                d.bitmap(st)[j] = r.chance(0.3) ? 0xffffffffu : (uint32_t) r.next();
            }
            for (int32_t j = 0; j < s.n_ring; j++) {
                d.ring(st)[j] = any_index(r, n_kv);
            }
            for (int32_t j = 0; j < d.n_tps; j++) {
                d.rows(st)[j] = { any_index(r, n_kv), any_index(r, s.n_ring), any_index(r, 100), any_index(r, n_kv), any_index(r, 100), any_index(r, 1) };
            }
            for (int32_t h = 0; h < s.n_head_kv; h++) {
                int32_t * state = d.head_state(st, h);
                for (size_t j = 0; j < d.state_words; j++) {
                    state[j] = r.chance(0.5) ? (int32_t) r.next() : any_index(r, n_kv);
                }
                state[HEX_STATE_FROZEN] = r.chance(0.5) ? 0 : any_index(r, 2);
            }
        }
        std::vector<float> mass((size_t) s.n_stream*s.n_head_kv*(s.n_ring + 2*s.n_heavy + d.n_tps));
        for (float & m : mass) {
            const float odd[] = { NAN, INFINITY, -INFINITY, 3e38f, -1, 0 };
            m = r.chance(0.2) ? r.pick(odd) : (float) r.uniform();
        }
        const cache_data before = d;
        cache_data other[2] = { d, d };
        world::commit(d, n_kv, mass, 1, r);
        world::commit(other[0], n_kv, mass, 2, r);
        world::commit(other[1], n_kv, mass, 3, r);
        bool ok = world::same(d, other[0]) && world::same(d, other[1]) && world::same_sources(d, before);
        for (int32_t st = 0; st < s.n_stream; st++) {
            for (int32_t h = 0; h < s.n_head_kv; h++) {
                std::vector<int32_t> cells; // no cell has two slots
                for (int32_t j = 0; j < s.n_heavy; j++) {
                    ok = ok && std::isfinite(d.heavy_score(st, h)[j]) && d.heavy(st, h)[j] >= 0 && d.heavy(st, h)[j] <= s.n_ctx;
                    if (d.heavy(st, h)[j] > 0) {
                        cells.push_back(d.heavy(st, h)[j]);
                    }
                }
                std::sort(cells.begin(), cells.end());
                ok = ok && std::adjacent_find(cells.begin(), cells.end()) == cells.end();
            }
        }
        if (!ok) {
            bad++;
            printf("hostile case %d: head %d/%d x%d, streams %d, n_ctx %d, tokens %d, refine %d, ring %d heavy %d graph %d\n", i, s.head_k, s.head_v, s.n_head_kv,
                   s.n_stream, s.n_ctx, d.n_tps, s.refine, s.n_ring, s.n_heavy, s.graph_kind);
        }
    }
    check(bad == 0, "hostile meta, state, mass and rows: %d cases, 1 to 3 threads the same bits, slots and scores sane", n_cases);
}

// Rows beyond the range of the formats, or that are no numbers: what is stored can be read.
static void test_extreme_rows() {
    rng r { 99 };
    bool ok = true;
    for (const enum hex_refine refine : refines) {
        for (const bool channels : { false, true }) {
            shape s;
            s.refine = channels ? HEX_REFINE_F16 : refine;
            s.n_ctx  = 64;
            s.n_ring = channels ? 0 : 64;
            s.n_mean = 4;
            s.graph_kind = channels ? HEX_BACKBONE_CHANNELS : HEX_BACKBONE_NONE;
            set_graph(s, r);
            cache_data d(s);
            d.new_ubatch(32);
            static const float odd[] = { NAN, INFINITY, -INFINITY, 3.4e38f, -1e30f, 7e4f, 1e7f, 1e-38f, 1e-45f, 0 };
            for (int32_t i = 0; i < 32; i++) {
                d.rows(0)[i] = { i, channels ? -1 : i, 1, -1, 0, 0 };
                for (int32_t j = 0; j < 64; j++) {
                    for (const bool k : { true, false }) {
                        d.cur(k, 0, 0, i)[j] = i % 3 == 0 || r.chance(0.1) ? odd[(i/3 + (r.chance(0.3) ? j : 0)) % 10] : r.gauss();
                    }
                }
            }
            world::commit(d, 64, {}, 1, r);
            for (int32_t i = 0; i < 32; i++) {
                for (const bool k : { true, false }) {
                    std::vector<double> y(64);
                    d.decode_base(k, 0, 0, i, y.data());
                    if (channels) {
                        d.add_channels(k, 0, 0, i, y.data());
                    } else {
                        d.add_residual(k, 0, 0, i, y.data());
                    }
                    for (const double v : y) {
                        ok = ok && std::isfinite(v);
                    }
                }
            }
        }
    }
    check(ok, "rows with infinite, huge and undefined values read back as finite numbers");
}

// ---- attention and commit in turns

// With an f16 residual for every cell, attention over the cache is attention over the original rows.
static void test_chain(bool lanes) {
    rng r { 31 };
    shape s;
    s.n_head_kv = 2;
    s.n_ctx  = 200;
    s.n_ring = 100;
    s.n_heavy = 100;
    s.n_mean = 40;
    s.refine = HEX_REFINE_F16;
    world w(s, r);
    const int32_t group = 2, n_head = s.n_head_kv*group;
    double err = 0, sum = 0;
    int32_t n_done = 0, n_heavy_cells = 0;
    while (n_done < s.n_ctx) {
        const int32_t n = std::min(lanes ? 25 : 3, s.n_ctx - n_done);
        w.d.new_ubatch(n);
        w.random_rows();
        for (int32_t i = 0; i < s.n_ring; i++) {
            w.d.ring(0)[i] = w.host[0].ring[(size_t) i];
        }
        for (int32_t i = 0; i < n_done; i++) {
            w.d.bitmap(0)[i/32] |= 1u << i % 32;
        }
        for (int32_t i = 0; i < n; i++) { // the ring in turn; what leaves it finds a heavy slot
            const int32_t slot = (n_done + i) % s.n_ring, old = w.host[0].ring[(size_t) slot];
            w.d.rows(0)[i] = { n_done + i, slot, n - i, old, old < 0 ? 0 : n_done + n - old, 0 };
            w.host[0].ring[(size_t) slot] = n_done + i;
        }
        buffer q(4*(size_t) (s.head_k*n_head*n)), mask(2*(size_t) (n*s.n_ctx));
        for (size_t i = 0; i < q.size/4; i++) {
            q.as<float>()[i] = r.gauss();
        }
        for (int32_t i = 0; i < n; i++) {
            for (int32_t cell = 0; cell < s.n_ctx; cell++) {
                mask.as<uint16_t>()[i*s.n_ctx + cell] = cell <= n_done + i ? 0 : 0xfc00;
            }
        }
        std::vector<float> out((size_t) (s.head_v*n_head*n)), mass((size_t) s.n_head_kv*(s.n_ring + 2*s.n_heavy + n));
        struct hex_attn a = {};
        a.cache  = w.d.view(s.n_ctx);
        a.n_head = n_head;
        a.scale  = 0.1f;
        a.q      = cache_data::tensor(q, 4, 4*(size_t) (s.head_k*n_head), 4*(size_t) s.head_k, q.size);
        a.mask   = cache_data::tensor(mask, 2, 2*(size_t) s.n_ctx, mask.size, mask.size);
        a.out    = out.data();
        a.mass   = mass.data();
        buffer work(hex_attn_work(&a, 2));
        team t;
        t.run(2, [&](int ith) { hex_attn_run(&a, work.as<void>(), ith, 2, team::wait, &t); });
        world::commit(w.d, s.n_ctx, mass, 2, r);
        for (int32_t h = 0; h < s.n_head_kv; h++) {
            w.model_rows(0, h);
        }

        for (int32_t i = 0; i < n; i++) { // exact attention over all rows so far
            for (int32_t qh = 0; qh < n_head; qh++) {
                std::vector<double> p, o((size_t) s.head_v);
                double max = -INFINITY, total = 0;
                for (int32_t cell = 0; cell <= n_done + i; cell++) {
                    double x = 0;
                    for (int32_t j = 0; j < s.head_k; j++) {
                        x += (double) q.as<float>()[(i*n_head + qh)*s.head_k + j]*(double) w.row_of(0, qh/group, cell).k.x[(size_t) j];
                    }
                    p.push_back(x*(double) a.scale);
                    max = std::max(max, p.back());
                }
                for (double & x : p) {
                    total += x = exp(x - max);
                }
                for (size_t cell = 0; cell < p.size(); cell++) {
                    for (int32_t j = 0; j < s.head_v; j++) {
                        o[(size_t) j] += p[cell]/total*(double) w.row_of(0, qh/group, (int32_t) cell).v.x[(size_t) j];
                    }
                }
                for (int32_t j = 0; j < s.head_v; j++) {
                    const double e = (double) out[(size_t) ((i*n_head + qh)*s.head_v + j)] - o[(size_t) j];
                    err += e*e;
                    sum += o[(size_t) j]*o[(size_t) j];
                }
            }
        }
        n_done += n;
    }
    for (int32_t i = 0; i < s.n_heavy; i++) {
        n_heavy_cells += w.d.heavy(0, 0)[i] > 0;
    }
    check(n_heavy_cells == s.n_heavy && err/sum < 1e-6, "attend and commit in turns, %s, all cells refined with f16: NMSE %.1e of exact attention, %d heavy hitters",
          lanes ? "25 rows" : "3 rows", err/sum, n_heavy_cells);
}

int main(int argc, char ** argv) {
    test_sequences(argc > 1 ? atoi(argv[1]) : sanitized ? 40 : 300, sanitized ? 12 : 25);
    test_hostile(sanitized ? 200 : 1500);
    test_extreme_rows();
    test_chain(false);
    test_chain(true);
    return check_exit_code();
}
