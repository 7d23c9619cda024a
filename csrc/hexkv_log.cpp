// Version, log, error capture, UTF-8.
#include "hexkv_impl.h"

#include "cpu/hex_isa.h"

#include "build-info.h"
#include "log.h"

#include <stdexcept>

#define HEXKV_VERSION "0.1.0"

namespace hexkv {

// ---- log

namespace {

struct LogSink {
    std::mutex   mutex; // recursive use is not possible: fn must not call hexkv_log_set
    hexkv_log_fn fn        = nullptr;
    void *       user      = nullptr;
    int          min_level = GGML_LOG_LEVEL_ERROR;
};

LogSink & log_sink() {
    static LogSink * sink = new LogSink; // never freed: worker threads may log while the process ends
    return *sink;
}

std::atomic<int> log_min_level{99};

thread_local Capture *   capture    = nullptr;
thread_local std::string log_partial; // llama.cpp logs some lines in pieces
thread_local int         log_partial_level = GGML_LOG_LEVEL_INFO;

void emit(int level, const char * text) {
    if (level == GGML_LOG_LEVEL_ERROR) {
        capture_line(text);
    }
    if (level < log_min_level.load(std::memory_order_relaxed)) {
        return;
    }
    LogSink & sink = log_sink();
    std::lock_guard<std::mutex> lock(sink.mutex);
    if (sink.fn && level >= sink.min_level) {
        sink.fn(level, text, sink.user);
    }
}

void on_log(ggml_log_level level, const char * text, void *) {
    try {
        const int at = level == GGML_LOG_LEVEL_CONT ? log_partial_level : static_cast<int>(level);
        log_partial_level = at;
        // Nobody listens: skip the assembly of lines.
        if (at < GGML_LOG_LEVEL_ERROR && at < log_min_level.load(std::memory_order_relaxed)) {
            log_partial.clear();
            return;
        }
        log_partial += text;
        size_t end;
        while ((end = log_partial.find('\n')) != std::string::npos) {
            const std::string line = log_partial.substr(0, end);
            log_partial.erase(0, end + 1);
            if (!line.empty()) {
                emit(at, line.c_str());
            }
        }
    } catch (...) { // a log line is not worth a failure
    }
}

} // namespace

void capture_line(const char * text) {
    if (!capture) {
        return;
    }
    // "function: message" becomes "message"
    const char * colon = strstr(text, ": ");
    const char * space = strchr(text, ' ');
    if (colon && (!space || colon < space)) {
        text = colon + 2;
    }
    if (strcmp(text, "failed to load model") == 0 && !capture->lines.empty()) { // says nothing new
        return;
    }
    if (capture->lines.size() >= 3) {
        capture->lines.erase(capture->lines.begin());
    }
    capture->lines.emplace_back(text);
}

Capture::Capture() : outer(capture) { capture = this; }
Capture::~Capture() { capture = outer; }

std::string Capture::text(const char * otherwise) const {
    if (log_partial_level == GGML_LOG_LEVEL_ERROR && !log_partial.empty()) { // a line that llama.cpp did not end
        const std::string rest = log_partial;
        log_partial.clear();
        capture_line(rest.c_str());
    }
    std::string all;
    for (const std::string & line : lines) {
        all += (all.empty() ? "" : "; ") + line;
    }
    return all.empty() ? otherwise : all;
}

// ---- assertions

namespace {

thread_local int      no_abort    = 0;
ggml_abort_callback_t abort_before = nullptr;

// Called by ggml_abort, which has no more to do: the exception unwinds its frame.
void on_ggml_abort(const char * message) {
    if (no_abort > 0) {
        const char * name = strrchr(message, '/'); // "/path/file.cpp:7: what"
        throw std::runtime_error(std::string("assertion failed in ") + (name ? name + 1 : message));
    }
    if (abort_before) {
        abort_before(message);
    } else {
        fprintf(stderr, "%s\n", message);
    }
}

} // namespace

NoAbort::NoAbort() { no_abort++; }
NoAbort::~NoAbort() { no_abort--; }

void init() {
    static std::once_flag once;
    std::call_once(once, [] {
        llama_log_set(on_log, nullptr); // before the first line: quiet by default
        abort_before = ggml_set_abort_callback(on_ggml_abort);
        common_log_set_verbosity_thold(-1);
        llama_backend_init();
    });
}

// ---- UTF-8

size_t utf8_valid(const char * text, size_t len) {
    const auto * s = reinterpret_cast<const unsigned char *>(text);
    for (size_t i = 0; i < len;) {
        const unsigned c = s[i];
        const size_t   n = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
        if (n == 0 || n > len - i) {
            return i;
        }
        for (size_t j = 1; j < n; j++) {
            if ((s[i + j] & 0xc0) != 0x80) {
                return i;
            }
        }
        if ((c == 0xe0 && s[i + 1] < 0xa0) || (c == 0xed && s[i + 1] > 0x9f) || // overlong, surrogates
            (c == 0xf0 && s[i + 1] < 0x90) || (c == 0xf4 && s[i + 1] > 0x8f)) { // overlong, past U+10FFFF
            return i;
        }
        i += n;
    }
    return len;
}

} // namespace hexkv

using namespace hexkv;

void hexkv_version(hexkv_version_info * out) {
    *out = {};
    copy(out->version, HEXKV_VERSION);
    copy(out->llama, llama_version());
    copy(out->commit, llama_commit());
    copy(out->compiler, llama_compiler());
    copy(out->isa, hex_isa_name(hex_isa_get()));
}

void hexkv_log_set(hexkv_log_fn fn, void * user, int min_level) {
    guard(nullptr, [&] {
        init();
        LogSink & sink = log_sink();
        std::lock_guard<std::mutex> lock(sink.mutex);
        sink.fn        = fn;
        sink.user      = user;
        sink.min_level = min_level;
        log_min_level.store(fn ? min_level : 99);
        return HEXKV_OK;
    });
}
