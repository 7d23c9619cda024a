// Byte accounting, the state layout and the byte goals of the presets.
#include "core/hex_bytes.h"
#include "ggml/hex_state.h"

#include "check.h"

#include <math.h>

static const struct hex_shape smollm2 = { .n_layer = 30, .n_head_kv = 3, .head_k = 64, .head_v = 64, .n_stream = 1 };

static struct hex_bytes bytes_of(const struct hex_params * p, const struct hex_shape * shape, int32_t n_ctx,
                                 struct hex_plan * plan) {
    struct hex_bytes b = { 0 };
    char err[256] = "";
    const bool ok = hex_plan_make(plan, p, n_ctx, 1, shape->n_layer * shape->n_head_kv, err, sizeof(err));
    if (!ok) {
        check(false, "%s", err);
        return b;
    }
    hex_bytes_of(&b, p, plan, shape);
    return b;
}

static void test_sizes(void) {
    check(hex_slot_size(HEX_REFINE_NONE, 64, 64) == 0 && hex_slot_size(HEX_REFINE_HEX1, 64, 64) == 20
          && hex_slot_size(HEX_REFINE_HEX2, 64, 64) == 36 && hex_slot_size(HEX_REFINE_HEX3, 128, 64) == 78
          && hex_slot_size(HEX_REFINE_HEX4, 64, 128) == 102 && hex_slot_size(HEX_REFINE_Q8_0, 64, 64) == 136
          && hex_slot_size(HEX_REFINE_F16, 64, 64) == 256, "slot sizes");
    check(hex_bytes_stock(&smollm2, 2048, 16.0) == 2ull*30*3*128*2048 && hex_bytes_stock(&smollm2, 2048, 4.5) == 13271040,
          "stock sizes");

    const struct hex_shape big = { .n_layer = 128, .n_head_kv = 64, .head_k = 256, .head_v = 256, .n_stream = 64 };
    check(hex_bytes_stock(&big, 1 << 20, 16.0) == 1ull << 49, "half a petabyte does not overflow");
}

static void test_state(void) {
    const int32_t d = 64, ring = 128, heavy = 112;
    check(hex_state_ring_score(d) == 66 && hex_state_heavy_cell(d, ring) == 194
          && hex_state_heavy_score(d, ring, heavy) == 306 && hex_state_size(d, ring, heavy) == 418, "state offsets");
    check(hex_state_size(d, ring, 0) == 66, "state without heavy hitters: the mean only");
}

// Counts one cache by hand.
static void test_total(void) {
    struct hex_params p;
    struct hex_plan   plan;
    hex_params_preset(&p, "compact");
    const struct hex_bytes b = bytes_of(&p, &smollm2, 2048, &plan);
    check(b.base_k == 90ull*2048*26 && b.base_v == 90ull*2048*18, "base bytes");
    check(b.refined == 90ull*(128 + 176)*52, "residual bytes");
    check(b.state == 90ull*546*4, "state bytes");
    check(b.total == b.base_k + b.base_v + b.refined + b.state
          && fabs(b.bits_per_element - 8.0*(double) b.total/(90.0*2048*128)) < 1e-12, "total and bits per element");

    struct hex_shape streams = smollm2;
    streams.n_stream = 3;
    const struct hex_bytes b3 = bytes_of(&p, &streams, 2048, &plan);
    check(b3.total == 3*b.total && fabs(b3.bits_per_element - b.bits_per_element) < 1e-12, "three streams cost three times one");

    p.refine = HEX_REFINE_NONE;
    const struct hex_bytes bare = bytes_of(&p, &smollm2, 2048, &plan);
    check(bare.refined == 0 && bare.state == 90ull*66*4, "no residuals: base codes and means");

    hex_params_preset(&p, "off");
    const struct hex_bytes off = bytes_of(&p, &smollm2, 2048, &plan);
    check(off.total == hex_bytes_stock(&smollm2, 2048, 16.0) && off.bits_per_element == 16.0, "off counts as f16");

    // The backbone kinds are compared at equal bytes.
    uint64_t expander = 0;
    bool     equal = true;
    for (int kind = HEX_BACKBONE_EXPANDER; kind <= HEX_BACKBONE_LOG; kind++) {
        hex_params_preset(&p, "paper");
        p.backbone_kind = (enum hex_backbone) kind;
        const struct hex_bytes k = bytes_of(&p, &smollm2, 2048, &plan);
        expander = expander ? expander : k.total;
        equal    = equal && k.total == expander;
    }
    check(equal, "expander, random, strided and log have equal bytes");
}

static void test_goals(void) {
    static const struct { const char * name; double goal; } goals[] = {
        { "tiny", 2.8 }, { "compact", 3.3 }, { "balanced", 3.8 }, { "quality", 4.3 }, { "paper", INFINITY },
    };
    static const int32_t contexts[] = { 512, 2048, 4096, 8192, 32768 };
    for (size_t i = 0; i < sizeof(goals)/sizeof(*goals); i++) {
        for (size_t j = 0; j < sizeof(contexts)/sizeof(*contexts); j++) {
            struct hex_params p;
            struct hex_plan   plan;
            hex_params_preset(&p, goals[i].name);
            const struct hex_bytes b = bytes_of(&p, &smollm2, contexts[j], &plan);
            // Below 2,048 cells the smallest ring and the means weigh more: 0.03 bits are allowed.
            const double goal = goals[i].goal + (contexts[j] < 2048 ? 0.03 : 0.0);
            check(b.bits_per_element <= goal, "%-8s n_ctx %5d: %.4f bits per element (goal %.2f), %d ring + %d heavy + %d static",
                  goals[i].name, contexts[j], b.bits_per_element, goal, plan.n_ring, plan.n_heavy, plan.n_static);
        }
    }
    // The share is as large as the goal allows: one more slot at 2,048 cells breaks it.
    struct hex_params p;
    struct hex_plan   plan;
    hex_params_preset(&p, "tiny");
    p.heavy += 1.0f/2048;
    check(bytes_of(&p, &smollm2, 2048, &plan).bits_per_element > 2.8, "one heavy slot more would break the goal");
}

int main(void) {
    test_sizes();
    test_state();
    test_total();
    test_goals();
    return check_exit_code();
}
