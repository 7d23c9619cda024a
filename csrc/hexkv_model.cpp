// Models: checks before loading, information, tokens, chat templates.
#include "hexkv_impl.h"

#include "llama/llama-hex.h"

#pragma GCC diagnostic push // upstream's headers are not ours to fix
#pragma GCC diagnostic ignored "-Wshadow"
#include "chat.h"
#pragma GCC diagnostic pop

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <climits>
#include <sys/stat.h>

namespace hexkv {

void TemplatesDeleter::operator()(common_chat_templates * t) const { common_chat_templates_free(t); }

namespace {

struct GgufDeleter {
    void operator()(gguf_context * g) const { gguf_free(g); }
};
using GgufPtr = std::unique_ptr<gguf_context, GgufDeleter>;
using FilePtr = std::unique_ptr<FILE, int (*)(FILE *)>;

// Checks one file: a whole GGUF of a known version. *n_split receives the number of files that the model consists of.
hexkv_status check_file(const char * path, int * n_split, hexkv_error * e) {
    struct stat st;
    if (stat(path, &st) != 0) {
        return errno == ENOENT || errno == ENOTDIR
            ? fail(e, HEXKV_ERR_NOT_FOUND, "%s: no such file; check the path", path)
            : fail(e, HEXKV_ERR_NOT_FOUND, "%s: %s", path, strerror(errno));
    }
    if (S_ISDIR(st.st_mode)) {
        return fail(e, HEXKV_ERR_NOT_GGUF, "%s is a directory; name a .gguf file in it", path);
    }
    if (!S_ISREG(st.st_mode)) {
        return fail(e, HEXKV_ERR_NOT_GGUF, "%s is not a regular file; name a .gguf file", path);
    }
    if (st.st_size == 0) {
        return fail(e, HEXKV_ERR_NOT_GGUF, "%s is empty; download the model again", path);
    }
    const auto size = static_cast<uint64_t>(st.st_size);

    FilePtr f(fopen(path, "rb"), fclose);
    if (!f) {
        return fail(e, HEXKV_ERR_NOT_FOUND, "%s cannot be opened: %s", path, strerror(errno));
    }
    unsigned char head[8] = {};
    const size_t  n_head  = fread(head, 1, sizeof(head), f.get());
    if (memcmp(head, "GGUF", std::min<size_t>(n_head, 4)) != 0) {
        return fail(e, HEXKV_ERR_NOT_GGUF, "%s is not a GGUF file (it does not start with \"GGUF\"); convert the model with "
                    "llama.cpp's convert_hf_to_gguf.py, or download a .gguf file", path);
    }
    if (n_head < sizeof(head)) {
        return fail(e, HEXKV_ERR_TRUNCATED, "%s is truncated: it has %" PRIu64 " bytes only; download it again", path, size);
    }
    const uint32_t version = head[4] | head[5] << 8 | head[6] << 16 | static_cast<uint32_t>(head[7]) << 24;
    if (version < 2 || version > GGUF_VERSION) {
        return fail(e, HEXKV_ERR_MODEL, "%s has GGUF version %u%s, but versions 2 to %d are read; convert the model again", path,
                    version, (version & 0xffff) == 0 ? " (big-endian)" : "", GGUF_VERSION);
    }
    f.reset();

    Capture          log;
    gguf_init_params params = { /*.no_alloc =*/ true, /*.ctx =*/ nullptr };
    GgufPtr          g(gguf_init_from_file(path, params));
    if (!g) {
        return fail(e, HEXKV_ERR_TRUNCATED, "%s is truncated or damaged: its header cannot be read (%s); download it again", path,
                    log.text("no details").c_str());
    }
    uint64_t need = gguf_get_data_offset(g.get());
    for (int64_t i = 0; i < gguf_get_n_tensors(g.get()); i++) {
        need = std::max<uint64_t>(need, gguf_get_data_offset(g.get()) + gguf_get_tensor_offset(g.get(), i) +
                                        gguf_get_tensor_size(g.get(), i));
    }
    if (size < need) {
        return fail(e, HEXKV_ERR_TRUNCATED, "%s is truncated: it has %" PRIu64 " of %" PRIu64 " bytes; download it again", path,
                    size, need);
    }
    // A negative epsilon would end the process in the first computation.
    for (int64_t i = 0; i < gguf_get_n_kv(g.get()); i++) {
        const std::string name = gguf_get_key(g.get(), i);
        if (gguf_get_kv_type(g.get(), i) == GGUF_TYPE_FLOAT32 && name.find("epsilon") != std::string::npos &&
            !(gguf_get_val_f32(g.get(), i) >= 0)) {
            return fail(e, HEXKV_ERR_MODEL, "%s is damaged: %s is %g; download it again", path, name.c_str(),
                        static_cast<double>(gguf_get_val_f32(g.get(), i)));
        }
    }
    const int64_t key = gguf_find_key(g.get(), "split.count");
    *n_split = key >= 0 && gguf_get_kv_type(g.get(), key) == GGUF_TYPE_UINT16 ? gguf_get_val_u16(g.get(), key) : 1;
    return HEXKV_OK;
}

// Checks the file and, of a split model, the files beside it.
hexkv_status check_files(const char * path, hexkv_error * e) {
    int n_split = 1, ignored;
    hexkv_status s = check_file(path, &n_split, e);
    if (s != HEXKV_OK || n_split <= 1) {
        return s;
    }
    char prefix[PATH_MAX], part[PATH_MAX];
    if (llama_split_prefix(prefix, sizeof(prefix), path, 0, n_split) <= 0) {
        return fail(e, HEXKV_ERR_MODEL, "%s is part of a model of %d files; name the first one, ...-00001-of-%05d.gguf", path,
                    n_split, n_split);
    }
    for (int i = 1; i < n_split; i++) {
        llama_split_path(part, sizeof(part), prefix, i, n_split);
        s = check_file(part, &ignored, e);
        if (s != HEXKV_OK) {
            return s;
        }
    }
    return HEXKV_OK;
}

struct Progress {
    const hexkv_model_params * params;
    bool cancelled = false;
};

bool on_progress(float done, void * user) {
    auto * p = static_cast<Progress *>(user);
    p->cancelled = p->cancelled || !p->params->progress(done, p->params->user);
    return !p->cancelled;
}

int32_t meta_int(const llama_model * m, const std::string & key, int32_t otherwise) {
    char text[64];
    if (llama_model_meta_val_str(m, key.c_str(), text, sizeof(text)) <= 0) {
        return otherwise;
    }
    const long n = strtol(text, nullptr, 10);
    return n > 0 && n < INT32_MAX ? static_cast<int32_t>(n) : otherwise;
}

void describe(const Model & m, hexkv_model_info * out) {
    const llama_model * l = m.llama.get();
    *out = {};
    llama_model_meta_val_str(l, "general.name", out->name, sizeof(out->name));
    llama_model_meta_val_str(l, "general.architecture", out->arch, sizeof(out->arch));
    llama_model_desc(l, out->desc, sizeof(out->desc));
    const std::string arch = out->arch;
    out->n_params    = llama_model_n_params(l);
    out->n_bytes     = llama_model_size(l);
    out->n_layer     = llama_model_n_layer(l);
    out->n_head      = llama_model_n_head(l);
    out->n_head_kv   = llama_model_n_head_kv(l);
    out->n_embd      = llama_model_n_embd(l);
    const int32_t head = out->n_head > 0 ? out->n_embd / out->n_head : 0;
    out->head_k      = meta_int(l, arch + ".attention.key_length", head);
    out->head_v      = meta_int(l, arch + ".attention.value_length", head);
    out->n_ctx_train = llama_model_n_ctx_train(l);
    out->n_vocab     = llama_vocab_n_tokens(m.vocab);
    out->n_swa       = llama_model_n_swa(l);
    out->recurrent   = llama_model_is_recurrent(l) || llama_model_is_hybrid(l);
    out->chat_template = llama_model_chat_template(l, nullptr) != nullptr;
    out->hex = llama_hex_supported(l, out->hex_reason, sizeof(out->hex_reason));
}

bool has_vocab(const Model & m) { return llama_vocab_type(m.vocab) != LLAMA_VOCAB_TYPE_NONE; }

} // namespace
} // namespace hexkv

