#include "report.h"

#include <cstdarg>
#include <cstdio>

__attribute__((format(printf, 1, 2))) static std::string text(const char * format, ...) {
    char buf[256];
    va_list args;
    va_start(args, format);
    vsnprintf(buf, sizeof(buf), format, args);
    va_end(args);
    return buf;
}

// A field of JSON and CSV.
struct field {
    const char * name;
    std::string  value; // "": none
    bool         quoted;
};

static std::vector<field> fields(const row & r) {
    const struct shape & s = r.shape;
    const bool decode = r.bytes > 0;
    return {
        { "op",                r.op,                      true  },
        { "n_q",               text("%d", s.n_q()),       false },
        { "n_stream",          text("%d", s.n_stream),    false },
        { "n_kv",              text("%d", s.n_kv),        false },
        { "head_dim",          text("%d", s.head),        false },
        { "kv_heads",          text("%d", s.n_head_kv),   false },
        { "group",             text("%d", s.group),       false },
        { "cache",             r.cache,                   true  },
        { "isa",               r.isa,                     true  },
        { "threads",           text("%d", r.threads),     false },
        { "rounds",            text("%d", r.rounds),      false },
        { "ms",                text("%.6g", r.ms),        false },
        { "ms_median",         text("%.6g", r.ms_median), false },
        { "ms_f16",            text("%.6g", r.ms_f16),    false },
        { "ratio_to_f16",      text("%.4f", r.ms/r.ms_f16), false },
        { "ratio_with_commit", r.with_commit > 0 ? text("%.4f", r.with_commit) : "", false },
        { "bytes",             decode ? text("%zu", r.bytes) : "",      false },
        { "gb_per_s",          decode ? text("%.4g", r.gb_per_s) : "",  false },
        { "bandwidth_share",   decode ? text("%.4f", r.share) : "",     false },
    };
}

report::report(const std::string & format, const std::map<int, double> & gb_per_s) : format(format) {
    if (format == "md") {
        for (auto [threads, gb] : gb_per_s) {
            printf("memory read by %d thread%s: %.1f GB/s\n", threads, threads == 1 ? "" : "s", gb);
        }
        printf("\n| op | queries | cells | D | KV heads | group | cache | isa | threads | ms | median | of f16 | with commit "
               "| GB/s | of memory |\n|---|--:|--:|--:|--:|--:|---|---|--:|--:|--:|--:|--:|--:|--:|\n");
    } else if (format == "csv") {
        const char * comma = "";
        for (const field & f : fields({})) {
            printf("%s%s", comma, f.name);
            comma = ",";
        }
        printf("\n");
    }
    fflush(stdout);
}

static void print_md(const row & r) {
    const struct shape & s = r.shape;
    const std::string streams = s.n_stream > 1 ? text("%d x ", s.n_stream) : "";
    printf("| %s | %d | %s%d | %d | %d | %d | %s | %s | %d | %.4g | %.4g | %.2f | %s | %s | %s |\n",
           r.op.c_str(), s.n_q(), streams.c_str(), s.n_kv, s.head, s.n_head_kv, s.group, r.cache.c_str(), r.isa.c_str(),
           r.threads, r.ms, r.ms_median, r.ms/r.ms_f16, r.with_commit > 0 ? text("%.2f", r.with_commit).c_str() : "",
           r.bytes ? text("%.1f", r.gb_per_s).c_str() : "", r.bytes ? text("%.0f %%", 100*r.share).c_str() : "");
}

static void print_fields(const row & r, bool json) {
    const char * comma = "";
    for (const field & f : fields(r)) {
        const char * quote = json && f.quoted ? "\"" : "";
        const std::string name = json ? text("\"%s\": ", f.name) : "";
        printf("%s%s%s%s%s", comma, name.c_str(), quote, json && f.value.empty() ? "null" : f.value.c_str(), quote);
        comma = json ? ", " : ",";
    }
}

void report::add(const row & r) {
    if (format == "md") {
        print_md(r);
    } else if (format == "json") {
        printf(n_rows ? ",\n{" : "[\n{");
        print_fields(r, true);
        printf("}");
    } else {
        print_fields(r, false);
        printf("\n");
    }
    fflush(stdout);
    n_rows++;
}

void report::end() {
    if (format == "json") {
        printf("\n]\n");
    }
}
