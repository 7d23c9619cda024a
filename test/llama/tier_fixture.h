// What the tests of the refinement tier share: tiny models, an f16 context and a HEX context that are fed the same
// operations (twin), a check of every refined row against the row that was stored (row_check), captured log lines.
#pragma once

#include "tiny_gguf.h"

#include "core/check.h"
#include "core/hex_bytes.h"
#include "core/hex_codec.h"
#include "core/hex_fp16.h"
#include "cpu/hex_cache.h"
#include "ggml/hex_meta.h"
#include "ggml/hex_ops.h"
#include "ggml/hex_state.h"

#include "llama.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include <unistd.h>

// ---- random numbers, the same on every machine

struct rng {
    uint64_t state;

    uint64_t next() { // splitmix64
        uint64_t z = state += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30))*0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27))*0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    int  below(int n)         { return (int) (next() % (uint64_t) n); }
    int  range(int a, int b)  { return a + below(b - a + 1); }
    bool chance(double p)     { return (double) (next() >> 11)*0x1p-53 < p; }
};

// ---- log

static std::string log_text;
static std::mutex  log_mutex;

static void log_capture(ggml_log_level level, const char * text, void *) {
    const std::lock_guard<std::mutex> lock(log_mutex);
    if (level >= GGML_LOG_LEVEL_INFO || level == GGML_LOG_LEVEL_CONT) {
        log_text += text;
    }
}

static inline int log_lines_with(const std::string & what) {
    int n = 0;
    for (size_t at = log_text.find(what); at != std::string::npos; at = log_text.find(what, at + 1)) {
        n++;
    }
    return n;
}

// ---- models and contexts

struct model_free   { void operator()(llama_model   * m) const { llama_model_free(m); } };
struct context_free { void operator()(llama_context * c) const { llama_free(c); } };
using model_ptr   = std::unique_ptr<llama_model, model_free>;
using context_ptr = std::unique_ptr<llama_context, context_free>;

static inline model_ptr load_tiny(const tiny_model & shape, bool no_alloc = false) {
    char path[] = "/tmp/hexkv-tiny-XXXXXX";
    const int fd = mkstemp(path);
    model_ptr model;
    if (fd >= 0 && tiny_write(shape, path)) {
        llama_model_params params = llama_model_default_params();
        params.n_gpu_layers = 0;
        params.no_alloc     = no_alloc;
        params.load_mode    = LLAMA_LOAD_MODE_NONE;
        model.reset(llama_model_load_from_file(path, params));
    }
    if (fd >= 0) {
        close(fd);
        unlink(path);
    }
    if (!model) {
        printf("%s\nno model\n", log_text.c_str());
        exit(1);
    }
    return model;
}

struct setup {
    int       n_ctx     = 256; // cells of a stream
    int       n_seq     = 1;
    bool      unified   = true;
    int       n_ubatch  = 512;
    int       n_threads = 1;
    ggml_type type_k    = GGML_TYPE_F16;
    ggml_type type_v    = GGML_TYPE_F16;
    llama_flash_attn_type flash = LLAMA_FLASH_ATTN_TYPE_ENABLED;
};

static inline llama_context_params context_params(const setup & s, const hex_params & hex) {
    llama_context_params p = llama_context_default_params();
    p.n_ctx           = (uint32_t) (s.unified ? s.n_ctx : s.n_ctx*s.n_seq);
    p.n_batch         = 2048;
    p.n_ubatch        = (uint32_t) s.n_ubatch;
    p.n_seq_max       = (uint32_t) s.n_seq;
    p.kv_unified      = s.unified;
    p.n_threads       = s.n_threads;
    p.n_threads_batch = s.n_threads;
    p.flash_attn_type = s.flash;
    p.type_k          = s.type_k;
    p.type_v          = s.type_v;
    p.no_perf         = false;
    p.hex             = hex;
    return p;
}

static inline hex_params preset(const char * name) {
    hex_params p = {};
    hex_params_preset(&p, name);
    return p;
}

// ---- batches

struct row {
    llama_seq_id seq;
    llama_pos    pos;
    llama_token  token;
    int          n_seq = 1; // the row is for sequences seq, seq + 1, ...
};