using namespace hexkv;

hexkv_status hexkv_model_load(const char * path, const hexkv_model_params * p, hexkv_model ** out, hexkv_error * e) {
    return guard(e, [&] {
        if (!path || !*path || !out) {
            return fail(e, HEXKV_ERR_INVALID, "hexkv_model_load: the path is empty");
        }
        *out = nullptr;
        init();
        NoAbort            no_abort;
        const hexkv_status s = check_files(path, e);
        if (s != HEXKV_OK) {
            return s;
        }
        auto     m        = std::make_shared<Model>();
        Progress progress = { p };
        m->path   = path;
        m->params = llama_model_default_params();
        m->params.n_gpu_layers = p ? p->n_gpu_layers : 0;
        if (p && p->no_mmap) {
            m->params.load_mode = LLAMA_LOAD_MODE_NONE;
        }
        llama_model_params load = m->params;
        // llama.cpp prints dots without a callback.
        static hexkv_model_params quiet = { 0, false, [](float, void *) { return true; }, nullptr };
        progress.params = p && p->progress ? p : &quiet;
        load.progress_callback           = on_progress;
        load.progress_callback_user_data = &progress;

        Capture log;
        m->llama.reset(llama_model_load_from_file(path, load));
        if (progress.cancelled) {
            return fail(e, HEXKV_ERR_CANCELLED, "loading %s was cancelled", path);
        }
        if (!m->llama) {
            return fail(e, HEXKV_ERR_MODEL, "%s cannot be loaded: %s", path, log.text("llama.cpp gives no reason").c_str());
        }
        m->vocab = llama_model_get_vocab(m->llama.get());
        describe(*m, &m->info);
        *out = new hexkv_model{ std::move(m) };
        return HEXKV_OK;
    });
}

