// Shared by the files that implement hexkv.h: handles, errors, the capture of llama.cpp's error lines.
#pragma once

#include "hexkv.h"

#include "core/hex_config.h"

#pragma GCC diagnostic push // upstream's headers are not ours to fix
#pragma GCC diagnostic ignored "-Wshadow"
#include "llama.h"
#pragma GCC diagnostic pop

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

struct common_chat_templates;

namespace hexkv {

// ---- errors

#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
inline hexkv_status fail(hexkv_error * e, hexkv_status status, const char * format, ...) {
    if (e) {
        va_list args;
        va_start(args, format);
        vsnprintf(e->text, sizeof(e->text), format, args);
        va_end(args);
    }
    return status;
}

// Runs f and turns every exception into a status: nothing may leave the C API.
template <typename F>
hexkv_status guard(hexkv_error * e, F && f) noexcept {
    try {
        return f();
    } catch (const std::bad_alloc &) {
        return fail(e, HEXKV_ERR_MEMORY, "out of memory; use a smaller context, batch or model");
    } catch (const std::exception & x) {
        return fail(e, HEXKV_ERR_INTERNAL, "internal error: %s", x.what());
    } catch (...) {
        return fail(e, HEXKV_ERR_INTERNAL, "internal error of an unknown kind");
    }
}

// Copies text into a fixed field, cut at a whole UTF-8 sequence.
template <size_t N>
void copy(char (&out)[N], const char * text) {
    size_t n = text ? strlen(text) : 0;
    if (n >= N) {
        for (n = N - 1; n > 0 && (static_cast<unsigned char>(text[n]) & 0xc0) == 0x80; n--) {
        }
    }
    if (n > 0) {
        memcpy(out, text, n);
    }
    out[n] = 0;
}

// Byte offset of the first byte that is not valid UTF-8, or len when all are.
size_t utf8_valid(const char * text, size_t len);

// ---- llama.cpp

// Initialises llama.cpp and its log once.
void init();

// While it lives, a failed assertion of llama.cpp on this thread throws instead of ending the process: damaged models
// trip them. Not while a graph is computed: worker threads would wait for this one forever.
class NoAbort {
public:
    NoAbort();
    ~NoAbort();
    NoAbort(const NoAbort &) = delete;
    NoAbort & operator=(const NoAbort &) = delete;
};

void capture_line(const char * text); // adds to the innermost Capture of this thread

// Collects the error lines that llama.cpp logs on this thread while it lives.
class Capture {
public:
    Capture();
    ~Capture();
    Capture(const Capture &) = delete;
    Capture & operator=(const Capture &) = delete;

    std::string text(const char * otherwise) const; // the last lines, joined by "; "

private:
    friend void capture_line(const char * text);
    std::vector<std::string> lines;
    Capture * outer;
};

struct ModelDeleter {
    void operator()(llama_model * m) const { llama_model_free(m); }
};
struct ContextDeleter {
    void operator()(llama_context * c) const { llama_free(c); }
};
struct SamplerDeleter {
    void operator()(llama_sampler * s) const { llama_sampler_free(s); }
};
struct TemplatesDeleter {
    void operator()(common_chat_templates * t) const;
};
using ModelPtr     = std::unique_ptr<llama_model, ModelDeleter>;
using ContextPtr   = std::unique_ptr<llama_context, ContextDeleter>;
using SamplerPtr   = std::unique_ptr<llama_sampler, SamplerDeleter>;
using TemplatesPtr = std::unique_ptr<common_chat_templates, TemplatesDeleter>;

// What the handles of one model share.
struct Model {
    ModelPtr            llama;
    const llama_vocab * vocab = nullptr;
    std::string         path;
    llama_model_params  params = {};
    hexkv_model_info    info   = {};

    std::mutex   open_mutex;    // creation of contexts
    std::mutex   chat_mutex;    // templates
    TemplatesPtr templates;     // made at first use
    std::mutex   shadow_mutex;
    ModelPtr     shadow;        // the model without its weights, for memory estimates; made at first use
};

// ---- cache settings

bool cache_is_hex(const hexkv_cache & c);

// Checks c and resolves it. For a stock cache p->enabled is false.
hexkv_status cache_resolve(const hexkv_cache & c, hex_params * p, std::string * type_k, std::string * type_v,
                           hexkv_error * e);

// A zeroed struct stands for the default.
hexkv_cache cache_or_default(const hexkv_cache & c);

// ---- memory

// Bytes that this process may still take without swapping: what the system has available, less than a container's limit.
// 0 when unknown.
uint64_t memory_available();

// "1.5 GiB"
std::string bytes_text(uint64_t n);

} // namespace hexkv

struct hexkv_model {
    std::shared_ptr<hexkv::Model> p;
};
