// Writes a model of random Q4_0 weights in the shape of an 8B Llama, for measuring speed where no such model is at hand:
// time does not depend on what the weights are. No tokenizer, so it serves llama-bench and nothing that reads text.
//
//   random_gguf FILE [layers]     default: 32 layers, 4.4 GB
#include "ggml.h"
#include "gguf.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

static const int N_EMBD = 4096, N_HEAD = 32, N_HEAD_KV = 8, HEAD = 128, N_FF = 14336, N_VOCAB = 32000;

struct block_q4 { uint16_t d; uint8_t qs[16]; }; // ggml's block_q4_0

static uint64_t state = 1;

static uint64_t next_random() { // splitmix64
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30))*0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27))*0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

// Fills a tensor: norms with ones, matrices such that activations keep their size.
static void fill(const ggml_tensor * t, std::vector<char> & data) {
    data.resize(ggml_nbytes(t));
    if (t->type == GGML_TYPE_F32) {
        const float one = 1.0f;
        for (size_t i = 0; i < data.size(); i += sizeof(one)) {
            memcpy(&data[i], &one, sizeof(one));
        }
        return;
    }
    for (size_t i = 0; i + 8 <= data.size(); i += 8) {
        const uint64_t x = next_random();
        memcpy(&data[i], &x, 8);
    }
    const ggml_fp16_t d = ggml_fp32_to_fp16(0.217f/64); // nibbles have a deviation of 4.6, rows 4,096 samples
    for (size_t i = 0; i < data.size(); i += sizeof(block_q4)) {
        memcpy(&data[i], &d, sizeof(d));
    }
}

int main(int argc, char ** argv) {
    const int n_layer = argc > 2 ? atoi(argv[2]) : 32;
    if (argc < 2 || argc > 3 || n_layer < 1 || n_layer > 1000) {
        fprintf(stderr, "usage: random_gguf FILE [layers]\n");
        return 2;
    }
    ggml_context * ctx  = ggml_init({ (size_t) (16 + 16*n_layer)*ggml_tensor_overhead(), nullptr, true });
    gguf_context * gguf = gguf_init_empty();
    gguf_set_val_str(gguf, "general.architecture", "llama");
    gguf_set_val_str(gguf, "general.name", "random 8B");
    gguf_set_val_str(gguf, "tokenizer.ggml.model", "none");
    const auto u32 = [&](const char * key, int v) { gguf_set_val_u32(gguf, (std::string("llama.") + key).c_str(), (uint32_t) v); };
    u32("vocab_size", N_VOCAB);
    u32("context_length", 1 << 18);
    u32("embedding_length", N_EMBD);
    u32("block_count", n_layer);
    u32("feed_forward_length", N_FF);
    u32("attention.head_count", N_HEAD);
    u32("attention.head_count_kv", N_HEAD_KV);
    u32("rope.dimension_count", HEAD);
    gguf_set_val_f32(gguf, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    gguf_set_val_f32(gguf, "llama.rope.freq_base", 500000.0f);

    std::vector<ggml_tensor *> tensors;
    const auto add = [&](const std::string & name, int n_in, int n_out) {
        ggml_tensor * t = n_out == 1 ? ggml_new_tensor_1d(ctx, GGML_TYPE_F32, n_in) : ggml_new_tensor_2d(ctx, GGML_TYPE_Q4_0, n_in, n_out);
        ggml_set_name(t, name.c_str());
        gguf_add_tensor(gguf, t);
        tensors.push_back(t);
    };
    add("token_embd.weight", N_EMBD, N_VOCAB);
    add("output_norm.weight", N_EMBD, 1);
    add("output.weight", N_EMBD, N_VOCAB);
    for (int i = 0; i < n_layer; i++) {
        const std::string b = "blk." + std::to_string(i) + ".";
        add(b + "attn_norm.weight", N_EMBD, 1);
        add(b + "attn_q.weight", N_EMBD, N_HEAD*HEAD);
        add(b + "attn_k.weight", N_EMBD, N_HEAD_KV*HEAD);
        add(b + "attn_v.weight", N_EMBD, N_HEAD_KV*HEAD);
        add(b + "attn_output.weight", N_HEAD*HEAD, N_EMBD);
        add(b + "ffn_norm.weight", N_EMBD, 1);
        add(b + "ffn_gate.weight", N_EMBD, N_FF);
        add(b + "ffn_up.weight", N_EMBD, N_FF);
        add(b + "ffn_down.weight", N_FF, N_EMBD);
    }

    // header, then a tensor at a time: the model need not fit in memory
    bool ok = gguf_write_to_file(gguf, argv[1], true);
    FILE * file = ok ? fopen(argv[1], "ab") : nullptr;
    ok = file != nullptr;
    std::vector<char> data;
    const size_t align = gguf_get_alignment(gguf);
    for (size_t i = 0; i < tensors.size() && ok; i++) {
        fill(tensors[i], data);
        data.resize((data.size() + align - 1)/align*align);
        ok = fwrite(data.data(), 1, data.size(), file) == data.size();
    }
    ok = file && fclose(file) == 0 && ok;
    if (!ok) {
        fprintf(stderr, "random_gguf: %s could not be written; is the disk full?\n", argv[1]);
    }
    gguf_free(gguf);
    ggml_free(ctx);
    return ok ? 0 : 1;
}
