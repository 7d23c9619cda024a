// Command-line options of a HEX cache: names, values, resolution. One list serves every tool.
#pragma once

#include "hex_config.h"

#ifdef __cplusplus
extern "C" {
#endif

// What a user asked for: a preset, and single settings that override it whatever their order.
struct hex_options {
    char              preset[16]; // "" = not given
    uint32_t          set;        // bit i: option i of hex_option_name was given
    struct hex_params values;     // of the options that were given
};

// Option names without the leading "--": "hex", "hex-refine", "hex-sink", ...; NULL after the last.
const char * hex_option_name(int i);

// Parses one option. On failure writes one sentence (name, value, what is allowed) to err.
bool hex_options_set(struct hex_options * o, const char * name, const char * value, char * err, size_t err_size);

// Preset plus overrides, validated. Without a preset the result is a disabled cache, and overrides are an error, since
// they would have no effect.
bool hex_options_resolve(const struct hex_options * o, struct hex_params * out, char * err, size_t err_size);

#ifdef __cplusplus
}
#endif
