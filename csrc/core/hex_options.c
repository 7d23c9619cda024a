#include "hex_options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPT_PRESET, OPT_REFINE, OPT_SINK, OPT_RECENT, OPT_HEAVY, OPT_BACKBONE, OPT_BACKBONE_KIND, OPT_SEED, OPT_MEAN, OPT_HALF_LIFE, OPT_UNBIAS, OPT_COUNT };

static const char * const names[OPT_COUNT] = {
    [OPT_PRESET]        = "hex",
    [OPT_REFINE]        = "hex-refine",
    [OPT_SINK]          = "hex-sink",
    [OPT_RECENT]        = "hex-recent",
    [OPT_HEAVY]         = "hex-heavy",
    [OPT_BACKBONE]      = "hex-backbone",
    [OPT_BACKBONE_KIND] = "hex-backbone-kind",
    [OPT_SEED]          = "hex-seed",
    [OPT_MEAN]          = "hex-mean",
    [OPT_HALF_LIFE]     = "hex-half-life",
    [OPT_UNBIAS]        = "hex-unbias",
};

const char * hex_option_name(int i) {
    return i >= 0 && i < OPT_COUNT ? names[i] : NULL;
}

static bool parse_int(const char * s, int64_t lo, int64_t hi, int64_t * out) {
    char * end;
    errno = 0;
    const long long v = strtoll(s, &end, 10);
    *out = v;
    return errno == 0 && end != s && *end == '\0' && v >= lo && v <= hi;
}

static bool parse_share(const char * s, float * out) {
    char * end;
    errno = 0;
    *out = strtof(s, &end);
    return errno == 0 && end != s && *end == '\0' && *out >= 0 && *out <= 1;
}

bool hex_options_set(struct hex_options * o, const char * name, const char * value, char * err, size_t err_size) {
    int opt = 0;
    while (opt < OPT_COUNT && strcmp(name, names[opt]) != 0) {
        opt++;
    }
    struct hex_params preset;
    const char * allowed = NULL;
    int64_t n = 0;

    switch (opt) {
        case OPT_PRESET:
            if (!hex_params_preset(&preset, value)) {
                allowed = "a preset: off, tiny, compact, balanced, quality or paper";
            } else {
                snprintf(o->preset, sizeof(o->preset), "%s", value);
            }
            break;
        case OPT_REFINE:
            allowed = hex_refine_parse(value, &o->values.refine) ? NULL : "none, hex1, hex2, hex3, hex4, q8_0 or f16";
            break;
        case OPT_SINK:
            allowed = parse_int(value, 0, 65536, &n) ? NULL : "a number of tokens, 0 to 65536";
            o->values.n_sink = (int32_t) n;
            break;
        case OPT_RECENT:
            allowed = parse_int(value, -1, 1 << 24, &n) ? NULL : "a number of tokens, or -1 to derive it from the context";
            o->values.n_recent = (int32_t) n;
            break;
        case OPT_HEAVY:
            allowed = parse_share(value, &o->values.heavy) ? NULL : "a share of the context, 0 to 1";
            break;
        case OPT_BACKBONE:
            allowed = parse_share(value, &o->values.backbone) ? NULL : "a share of the context, 0 to 1";
            break;
        case OPT_BACKBONE_KIND:
            allowed = hex_backbone_parse(value, &o->values.backbone_kind) ? NULL : "expander, random, strided, log, channels or none";
            break;
        case OPT_SEED:
            allowed = parse_int(value, 0, UINT32_MAX, &n) ? NULL : "a number from 0 to 4294967295";
            o->values.seed = (uint32_t) n;
            break;
        case OPT_MEAN:
            allowed = parse_int(value, 0, 1 << 24, &n) ? NULL : "a number of rows, 0 for no centring";
            o->values.n_mean = (int32_t) n;
            break;
        case OPT_HALF_LIFE:
            allowed = parse_int(value, 1, 1 << 24, &n) ? NULL : "a number of queries, 1 to 16777216";
            o->values.half_life = (int32_t) n;
            break;
        case OPT_UNBIAS:
            allowed = parse_share(value, &o->values.unbias) ? NULL : "a share, 0 to 1";
            break;
        default:
            snprintf(err, err_size, "%s is no HEX option", name);
            return false;
    }
    if (allowed) {
        snprintf(err, err_size, "--%s %s: use %s", name, value, allowed);
        return false;
    }
    o->set |= 1u << opt;
    return true;
}

bool hex_options_resolve(const struct hex_options * o, struct hex_params * out, char * err, size_t err_size) {
    memset(out, 0, sizeof(*out));
    if (o->preset[0]) {
        hex_params_preset(out, o->preset);
    }
    for (int opt = OPT_PRESET + 1; opt < OPT_COUNT; opt++) {
        if (!(o->set >> opt & 1)) {
            continue;
        }
        if (!out->enabled) {
            snprintf(err, err_size, "--%s has no effect without a HEX cache; add --hex PRESET (balanced, for example)", names[opt]);
            return false;
        }
        switch (opt) {
            case OPT_REFINE:        out->refine        = o->values.refine;        break;
            case OPT_SINK:          out->n_sink        = o->values.n_sink;        break;
            case OPT_RECENT:        out->n_recent      = o->values.n_recent;      break;
            case OPT_HEAVY:         out->heavy         = o->values.heavy;         break;
            case OPT_BACKBONE:      out->backbone      = o->values.backbone;      break;
            case OPT_BACKBONE_KIND: out->backbone_kind = o->values.backbone_kind; break;
            case OPT_SEED:          out->seed          = o->values.seed;          break;
            case OPT_MEAN:          out->n_mean        = o->values.n_mean;        break;
            case OPT_HALF_LIFE:     out->half_life     = o->values.half_life;     break;
            case OPT_UNBIAS:        out->unbias        = o->values.unbias;        break;
        }
    }
    return hex_params_validate(out, err, err_size);
}
