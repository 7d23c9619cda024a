// A HEX cache made of plain buffers for the tests of the kernels: random contents, exact sizes (so that the address
// sanitizer sees every overrun), padded strides, and decoders of its own.
#pragma once

#include "core/hex_bytes.h"
#include "core/hex_codec.h"
#include "core/hex_fp16.h"
#include "cpu/hex_cache.h"
#include "cpu/hex_isa.h"
#include "ggml/hex_meta.h"
#include "ggml/hex_state.h"

#include <pthread.h>

#include <climits>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

// Sanitized code is slow, and emulated code (neon.sh): the same tests with fewer cases.
#if defined(__SANITIZE_ADDRESS__) || defined(HEX_TEST_FEW_CASES)
static const bool sanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
static const bool sanitized = true;
#else
static const bool sanitized = false;
#endif
#else
static const bool sanitized = false;
#endif

// ---- random numbers, the same on every machine

struct rng {
    uint64_t state;

    uint64_t next() { // splitmix64
        uint64_t z = state += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30))*0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27))*0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    int32_t below(int32_t n) { return (int32_t) (next() % (uint64_t) n); }
    int32_t range(int32_t lo, int32_t hi) { return lo + below(hi - lo + 1); }
    bool    chance(double p) { return uniform() < p; }
    double  uniform() { return (double) (next() >> 11)*0x1p-53; }
    float   gauss() {
        double sum = 0;
        for (int i = 0; i < 6; i++) {
            sum += uniform() - uniform();
        }
        return (float) sum; // variance 1
    }
    template<typename T, size_t N> T pick(const T (&a)[N]) { return a[below((int32_t) N)]; }
};

// ---- memory

// Bytes from malloc, of the exact size.
struct buffer {
    std::unique_ptr<char, void (*)(void *)> data { nullptr, free };
    size_t size = 0;

    buffer() = default;
    explicit buffer(size_t n) : data((char *) malloc(n ? n : 1), free), size(n) { memset(data.get(), 0, n); }
    buffer(const buffer & b) : buffer(b.size) { if (size) { memcpy(data.get(), b.data.get(), size); } }
    buffer & operator=(const buffer & b) {
        buffer copy(b);
        std::swap(data, copy.data);
        std::swap(size, copy.size);
        return *this;
    }
    bool operator==(const buffer & b) const { return size == b.size && (size == 0 || memcmp(data.get(), b.data.get(), size) == 0); }
    template<typename T> T * as() const { return (T *) data.get(); }
    void fill(rng & r) {
        for (size_t i = 0; i < size; i++) {
            data.get()[i] = (char) r.next();
        }
    }
};

// ---- threads

struct team {
    pthread_barrier_t barrier;

    static void wait(void * self) { pthread_barrier_wait(&((team *) self)->barrier); }

    // Runs f(ith) on nth threads.
    void run(int nth, const std::function<void(int)> & f) {
        pthread_barrier_init(&barrier, nullptr, (unsigned) nth);
        std::vector<std::thread> threads;
        for (int i = 1; i < nth; i++) {
            threads.emplace_back(f, i);
        }
        f(0);
        for (auto & t : threads) {
            t.join();
        }
        pthread_barrier_destroy(&barrier);
    }
};

// ---- a cache

struct shape {
    int32_t head_k = 64, head_v = 64, n_head_kv = 1, n_stream = 1, n_ctx = 64;
    int32_t bits_k = 3, bits_v = 2;
    enum hex_refine refine = HEX_REFINE_HEX4;
    int32_t n_ring = 0, n_heavy = 0;
    enum hex_backbone graph_kind = HEX_BACKBONE_NONE;
    int32_t n_pairs = 1, degree = 1, pair0 = 0;
    uint32_t seed = 1;
    int32_t n_mean = 0, half_life = 64;
    float unbias = 1;
    bool padded = false; // rows and streams are further apart than they need to be
};

// A random graph of s.graph_kind.
static inline void set_graph(shape & s, rng & r) {
    if (s.graph_kind == HEX_BACKBONE_CHANNELS) {
        s.refine  = HEX_REFINE_F16;
        s.n_pairs = HEX_BLOCK;
        s.degree  = 1 << r.below(6);
        s.pair0   = r.below(5); // of no meaning
    } else if (s.graph_kind != HEX_BACKBONE_NONE) {
        s.degree  = r.range(1, 4);
        s.n_pairs = s.degree*r.range(2, 12);
        s.n_pairs = s.n_pairs < s.degree*s.n_head_kv ? s.degree*s.n_head_kv : s.n_pairs;
        s.pair0   = r.below(s.n_pairs - s.n_head_kv + 1);
    }
    s.seed = (uint32_t) r.next();
}

static inline size_t base_size(int bits, int32_t n) { return hex_block_size(bits)*(size_t) (n/HEX_BLOCK); }

// The parts that outlive a ubatch, and the meta and rows of one ubatch.
struct cache_data {
    shape  sh;
    int32_t n_static = 0, n_slots = 0;
    size_t slot_size = 0, state_words = 0, meta_words = 0, pad = 0;
    buffer k_base, v_base, pool, state, meta, k_cur, v_cur;
    int32_t n_tps = 0;