// Decodes rows in one call; logits of all rows, in order, when it returns 0.
static inline int decode(llama_context * ctx, const std::vector<row> & rows, std::vector<float> * logits) {
    llama_batch batch = llama_batch_init((int32_t) rows.size(), 0, 8);
    for (size_t i = 0; i < rows.size(); i++) {
        batch.token   [i]    = rows[i].token;
        batch.pos     [i]    = rows[i].pos;
        batch.n_seq_id[i]    = rows[i].n_seq;
        for (int k = 0; k < rows[i].n_seq; k++) {
            batch.seq_id[i][k] = rows[i].seq + k;
        }
        batch.logits  [i]    = 1;
    }
    batch.n_tokens = (int32_t) rows.size();
    const int status = llama_decode(ctx, batch);
    if (status == 0 && logits) {
        const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(ctx)));
        logits->clear();
        for (size_t i = 0; i < rows.size(); i++) {
            const float * l = llama_get_logits_ith(ctx, (int32_t) i);
            logits->insert(logits->end(), l, l + n_vocab);
        }
    }
    llama_batch_free(batch);
    return status;
}

// Kullback-Leibler divergence of softmax(b) from softmax(a); not finite when a logit is not.
static inline double kl_divergence(const float * a, const float * b, int n) {
    double max_a = a[0], max_b = b[0], sum_a = 0, sum_b = 0, kl = 0;
    for (int i = 0; i < n; i++) {
        max_a = std::max(max_a, (double) a[i]);
        max_b = std::max(max_b, (double) b[i]);
        if (!std::isfinite(a[i]) || !std::isfinite(b[i])) {
            return NAN;
        }
    }
    for (int i = 0; i < n; i++) {
        sum_a += exp(a[i] - max_a);
        sum_b += exp(b[i] - max_b);
    }
    for (int i = 0; i < n; i++) {
        const double la = a[i] - max_a - log(sum_a), lb = b[i] - max_b - log(sum_b);
        kl += exp(la)*(la - lb);
    }
    return kl;
}

// ---- every refined row against the row that was stored

// An eval callback. It keeps the K and V rows that each HEX_COMMIT stores, and recomputes at each HEX_ATTN, from the
// meta tensor, the state and the pools alone, which cells are refined and with which slot; base + residual must be the
// row that is in that cell. A residual of another token is off by its whole length, so no stale slot gets past this.
class row_check {
public:
    double max_error  = 0; // of refined rows, relative to the row
    double max_base   = 0; // of rows without refinement
    long   n_rows     = 0; // rows checked
    long   n_refined[3] = { 0, 0, 0 }; // ring, heavy, static
    std::string broken;    // the first contradiction in meta, empty = none
    bool   active     = true;
    bool   positions  = false; // cells are positions of one sequence, nothing was removed: queries are known
    std::vector<ggml_tensor *> pools; // of all layers, whole
    std::vector<int> ring_cells;      // of the last op, ascending
    std::map<int, int> n_static;      // by cell: (layer, KV head) pairs in whose backbone it is

    static bool callback(ggml_tensor * t, bool ask, void * user) {
        auto * self = (row_check *) user;
        if (t->op != GGML_OP_HEX_ATTN && t->op != GGML_OP_HEX_COMMIT) {
            return !ask;
        }
        if (ask) {
            return true;
        }
        if (t->op == GGML_OP_HEX_ATTN) {
            if (self->active) {
                self->attn(t);
            }
        } else {
            self->commit(t);
        }
        return true;
    }

    void restart() {
        max_error = max_base = 0;
        n_static.clear();
        n_rows = n_refined[0] = n_refined[1] = n_refined[2] = 0;
        broken.clear();
    }

private:
    struct kv_row { std::vector<float> k, v; };
    std::map<std::tuple<const ggml_tensor *, int, int, int>, kv_row> rows; // state tensor of the layer, stream, head, cell

    void fail(const std::string & why) {
        if (broken.empty()) {
            broken = why;
        }
    }

