#include "llama-hex-io.h"

#include "llama-kv-hex.h"

#include "llama.h"

#include "ggml-backend.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

static constexpr size_t PIECE = 16*1024*1024; // of a tensor on its way between device and state
static constexpr size_t PEEK  = 256*1024;     // of a state that is checked: small enough for a cache

void llama_hex_sum::add_word(const uint8_t * word) {
    uint64_t w;
    memcpy(&w, word, sizeof(w));
    sum = ((sum << 29 | sum >> 35) ^ w)*0x9e3779b97f4a7c15u;
}

void llama_hex_sum::add(const void * data, size_t size) {
    const auto * src = (const uint8_t *) data;
    while (size > 0) {
        const size_t have = n_bytes % sizeof(rest);
        if (have == 0 && size >= sizeof(rest)) {
            const size_t n = size - size % sizeof(rest);
            for (size_t i = 0; i < n; i += sizeof(rest)) {
                add_word(src + i);
            }
            src += n, size -= n, n_bytes += n;
            continue;
        }
        const size_t n = std::min(size, sizeof(rest) - have);
        memcpy(rest + have, src, n);
        src += n, size -= n, n_bytes += n;
        if (have + n == sizeof(rest)) {
            add_word(rest);
        }
    }
}

uint64_t llama_hex_sum::get() const {
    llama_hex_sum last = *this;
    uint8_t word[8] = {};
    memcpy(word, rest, n_bytes % sizeof(rest));
    last.add_word(word);
    memcpy(word, &n_bytes, sizeof(word));
    last.add_word(word);
    return last.sum ^ last.sum >> 32;
}

uint64_t llama_hex_sum_of(const llama_token * tokens, size_t n) {
    llama_hex_sum sum;
    sum.add(tokens, n*sizeof(*tokens));
    return sum.get();
}

static llama_hex_sum sum_from(uint64_t front) {
    llama_hex_sum sum;
    if (front) {
        sum.add(&front, sizeof(front));
    }
    return sum;
}

llama_hex_writer::llama_hex_writer(llama_io_write_i & to, llama_memory_i * memory, uint32_t flags) :
    io(to), has_tier(llama_hex_has_tier(memory)), counts(to.counts_only()),
    tensors(has_tier && !counts && !(flags & LLAMA_STATE_SEQ_FLAGS_ON_DEVICE)), sum(sum_from(to.front)) {}

void llama_hex_writer::write(const void * src, size_t size) {
    if (has_tier && !counts) {
        sum.add(src, size);
    }
    io.write(src, size);
}

void llama_hex_writer::write_tensor(ggml_tensor * tensor, size_t offset, size_t size) {
    if (!tensors) {
        io.write_tensor(tensor, offset, size);
        return;
    }
    for (size_t done = 0; done < size; done += piece.size()) {
        piece.resize(std::min(PIECE, size - done));
        ggml_backend_tensor_get(tensor, piece.data(), offset + done, piece.size());
        write(piece.data(), piece.size());
    }
}

void llama_hex_writer::finish() {
    if (has_tier) {
        const uint64_t value = sum.get();
        io.write(&value, sizeof(value));
    }
}

llama_hex_reader::llama_hex_reader(llama_io_read_i & from, llama_memory_i * memory, uint32_t flags) :
    io(from), has_tier(llama_hex_has_tier(memory)), tensors(has_tier && !(flags & LLAMA_STATE_SEQ_FLAGS_ON_DEVICE)) {
    if (!has_tier) {
        return;
    }
    // now: what a state takes from other sequences, heavy slots for one, cannot be given back
    const size_t size = find_end();
    if (size == 0) {
        throw std::runtime_error("the checksum of the state does not match: it is damaged, or was saved without a HEX tier or by an "
                                 "older build; use the --hex settings and the build that it was saved with");
    }
    end = io.n_bytes() + size;
}

size_t llama_hex_reader::find_end() {
    uint64_t value;
    std::vector<uint8_t> buf(PEEK);
    llama_hex_sum sum = sum_from(io.front);
    size_t at = 0, have = 0; // bytes seen; bytes in buf, of which the last 8 can be the checksum
    for (size_t n; (n = io.peek(buf.data() + have, at, buf.size() - have)) > 0; at += n) {
        have += n;
        if (have > sizeof(value)) {
            sum.add(buf.data(), have - sizeof(value));
            memmove(buf.data(), buf.data() + have - sizeof(value), sizeof(value));
            have = sizeof(value);
        }
    }
    memcpy(&value, buf.data(), sizeof(value));
    if (have == sizeof(value) && value == sum.get()) {
        return at;
    }
    // something may be behind it
    sum = sum_from(io.front);
    at = 0;
    for (size_t n; (n = io.peek(buf.data(), at, buf.size())) >= sizeof(value); at += n - sizeof(value) + 1) {
        for (size_t i = 0; i + sizeof(value) <= n; ++i) {
            memcpy(&value, buf.data() + i, sizeof(value));
            if (value == sum.get()) {
                return at + i + sizeof(value);
            }
            sum.add(buf.data() + i, 1);
        }
    }
    return 0;
}

void llama_hex_reader::read(void * dst, size_t size) {
    io.read(dst, size);
}

void llama_hex_reader::read_tensor(ggml_tensor * tensor, size_t offset, size_t size) {
    if (!tensors) {
        io.read_tensor(tensor, offset, size);
        return;
    }
    for (size_t done = 0; done < size; done += piece.size()) {
        piece.resize(std::min(PIECE, size - done));
        read(piece.data(), piece.size());
        ggml_backend_tensor_set(tensor, piece.data(), offset + done, piece.size());
    }
}

void llama_hex_reader::finish() {
    if (!has_tier) {
        return;
    }
    uint64_t value;
    io.read(&value, sizeof(value));
    if (io.n_bytes() != end) {
        throw std::runtime_error("the state does not end where its checksum is");
    }
}

llama_hex_restore::llama_hex_restore(llama_memory_i * m, llama_seq_id id) : memory(llama_hex_has_tier(m) ? m : nullptr), seq_id(id) {}

llama_hex_restore::~llama_hex_restore() {
    if (!memory || ok) {
        return;
    }
    if (seq_id == -1) {
        memory->clear(true);
    } else {
        memory->seq_rm(seq_id, -1, -1);
    }
}
