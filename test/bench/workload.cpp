#include "workload.h"

#include "core/hex_bytes.h"
#include "core/hex_codec.h"
#include "ggml/hex_meta.h"
#include "ggml/hex_state.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

// Encoding every cell would take longer than the measurement: a cache repeats a few hundred distinct rows, in an order
// that is random, and the same for each cache.
static const size_t N_ROWS = 256;

static uint64_t mix(uint64_t z) { // splitmix64
    z += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30))*0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27))*0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static double uniform(uint64_t i) { return ((double) (mix(i) >> 11) + 0.5)*0x1p-53; }

static std::vector<float> gauss(size_t n, uint64_t seed) {
    std::vector<float> x(n);
    for (size_t i = 0; i < n; i++) {
        const uint64_t at = (seed << 40) + 2*i;
        x[i] = (float) (sqrt(-2*log(uniform(at)))*cos(2*M_PI*uniform(at + 1)));
    }
    return x;
}

static std::vector<uint8_t> encode(ggml_type type, const std::vector<float> & x, int64_t head) {
    std::vector<uint8_t> y(ggml_row_size(type, (int64_t) x.size()));
    ggml_quantize_chunk(type, x.data(), y.data(), 0, (int64_t) x.size()/head, head, nullptr);
    return y;
}

static std::vector<float> decode(ggml_type type, const std::vector<uint8_t> & x, size_t n) {
    std::vector<float> y(n);
    ggml_get_type_traits(type)->to_float(x.data(), y.data(), (int64_t) n);
    return y;
}

static std::vector<float> minus(std::vector<float> a, const std::vector<float> & b) { // b is repeated
    for (size_t i = 0; i < a.size(); i++) {
        a[i] -= b[i % b.size()];
    }
    return a;
}

// Element (stream, head, i) of the tables of a HEX cache.
static char * slot_of(const ggml_tensor * pool, int32_t stream, int32_t head, int32_t i) {
    return (char *) pool->data + (size_t) i*pool->nb[1] + (size_t) head*pool->nb[2] + (size_t) stream*pool->nb[3];
}
static int32_t * state_of(const ggml_tensor * state, int32_t stream, int32_t head) {
    return (int32_t *) ((char *) state->data + (size_t) head*state->nb[1] + (size_t) stream*state->nb[2]);
}
static int32_t * meta_of(const ggml_tensor * meta, int32_t stream) {
    return (int32_t *) ((char *) meta->data + (size_t) stream*meta->nb[1]);
}

static ggml_type hex_type(int bits) { return (ggml_type) (GGML_TYPE_HEX1 + bits - 1); }

bool cache_type_find(const std::string & name, cache_type & out) {
    out = { name, GGML_TYPE_COUNT, GGML_TYPE_COUNT, {} };
    for (ggml_type type : { GGML_TYPE_F16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0 }) {
        if (name == ggml_type_name(type)) {
            out.type_k = out.type_v = type;
            return true;
        }
    }
    const std::string preset = name.rfind("hex:", 0) == 0 ? name.substr(4) : name;
    if (!hex_params_preset(&out.hex, preset.c_str()) || !out.hex.enabled || out.hex.backbone > 0) {
        return false;
    }
    out.name   = "hex:" + preset;
    out.type_k = hex_type(out.hex.base_k);
    out.type_v = hex_type(out.hex.base_v);
    return true;
}

//
// graphs
//