    static int first_stream(const ggml_tensor * state) {
        return state->view_src ? (int) (state->view_offs/state->view_src->nb[2]) : 0;
    }
    static const ggml_tensor * whole(const ggml_tensor * t) { return t->view_src ? t->view_src : t; }

    static void decode_row(int bits, const void * base, const float * mean, enum hex_refine refine, const void * residual,
                           float * y, int n) {
        hex_base_row(bits, base, mean, y, n);
        if (residual) {
            hex_residual_add(refine, residual, y, n);
        }
    }

    static double error(const std::vector<float> & x, const std::vector<float> & y, const float * mean) {
        double e = 0, s = 0;
        for (size_t i = 0; i < x.size(); i++) {
            e += (x[i] - y[i])*(x[i] - y[i]);
            s += mean ? (x[i] - mean[i])*(x[i] - mean[i]) : x[i]*x[i];
        }
        return sqrt(e/(s + 1e-12));
    }

    void check_meta(const int32_t * meta, const ggml_hex_op_params & p, int n_tps) {
        const hex_meta_row * r = hex_meta_rows(meta);
        const int32_t  * ring  = hex_meta_ring(meta, n_tps);
        const uint32_t * valid = hex_meta_bitmap(meta, n_tps, p.n_ring);
        std::vector<int> cell_of(p.n_ring, -1), row_of(p.n_ring, -1);
        std::vector<bool> in_ring(p.n_ctx), in_rows(p.n_ctx);

        for (int s = 0; s < p.n_ring; s++) {
            if (ring[s] < -1 || ring[s] >= p.n_ctx || (ring[s] >= 0 && in_ring[ring[s]])) {
                fail("ring table: cell " + std::to_string(ring[s]) + " is out of range or there twice");
                continue;
            }
            if (ring[s] >= 0) {
                in_ring[ring[s]] = true;
                if (!hex_bit_get(valid, ring[s])) {
                    fail("ring table: cell " + std::to_string(ring[s]) + " holds no token");
                }
            }
        }
        for (int i = 0; i < n_tps; i++) {
            if (r[i].cell < 0 || r[i].cell >= p.n_ctx || in_rows[r[i].cell] || hex_bit_get(valid, r[i].cell)) {
                fail("row " + std::to_string(i) + ": cell is out of range, taken twice or valid");
                continue;
            }
            in_rows[r[i].cell] = true;
            if (positions ? r[i].n_seen != n_tps - i : r[i].n_seen < 1 || r[i].n_seen > n_tps) {
                fail("row " + std::to_string(i) + ": n_seen = " + std::to_string(r[i].n_seen));
            }
            const int s = r[i].ring_slot;
            if (s < 0) {
                if (r[i].evict_cell >= 0) {
                    fail("row " + std::to_string(i) + " evicts but takes no slot");
                }
                continue;
            }
            if (s >= p.n_ring || row_of[s] >= 0) {
                fail("row " + std::to_string(i) + ": ring slot " + std::to_string(s) + " is out of range or given twice");
                continue;
            }
            row_of[s] = i;
            if (ring[s] != r[i].evict_cell) {
                fail("row " + std::to_string(i) + " takes the slot of cell " + std::to_string(ring[s]) + " and evicts " +
                     std::to_string(r[i].evict_cell));
            }
            const int n_seen = positions ? r[n_tps - 1].cell + 1 - r[i].evict_cell : -1;
            if (r[i].evict_cell >= 0 && (positions ? r[i].evict_seen != n_seen : r[i].evict_seen < 1)) {
                fail("row " + std::to_string(i) + ": evict_seen = " + std::to_string(r[i].evict_seen));
            }
        }
    }

