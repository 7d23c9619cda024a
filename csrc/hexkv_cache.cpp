// Cache settings: the one parser of cache specifications, validation, and the backbone view.
#include "hexkv_impl.h"

#include "core/hex_graph.h"

#include <charconv>
#include <cmath>

using namespace hexkv;

namespace {

const char * const stock_types[] = { "f16", "f32", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl" };

bool is_stock_type(const char * name) {
    for (const char * t : stock_types) {
        if (strcmp(t, name) == 0) {
            return true;
        }
    }
    return false;
}

// Bits of "hex1" to "hex4", 0 for other names.
int hex_bits(const char * name) {
    return strncmp(name, "hex", 3) == 0 && name[3] >= '1' && name[3] <= '4' && name[4] == 0 ? name[3] - '0' : 0;
}

std::string presets_text() {
    std::string all;
    for (int i = 0; const char * name = hex_preset_name(i); i++) {
        all += (i == 0 ? "" : ", ") + std::string(name);
    }
    return all;
}

hexkv_status unknown_type(hexkv_error * e, const char * which, const char * name) {
    return fail(e, HEXKV_ERR_CONFIG,
                "%s '%s' is unknown; use f16, f32, bf16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl or hex1 to hex4", which, name);
}

// A setting by name: where it is and whether it is set.
struct Field {
    const char * name;
    char (hexkv_cache::*text)[16];
    int32_t hexkv_cache::*number;
    float   hexkv_cache::*share;
    int64_t hexkv_cache::*seed;
    int32_t unset; // sentinel of number
};

const Field fields[] = {
    { "type_k",        &hexkv_cache::type_k,        nullptr, nullptr, nullptr, 0 },
    { "type_v",        &hexkv_cache::type_v,        nullptr, nullptr, nullptr, 0 },
    { "refine",        &hexkv_cache::refine,        nullptr, nullptr, nullptr, 0 },
    { "sink",          nullptr, &hexkv_cache::sink,          nullptr, nullptr, -1 },
    { "recent",        nullptr, &hexkv_cache::recent,        nullptr, nullptr, -2 },
    { "heavy",         nullptr, nullptr, &hexkv_cache::heavy,         nullptr, 0 },
    { "backbone",      nullptr, nullptr, &hexkv_cache::backbone,      nullptr, 0 },
    { "backbone_kind", &hexkv_cache::backbone_kind, nullptr, nullptr, nullptr, 0 },
    { "seed",          nullptr, nullptr, nullptr, &hexkv_cache::seed,          0 },
    { "mean",          nullptr, &hexkv_cache::mean,          nullptr, nullptr, -1 },
    { "half_life",     nullptr, &hexkv_cache::half_life,     nullptr, nullptr, -1 },
    { "unbias",        nullptr, nullptr, &hexkv_cache::unbias,        nullptr, 0 },
};

bool is_set(const hexkv_cache & c, const Field & f) {
    return f.text   ? (c.*f.text)[0] != 0
         : f.number ? c.*f.number != f.unset
         : f.share  ? c.*f.share != -1.0f
                    : c.*f.seed != -1;
}

// Parses the whole of text, locale or not.
template <typename T>
bool parse_number(const std::string & text, T * out) {
    const char * end = text.data() + text.size();
    const auto   r   = std::from_chars(text.data(), end, *out);
    return r.ec == std::errc() && r.ptr == end;
}

hexkv_status parse_setting(hexkv_cache & c, const std::string & setting, hexkv_error * e) {
    const size_t      eq    = setting.find('=');
    const std::string key   = setting.substr(0, eq);
    const std::string value = eq == std::string::npos ? "" : setting.substr(eq + 1);
    const Field *     field = nullptr;
    for (const Field & f : fields) {
        if (key == f.name) {
            field = &f;
        }
    }
    if (!field) {
        return fail(e, HEXKV_ERR_CONFIG,
                    "cache setting '%.40s' is unknown; use type_k, type_v, refine, sink, recent, heavy, backbone, "
                    "backbone_kind, seed, mean, half_life or unbias", key.c_str());
    }
    if (is_set(c, *field)) {
        return fail(e, HEXKV_ERR_CONFIG, "cache setting %s is given twice; leave one out", field->name);
    }
    bool ok = !value.empty();
    if (field->text) {
        ok = ok && value.size() < sizeof(c.type_k);
        if (ok) {
            copy(c.*field->text, value.c_str());
        }
    } else if (field->number) {
        // The sentinel itself is not a value.
        ok = ok && parse_number(value, &(c.*field->number)) && is_set(c, *field);
    } else if (field->share) {
        ok = ok && parse_number(value, &(c.*field->share)) && std::isfinite(c.*field->share) && is_set(c, *field);
    } else {
        ok = ok && parse_number(value, &(c.*field->seed)) && is_set(c, *field);
    }
    return ok ? HEXKV_OK
              : fail(e, HEXKV_ERR_CONFIG, "cache setting %s has the bad value '%.40s'; write %s=%s", field->name, value.c_str(),
                     field->name, field->text ? "NAME" : field->share ? "0.05 (a share, 0 to 1)" : "4 (a whole number)");
}

hexkv_status parse(const std::string & spec, hexkv_cache & c, hexkv_error * e) {
    hexkv_cache_init(&c);
    size_t            at   = spec.find(':');
    const std::string head = spec.substr(0, at);
    if (head == "hex") {
        const size_t      begin = at == std::string::npos ? spec.size() : at + 1;
        const size_t      end   = spec.find(':', begin);
        const std::string name  = spec.substr(begin, end == std::string::npos ? end : end - begin);
        hex_params        p;
        if (name.size() >= sizeof(c.preset) || !hex_params_preset(&p, name.c_str())) {
            return fail(e, HEXKV_ERR_CONFIG, "HEX preset '%.40s' is unknown; use one of %s, as in hex:balanced",
                        name.c_str(), presets_text().c_str());
        }
        copy(c.preset, name.c_str());
        at = end;
    } else {
        const size_t      slash = head.find('/');
        const std::string k     = head.substr(0, slash);
        const std::string v     = slash == std::string::npos ? k : head.substr(slash + 1);
        for (const std::string & t : { k, v }) {
            if (!is_stock_type(t.c_str()) && !hex_bits(t.c_str())) {
                return fail(e, HEXKV_ERR_CONFIG,
                            "cache '%.60s' is unknown; use a type (f16, q8_0, q4_0, hex1 to hex4, ...), K/V as in "
                            "q8_0/q4_0, or hex:PRESET with a preset of %s", spec.c_str(), presets_text().c_str());
            }
        }
        copy(c.type_k, k.c_str());
        copy(c.type_v, v.c_str());
    }
    while (at != std::string::npos) {
        const size_t end = spec.find(':', at + 1);
        const hexkv_status s = parse_setting(c, spec.substr(at + 1, end == std::string::npos ? end : end - at - 1), e);
        if (s != HEXKV_OK) {
            return s;
        }
        at = end;
    }
    return hexkv_cache_check(&c, e);
}

// The shortest text that reads back as x.
std::string float_text(float x) {
    char text[32];
    const auto r = std::to_chars(text, text + sizeof(text), x);
    return std::string(text, r.ptr);
}

bool terminated(const hexkv_cache & c) {
    for (const Field & f : fields) {
        if (f.text && !memchr(c.*f.text, 0, sizeof(c.*f.text))) {
            return false;
        }
    }
    return memchr(c.preset, 0, sizeof(c.preset)) != nullptr;
}

} // namespace

namespace hexkv {

bool cache_is_hex(const hexkv_cache & c) { return c.preset[0] && strcmp(c.preset, "off") != 0; }

// A struct that was zeroed, names at most, has no number set: as zeros they would contradict each other (half_life).
hexkv_cache cache_or_default(const hexkv_cache & c) {
    const hexkv_cache zero    = {};
    hexkv_cache       numbers = c, d;
    hexkv_cache_init(&d);
    for (const Field & f : fields) {
        if (f.text) {
            memcpy(numbers.*f.text, zero.*f.text, sizeof(zero.*f.text));
            memcpy(d.*f.text, c.*f.text, sizeof(c.*f.text));
        }
    }
    memcpy(numbers.preset, zero.preset, sizeof(zero.preset));
    memcpy(d.preset, c.preset, sizeof(c.preset));
    return memcmp(&numbers, &zero, sizeof(zero)) == 0 ? d : c;
}

hexkv_status cache_resolve(const hexkv_cache & given, hex_params * p, std::string * type_k, std::string * type_v,
                           hexkv_error * e) {
    const hexkv_cache c = cache_or_default(given);
    if (!terminated(c)) {
        return fail(e, HEXKV_ERR_CONFIG, "a name in the cache settings is longer than 15 bytes; use the names of hexkv.h");
    }
    if (!hex_params_preset(p, c.preset[0] ? c.preset : "off")) {
        return fail(e, HEXKV_ERR_CONFIG, "HEX preset '%s' is unknown; use one of %s", c.preset, presets_text().c_str());
    }
    *type_k = c.type_k[0] ? c.type_k : "f16";
    *type_v = c.type_v[0] ? c.type_v : "f16";
    for (const auto & t : { std::make_pair("cache type of K", type_k), std::make_pair("cache type of V", type_v) }) {
        if (!is_stock_type(t.second->c_str()) && !hex_bits(t.second->c_str())) {
            return unknown_type(e, t.first, t.second->c_str());
        }
    }
    if (!p->enabled) {
        for (const Field & f : fields) {
            if (is_set(c, f) && strncmp(f.name, "type_", 5) != 0) {
                return fail(e, HEXKV_ERR_CONFIG,
                            "%s is set but HEX is off; choose a preset such as balanced, or leave %s out", f.name, f.name);
            }
        }
        return HEXKV_OK;
    }
    for (const auto & t : { std::make_pair("K", c.type_k), std::make_pair("V", c.type_v) }) {
        if (t.second[0] && !hex_bits(t.second)) {
            return fail(e, HEXKV_ERR_CONFIG,
                        "preset %s stores %s in hex1 to hex4, but its cache type is set to %s; use hex1 to hex4, or preset off",
                        c.preset, t.first, t.second);
        }
    }
    p->base_k = c.type_k[0] ? hex_bits(c.type_k) : p->base_k;
    p->base_v = c.type_v[0] ? hex_bits(c.type_v) : p->base_v;
    *type_k   = "hex" + std::to_string(p->base_k);
    *type_v   = "hex" + std::to_string(p->base_v);
    if (c.refine[0] && !hex_refine_parse(c.refine, &p->refine)) {
        return fail(e, HEXKV_ERR_CONFIG, "refine '%s' is unknown; use none, hex1 to hex4, q8_0 or f16", c.refine);
    }
    if (c.backbone_kind[0] && !hex_backbone_parse(c.backbone_kind, &p->backbone_kind)) {
        return fail(e, HEXKV_ERR_CONFIG, "backbone_kind '%s' is unknown; use none, expander, random, strided, log or channels",
                    c.backbone_kind);
    }
    if (c.seed < -1 || c.seed > UINT32_MAX) {
        return fail(e, HEXKV_ERR_CONFIG, "seed %lld is out of range; use 0 to 4294967295", static_cast<long long>(c.seed));
    }
    p->n_sink    = c.sink      == -1    ? p->n_sink    : c.sink;
    p->n_recent  = c.recent    == -2    ? p->n_recent  : c.recent;
    p->heavy     = c.heavy     == -1.0f ? p->heavy     : c.heavy;
    p->backbone  = c.backbone  == -1.0f ? p->backbone  : c.backbone;
    p->seed      = c.seed      == -1    ? p->seed      : static_cast<uint32_t>(c.seed);
    p->n_mean    = c.mean      == -1    ? p->n_mean    : c.mean;
    p->half_life = c.half_life == -1    ? p->half_life : c.half_life;
    p->unbias    = c.unbias    == -1.0f ? p->unbias    : c.unbias;

    if (p->refine == HEX_REFINE_NONE) {
        for (const char * name : { "sink", "recent", "heavy", "backbone" }) {
            for (const Field & f : fields) {
                const bool positive = f.number ? c.*f.number > 0 : f.share && c.*f.share > 0;
                if (strcmp(f.name, name) == 0 && is_set(c, f) && positive) {
                    return fail(e, HEXKV_ERR_CONFIG,
                                "%s is set but refine is none, so nothing is refined; leave one of them out", name);
                }
            }
        }
    }
    if (p->backbone_kind == HEX_BACKBONE_NONE && c.backbone > 0) {
        return fail(e, HEXKV_ERR_CONFIG, "backbone = %g is set but backbone_kind is none; leave one of them out",
                    static_cast<double>(c.backbone));
    }
    char text[512];
    if (!hex_params_validate(p, text, sizeof(text))) {
        return fail(e, HEXKV_ERR_CONFIG, "%s", text);
    }
    return HEXKV_OK;
}

} // namespace hexkv

void hexkv_cache_init(hexkv_cache * out) {
    *out           = {};
    out->sink      = -1;
    out->recent    = -2;
    out->heavy     = -1;
    out->backbone  = -1;
    out->seed      = -1;
    out->mean      = -1;
    out->half_life = -1;
    out->unbias    = -1;
}

const char * hexkv_preset_name(int i) { return hex_preset_name(i); }

hexkv_status hexkv_cache_parse(const char * spec, hexkv_cache * out, hexkv_error * e) {
    return guard(e, [&] {
        if (!spec || !out) {
            return fail(e, HEXKV_ERR_INVALID, "hexkv_cache_parse: NULL argument");
        }
        if (strlen(spec) > 400) {
            return fail(e, HEXKV_ERR_CONFIG, "cache specification is longer than 400 bytes; write for example hex:balanced");
        }
        return parse(spec, *out, e);
    });
}

hexkv_status hexkv_cache_check(const hexkv_cache * c, hexkv_error * e) {
    return guard(e, [&] {
        hex_params  p;
        std::string k, v;
        return c ? cache_resolve(*c, &p, &k, &v, e) : fail(e, HEXKV_ERR_INVALID, "hexkv_cache_check: NULL argument");
    });
}

hexkv_status hexkv_cache_format(const hexkv_cache * given, char * spec, size_t cap) {
    return guard(nullptr, [&] {
        if (!given || !spec) {
            return HEXKV_ERR_INVALID;
        }
        const hexkv_cache c = cache_or_default(*given);
        if (!terminated(c)) {
            return HEXKV_ERR_CONFIG;
        }
        const std::string k = c.type_k[0] ? c.type_k : "f16", v = c.type_v[0] ? c.type_v : "f16";
        std::string       s = "hex:" + std::string(c.preset);
        if (!c.preset[0] || (!cache_is_hex(c) && (c.type_k[0] || c.type_v[0]))) {
            s = k == v ? k : k + "/" + v;
        }
        for (const Field & f : fields) {
            if (!is_set(c, f) || (!cache_is_hex(c) && strncmp(f.name, "type_", 5) == 0)) {
                continue;
            }
            s += std::string(":") + f.name + "=" +
                 (f.text   ? std::string(c.*f.text)
                : f.number ? std::to_string(c.*f.number)
                : f.share  ? float_text(c.*f.share)
                           : std::to_string(c.*f.seed));
        }
        if (s.size() >= cap) {
            return HEXKV_ERR_INVALID;
        }
        memcpy(spec, s.c_str(), s.size() + 1);
        return HEXKV_OK;
    });
}

// ---- backbone

hexkv_status hexkv_backbone_make(const char * kind, uint32_t seed, int32_t n_pairs, int32_t degree, int32_t n_cells,
                                 hexkv_backbone * out, hexkv_error * e) {
    return guard(e, [&] {
        hex_backbone k;
        if (!kind || !out || !hex_backbone_parse(kind, &k)) {
            return fail(e, HEXKV_ERR_CONFIG,
                        "backbone_kind '%.40s' is unknown; use none, expander, random, strided, log or channels",
                        kind ? kind : "");
        }
        hex_graph       g    = {};
        hex_certificate cert = {};
        char            text[512];
        if (!hex_graph_make(&g, k, seed, n_pairs, degree, n_cells, &cert, text, sizeof(text))) {
            return fail(e, HEXKV_ERR_CONFIG, "%s", text);
        }
        *out = { g.kind, g.n_pairs, g.degree, g.period, g.n_cells, g.seed, cert.sigma2, cert.ramanujan, cert.factor };
        return HEXKV_OK;
    });
}

int32_t hexkv_backbone_cell(const hexkv_backbone * b, int32_t pair, int32_t slot) {
    if (!b) {
        return -1;
    }
    const hex_graph g = { b->kind, b->seed, b->n_pairs, b->degree, b->period, b->n_cells };
    return hex_graph_valid(&g) ? hex_graph_cell(&g, pair, slot) : -1;
}