workload::workload(ggml_backend_t backend, const shape & s, const std::vector<cache_type> & types) : s(s), backend(backend) {
    k_mean = gauss((size_t) s.head, 1);
    k_rows = gauss(N_ROWS*(size_t) s.head, 2);
    v_rows = gauss(N_ROWS*(size_t) s.head, 3);
    for (size_t i = 0; i < k_rows.size(); i++) {
        k_rows[i] += k_mean[i % k_mean.size()]; // keys have a mean, as a model's
    }

    const size_t n = types.size();
    ctx    = ggml_init({ (4 + n)*(32*ggml_tensor_overhead() + 2*ggml_graph_overhead_custom(16, false)), nullptr, true });
    q      = ggml_new_tensor_4d(ctx, GGML_TYPE_F32, s.head, s.n_head(), s.n_tps, s.n_stream);
    k_cur  = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, s.head, s.n_head_kv, s.n_q());
    v_cur  = ggml_new_tensor_3d(ctx, GGML_TYPE_F32, s.head, s.n_head_kv, s.n_q());
    mask   = ggml_new_tensor_4d(ctx, GGML_TYPE_F16, s.n_kv, s.n_tps, 1, s.n_stream);
    cells  = ggml_new_tensor_1d(ctx, GGML_TYPE_I64, s.n_q());
    for (const cache_type & type : types) {
        cache c = {};
        c.type = type;
        c.k = ggml_new_tensor_4d(ctx, type.type_k, s.head, s.n_head_kv, s.n_kv, s.n_stream);
        c.v = ggml_new_tensor_4d(ctx, type.type_v, s.head, s.n_head_kv, s.n_kv, s.n_stream);
        c.attn  = ggml_new_graph_custom(ctx, 16, false);
        c.store = ggml_new_graph_custom(ctx, 16, false);
        if (type.hex.enabled) {
            add_hex(c);
        } else {
            add_stock(c);
        }
        caches.push_back(c);
    }
    buffer = ggml_backend_alloc_ctx_tensors(ctx, backend);
    if (!buffer) {
        fprintf(stderr, "hexkv-bench: there is no memory for caches of %d cells; leave out some with --caches or --ops.\n",
                s.n_kv*s.n_stream);
        exit(1);
    }
    fill_inputs();
    for (cache & c : caches) {
        if (c.type.hex.enabled) {
            fill_hex(c);
        } else {
            fill_stock(c);
        }
    }
}

workload::~workload() {
    ggml_backend_buffer_free(buffer);
    ggml_free(ctx);
}

// As llama_kv_cache and build_attn_mha build it.
void workload::add_stock(cache & c) {
    const float scale = 1.0f/sqrtf((float) s.head);
    c.out = ggml_flash_attn_ext(ctx, ggml_permute(ctx, q, 0, 2, 1, 3), ggml_permute(ctx, c.k, 0, 2, 1, 3),
                                ggml_permute(ctx, c.v, 0, 2, 1, 3), mask, scale, 0.0f, 0.0f);
    ggml_prec_set_acc(c.out, GGML_PREC_F32);
    ggml_build_forward_expand(c.attn, c.out);

    const int64_t n_embd = (int64_t) s.head*s.n_head_kv, n_cells = (int64_t) s.n_kv*s.n_stream;
    for (auto [to, from] : { std::pair(c.k, k_cur), { c.v, v_cur } }) {
        ggml_build_forward_expand(c.store, ggml_set_rows(ctx, ggml_reshape_2d(ctx, to, n_embd, n_cells),
                                                         ggml_reshape_2d(ctx, from, n_embd, s.n_q()), cells));
    }
}

// As llama_hex_build_attn.
void workload::add_hex(cache & c) {
    char err[256];
    if (!hex_plan_make(&c.plan, &c.type.hex, s.n_kv, 1, s.n_head_kv, err, sizeof(err))) {
        fprintf(stderr, "hexkv-bench: %s: %s\n", c.type.name.c_str(), err);
        exit(1);
    }
    ggml_hex_op_params p = {};
    p.scale     = 1.0f/sqrtf((float) s.head);
    p.refine    = c.type.hex.refine;
    p.n_ring    = c.plan.n_ring;
    p.n_heavy   = c.plan.n_heavy;
    p.n_mean    = c.type.hex.n_mean;
    p.half_life = c.type.hex.half_life;
    p.unbias    = c.type.hex.unbias;
    p.n_ctx     = s.n_kv;

    const auto slot_size   = (int64_t) hex_slot_size(c.type.hex.refine, s.head, s.head);
    const auto state_words = (int64_t) hex_state_size(s.head, p.n_ring, p.n_heavy);
    const auto meta_words  = (int64_t) hex_meta_words(s.n_tps, p.n_ring, p.n_ctx);
    c.pool  = ggml_new_tensor_4d(ctx, GGML_TYPE_I8,  slot_size, c.plan.n_slots, s.n_head_kv, s.n_stream);
    c.state = ggml_new_tensor_3d(ctx, GGML_TYPE_I32, state_words, s.n_head_kv, s.n_stream);
    c.meta  = ggml_new_tensor_2d(ctx, GGML_TYPE_I32, meta_words, s.n_stream);
    c.mass  = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, ggml_hex_mass_size(&p, s.n_tps)*s.n_head_kv*s.n_stream);

    c.out = ggml_hex_attn(ctx, ggml_permute(ctx, q, 0, 2, 1, 3), k_cur, v_cur, c.k, c.v, c.pool, c.state, c.meta,
                          mask, nullptr, &p);
    ggml_build_forward_expand(c.attn, c.out);
    // c.mass is a copy, so that this graph does not hold attention as well
    ggml_build_forward_expand(c.store, ggml_hex_commit(ctx, k_cur, v_cur, c.mass, c.k, c.v, c.pool, c.state, c.meta, &p));
}