    explicit cache_data(const shape & s) : sh(s) {
        struct hex_graph g = graph();
        n_static    = g.kind == HEX_BACKBONE_NONE ? 0 : (sh.n_ctx + g.period - 1)/g.period;
        n_slots     = sh.n_ring + sh.n_heavy + n_static;
        slot_size   = hex_slot_size(sh.refine, sh.head_k, sh.head_v);
        state_words = hex_state_size(sh.head_k, sh.n_ring, sh.n_heavy);
        pad         = sh.padded ? 1 : 0;
        k_base = buffer((size_t) sh.n_stream*base_stream(true));
        v_base = buffer((size_t) sh.n_stream*base_stream(false));
        pool   = buffer((size_t) sh.n_stream*(size_t) sh.n_head_kv*pool_head());
        state  = buffer((size_t) sh.n_stream*(size_t) sh.n_head_kv*state_head());
    }

    struct hex_graph graph() const {
        struct hex_graph g = {};
        g.kind = (int32_t) sh.graph_kind;
        if (sh.graph_kind != HEX_BACKBONE_NONE) {
            g.seed    = sh.seed;
            g.n_pairs = sh.n_pairs;
            g.degree  = sh.degree;
            g.period  = sh.n_pairs/sh.degree;
            g.n_cells = sh.n_ctx;
        }
        return g;
    }

    // strides in bytes
    size_t base_row   (bool k) const { return base_size(k ? sh.bits_k : sh.bits_v, k ? sh.head_k : sh.head_v); }
    size_t base_cell  (bool k) const { return base_row(k)*(size_t) sh.n_head_kv + 6*pad; }
    size_t base_stream(bool k) const { return base_cell(k)*(size_t) sh.n_ctx + 10*pad; }
    size_t pool_head  () const { return slot_size*(size_t) n_slots + 14*pad; }
    size_t state_head () const { return 4*(state_words + 3*pad); }
    size_t cur_head (bool k) const { return 4*((size_t) (k ? sh.head_k : sh.head_v) + 5*pad); }
    size_t cur_token(bool k) const { return cur_head(k)*(size_t) sh.n_head_kv + 12*pad; }

    void new_ubatch(int32_t n) {
        n_tps      = n;
        meta_words = hex_meta_words(n, sh.n_ring, sh.n_ctx);
        meta  = buffer((size_t) sh.n_stream*4*(meta_words + pad));
        k_cur = buffer((size_t) (n*sh.n_stream)*cur_token(true));
        v_cur = buffer((size_t) (n*sh.n_stream)*cur_token(false));
    }

    struct hex_meta_row * rows(int32_t s) { return (struct hex_meta_row *) (meta.as<int32_t>() + (size_t) s*(meta_words + pad)); }
    int32_t  * ring(int32_t s)   { return (int32_t *) (rows(s) + n_tps); }
    uint32_t * bitmap(int32_t s) { return (uint32_t *) (ring(s) + sh.n_ring); }
    int32_t  * head_state(int32_t s, int32_t h) { return (int32_t *) (state.as<char>() + state_head()*(size_t) (s*sh.n_head_kv + h)); }
    float    * mean(int32_t s, int32_t h)  { return (float *) head_state(s, h) + HEX_STATE_MEAN; }
    int32_t  * heavy(int32_t s, int32_t h) { return head_state(s, h) + hex_state_heavy_cell(sh.head_k, sh.n_ring); }
    float    * heavy_score(int32_t s, int32_t h) { return (float *) head_state(s, h) + hex_state_heavy_score(sh.head_k, sh.n_ring, sh.n_heavy); }
    float    * ring_score(int32_t s, int32_t h)  { return (float *) head_state(s, h) + hex_state_ring_score(sh.head_k); }
    char     * base(bool k, int32_t s, int32_t h, int32_t cell) {
        return (k ? k_base : v_base).as<char>() + base_stream(k)*(size_t) s + base_cell(k)*(size_t) cell + base_row(k)*(size_t) h;
    }
    char     * slot(int32_t s, int32_t h, int32_t i) { return pool.as<char>() + pool_head()*(size_t) (s*sh.n_head_kv + h) + slot_size*(size_t) i; }
    float    * cur(bool k, int32_t s, int32_t h, int32_t row) {
        return (float *) ((k ? k_cur : v_cur).as<char>() + cur_token(k)*(size_t) (s*n_tps + row) + cur_head(k)*(size_t) h);
    }

    static struct hex_tensor tensor(const buffer & b, size_t nb0, size_t nb1, size_t nb2, size_t nb3) {
        struct hex_tensor t = { b.as<char>(), { nb0, nb1, nb2, nb3 } };
        return t;
    }

