// Presets, names, validation and the plan.
#include "core/hex_config.h"

#include "check.h"

#include <math.h>
#include <string.h>

static struct hex_params preset(const char * name) {
    struct hex_params p;
    if (!hex_params_preset(&p, name)) {
        check(false, "preset %s exists", name);
    }
    return p;
}

static void test_names(void) {
    enum hex_refine r;
    const enum hex_refine refines[] = { HEX_REFINE_NONE, HEX_REFINE_HEX1, HEX_REFINE_HEX2, HEX_REFINE_HEX3,
                                        HEX_REFINE_HEX4, HEX_REFINE_Q8_0, HEX_REFINE_F16 };
    bool ok = true;
    for (size_t i = 0; i < sizeof(refines)/sizeof(*refines); i++) {
        ok = ok && hex_refine_parse(hex_refine_name(refines[i]), &r) && r == refines[i];
    }
    check(ok, "refine names parse back");

    enum hex_backbone b;
    ok = true;
    for (int k = HEX_BACKBONE_NONE; k <= HEX_BACKBONE_CHANNELS; k++) {
        ok = ok && hex_backbone_parse(hex_backbone_name((enum hex_backbone) k), &b) && (int) b == k;
    }
    check(ok, "backbone names parse back");

    check(!hex_refine_parse("hex5", &r) && !hex_refine_parse("HEX4", &r) && !hex_refine_parse("", &r)
          && !hex_refine_parse(NULL, &r) && !hex_refine_name((enum hex_refine) 5), "unknown refine names are refused");
    check(!hex_backbone_parse("expande", &b) && !hex_backbone_parse(NULL, &b)
          && !hex_backbone_name((enum hex_backbone) 6), "unknown backbone names are refused");
}

static void test_presets(void) {
    static const char * const names[] = { "off", "tiny", "compact", "balanced", "quality", "paper" };
    bool ok = true;
    for (int i = 0; i < 6; i++) {
        ok = ok && hex_preset_name(i) && strcmp(hex_preset_name(i), names[i]) == 0;
    }
    check(ok && !hex_preset_name(6) && !hex_preset_name(-1), "six presets are listed");

    struct hex_params p;
    check(!hex_params_preset(&p, "turbo") && !hex_params_preset(&p, NULL), "unknown presets are refused");

    static const struct hex_params zero;
    p = preset("off");
    check(memcmp(&p, &zero, sizeof(p)) == 0, "off is a zeroed struct");

    for (int i = 1; i < 6; i++) {
        char err[256] = "";
        p = preset(names[i]);
        check(p.enabled && hex_params_validate(&p, err, sizeof(err)), "%s is valid %s", names[i], err);
    }
    p = preset("balanced");
    check(p.base_k == 4 && p.base_v == 2 && p.refine == HEX_REFINE_HEX3 && p.n_sink == 4 && p.n_recent == -1
          && p.n_mean == 256 && p.half_life == 256 && p.seed == 1 && p.unbias == 1.0f && p.backbone == 0.0f
          && p.backbone_kind == HEX_BACKBONE_EXPANDER, "balanced is K4 V2 hex3, no backbone, kind expander");
}