static void compute(ggml_backend_t backend, ggml_cgraph * graph) {
    if (ggml_backend_graph_compute(backend, graph) != GGML_STATUS_SUCCESS) {
        fprintf(stderr, "hexkv-bench: the backend failed to compute a graph\n");
        exit(1);
    }
}

void workload::attend(size_t i) { compute(backend, caches[i].attn); }
void workload::store (size_t i) { compute(backend, caches[i].store); }

// Commit changes the tables that it reads. Each run starts from the same.
void workload::prepare_store(size_t i) {
    cache & c = caches[i];
    if (c.state) {
        memcpy(c.state->data, c.first_state.data(), c.first_state.size());
        memcpy(c.mass->data, (const float *) c.out->data + (size_t) s.head*s.n_head()*s.n_q(), ggml_nbytes(c.mass));
    }
}

size_t workload::bytes_read(size_t i) const {
    const cache & c = caches[i];
    size_t n = ggml_nbytes(c.k) + ggml_nbytes(c.v);
    if (c.pool) {
        const size_t own = (size_t) s.n_kv; // HEX reads the row of the ubatch as F32, not from its cell
        n += ggml_nbytes(c.pool) + ggml_nbytes(c.state) + ggml_nbytes(c.meta);
        n += ggml_nbytes(k_cur) + ggml_nbytes(v_cur) - ggml_nbytes(c.k)/own - ggml_nbytes(c.v)/own;
    }
    return n + ggml_nbytes(mask);
}

//
// contents
//

size_t workload::row_of(int32_t stream, int32_t head, int32_t cell) const {
    return mix(((uint64_t) stream*s.n_head_kv + head)*s.n_kv + cell) % N_ROWS;
}

// The ubatch has the last cells of each stream; row t sees everything up to itself.
void workload::fill_inputs() {
    const std::vector<float> x = gauss((size_t) ggml_nelements(q), 4);
    memcpy(q->data, x.data(), ggml_nbytes(q));

    const int32_t old = s.n_kv - s.n_tps;
    const auto visible = ggml_fp32_to_fp16(0.0f), hidden = ggml_fp32_to_fp16(-INFINITY);
    for (int32_t i = 0; i < s.n_q(); i++) {
        const int32_t stream = i/s.n_tps, cell = old + i % s.n_tps;
        ((int64_t *) cells->data)[i] = (int64_t) stream*s.n_kv + cell;
        for (int32_t h = 0; h < s.n_head_kv; h++) {
            const size_t row = row_of(stream, h, cell)*(size_t) s.head, at = ((size_t) i*s.n_head_kv + h)*s.head;
            memcpy((float *) k_cur->data + at, &k_rows[row], sizeof(float)*s.head);
            memcpy((float *) v_cur->data + at, &v_rows[row], sizeof(float)*s.head);
        }
        for (int32_t j = 0; j < s.n_kv; j++) {
            ((ggml_fp16_t *) mask->data)[(size_t) i*s.n_kv + j] = j <= cell ? visible : hidden;
        }
    }
}