    void attn(const ggml_tensor * t) {
        const ggml_hex_op_params p = ggml_hex_get_params(t);
        const ggml_tensor * k = t->src[3], * v = t->src[4], * pool = t->src[5], * state = t->src[6], * meta = t->src[7];
        const int d_k = (int) k->ne[0], d_v = (int) v->ne[0], n_tps = (int) t->src[0]->ne[1], s0 = first_stream(state);
        const hex_graph graph = ggml_hex_get_graph(&p);
        const enum hex_refine refine = (enum hex_refine) p.refine;
        const size_t k_size = hex_slot_size(refine, d_k, 0);
        std::vector<float> x(d_k), y(d_v);

        if (pool && std::find(pools.begin(), pools.end(), pool->view_src) == pools.end()) {
            pools.push_back(pool->view_src);
        }
        for (int s = 0; s < k->ne[3]; s++) {
            const int32_t * m = (const int32_t *) ((const char *) meta->data + s*meta->nb[1]);
            check_meta(m, p, n_tps);
            const int32_t  * ring  = hex_meta_ring(m, n_tps);
            const uint32_t * valid = hex_meta_bitmap(m, n_tps, p.n_ring);
            ring_cells.assign(ring, ring + p.n_ring);
            std::sort(ring_cells.begin(), ring_cells.end());

            for (int h = 0; h < k->ne[1]; h++) {
                const int32_t * st = (const int32_t *) ((const char *) state->data + h*state->nb[1] + s*state->nb[2]);
                const float * mean = st[HEX_STATE_FROZEN] ? (const float *) st + HEX_STATE_MEAN : nullptr;
                const int32_t * heavy = st + hex_state_heavy_cell(d_k, p.n_ring);
                std::vector<int> slot_of(p.n_ctx, -1);
                for (int i = p.n_ring + p.n_heavy + p.n_static - 1; i >= 0; i--) { // the first slot of a cell counts
                    const int cell = i < p.n_ring ? ring[i] : i < p.n_ring + p.n_heavy ? heavy[i - p.n_ring] - 1 :
                        hex_graph_cell(&graph, p.pair0 + h, i - p.n_ring - p.n_heavy);
                    if (cell >= 0 && cell < p.n_ctx) {
                        slot_of[cell] = i;
                    }
                }
                for (int cell = 0; cell < p.n_ctx; cell++) {
                    if (!hex_bit_get(valid, cell)) {
                        continue;
                    }
                    const auto it = rows.find({ whole(state), s0 + s, h, cell });
                    if (it == rows.end() || cell >= k->ne[2]) {
                        fail("cell " + std::to_string(cell) + " is called valid, but nothing was stored there");
                        continue;
                    }
                    const int slot = slot_of[cell];
                    const char * res = slot < 0 ? nullptr :
                        (const char *) pool->data + slot*pool->nb[1] + h*pool->nb[2] + s*pool->nb[3];
                    decode_row(hex_type_bits(k->type), (const char *) k->data + h*k->nb[1] + cell*k->nb[2] + s*k->nb[3],
                               mean, refine, res, x.data(), d_k);
                    decode_row(hex_type_bits(v->type), (const char *) v->data + h*v->nb[1] + cell*v->nb[2] + s*v->nb[3],
                               nullptr, refine, res ? res + k_size : nullptr, y.data(), d_v);
                    double & max = slot < 0 ? max_base : max_error;
                    max = std::max({ max, error(it->second.k, x, mean), error(it->second.v, y, nullptr) });
                    n_rows++;
                    n_static[cell] += p.n_static > 0 && hex_graph_slot(&graph, p.pair0 + h, cell) >= 0;
                    if (slot >= 0) {
                        n_refined[slot < p.n_ring ? 0 : slot < p.n_ring + p.n_heavy ? 1 : 2]++;
                    }
                }
            }
        }
    }

