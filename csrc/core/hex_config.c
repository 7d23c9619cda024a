#include "hex_config.h"

#include "hex_codec.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

// ---- names

static const struct { enum hex_refine value; const char * name; } refine_names[] = {
    { HEX_REFINE_NONE, "none" }, { HEX_REFINE_HEX1, "hex1" }, { HEX_REFINE_HEX2, "hex2" },
    { HEX_REFINE_HEX3, "hex3" }, { HEX_REFINE_HEX4, "hex4" }, { HEX_REFINE_Q8_0, "q8_0" },
    { HEX_REFINE_F16,  "f16"  },
};

static const struct { enum hex_backbone value; const char * name; } backbone_names[] = {
    { HEX_BACKBONE_NONE,    "none"    }, { HEX_BACKBONE_EXPANDER, "expander" }, { HEX_BACKBONE_RANDOM,   "random"   },
    { HEX_BACKBONE_STRIDED, "strided" }, { HEX_BACKBONE_LOG,      "log"      }, { HEX_BACKBONE_CHANNELS, "channels" },
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

bool hex_refine_parse(const char * name, enum hex_refine * out) {
    for (size_t i = 0; name && i < COUNT(refine_names); i++) {
        if (strcmp(name, refine_names[i].name) == 0) {
            *out = refine_names[i].value;
            return true;
        }
    }
    return false;
}

const char * hex_refine_name(enum hex_refine r) {
    for (size_t i = 0; i < COUNT(refine_names); i++) {
        if (refine_names[i].value == r) {
            return refine_names[i].name;
        }
    }
    return NULL;
}

bool hex_backbone_parse(const char * name, enum hex_backbone * out) {
    for (size_t i = 0; name && i < COUNT(backbone_names); i++) {
        if (strcmp(name, backbone_names[i].name) == 0) {
            *out = backbone_names[i].value;
            return true;
        }
    }
    return false;
}

const char * hex_backbone_name(enum hex_backbone k) {
    for (size_t i = 0; i < COUNT(backbone_names); i++) {
        if (backbone_names[i].value == k) {
            return backbone_names[i].name;
        }
    }
    return NULL;
}

// ---- presets

// The byte goals (2.8, 3.3, 3.8, 4.3 bits per element at 2,048 tokens) leave 0.55 bits above the base codes. With the
// ring, scores and means, 112 heavy slots of 4 bits fill them, or 176 of 3 bits. Coarse bases gain more from more slots.
static const struct {
    const char *    name;
    bool            enabled;
    int32_t         base_k, base_v;
    enum hex_refine refine;
    float           heavy, backbone;
} presets[] = {
    { "off",      false, 0, 0, HEX_REFINE_NONE, 0.000f, 0.0f         },
    { "tiny",     true,  3, 1, HEX_REFINE_HEX3, 0.086f, 0.0f         },
    { "compact",  true,  3, 2, HEX_REFINE_HEX3, 0.086f, 0.0f         },
    { "balanced", true,  4, 2, HEX_REFINE_HEX3, 0.086f, 0.0f         },
    { "quality",  true,  4, 3, HEX_REFINE_HEX4, 0.055f, 0.0f         },
    { "paper",    true,  3, 3, HEX_REFINE_F16,  0.050f, 1.0f / 15.0f }, // three bits and f16 entries, as published
};

bool hex_params_preset(struct hex_params * p, const char * name) {
    for (size_t i = 0; name && i < COUNT(presets); i++) {
        if (strcmp(name, presets[i].name) != 0) {
            continue;
        }
        memset(p, 0, sizeof(*p));
        if (presets[i].enabled) {
            *p = (struct hex_params) {
                .enabled       = true,
                .base_k        = presets[i].base_k,
                .base_v        = presets[i].base_v,
                .refine        = presets[i].refine,
                .n_sink        = 4,
                .n_recent      = -1,
                .heavy         = presets[i].heavy,
                .backbone      = presets[i].backbone,
                .backbone_kind = HEX_BACKBONE_EXPANDER, // also where the share is 0: a share alone switches it on
                .seed          = 1,
                .n_mean        = 256,
                .half_life     = 256,
                .unbias        = 1.0f,
            };
        }
        return true;
    }
    return false;
}

const char * hex_preset_name(int i) {
    return i >= 0 && (size_t) i < COUNT(presets) ? presets[i].name : NULL;
}

// ---- validation

enum {
    MAX_SINK  = 1 << 16,
    MAX_ROWS  = 1 << 24, // recent tokens, mean, half-life
    MAX_CTX   = 1 << 30, // keeps cell + period inside int32
    MAX_PAIRS = 1 << 20,
    MAX_SEQ   = 1 << 20,
};

#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
static bool fail(char * err, size_t err_size, const char * format, ...) {
    if (err && err_size > 0) {
        va_list args;
        va_start(args, format);
        vsnprintf(err, err_size, format, args);
        va_end(args);
    }
    return false;
}

static bool check_int(const char * name, int32_t value, int32_t lo, int32_t hi, const char * remedy,
                      char * err, size_t err_size) {
    return (value >= lo && value <= hi)
        || fail(err, err_size, "%s = %d is outside %d..%d; %s", name, (int) value, (int) lo, (int) hi, remedy);
}

static bool check_share(const char * name, float value, const char * remedy, char * err, size_t err_size) {
    return (value >= 0.0f && value <= 1.0f) // false for NaN
        || fail(err, err_size, "%s = %g is outside 0..1; %s", name, (double) value, remedy);
}

bool hex_params_validate(const struct hex_params * p, char * err, size_t err_size) {
    if (!p->enabled) {
        return true;
    }
    if (!hex_refine_name(p->refine)) {
        return fail(err, err_size, "refine = %d is no residual codec; use none, hex1 to hex4, q8_0 or f16 (presets use hex3 or hex4)",
                    (int) p->refine);
    }
    if (!hex_backbone_name(p->backbone_kind)) {
        return fail(err, err_size, "backbone_kind = %d is no backbone; use none, expander, random, strided, log or channels",
                    (int) p->backbone_kind);
    }
    if (p->backbone_kind == HEX_BACKBONE_CHANNELS && p->backbone > 0.0f && p->refine != HEX_REFINE_F16) {
        return fail(err, err_size, "backbone_kind = channels stores single values and cannot use refine = %s; use f16",
                    hex_refine_name(p->refine));
    }
    return check_int("base_k", p->base_k, 1, 4, "use 4 for quality, 2 or 3 for size", err, err_size)
        && check_int("base_v", p->base_v, 1, 4, "use 3 for quality, 2 for size", err, err_size)
        && check_int("n_sink", p->n_sink, 0, MAX_SINK, "use 4, the default", err, err_size)
        && check_int("n_recent", p->n_recent, -1, MAX_ROWS, "use -1 to derive it from the context length", err, err_size)
        && check_share("heavy", p->heavy, "use 0.086 or 0.055 as the presets do, or 0 for no heavy hitters", err, err_size)
        && check_share("backbone", p->backbone, "use 0 for no backbone, or a share such as 0.067", err, err_size)
        && check_int("n_mean", p->n_mean, 0, MAX_ROWS, "use 256, the default, or 0 to leave K uncentred", err, err_size)
        && check_int("half_life", p->half_life, 1, MAX_ROWS, "use 256, the default", err, err_size)
        && check_share("unbias", p->unbias, "use 1, the default, or 0 to leave logits as they are", err, err_size);
}

// ---- plan

static int32_t clamp(int32_t x, int32_t lo, int32_t hi) {
    return x < lo ? lo : x > hi ? hi : x;
}

// The divisor of n nearest to share*n on a logarithmic scale; the smaller of two equally near.
static int32_t nearest_divisor(int32_t n, double share) {
    int32_t best      = 1;
    double  best_dist = INFINITY;
    for (int32_t d = 1; d <= n; d++) {
        const double dist = n % d == 0 ? fabs(log(d / (share * n))) : INFINITY;
        if (dist < best_dist) {
            best      = d;
            best_dist = dist;
        }
    }
    return best;
}

// Ring: a sixteenth of the cells that a sequence has on average, so that many sequences in one stream cost no more
// than one. Sinks count, and an explicit ring larger than the context is cut, recent tokens first.
static void plan_ring(struct hex_plan * plan, const struct hex_params * p, int32_t n_seq) {
    const int32_t n_auto = clamp(plan->n_ctx / n_seq / 16, 32, 256);
    const int32_t recent = p->n_recent >= 0 ? p->n_recent : n_auto > p->n_sink ? n_auto - p->n_sink : 0;

    plan->n_sink     = clamp(p->n_sink, 0, plan->n_ctx);
    plan->n_recent   = clamp(recent, 0, plan->n_ctx - plan->n_sink);
    plan->n_ring_seq = plan->n_sink + plan->n_recent;

    const int64_t n_ring = (int64_t) plan->n_ring_seq * n_seq;
    plan->n_ring = n_ring < plan->n_ctx ? (int32_t) n_ring : plan->n_ctx;
}

static bool plan_backbone(struct hex_plan * plan, const struct hex_params * p, int32_t n_pairs,
                          char * err, size_t err_size) {
    if (p->backbone_kind == HEX_BACKBONE_NONE || p->backbone == 0.0f) {
        return true;
    }
    // Channels are chosen out of every 64, which divides all head sizes. The 64 samples that a block of `period` cells
    // keeps per 64 channels fill one row of a slot, so slots and bytes are counted as for the other kinds.
    const bool    channels = p->backbone_kind == HEX_BACKBONE_CHANNELS;
    const int32_t n        = channels ? HEX_BLOCK : n_pairs;

    if ((double) p->backbone * n < 0.5) {
        return fail(err, err_size,
                    "backbone = %g is too small a share of %d %s; the smallest is 1/%d = %.4g: use at least that, or 0 for none",
                    (double) p->backbone, (int) n, channels ? "channels" : "(layer, KV head) pairs", (int) n, 1.0 / n);
    }
    plan->degree   = nearest_divisor(n, p->backbone);
    plan->period   = n / plan->degree;
    plan->n_static = plan->n_ctx / plan->period + (plan->n_ctx % plan->period != 0);
    return true;
}

bool hex_plan_make(struct hex_plan * plan, const struct hex_params * p,
                   int32_t n_ctx, int32_t n_seq, int32_t n_pairs, char * err, size_t err_size) {
    memset(plan, 0, sizeof(*plan));
    if (!hex_params_validate(p, err, err_size)
        || !check_int("n_ctx", n_ctx, 1, MAX_CTX, "set the context length", err, err_size)
        || !check_int("n_seq", n_seq, 1, MAX_SEQ, "use 1 for a single sequence", err, err_size)
        || !check_int("n_pairs", n_pairs, 1, MAX_PAIRS, "it is layers x KV heads of the cache", err, err_size)) {
        return false;
    }
    plan->n_ctx = n_ctx;
    if (!p->enabled || p->refine == HEX_REFINE_NONE) {
        return true; // no residual, no slots
    }
    plan_ring(plan, p, n_seq);
    if (!plan_backbone(plan, p, n_pairs, err, err_size)) {
        memset(plan, 0, sizeof(*plan));
        return false;
    }
    // In float, as the share was given: 0.7f of 10 is 7. Heavy hitters take what ring and backbone leave.
    const int32_t n_free = n_ctx - plan->n_ring - plan->n_static;
    plan->n_heavy = clamp((int32_t) (p->heavy * (float) n_ctx), 0, n_free > 0 ? n_free : 0);
    plan->n_slots = plan->n_ring + plan->n_heavy + plan->n_static;
    return true;
}