void hexkv_model_close(hexkv_model * m) { delete m; }

void hexkv_model_get_info(const hexkv_model * m, hexkv_model_info * out) { *out = m->p->info; }

// ---- tokens

hexkv_status hexkv_tokenize(const hexkv_model * m, const char * text, size_t len, bool add_special, bool parse_special,
                            int32_t * tokens, size_t cap, size_t * n, hexkv_error * e) {
    return guard(e, [&] {
        if (!m || !n || (!text && len > 0) || (!tokens && cap > 0)) {
            return fail(e, HEXKV_ERR_INVALID, "hexkv_tokenize: NULL argument");
        }
        *n = 0;
        if (len > INT32_MAX / 2) {
            return fail(e, HEXKV_ERR_INVALID, "the text has %zu bytes, more than 1 GiB; split it", len);
        }
        const size_t bad = utf8_valid(text, len);
        if (bad < len) {
            return fail(e, HEXKV_ERR_UTF8, "the text is not valid UTF-8: byte 0x%02x at offset %zu; convert it to UTF-8",
                        static_cast<unsigned char>(text[bad]), bad);
        }
        if (!has_vocab(*m->p)) {
            return fail(e, HEXKV_ERR_UNSUPPORTED, "%s has no vocabulary, so text cannot be tokenized", m->p->path.c_str());
        }
        NoAbort       no_abort;
        const int32_t room = static_cast<int32_t>(std::min<size_t>(cap, INT32_MAX));
        const int32_t got  = llama_tokenize(m->p->vocab, text ? text : "", static_cast<int32_t>(len), tokens, room, add_special,
                                            parse_special);
        if (got == INT32_MIN) {
            return fail(e, HEXKV_ERR_INVALID, "the text has too many tokens; split it");
        }
        *n = static_cast<size_t>(got < 0 ? -static_cast<int64_t>(got) : got);
        return got < 0 ? fail(e, HEXKV_ERR_INVALID, "hexkv_tokenize: %zu tokens need room, there is room for %zu", *n, cap)
                       : HEXKV_OK;
    });
}