    void commit(const ggml_tensor * t) {
        const ggml_tensor * k = t->src[0], * v = t->src[1], * state = t->src[6], * meta = t->src[7];
        const int n_stream = (int) t->src[3]->ne[3], n_tps = (int) (k->ne[2]/n_stream), s0 = first_stream(state);

        for (int s = 0; s < n_stream; s++) {
            const hex_meta_row * r = hex_meta_rows((const int32_t *) ((const char *) meta->data + s*meta->nb[1]));
            for (int i = 0; i < n_tps; i++) {
                for (int h = 0; h < k->ne[1]; h++) {
                    const float * x = (const float *) ((const char *) k->data + h*k->nb[1] + (s*n_tps + i)*k->nb[2]);
                    const float * y = (const float *) ((const char *) v->data + h*v->nb[1] + (s*n_tps + i)*v->nb[2]);
                    kv_row & dst = rows[{ whole(state), s0 + s, h, r[i].cell }];
                    dst.k.assign(x, x + k->ne[0]);
                    dst.v.assign(y, y + v->ne[0]);
                }
            }
        }
    }

public:
    // A shift of the position of a cell by `by`: out of the rotation of a quantized cache, RoPE (base 10000, neighbours are pairs),
    // and back in. All layers and heads, one stream.
    void turn(int cell, int by) {
        const auto rotate = [](std::vector<float> & x) {
            for (size_t step = 1; step < x.size(); step *= 2) {
                for (size_t i = 0; i < x.size(); i++) {
                    if (!(i & step)) {
                        const float a = x[i], b = x[i + step];
                        x[i] = a + b, x[i + step] = a - b;
                    }
                }
            }
            for (float & v : x) {
                v /= sqrtf((float) x.size());
            }
        };
        for (auto & [key, value] : rows) {
            if (std::get<3>(key) != cell) {
                continue;
            }
            rotate(value.k);
            for (size_t i = 0; i < value.k.size(); i += 2) {
                const double angle = by*pow(10000, -(double) i/value.k.size()), a = value.k[i], b = value.k[i + 1];
                value.k[i]     = (float) (a*cos(angle) - b*sin(angle));
                value.k[i + 1] = (float) (a*sin(angle) + b*cos(angle));
            }
            rotate(value.k);
        }
    }

    // seq_cp between streams copies all cells
    void copy_stream(int src, int dst) {
        std::map<std::tuple<const ggml_tensor *, int, int, int>, kv_row> copies;
        for (const auto & [key, value] : rows) {
            if (std::get<1>(key) == src) {
                copies[{ std::get<0>(key), dst, std::get<2>(key), std::get<3>(key) }] = value;
            }
        }
        for (auto & [key, value] : copies) {
            rows[key] = std::move(value);
        }
    }
};

// ---- an f16 context and a HEX context under the same operations

struct twin {
    const setup cfg;
    row_check   rows; // before the contexts: they hold its address
    context_ptr f16, hex;
    const int   n_vocab;
    rng         tokens = { 7 };

    struct cell { llama_pos pos; int id; };      // one id per stored token, however many sequences share it
    std::map<llama_seq_id, std::vector<cell>> seqs; // what must be in the caches
    int  next_id = 0;

    double max_kl = 0, sum_kl = 0;
    long   n_kl   = 0, n_step = 0;
    bool   swa    = false; // the model has a sliding-window cache as well
    std::string broken; // the first thing that went wrong

    twin(const llama_model * model, const setup & s, const hex_params & hp, bool check_rows, setup stock = {}) :
        cfg(s), n_vocab(llama_vocab_n_tokens(llama_model_get_vocab(model))) {
        hex_params off = {};
        stock.n_ctx = s.n_ctx, stock.n_seq = s.n_seq, stock.unified = s.unified, stock.n_ubatch = s.n_ubatch;
        stock.flash = s.flash;
        f16.reset(llama_init_from_model(const_cast<llama_model *>(model), context_params(stock, off)));
        llama_context_params p = context_params(s, hp);
        if (check_rows) {
            p.cb_eval           = row_check::callback;
            p.cb_eval_user_data = &rows;
        }
        hex.reset(llama_init_from_model(const_cast<llama_model *>(model), p));
        if (!f16 || !hex) {
            fail("no context");
        }
    }

    bool ok() const { return broken.empty() && rows.broken.empty(); }
    std::string why() const { return broken.empty() ? rows.broken : broken; }

    void fail(const std::string & text) {
        if (broken.empty()) {
            broken = "step " + std::to_string(n_step) + ": " + text;
        }
    }

    void forget_kl() {
        max_kl = sum_kl = 0;
        n_kl = 0;
    }
    double mean_kl() const { return n_kl > 0 ? sum_kl/(double) n_kl : 0; }

    llama_memory_t mem(bool of_hex) const { return llama_get_memory(of_hex ? hex.get() : f16.get()); }

