#include "options.h"

#include "cpu/hex_isa.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

static const char * const usage =
    "usage: hexkv-bench [flags]\n"
    "\n"
    "Attention over stock and HEX caches, and the storing of a ubatch, measured in turns on the CPU.\n"
    "\n"
    "  -t LIST        numbers of threads (default 1,2)\n"
    "  --ops LIST     decode, prefill, decode_batch, commit (default: all)\n"
    "  --caches LIST  f16, q8_0, q4_0, hex:tiny, hex:compact, hex:balanced, hex:quality\n"
    "                 (default f16,q8_0,q4_0,hex:balanced,hex:tiny; f16 always runs)\n"
    "  --cells LIST   cells of the cache instead of those of the shapes, as in 1024,8192,131072\n"
    "  --isa ISA      path of the HEX kernels: ref, avx2, avx512 (default: HEXKV_ISA, or the best of this CPU)\n"
    "  -r N           rounds of each measurement (default: as many as fit in a few seconds)\n"
    "  -o FORMAT      md, json, csv (default md)\n"
    "  --quick        few rounds, prefill with 64 queries instead of 512: within 40 seconds with -t 1,\n"
    "                 and as long again for each other number of threads\n"
    "  --warm         do not read other memory between two runs\n"
    "  --check        compare results instead of measuring: fast path, reference and stock op; exit code 1 if one is wrong\n"
    "  -h             this text\n"
    "\n"
    "test/bench/README.md explains the columns.\n";

[[noreturn]] __attribute__((format(printf, 1, 2))) static void refuse(const char * format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "hexkv-bench: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(2);
}

static std::vector<std::string> split(const std::string & list) {
    std::vector<std::string> parts(1);
    for (char ch : list) {
        if (ch == ',') {
            parts.emplace_back();
        } else {
            parts.back() += ch;
        }
    }
    return parts;
}

static int number(const std::string & text, int hi, const char * flag, const char * remedy) {
    char * end = nullptr;
    const long x = strtol(text.c_str(), &end, 10);
    if (text.empty() || *end || x < 1 || x > hi) {
        refuse("%s '%s' is not a number from 1 to %d; %s.", flag, text.c_str(), hi, remedy);
    }
    return (int) x;
}

static void set_isa(const std::string & name) {
    for (enum hex_isa isa : { HEX_ISA_REF, HEX_ISA_AVX2, HEX_ISA_AVX512 }) {
        if (name == hex_isa_name(isa)) {
            if (isa > hex_isa_best()) {
                refuse("This CPU has no %s; use --isa %s.", name.c_str(), hex_isa_name(hex_isa_best()));
            }
            hex_isa_set(isa);
            return;
        }
    }
    refuse("--isa '%s' is unknown; use ref, avx2 or avx512.", name.c_str());
}

static bool contains(const std::vector<std::string> & list, const std::string & x) {
    return std::find(list.begin(), list.end(), x) != list.end();
}

bool options::has(const char * op) const { return contains(ops, op); }

options parse_options(int argc, char ** argv) {
    options o;
    std::string caches = "f16,q8_0,q4_0,hex:balanced,hex:tiny";
    const std::vector<std::string> all_ops = o.ops;

    for (int i = 1; i < argc; i++) {
        const std::string flag = argv[i];
        if (flag == "-h" || flag == "--help") {
            fputs(usage, stdout);
            exit(0);
        } else if (flag == "--quick") {
            o.quick = true;
            continue;
        } else if (flag == "--warm") {
            o.warm = true;
            continue;
        } else if (flag == "--check") {
            o.check = true;
            continue;
        }
        const std::vector<std::string> with_value = { "-t", "--ops", "--caches", "--cells", "--isa", "-r", "-o" };
        if (!contains(with_value, flag)) {
            refuse("'%s' is not a flag; hexkv-bench -h lists them.", flag.c_str());
        }
        if (++i == argc) {
            refuse("%s needs a value; hexkv-bench -h lists them.", flag.c_str());
        }
        const std::string value = argv[i];
        if (flag == "-t") {
            o.threads.clear();
            for (const auto & t : split(value)) {
                o.threads.push_back(number(t, 512, "-t", "give numbers of threads, as in -t 1,2"));
            }
        } else if (flag == "--ops") {
            o.ops = split(value);
            for (const auto & op : o.ops) {
                if (!contains(all_ops, op)) {
                    refuse("--ops '%s' is unknown; use decode, prefill, decode_batch, commit, or several with commas.",
                           op.c_str());
                }
            }
        } else if (flag == "--caches") {
            caches = value;
        } else if (flag == "--cells") {
            for (const auto & n : split(value)) {
                o.cells.push_back(number(n, 1 << 20, "--cells", "give numbers of cells, as in --cells 1024,8192"));
                if (o.cells.back() < 768) {
                    refuse("--cells %d is too few for the ubatch of a prefill and its cache; use 768 or more.", o.cells.back());
                }
            }
        } else if (flag == "--isa") {
            set_isa(value);
        } else if (flag == "-r") {
            o.rounds = number(value, 10000, "-r", "leave it out for a default");
        } else {
            if (value != "md" && value != "json" && value != "csv") {
                refuse("-o '%s' is unknown; use md, json or csv.", value.c_str());
            }
            o.output = value;
        }
    }

    cache_type c;
    cache_type_find("f16", c);
    o.caches.push_back(c);
    for (const auto & name : split(caches)) {
        if (!cache_type_find(name, c)) {
            refuse("--caches '%s' is unknown; use f16, q8_0, q4_0, hex:tiny, hex:compact, hex:balanced or hex:quality.",
                   name.c_str());
        }
        const auto same = [&](const cache_type & other) { return other.name == c.name; };
        if (std::none_of(o.caches.begin(), o.caches.end(), same)) {
            o.caches.push_back(c);
        }
    }
    const auto is_hex = [](const cache_type & type) { return type.hex.enabled; };
    if (o.check && std::none_of(o.caches.begin(), o.caches.end(), is_hex)) {
        refuse("--check has no HEX cache to check; add hex:balanced to --caches.");
    }
    return o;
}