hexkv_status hexkv_token_piece(const hexkv_model * m, int32_t token, bool special, char * buf, size_t cap, size_t * n) {
    return guard(nullptr, [&] {
        if (!m || !n || (!buf && cap > 0)) {
            return HEXKV_ERR_INVALID;
        }
        *n = 0;
        if (token < 0 || token >= m->p->info.n_vocab || !has_vocab(*m->p)) {
            return HEXKV_ERR_INVALID;
        }
        const int32_t got = llama_token_to_piece(m->p->vocab, token, buf, static_cast<int32_t>(std::min<size_t>(cap, INT32_MAX)),
                                                 0, special);
        *n = static_cast<size_t>(got < 0 ? -got : got);
        return got < 0 ? HEXKV_ERR_INVALID : HEXKV_OK;
    });
}

bool hexkv_token_is_eog(const hexkv_model * m, int32_t token) {
    return m && token >= 0 && token < m->p->info.n_vocab && llama_vocab_is_eog(m->p->vocab, token);
}

// ---- chat

hexkv_status hexkv_chat_apply(hexkv_model * m, const hexkv_message * msgs, size_t n_msgs, bool add_assistant,
                              char * buf, size_t cap, size_t * n, hexkv_error * e) {
    return guard(e, [&] {
        if (!m || !n || (!msgs && n_msgs > 0) || (!buf && cap > 0)) {
            return fail(e, HEXKV_ERR_INVALID, "hexkv_chat_apply: NULL argument");
        }
        *n = 0;
        Model & model = *m->p;
        if (!model.info.chat_template) {
            return fail(e, HEXKV_ERR_TEMPLATE, "%s has no chat template; give it plain prompts, or use an instruction-tuned model",
                        model.path.c_str());
        }
        if (n_msgs == 0) {
            return fail(e, HEXKV_ERR_TEMPLATE, "the conversation is empty; add a message");
        }
        common_chat_templates_inputs inputs;
        inputs.use_jinja             = true;
        inputs.add_generation_prompt = add_assistant;
        for (size_t i = 0; i < n_msgs; i++) {
            const hexkv_message & in = msgs[i];
            if (!in.role || (!in.content && in.content_len > 0)) {
                return fail(e, HEXKV_ERR_INVALID, "message %zu has a NULL role or content", i);
            }
            for (const auto & t : { std::make_pair(in.role, strlen(in.role)), std::make_pair(in.content, in.content_len) }) {
                const size_t bad = utf8_valid(t.first, t.second);
                if (bad < t.second) {
                    return fail(e, HEXKV_ERR_UTF8,
                                "message %zu is not valid UTF-8: byte 0x%02x at offset %zu; convert it to UTF-8", i,
                                static_cast<unsigned char>(t.first[bad]), bad);
                }
            }
            common_chat_msg msg;
            msg.role = in.role;
            msg.content.assign(in.content ? in.content : "", in.content_len);
            inputs.messages.push_back(std::move(msg));
        }
        std::string prompt;
        NoAbort     no_abort;
        try {
            std::lock_guard<std::mutex> lock(model.chat_mutex);
            if (!model.templates) {
                model.templates.reset(common_chat_templates_init(model.llama.get(), "").release());
            }
            prompt = common_chat_templates_apply(model.templates.get(), inputs).prompt;
        } catch (const std::bad_alloc &) {
            throw;
        } catch (const std::exception & x) {
            return fail(e, HEXKV_ERR_TEMPLATE, "the chat template refuses the messages: %.800s", x.what());
        }
        *n = prompt.size();
        if (prompt.size() > cap) {
            return fail(e, HEXKV_ERR_INVALID, "hexkv_chat_apply: %zu bytes need room, there is room for %zu", prompt.size(), cap);
        }
        if (!prompt.empty()) {
            memcpy(buf, prompt.data(), prompt.size());
        }
        return HEXKV_OK;
    });
}