    int next_pos(llama_seq_id s) const {
        const auto it = seqs.find(s);
        return it == seqs.end() || it->second.empty() ? 0 : it->second.back().pos + 1;
    }
    int length(llama_seq_id s) const {
        const auto it = seqs.find(s);
        return it == seqs.end() ? 0 : (int) it->second.size();
    }
    int live() const { // cells in use, all streams
        std::vector<int> ids;
        for (const auto & [_, cells] : seqs) {
            for (const auto & c : cells) {
                ids.push_back(c.id);
            }
        }
        std::sort(ids.begin(), ids.end());
        return (int) (std::unique(ids.begin(), ids.end()) - ids.begin());
    }

    // One decode call: counts[s] random tokens for each sequence s, row by row in turn. Compares all logits.
    void decode(const std::map<llama_seq_id, int> & counts) {
        if (!ok()) {
            return;
        }
        n_step++;
        std::vector<row> batch;
        std::map<llama_seq_id, int> left = counts;
        for (bool more = true; more;) {
            more = false;
            for (auto & [s, n] : left) {
                if (n > 0) {
                    n--;
                    more = true;
                    batch.push_back({ s, next_pos(s), tokens.below(n_vocab) });
                    seqs[s].push_back({ next_pos(s), next_id++ });
                }
            }
        }
        run(batch);
    }

    void run(const std::vector<row> & batch) {
        std::vector<float> a, b;
        const int status_a = ::decode(f16.get(), batch, &a), status_b = ::decode(hex.get(), batch, &b);
        if (status_a != 0 || status_b != 0) {
            fail("decode returned " + std::to_string(status_a) + " and " + std::to_string(status_b));
            return;
        }
        for (size_t i = 0; i < batch.size(); i++) {
            const double kl = kl_divergence(&a[i*n_vocab], &b[i*n_vocab], n_vocab);
            if (!std::isfinite(kl)) {
                fail("a logit is not finite");
                return;
            }
            max_kl = std::max(max_kl, kl);
            sum_kl += kl;
            n_kl++;
        }
        compare_positions();
    }
    // n random tokens at the end of each of the n_share sequences from 0 on, stored once.
    void decode_shared(int n_share, int n) {
        std::vector<row> batch;
        for (int i = 0; i < n; i++) {
            batch.push_back({ 0, next_pos(0), tokens.below(n_vocab), n_share });
            for (int s = n_share - 1; s >= 0; s--) {
                seqs[s].push_back({ next_pos(0), next_id });
            }
            next_id++;
        }
        n_step++;
        run(batch);
    }
    // A prompt in pieces.
    void prompt(llama_seq_id s, int n, int piece) {
        for (; n > 0; n -= piece) {
            decode({ { s, std::min(n, piece) } });
        }
    }

    void remove(llama_seq_id s, llama_pos p0, llama_pos p1) {
        n_step++;
        for (int h = 0; h < 2; h++) {
            if (!llama_memory_seq_rm(mem(h), s, p0, p1)) {
                fail("seq_rm returned false");
            }
        }
        const auto gone = [&](const cell & c) { return c.pos >= p0 && (p1 < 0 || c.pos < p1); };
        for (auto & [id, cells] : seqs) {
            if (s < 0 || id == s) {
                cells.erase(std::remove_if(cells.begin(), cells.end(), gone), cells.end());
            }
        }
        compare_positions();
    }

    void copy(llama_seq_id src, llama_seq_id dst, llama_pos p1) { // [0, p1), -1: all, as always with streams; dst is replaced
        n_step++;
        p1 = cfg.unified ? p1 : -1;
        if (cfg.unified) {
            remove(dst, 0, -1);
        }
        for (int h = 0; h < 2; h++) {
            llama_memory_seq_cp(mem(h), src, dst, cfg.unified ? 0 : -1, p1);
        }
        std::vector<cell> cells;
        for (const auto & c : seqs[src]) {
            if (p1 < 0 || c.pos < p1) {
                cells.push_back({ c.pos, cfg.unified ? c.id : next_id++ });
            }
        }
        seqs[dst] = cells;
        if (!cfg.unified) {
            rows.copy_stream(src, dst);
        }
        compare_positions();
    }