// Spoils one field of a good configuration; the sentence must name field, value, range and remedy.
#define BAD(field, bad_value, ...)                                                                          \
    do {                                                                                                    \
        static const char * const words[] = { #field, __VA_ARGS__ };                                        \
        char              err[256] = "";                                                                    \
        struct hex_params p = preset("balanced");                                                           \
        p.field = bad_value;                                                                                \
        bool ok = !hex_params_validate(&p, err, sizeof(err)) && strstr(err, "use ");                        \
        for (size_t i = 0; i < sizeof(words)/sizeof(*words); i++) {                                         \
            ok = ok && strstr(err, words[i]);                                                               \
        }                                                                                                   \
        struct hex_plan plan;                                                                               \
        check(ok && !hex_plan_make(&plan, &p, 2048, 1, 90, NULL, 0), "refused: %s", err);                    \
    } while (0)

static void test_validation(void) {
    BAD(base_k, 5, "5", "1..4");
    BAD(base_k, 0, "0", "1..4");
    BAD(base_v, -3, "-3", "1..4");
    BAD(refine, (enum hex_refine) 7, "7", "q8_0");
    BAD(backbone_kind, (enum hex_backbone) 99, "99", "expander");
    BAD(n_sink, -1, "-1", "0..");
    BAD(n_recent, -2, "-2", "-1..");
    BAD(heavy, 1.5f, "1.5", "0..1");
    BAD(heavy, -0.25f, "-0.25", "0..1");
    BAD(heavy, NAN, "nan", "0..1");
    BAD(backbone, 2.0f, "2", "0..1");
    BAD(backbone, INFINITY, "inf", "0..1");
    BAD(n_mean, -5, "-5", "0..");
    BAD(half_life, 0, "0", "1..");
    BAD(unbias, -0.5f, "-0.5", "0..1");
    BAD(unbias, NAN, "nan", "0..1");

    struct hex_params p = preset("off");
    p.base_k = 77;
    check(hex_params_validate(&p, NULL, 0), "a disabled cache is not looked at");

    char err[256] = "", tiny[8];
    struct hex_plan plan;
    p = preset("balanced");
    check(!hex_plan_make(&plan, &p, 0, 1, 90, err, sizeof(err)) && strstr(err, "n_ctx = 0"), "refused: %s", err);
    check(!hex_plan_make(&plan, &p, 2048, 0, 90, err, sizeof(err)) && strstr(err, "n_seq = 0"), "refused: %s", err);
    check(!hex_plan_make(&plan, &p, 2048, 1, -1, err, sizeof(err)) && strstr(err, "n_pairs = -1"), "refused: %s", err);
    p.base_k = 9;
    check(!hex_params_validate(&p, tiny, sizeof(tiny)) && strlen(tiny) == sizeof(tiny) - 1, "a short buffer is cut, not overrun");
}

static void test_ring(void) {
    static const struct { int32_t n_ctx, ring; } automatic[] = {
        { 8, 8 }, { 32, 32 }, { 512, 32 }, { 1024, 64 }, { 2048, 128 }, { 4096, 256 }, { 32768, 256 },
    };
    struct hex_plan   plan;
    struct hex_params p = preset("compact");
    for (size_t i = 0; i < sizeof(automatic)/sizeof(*automatic); i++) {
        const bool ok = hex_plan_make(&plan, &p, automatic[i].n_ctx, 1, 90, NULL, 0);
        check(ok && plan.n_ring == automatic[i].ring && plan.n_sink + plan.n_recent == plan.n_ring_seq
              && plan.n_ring_seq == plan.n_ring && plan.n_slots == plan.n_ring + plan.n_heavy,
              "n_ctx %d: %d sinks + %d recent = %d ring slots, %d heavy", automatic[i].n_ctx, plan.n_sink,
              plan.n_recent, plan.n_ring, plan.n_heavy);
    }
    check(hex_plan_make(&plan, &p, 8192, 4, 90, NULL, 0) && plan.n_ring_seq == 128 && plan.n_ring == 512,
          "four sequences share 8192 cells: 4 x 128 = 512 ring slots");
    check(hex_plan_make(&plan, &p, 256, 64, 90, NULL, 0) && plan.n_ring == 256 && plan.n_heavy == 0,
          "64 sequences in 256 cells: everything is ring");

    p.n_sink = 300;
    check(hex_plan_make(&plan, &p, 2048, 1, 90, NULL, 0) && plan.n_recent == 0 && plan.n_ring == 300,
          "more sinks than the automatic ring: no recent tokens");
    p.n_recent = 5000;
    check(hex_plan_make(&plan, &p, 2048, 1, 90, NULL, 0) && plan.n_sink == 300 && plan.n_recent == 1748
          && plan.n_ring == 2048 && plan.n_heavy == 0, "a ring beyond the context is cut, recent tokens first");
    p.n_sink = 5000;
    check(hex_plan_make(&plan, &p, 2048, 1000000, 90, NULL, 0) && plan.n_ring == 2048 && plan.n_recent == 0,
          "sinks beyond the context, a million sequences: no overflow");
    p.n_sink = p.n_recent = 0;
    p.heavy = 1.0f;
    check(hex_plan_make(&plan, &p, 2048, 1, 90, NULL, 0) && plan.n_ring == 0 && plan.n_heavy == 2048,
          "no ring, all heavy");

    p = preset("compact");
    p.heavy = 0.7f;
    check(hex_plan_make(&plan, &p, 1000, 1, 90, NULL, 0) && plan.n_heavy == 700, "0.7 of 1000 is 700, not 699");
    p.heavy = 1.0f;
    check(hex_plan_make(&plan, &p, 1000, 1, 90, NULL, 0) && plan.n_slots == 1000, "heavy hitters take what is left");
    p.refine = HEX_REFINE_NONE;
    p.backbone = 0.1f;
    check(hex_plan_make(&plan, &p, 1000, 1, 90, NULL, 0) && plan.n_slots == 0 && plan.n_ctx == 1000,
          "no residual codec, no slots");
    p = preset("off");
    check(hex_plan_make(&plan, &p, 1000, 1, 90, NULL, 0) && plan.n_slots == 0 && plan.n_ctx == 1000, "off has no slots");
}

static void test_backbone(void) {
    static const struct { float share; int32_t n_pairs, degree; } nearest[] = {
        { 1.0f/15, 90, 6 }, { 0.1f, 90, 9 }, { 0.055f, 90, 5 }, { 0.0112f, 90, 1 }, { 1.0f, 90, 90 }, { 0.6f, 90, 45 },
        { 1.0f/15, 256, 16 }, { 1.0f/15, 384, 24 }, { 1.0f/15, 640, 40 }, { 0.5f, 1, 1 }, { 1.0f/15, 31, 1 },
    };
    struct hex_plan   plan;
    struct hex_params p = preset("paper");
    for (size_t i = 0; i < sizeof(nearest)/sizeof(*nearest); i++) {
        p.backbone = nearest[i].share;
        const bool ok = hex_plan_make(&plan, &p, 2048, 1, nearest[i].n_pairs, NULL, 0);
        check(ok && plan.degree == nearest[i].degree && plan.period * plan.degree == nearest[i].n_pairs
              && (int64_t) plan.n_static * plan.period >= 2048 && (int64_t) (plan.n_static - 1) * plan.period < 2048,
              "share %.3f of %d pairs: degree %d, period %d, %d static slots", (double) nearest[i].share,
              nearest[i].n_pairs, plan.degree, plan.period, plan.n_static);
    }
    char err[256] = "";
    p.backbone = 0.001f;
    check(!hex_plan_make(&plan, &p, 2048, 1, 90, err, sizeof(err)) && strstr(err, "0.001") && strstr(err, "90")
          && strstr(err, "0.0111") && strstr(err, "use ") && plan.n_slots == 0, "refused: %s", err);

    p.backbone_kind = HEX_BACKBONE_NONE;
    check(hex_plan_make(&plan, &p, 2048, 1, 90, NULL, 0) && plan.n_static == 0, "kind none: no static slots");

    p.backbone_kind = HEX_BACKBONE_CHANNELS;
    p.backbone      = 1.0f/15;
    check(hex_plan_make(&plan, &p, 2048, 1, 90, NULL, 0) && plan.degree == 4 && plan.period == 16 && plan.n_static == 128,
          "channels: 4 of every 64, whatever the number of pairs");
    p.backbone = 0.005f;
    check(!hex_plan_make(&plan, &p, 2048, 1, 90, err, sizeof(err)) && strstr(err, "64 channels"), "refused: %s", err);
}

int main(void) {
    test_names();
    test_presets();
    test_validation();
    test_ring();
    test_backbone();
    return check_exit_code();
}