// f(stream, head, cell, offset) for each row of a cache tensor, in the order of memory.
template<typename F> static void each_row(const ggml_tensor * t, F f) {
    size_t at = 0;
    for (int32_t stream = 0; stream < t->ne[3]; stream++) {
        for (int32_t cell = 0; cell < t->ne[2]; cell++) {
            for (int32_t head = 0; head < t->ne[1]; head++, at += t->nb[1]) {
                f(stream, head, cell, at);
            }
        }
    }
}

void workload::fill_stock(cache & c) {
    for (auto [t, rows] : { std::pair(c.k, &k_rows), { c.v, &v_rows } }) {
        const std::vector<uint8_t> coded = encode(t->type, *rows, s.head);
        each_row(t, [&, t = t](int32_t stream, int32_t head, int32_t cell, size_t at) {
            memcpy((char *) t->data + at, &coded[row_of(stream, head, cell)*t->nb[1]], t->nb[1]);
        });
    }
}

void workload::fill_hex(cache & c) {
    memset(c.state->data, 0, ggml_nbytes(c.state));
    memset(c.meta->data,  0, ggml_nbytes(c.meta));
    fill_meta(c);

    const std::vector<uint8_t> k = encode(c.k->type, minus(k_rows, k_mean), s.head);
    const std::vector<uint8_t> v = encode(c.v->type, v_rows, s.head);
    for (auto [t, coded] : { std::pair(c.k, &k), { c.v, &v } }) {
        each_row(t, [&, t = t, coded = coded](int32_t stream, int32_t head, int32_t cell, size_t at) {
            memcpy((char *) t->data + at, &(*coded)[row_of(stream, head, cell)*t->nb[1]], t->nb[1]);
        });
    }
    fill_slots(c);
    c.first_state.assign((uint8_t *) c.state->data, (uint8_t *) c.state->data + ggml_nbytes(c.state));
}

// The sinks keep their ring slots, the rows of the ubatch take the others from the oldest token on.
void workload::fill_meta(cache & c) {
    const int32_t old = s.n_kv - s.n_tps, n_ring = c.plan.n_ring, n_sink = c.plan.n_sink, n_recent = n_ring - n_sink;
    for (int32_t stream = 0; stream < s.n_stream; stream++) {
        int32_t * words = meta_of(c.meta, stream);
        auto     * rows = (hex_meta_row *) words;
        int32_t  * ring = words + s.n_tps*HEX_META_ROW_WORDS;
        uint32_t * bits = (uint32_t *) ring + n_ring;
        for (int32_t i = 0; i < n_ring; i++) {
            ring[i] = i < n_sink ? i : old - n_recent + i - n_sink;
        }
        for (int32_t i = 0; i < old; i++) {
            bits[i/32] |= 1u << (i % 32);
        }
        for (int32_t i = 0; i < s.n_tps; i++) {
            // of a long ubatch only the last rows stay in the ring
            const int32_t first = s.n_tps > n_recent ? s.n_tps - n_recent : 0;
            const int32_t slot  = i >= first ? n_sink + i - first : -1;
            rows[i] = { old + i, slot, s.n_tps - i, slot >= 0 ? ring[slot] : -1, n_recent + s.n_tps, 0 };
        }
    }
}

