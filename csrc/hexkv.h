// hexkv: language models on a compressed KV cache: the C API for bindings, over llama.cpp.
// On failure a call writes one sentence to *e (may be NULL); nothing throws. A model serves many threads, a session or
// sampler one (cancel: any). Handles keep their model alive. Sizes are bytes, text is UTF-8, zeroed structs are defaults.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    HEXKV_OK,
    HEXKV_ERR_INTERNAL, // with llama.cpp's last error lines
    HEXKV_ERR_INVALID,
    HEXKV_ERR_CONFIG, // contradictory settings
    HEXKV_ERR_NOT_FOUND,
    HEXKV_ERR_NOT_GGUF, // directory, empty, other format
    HEXKV_ERR_TRUNCATED, // a GGUF without its end
    HEXKV_ERR_MODEL, // llama.cpp cannot run it
    HEXKV_ERR_MEMORY,
    HEXKV_ERR_CONTEXT_FULL, // session unchanged
    HEXKV_ERR_CANCELLED,
    HEXKV_ERR_UTF8,
    HEXKV_ERR_TEMPLATE, // none, or it refuses the messages
    HEXKV_ERR_GRAMMAR, // bad grammar, or a token outside it
    HEXKV_ERR_NO_LOGITS,
    HEXKV_ERR_UNSUPPORTED, // not in this build
} hexkv_status;

typedef struct { char text[1024]; } hexkv_error;
typedef struct hexkv_model hexkv_model;
typedef struct hexkv_session hexkv_session;
typedef struct hexkv_sampler hexkv_sampler;

typedef struct {
    char version[32], llama[32], commit[48], compiler[96], isa[16]; // isa: HEX kernels in use
} hexkv_version_info;
void hexkv_version(hexkv_version_info * out);

// level: 1 debug, 2 info, 3 warning, 4 error. fn NULL (default) drops all. Any thread may call fn.
typedef void (*hexkv_log_fn)(int level, const char * text, void * user);
void hexkv_log_set(hexkv_log_fn fn, void * user, int min_level);

// ---- cache settings: "" and [sentinels] mean the preset's value

typedef struct {
    char preset[16]; // "off" or "" = stock cache
    char type_k[16], type_v[16]; // ggml names; f16 without preset
    char refine[16]; // none, hex1..hex4, q8_0, f16
    char backbone_kind[16]; // none, expander, random, strided, log, channels
    int32_t sink; // tokens [-1]
    int32_t recent; // tokens, -1 = from the context length [-2]
    float heavy, backbone, unbias; // shares [-1]
    int64_t seed; // [-1]
    int32_t mean; // rows whose mean centres K, 0 = off [-1]
    int32_t half_life; // of scores, in queries [-1]
} hexkv_cache;
void hexkv_cache_init(hexkv_cache * out); // f16, sentinels
const char * hexkv_preset_name(int i); // NULL after the last
// "f16", "K/V" as "q8_0/q4_0", "hex:PRESET"; then ":key=value" with the names above.
hexkv_status hexkv_cache_parse(const char * spec, hexkv_cache * out, hexkv_error * e);
hexkv_status hexkv_cache_format(const hexkv_cache * c, char * spec, size_t cap); // the inverse
hexkv_status hexkv_cache_check(const hexkv_cache * c, hexkv_error * e);

// ---- model

typedef struct {
    int32_t n_gpu_layers; // negative = all
    bool no_mmap;
    bool (*progress)(float done, void * user); // false cancels
    void * user;
} hexkv_model_params;
hexkv_status hexkv_model_load(const char * path, const hexkv_model_params * p, hexkv_model ** out, hexkv_error * e);
void hexkv_model_close(hexkv_model * m);

typedef struct {
    char name[128], arch[64], desc[128];
    uint64_t n_params, n_bytes;
    int32_t n_layer, n_head, n_head_kv, head_k, head_v, n_embd, n_ctx_train, n_vocab, n_swa;
    bool chat_template, recurrent, hex; // hex: can use a HEX cache
    char hex_reason[160]; // why not
} hexkv_model_info;
void hexkv_model_get_info(const hexkv_model * m, hexkv_model_info * out);

// *n receives the length; nothing is written when cap is smaller.
hexkv_status hexkv_tokenize(const hexkv_model * m, const char * text, size_t len, bool add_special, bool parse_special,
    int32_t * tokens, size_t cap, size_t * n, hexkv_error * e);
// Maybe part of a rune. Control tokens are empty unless special.
hexkv_status hexkv_token_piece(const hexkv_model * m, int32_t token, bool special, char * buf, size_t cap, size_t * n);
bool hexkv_token_is_eog(const hexkv_model * m, int32_t token);

