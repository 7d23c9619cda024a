// What protects the states of a context with a HEX tier: a checksum behind each state, over all that is in front of it (of a
// file also its tokens), which is checked before anything is read, and a guard that leaves nothing of a state which was refused. Codes have no redundancy: without the checksum a flipped bit would be
// read as another key, quietly. Contexts without a tier pass through as they were.
#pragma once

#include "llama-io.h"
#include "llama-memory.h"

#include <cstddef>
#include <cstdint>
#include <vector>

// Of bytes, however they are cut into pieces. Each step is a bijection of the sum and of the word, so no change within one word
// goes unseen. It finds accidents; it is no signature.
class llama_hex_sum {
public:
    void add(const void * data, size_t size);
    uint64_t get() const;

private:
    uint64_t sum = 0, n_bytes = 0;
    uint8_t  rest[8]; // n_bytes % 8 bytes that are no word yet

    void add_word(const uint8_t * word);
};

uint64_t llama_hex_sum_of(const llama_token * tokens, size_t n);

class llama_hex_writer : public llama_io_write_i {
public:
    llama_hex_writer(llama_io_write_i & io, llama_memory_i * memory, uint32_t flags); // llama_state_seq_flags

    void write(const void * src, size_t size) override;
    void write_tensor(ggml_tensor * tensor, size_t offset, size_t size) override;
    size_t n_bytes() override { return io.n_bytes(); }
    bool counts_only() const override { return io.counts_only(); }

    void finish(); // appends the checksum

private:
    llama_io_write_i   & io;
    const bool           has_tier;
    const bool           counts;
    const bool           tensors; // are in the sum: not those that stay on the device
    llama_hex_sum        sum;
    std::vector<uint8_t> piece;
};

class llama_hex_reader : public llama_io_read_i {
public:
    llama_hex_reader(llama_io_read_i & io, llama_memory_i * memory, uint32_t flags); // throws when the checksum does not match

    void read(void * dst, size_t size) override;
    void read_tensor(ggml_tensor * tensor, size_t offset, size_t size) override;
    size_t n_bytes() override { return io.n_bytes(); }
    size_t peek(void * dst, size_t offset, size_t size) override { return io.peek(dst, offset, size); }

    void finish(); // skips the checksum

private:
    llama_io_read_i    & io;
    const bool           has_tier;
    const bool           tensors;
    size_t               end = 0; // where the state ends
    std::vector<uint8_t> piece;

    size_t find_end(); // from here, 0: there is no sound state
};

// Lives while a state is restored, of the whole context (-1) or of a sequence; empties it when the restore was not done.
class llama_hex_restore {
public:
    llama_hex_restore(llama_memory_i * memory, llama_seq_id seq_id);
    ~llama_hex_restore();
    llama_hex_restore(const llama_hex_restore &) = delete;
    llama_hex_restore & operator=(const llama_hex_restore &) = delete;

    template <typename T> T done(T result) { // 0 and false: it was refused
        ok = (bool) result;
        return result;
    }

private:
    llama_memory_i   * memory; // nullptr: nothing to protect
    const llama_seq_id seq_id;
    bool               ok = false;
};