// State and residuals: a frozen mean, scores, heavy hitters at random places between sinks and recent tokens.
void workload::fill_slots(cache & c) {
    const int32_t n_ring = c.plan.n_ring, n_heavy = c.plan.n_heavy, first = c.plan.n_sink;
    const double  step   = (double) (s.n_kv - s.n_tps - n_ring)/n_heavy;

    // residuals of the distinct rows
    const ggml_type refine = hex_type((int) c.type.hex.refine);
    const auto residuals = [&](ggml_type base, const std::vector<float> & x) {
        return encode(refine, minus(x, decode(base, encode(base, x, s.head), x.size())), s.head);
    };
    const std::vector<uint8_t> k_res = residuals(c.k->type, minus(k_rows, k_mean)), v_res = residuals(c.v->type, v_rows);
    const size_t size = ggml_row_size(refine, s.head);

    for (int32_t stream = 0; stream < s.n_stream; stream++) {
        const int32_t * ring = hex_meta_ring(meta_of(c.meta, stream), s.n_tps);
        for (int32_t h = 0; h < s.n_head_kv; h++) {
            int32_t * state = state_of(c.state, stream, h);
            float   * score = (float *) state;
            state[HEX_STATE_ROWS]   = c.type.hex.n_mean;
            state[HEX_STATE_FROZEN] = 1;
            memcpy(score + HEX_STATE_MEAN, k_mean.data(), sizeof(float)*k_mean.size());

            // attention mass is spread over about n_kv tokens; heavy hitters have more of it than the average
            const float mean_mass = (float) s.group/(float) s.n_kv;
            const uint64_t seed = (uint64_t) (stream*s.n_head_kv + h) << 32;
            for (int32_t i = 0; i < c.plan.n_slots; i++) {
                const float u = (float) uniform(seed + (uint64_t) i);
                int32_t cell;
                if (i < n_ring) {
                    cell = ring[i];
                    score[hex_state_ring_score(s.head) + i] = 2*u*mean_mass*(float) n_ring;
                } else {
                    const int32_t j = i - n_ring;
                    cell = first + (int32_t) (step*j + u*(step - 1));
                    state[hex_state_heavy_cell (s.head, n_ring) + j] = cell + 1;
                    score[hex_state_heavy_score(s.head, n_ring, n_heavy) + j] = (1 + u)*mean_mass;
                }
                const size_t row = row_of(stream, h, cell)*size;
                char * slot = slot_of(c.pool, stream, h, i);
                memcpy(slot, &k_res[row], size);
                memcpy(slot + size, &v_res[row], size);
            }
        }
    }
}

//
// for --check
//

std::vector<float> workload::output(size_t i) const {
    const auto * out = (const float *) caches[i].out->data;
    return { out, out + (size_t) s.head*s.n_head()*s.n_q() };
}

std::vector<float> workload::mass(size_t i) const {
    const auto * mass = (const float *) caches[i].out->data + (size_t) s.head*s.n_head()*s.n_q();
    return { mass, mass + ggml_nelements(caches[i].mass) };
}

std::vector<uint8_t> workload::contents(size_t i) const {
    std::vector<uint8_t> all;
    for (const ggml_tensor * t : { caches[i].k, caches[i].v, caches[i].pool, caches[i].state }) {
        all.insert(all.end(), (const uint8_t *) t->data, (const uint8_t *) t->data + ggml_nbytes(t));
    }
    return all;
}

void workload::copy_decoded(size_t from, size_t to) {
    const cache & c = caches[from];
    const ggml_type refine = hex_type((int) c.type.hex.refine);
    const size_t size = ggml_row_size(refine, s.head);
    const int32_t n_ring = c.plan.n_ring, old = s.n_kv - s.n_tps;

    std::vector<float> x((size_t) s.head), r((size_t) s.head);
    for (bool is_v : { false, true }) {
        const ggml_tensor * src = is_v ? c.v : c.k, * dst = is_v ? caches[to].v : caches[to].k;
        each_row(dst, [&](int32_t stream, int32_t h, int32_t cell, size_t at) {
            if (cell >= old) { // the ubatch is read in full precision
                memcpy((char *) dst->data + at, &(is_v ? v_rows : k_rows)[row_of(stream, h, cell)*s.head], dst->nb[1]);
                return;
            }
            ggml_get_type_traits(src->type)->to_float((const char *) src->data + at/dst->nb[1]*src->nb[1], x.data(), s.head);
            const int32_t * ring  = hex_meta_ring(meta_of(c.meta, stream), s.n_tps);
            const int32_t * heavy = state_of(c.state, stream, h) + hex_state_heavy_cell(s.head, n_ring);
            for (int32_t i = 0; i < c.plan.n_slots; i++) {
                if ((i < n_ring ? ring[i] : heavy[i - n_ring] - 1) != cell) {
                    continue;
                }
                const char * slot = slot_of(c.pool, stream, h, i);
                ggml_get_type_traits(refine)->to_float(slot + (is_v ? size : 0), r.data(), s.head);
                for (int32_t j = 0; j < s.head; j++) {
                    x[j] += r[j];
                }
                break;
            }
            for (int32_t j = 0; j < s.head && !is_v; j++) {
                x[j] += k_mean[j];
            }
            memcpy((char *) dst->data + at, x.data(), dst->nb[1]);
        });
    }
}
