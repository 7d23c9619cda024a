// Writes GGUF files of tiny random models that load in milliseconds, so that tests need no download. The weights come
// from a fixed seed and are scaled so that attention is sharp in places and the keys have a mean, as real ones do.
#pragma once

#include "ggml.h"
#include "gguf.h"

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

struct tiny_model {
    std::string arch = "llama"; // or "gemma2": every other layer has a sliding window, logits are soft-capped
    int      n_layer   = 3;
    int      n_embd    = 256;
    int      n_head    = 4;
    int      n_head_kv = 2;
    int      head_size = 64;
    int      n_ff      = 256;
    int      n_vocab   = 128;  // no tokenizer: any id below is a token
    int      n_swa     = 32;   // gemma2
    uint64_t seed      = 1;
};

class tiny_writer {
public:
    explicit tiny_writer(const tiny_model & model) : m(model), state(model.seed) {
        ctx  = ggml_init({ (size_t) 64*1024*1024, nullptr, false });
        gguf = gguf_init_empty();
    }
    ~tiny_writer() {
        gguf_free(gguf);
        ggml_free(ctx);
    }
    tiny_writer(const tiny_writer &) = delete;
    tiny_writer & operator=(const tiny_writer &) = delete;

    bool write(const std::string & path) {
        const bool gemma = m.arch == "gemma2";

        gguf_set_val_str(gguf, "general.architecture", m.arch.c_str());
        gguf_set_val_str(gguf, "general.name", "tiny");
        gguf_set_val_str(gguf, "tokenizer.ggml.model", "none");
        u32("vocab_size", m.n_vocab);
        u32("context_length", 2048);
        u32("embedding_length", m.n_embd);
        u32("block_count", m.n_layer);
        u32("feed_forward_length", m.n_ff);
        u32("attention.head_count", m.n_head);
        u32("attention.head_count_kv", m.n_head_kv);
        u32("attention.key_length", m.head_size);
        u32("attention.value_length", m.head_size);
        u32("rope.dimension_count", m.head_size);
        f32("attention.layer_norm_rms_epsilon", 1e-5f);
        if (gemma) {
            u32("attention.sliding_window", m.n_swa);
            f32("attn_logit_softcapping", 8.0f);
            f32("final_logit_softcapping", 30.0f);
        }

        const int n_q = m.n_head*m.head_size, n_kv = m.n_head_kv*m.head_size;
        matrix("token_embd.weight", m.n_embd, m.n_vocab, gemma ? 1/sqrtf((float) m.n_embd) : 1);
        ones("output_norm.weight", m.n_embd);
        if (!gemma) {
            linear("output.weight", m.n_embd, m.n_vocab, 1.5f);
        }
        for (int i = 0; i < m.n_layer; i++) {
            const std::string b = "blk." + std::to_string(i) + ".";
            ones  (b + "attn_norm.weight", m.n_embd);
            linear(b + "attn_q.weight", m.n_embd, n_q,  1.3f);
            linear(b + "attn_k.weight", m.n_embd, n_kv, 1.3f);
            matrix(b + "attn_k.bias", n_kv, 1, 1.0f);
            linear(b + "attn_v.weight", m.n_embd, n_kv, 1);
            linear(b + "attn_output.weight", n_q, m.n_embd, 2);
            ones  (b + "ffn_norm.weight", m.n_embd);
            linear(b + "ffn_gate.weight", m.n_embd, m.n_ff, 1);
            linear(b + "ffn_up.weight",   m.n_embd, m.n_ff, 1);
            linear(b + "ffn_down.weight", m.n_ff, m.n_embd, 1);
            if (gemma) {
                ones(b + "post_attention_norm.weight", m.n_embd);
                ones(b + "post_ffw_norm.weight", m.n_embd);
            }
        }
        return gguf_write_to_file(gguf, path.c_str(), false);
    }

private:
    const tiny_model m;
    uint64_t         state;
    ggml_context *   ctx;
    gguf_context *   gguf;

    void u32(const char * key, int value)   { gguf_set_val_u32(gguf, (m.arch + "." + key).c_str(), (uint32_t) value); }
    void f32(const char * key, float value) { gguf_set_val_f32(gguf, (m.arch + "." + key).c_str(), value); }

    float gauss() { // splitmix64, twelve uniforms: the same numbers on every machine
        float sum = -6;
        for (int i = 0; i < 12; i++) {
            uint64_t z = state += 0x9e3779b97f4a7c15u;
            z = (z ^ (z >> 30))*0xbf58476d1ce4e5b9u;
            z = (z ^ (z >> 27))*0x94d049bb133111ebu;
            sum += (float) ((z ^ (z >> 31)) >> 40)*0x1p-24f;
        }
        return sum;
    }

    void add(const std::string & name, int n_in, int n_out, float mean, float scale) {
        ggml_tensor * t = n_out == 1 ? ggml_new_tensor_1d(ctx, GGML_TYPE_F32, n_in)
                                     : ggml_new_tensor_2d(ctx, GGML_TYPE_F32, n_in, n_out);
        ggml_set_name(t, name.c_str());
        for (int64_t i = 0; i < ggml_nelements(t); i++) {
            ((float *) t->data)[i] = mean + (scale != 0 ? scale*gauss() : 0);
        }
        gguf_add_tensor(gguf, t);
    }
    void ones  (const std::string & name, int n)                              { add(name, n, 1, 1, 0); }
    void matrix(const std::string & name, int n_in, int n_out, float scale)   { add(name, n_in, n_out, 0, scale); }
    void linear(const std::string & name, int n_in, int n_out, float scale)   { add(name, n_in, n_out, 0, scale/sqrtf((float) n_in)); }
};

static inline bool tiny_write(const tiny_model & model, const std::string & path) {
    return tiny_writer(model).write(path);
}
