// hex1..hex4 among ggml's types: sizes, names, every bit pattern is valid, and model files must not hold them.
#include "core/check.h"

#include "ggml.h"
#include "gguf.h"

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <unistd.h>

static const ggml_type types[] = { GGML_TYPE_HEX1, GGML_TYPE_HEX2, GGML_TYPE_HEX3, GGML_TYPE_HEX4 };

static void test_traits(ggml_type type, int bits) {
    const std::string name = "hex" + std::to_string(bits);
    check(name == ggml_type_name(type), "%s: name", name.c_str());
    check(ggml_blck_size(type) == 64 && (int) ggml_type_size(type) == 8*bits + 2, "%s: %d bits per sample and 16 per block", name.c_str(), bits);

    std::vector<uint8_t> row(4*ggml_type_size(type));
    for (int fill : { 0x00, 0x80, 0xff }) {
        memset(row.data(), fill, row.size());
        check(ggml_validate_row_data(type, row.data(), row.size()), "%s: rows of 0x%02x are valid", name.c_str(), (unsigned) fill);
    }
    check(!ggml_validate_row_data(type, row.data(), row.size() - 1), "%s: a broken block is not", name.c_str());
}

// A GGUF with one tensor of the type.
static bool write_gguf(const char * path, ggml_type type) {
    ggml_context * ctx = ggml_init({ 1u << 16, nullptr, false });
    ggml_tensor  * t   = ggml_new_tensor_2d(ctx, type, 128, 2);
    memset(t->data, 0x55, ggml_nbytes(t));
    ggml_set_name(t, "weight");
    gguf_context * gguf = gguf_init_empty();
    gguf_add_tensor(gguf, t);
    const bool ok = gguf_write_to_file(gguf, path, false);
    gguf_free(gguf);
    ggml_free(ctx);
    return ok;
}

static bool loads(const char * path) {
    gguf_context * gguf = gguf_init_from_file(path, { true, nullptr });
    gguf_free(gguf);
    return gguf != nullptr;
}

static void test_gguf(const char * path) {
    check(write_gguf(path, GGML_TYPE_Q8_0) && loads(path), "a model file with q8_0 loads");
    for (ggml_type type : types) {
        check(write_gguf(path, type) && !loads(path), "a model file with %s is refused", ggml_type_name(type));
    }
}

int main() {
    for (int bits = 1; bits <= 4; ++bits) {
        test_traits(types[bits - 1], bits);
    }
    char path[] = "/tmp/hexkv-types-XXXXXX";
    const int fd = mkstemp(path);
    check(fd >= 0, "a temporary file");
    close(fd);
    test_gguf(path);
    unlink(path);
    return check_exit_code();
}
