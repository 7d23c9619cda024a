#include "llama-hex-io.h"

#include "llama-kv-hex.h"

#include "llama.h"

#include "ggml-backend.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

static constexpr size_t PIECE = 16*1024*1024; // of a tensor on its way between device and state

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

llama_hex_writer::llama_hex_writer(llama_io_write_i & to, llama_memory_i * memory, uint32_t flags) :
    io(to), has_tier(llama_hex_has_tier(memory)), tensors(has_tier && !(flags & LLAMA_STATE_SEQ_FLAGS_ON_DEVICE) && !to.counts_only()) {}

void llama_hex_writer::write(const void * src, size_t size) {
    if (has_tier) {
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
    io(from), has_tier(llama_hex_has_tier(memory)), tensors(has_tier && !(flags & LLAMA_STATE_SEQ_FLAGS_ON_DEVICE)) {}

void llama_hex_reader::read(void * dst, size_t size) {
    io.read(dst, size);
    if (has_tier) {
        sum.add(dst, size);
    }
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
    if (value != sum.get()) {
        throw std::runtime_error("the state is damaged: its checksum does not match");
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