    struct hex_cache view(int32_t n_kv) {
        struct hex_cache c = {};
        c.head_k = sh.head_k; c.head_v = sh.head_v; c.n_head_kv = sh.n_head_kv;
        c.n_tps = n_tps; c.n_stream = sh.n_stream; c.n_kv = n_kv; c.n_ctx = sh.n_ctx;
        c.bits_k = sh.bits_k; c.bits_v = sh.bits_v;
        c.n_ring = sh.n_ring; c.n_heavy = sh.n_heavy; c.n_static = n_static;
        c.n_mean = sh.n_mean; c.half_life = sh.half_life; c.unbias = sh.unbias; c.pair0 = sh.pair0;
        c.refine = sh.refine; c.slot_size = slot_size; c.graph = graph();
        const size_t ns = (size_t) sh.n_stream;
        c.k_cur  = tensor(k_cur,  4, cur_head(true),  cur_token(true),  cur_token(true)*(size_t) n_tps*ns);
        c.v_cur  = tensor(v_cur,  4, cur_head(false), cur_token(false), cur_token(false)*(size_t) n_tps*ns);
        c.k_base = tensor(k_base, hex_block_size(sh.bits_k), base_row(true),  base_cell(true),  base_stream(true));
        c.v_base = tensor(v_base, hex_block_size(sh.bits_v), base_row(false), base_cell(false), base_stream(false));
        c.pool   = tensor(pool,  1, slot_size, pool_head(), pool_head()*(size_t) sh.n_head_kv);
        c.state  = tensor(state, 4, state_head(), state_head()*(size_t) sh.n_head_kv, state_head()*(size_t) sh.n_head_kv*ns);
        c.meta   = tensor(meta,  4, 4*(meta_words + pad), 4*(meta_words + pad)*ns, 4*(meta_words + pad)*ns);
        return c;
    }

    // ---- decoders that share nothing with csrc/cpu but the block codec

    void decode_base(bool k, int32_t s, int32_t h, int32_t cell, double * y) {
        const int32_t n = k ? sh.head_k : sh.head_v;
        std::vector<float> x((size_t) n);
        hex_dequantize_ref(k ? sh.bits_k : sh.bits_v, base(k, s, h, cell), x.data(), n);
        for (int32_t i = 0; i < n; i++) {
            y[i] = (double) x[i] + (k && head_state(s, h)[HEX_STATE_FROZEN] ? (double) mean(s, h)[i] : 0);
        }
    }

    void add_residual(bool k, int32_t s, int32_t h, int32_t i, double * y) {
        const int32_t n = k ? sh.head_k : sh.head_v;
        const char * row = slot(s, h, i) + (k ? 0 : hex_slot_size(sh.refine, sh.head_k, 0));
        if (sh.refine == HEX_REFINE_F16) {
            for (int32_t j = 0; j < n; j++) {
                uint16_t v;
                memcpy(&v, row + 2*j, 2);
                y[j] += (double) hex_fp16_to_fp32(v);
            }
        } else if (sh.refine == HEX_REFINE_Q8_0) {
            for (int32_t j = 0; j < n; j++) {
                const char * block = row + j/32*34;
                uint16_t d;
                memcpy(&d, block, 2);
                y[j] += (double) hex_fp16_to_fp32(d)*(double) (int8_t) block[2 + j % 32];
            }
        } else {
            std::vector<float> x((size_t) n);
            hex_dequantize_ref((int) sh.refine, row, x.data(), n);
            for (int32_t j = 0; j < n; j++) {
                y[j] += (double) x[j];
            }
        }
    }

    // What the CHANNELS backbone holds of a cell: each cell of a block has its own channels of one shared row.
    void add_channels(bool k, int32_t s, int32_t h, int32_t cell, double * y) {
        const struct hex_graph g = graph();
        if (g.kind != HEX_BACKBONE_CHANNELS) {
            return;
        }
        const char * row = slot(s, h, sh.n_ring + sh.n_heavy + cell/g.period) + (k ? 0 : 2*sh.head_k);
        for (int32_t j = 0; j < (k ? sh.head_k : sh.head_v); j++) {
            if (hex_graph_channel(&g, cell, j % 64)) {
                uint16_t v;
                memcpy(&v, row + 2*j, 2);
                y[j] += (double) hex_fp16_to_fp32(v);
            }
        }
    }

    bool bit(int32_t s, int32_t cell) { return bitmap(s)[cell/32] >> (cell % 32) & 1; }

    // Cell that a slot holds according to the tables, INT_MIN when that is no cell at all.
    int32_t slot_cell(int32_t s, int32_t h, int32_t i) {
        if (i < sh.n_ring) {
            return ring(s)[i];
        }
        if (i < sh.n_ring + sh.n_heavy) {
            const int32_t stored = heavy(s, h)[i - sh.n_ring];
            return stored > 0 ? stored - 1 : -1;
        }
        const struct hex_graph g = graph();
        return hex_graph_cell(&g, sh.pair0 + h, i - sh.n_ring - sh.n_heavy);
    }
};

static inline double nmse(const float * a, const float * b, size_t n) { // of a against b
    double err = 0, sum = 0;
    for (size_t i = 0; i < n; i++) {
        err += ((double) a[i] - (double) b[i])*((double) a[i] - (double) b[i]);
        sum += (double) b[i]*(double) b[i];
    }
    return err == 0 ? 0 : sum > 0 ? err/sum : INFINITY;
}