    void keep(llama_seq_id s) { // with several streams it concerns its own alone
        n_step++;
        for (int h = 0; h < 2; h++) {
            llama_memory_seq_keep(mem(h), s);
        }
        if (cfg.unified) {
            const auto kept = seqs[s];
            seqs.clear();
            seqs[s] = kept;
        }
        compare_positions();
    }

    void clear(bool data) {
        n_step++;
        for (int h = 0; h < 2; h++) {
            llama_memory_clear(mem(h), data);
        }
        seqs.clear();
        compare_positions();
    }

    void compare_positions() {
        for (int s = 0; s < cfg.n_seq; s++) {
            const int first = length(s) ? seqs[s].front().pos : -1, last = length(s) ? seqs[s].back().pos : -1;
            // a sliding window forgets positions: a rollback or a copied prefix can find nothing there
            if (swa && llama_memory_seq_pos_max(mem(0), s) != last && llama_memory_seq_pos_max(mem(1), s) != last) {
                remove(s, 0, -1);
                continue;
            }
            for (int h = 0; h < 2; h++) {
                if ((!swa && llama_memory_seq_pos_min(mem(h), s) != first) || llama_memory_seq_pos_max(mem(h), s) != last) {
                    fail("sequence " + std::to_string(s) + " of the " + (h ? "HEX" : "f16") + " cache is not at " +
                         std::to_string(first) + ".." + std::to_string(last));
                }
            }
        }
    }
};

// Many random operations against a plain model of the sequences.
static inline void random_operations(twin & t, rng & r, int n_steps, int max_live) {
    const int n_seq = t.cfg.n_seq, n_ctx = t.cfg.n_ctx;
    for (int step = 0; step < n_steps && t.ok(); step++) {
        const int s = r.below(n_seq), len = t.length(s), kind = r.below(100);
        const int live = t.cfg.unified ? t.live() : 0;
        const auto room = [&](int seq) { return t.cfg.unified ? max_live - live : max_live - t.length(seq); };

        if (kind < 66) {
            std::map<llama_seq_id, int> counts;
            int left = t.cfg.unified ? room(0) : n_ctx;
            const int n_active = r.range(1, n_seq);
            for (int i = 0; i < n_active; i++) {
                const int seq = r.below(n_seq);
                const int want = r.chance(0.7) ? r.range(1, 3) : r.chance(0.8) ? r.range(4, 24) : r.range(25, 90);
                const int n = std::min({ want, room(seq), left });
                if (n > 0 && !counts.count(seq)) {
                    counts[seq] = n;
                    left -= n;
                }
            }
            if (!counts.empty()) {
                t.decode(counts);
            } else {
                t.remove(s, 0, -1);
            }
        } else if (kind < 78) {
            if (len > 1) {
                t.remove(s, t.next_pos(s) - r.range(1, std::min(len, 40)), -1);
            }
        } else if (kind < 86) {
            if (len > 3) {
                const int a = r.below(t.next_pos(s));
                t.remove(s, a, a + r.range(1, 20));
            }
        } else if (kind < 90) {
            t.remove(s, 0, -1);
        } else if (kind < 96) {
            const int dst = r.below(n_seq);
            if (dst != s && len > 0) {
                t.copy(s, dst, r.chance(0.5) ? -1 : r.range(1, t.next_pos(s)));
            }
        } else if (kind < 97) {
            t.keep(s);
        } else if (kind < 98) {
            t.clear(r.chance(0.5));
        } else if (kind < 99) {
            t.remove(-1, r.below(20), r.range(20, 60));
        } else if (t.cfg.unified && live > 0) { // does not fit
            std::vector<row> batch;
            for (int i = 0; i <= n_ctx - live; i++) {
                batch.push_back({ s, t.next_pos(s) + i, 0 });
            }
            if (decode(t.f16.get(), batch, nullptr) != 1 || decode(t.hex.get(), batch, nullptr) != 1) {
                t.fail("a batch that does not fit was taken");
            }
        }
    }
}