typedef struct { const char * role, * content; size_t content_len; } hexkv_message;
// The model's Jinja template. Tokenize the result with add_special and parse_special.
hexkv_status hexkv_chat_apply(hexkv_model * m, const hexkv_message * msgs, size_t n_msgs, bool add_assistant,
    char * buf, size_t cap, size_t * n, hexkv_error * e);

// ---- session

typedef struct {
    int32_t n_ctx; // tokens, rounded up to 256; 0 = as trained
    int32_t n_batch; // most tokens of a HEXKV_LOGITS_ALL decode, 0 = 2048
    int32_t n_ubatch; // computed at once, 0 = 512
    int32_t n_threads; // 0 = physical cores
    int32_t n_seq; // 0 or 1
    bool all_logits; // allow HEXKV_LOGITS_ALL
    bool kv_on_host; // not on the GPU
    hexkv_cache cache;
} hexkv_session_params;

typedef struct {
    uint64_t base_k, base_v, refined, state, kv; // kv: their sum
    uint64_t compute, output, total, model; // total: without model
    uint64_t available, kv_f16, kv_q8_0, kv_q4_0; // free now; stock caches
    double bits_per_element;
    int32_t n_ctx;
} hexkv_estimate;
// Without allocating.
hexkv_status hexkv_estimate_memory(hexkv_model * m, const hexkv_session_params * p, hexkv_estimate * out, hexkv_error * e);

hexkv_status hexkv_session_open(hexkv_model * m, const hexkv_session_params * p, hexkv_session ** out, hexkv_error * e);
void hexkv_session_close(hexkv_session * s);
// Sets or clears a flag that stops running and later decodes.
void hexkv_session_cancel(hexkv_session * s, bool cancel);

enum { HEXKV_LOGITS_NONE, HEXKV_LOGITS_LAST, HEXKV_LOGITS_ALL };
// Appends tokens. After a failure the completed ones stay: hexkv_n_past.
hexkv_status hexkv_decode(hexkv_session * s, const int32_t * tokens, size_t n, int logits, hexkv_error * e);
// n_vocab floats for token `row` of the last decode, -1 = last; valid until the next call.
hexkv_status hexkv_logits(hexkv_session * s, int32_t row, const float ** out, hexkv_error * e);
int32_t hexkv_n_past(const hexkv_session * s);
int32_t hexkv_n_ctx(const hexkv_session * s);
// Keeps n tokens; *kept is 0 when the cache could not drop its tail and was cleared.
hexkv_status hexkv_truncate(hexkv_session * s, int32_t n, int32_t * kept, hexkv_error * e);

typedef struct {
    int32_t n_ctx, n_used; // cells
    uint64_t base_k, base_v, refined, state, kv, compute, output; // allocated
    double bits_per_element;
    uint64_t refined_ring, refined_heavy, refined_static, n_entries; // (layer, KV head, cell)
    // channels: static is a share of values, not of entries
    uint64_t prefill_tokens, prefill_us, decode_tokens, decode_us; // decode: one at a time
    bool hex;
    struct { char name[32]; uint64_t kv, compute; } gpus[8]; // what each holds of both
} hexkv_stats;
hexkv_status hexkv_get_stats(hexkv_session * s, hexkv_stats * out, hexkv_error * e);

// ---- sampler: zeros are off, temperature 0 is greedy

typedef struct {
    float temperature, top_p, min_p, repeat, frequency, presence;
    int32_t top_k, last_n; // last_n: tokens that penalties see
    uint32_t seed; // 0xFFFFFFFF = random
    const char * grammar; // GBNF with a rule "root", or NULL
} hexkv_sampler_params;
hexkv_status hexkv_sampler_open(hexkv_model * m, const hexkv_sampler_params * p, hexkv_sampler ** out, hexkv_error * e);
void hexkv_sampler_close(hexkv_sampler * g);
hexkv_status hexkv_sample(hexkv_sampler * g, hexkv_session * s, int32_t row, int32_t * token, hexkv_error * e);
// Penalties see every token, the grammar only generated ones.
hexkv_status hexkv_accept(hexkv_sampler * g, int32_t token, bool generated, hexkv_error * e);
void hexkv_sampler_reset(hexkv_sampler * g);

// ---- backbone: plain values, for tests

typedef struct {
    int32_t kind, n_pairs, degree, period, n_cells;
    uint32_t seed;
    double sigma2, ramanujan, factor; // certificate
} hexkv_backbone;
hexkv_status hexkv_backbone_make(const char * kind, uint32_t seed, int32_t n_pairs, int32_t degree, int32_t n_cells,
    hexkv_backbone * out, hexkv_error * e);
int32_t hexkv_backbone_cell(const hexkv_backbone * b, int32_t pair, int32_t slot); // -1: bad argument

#ifdef __cplusplus
}
#endif
