#include "llama-kv-hex-rows.h"

#include "core/hex_codec.h"
#include "cpu/hex_cache.h"

#include "ggml-backend.h"

#include <algorithm>
#include <cstring>

static constexpr size_t PAGE = 64*1024;

llama_hex_pages::llama_hex_pages(ggml_tensor * t) :
    tensor(t), n_bytes(t ? ggml_nbytes(t) : 0), pages((n_bytes + PAGE - 1)/PAGE) {}

llama_hex_pages::~llama_hex_pages() {
    for (size_t i = 0; i < pages.size(); ++i) {
        if (pages[i].dirty) {
            ggml_backend_tensor_set(tensor, pages[i].data.data(), i*PAGE, pages[i].data.size());
        }
    }
}

llama_hex_pages::page & llama_hex_pages::fetch(size_t i) {
    page & p = pages[i];
    if (p.data.empty()) {
        p.data.resize(std::min(PAGE, n_bytes - i*PAGE));
        ggml_backend_tensor_get(tensor, p.data.data(), i*PAGE, p.data.size());
    }
    return p;
}

void llama_hex_pages::get(void * data, size_t offset, size_t size) {
    for (size_t done = 0; done < size;) {
        const page & p = fetch((offset + done)/PAGE);
        const size_t at = (offset + done) % PAGE, n = std::min(size - done, p.data.size() - at);
        memcpy((char *) data + done, p.data.data() + at, n);
        done += n;
    }
}

void llama_hex_pages::set(const void * data, size_t offset, size_t size) {
    for (size_t done = 0; done < size;) {
        page & p = fetch((offset + done)/PAGE);
        const size_t at = (offset + done) % PAGE, n = std::min(size - done, p.data.size() - at);
        memcpy(p.data.data() + at, (const char *) data + done, n);
        p.dirty = true;
        done += n;
    }
}

void llama_hex_pages::discard() {
    for (auto & p : pages) {
        p = {};
    }
}

llama_hex_rows::llama_hex_rows(llama_kv_hex & t, size_t il, uint32_t s) :
    tier(t), l(t.layers[il]), k(l.k), pool(t.pool_stream[il][s]), strm(s), st(l, t.plan) {
    ggml_backend_tensor_get(tier.state_stream[il][strm], st.words.data(), 0, st.words.size()*sizeof(int32_t));

    slot_of.assign(l.n_head_kv, std::vector<int32_t>(tier.plan.n_ctx, -1));
    for (int32_t h = 0; h < l.n_head_kv; ++h) {
        for (int32_t i = 0; i < tier.plan.n_heavy; ++i) {
            const int32_t cell = st.heavy_cell(h)[i] - 1;
            if (cell >= 0 && cell < tier.plan.n_ctx) {
                slot_of[h][cell] = tier.plan.n_ring + i;
            }
        }
        for (const auto & [_, seq] : tier.rings[strm].seqs) {
            for (const auto & e : seq.sinks)  { slot_of[h][e.cell] = e.slot; }
            for (const auto & e : seq.recent) { slot_of[h][e.cell] = e.slot; }
        }
    }
    base    .resize(ggml_row_size(l.k->type, l.head_k));
    residual.resize(hex_residual_size(tier.params.refine, l.head_k));
    tmp     .resize(l.head_k);
}

int32_t llama_hex_rows::fixed_slot(int32_t h, uint32_t cell) const {
    const int32_t slot = tier.plan.n_static > 0 ? hex_graph_slot(&tier.graph, l.pair0 + h, cell) : -1;
    return slot >= 0 ? tier.plan.n_ring + tier.plan.n_heavy + slot : -1;
}

size_t llama_hex_rows::base_offset(int32_t h, uint32_t cell) const {
    return strm*l.k->nb[2] + cell*l.k->nb[1] + h*base.size();
}

const float * llama_hex_rows::mean(int32_t h) {
    return st.head(h)[HEX_STATE_FROZEN] ? st.mean(h) : nullptr;
}

void llama_hex_rows::read(int32_t h, uint32_t cell, float * x) {
    k.get(base.data(), base_offset(h, cell), base.size());
    hex_dequantize(hex_type_bits(l.k->type), base.data(), x, l.head_k);

    const int32_t fixed = fixed_slot(h, cell);
    const int32_t slot  = fixed >= 0 ? fixed : slot_of[h][cell];
    if (slot >= 0) {
        pool.get(residual.data(), llama_hex_slot_offset(l.pool, h, slot), residual.size());
        hex_residual_add(tier.params.refine, residual.data(), x, l.head_k);
    }
}

void llama_hex_rows::write(int32_t h, uint32_t cell, const float * x) {
    const int bits = hex_type_bits(l.k->type);
    const int32_t slots[2] = { fixed_slot(h, cell), slot_of[h][cell] };
    const bool refined = slots[0] >= 0 || slots[1] >= 0;
    hex_quantize(bits, x, base.data(), l.head_k);
    if (!refined) {
        // x has been coded before, without a trace of the error: least squares would make it shorter each time. The root of the
        // whole correction keeps its length, between that and the noise that the whole would add.
        hex_unbias(bits, x, base.data(), l.head_k, 0.5f*tier.params.unbias);
    }
    k.set(base.data(), base_offset(h, cell), base.size());
    if (!refined) {
        return;
    }
    hex_dequantize(bits, base.data(), tmp.data(), l.head_k);
    for (int32_t d = 0; d < l.head_k; ++d) {
        tmp[d] = x[d] - tmp[d];
    }
    hex_residual_quantize(tier.params.refine, tmp.data(), residual.data(), l.head_k);
    for (const int32_t slot : slots) {
        if (slot >= 0) {
            pool.set(residual.data(), llama_hex_slot_offset(l.pool, h, slot), residual.size());
        }
    }
}
