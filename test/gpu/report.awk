# Reads what the programs of run.sh print (what=ops, logits, perf, bench, ...) and writes JSON, an array on one line; and the
# tables of report.json (what=markdown). For any awk: no arrays of arrays, no sorting functions.

function number(s, k) { return match(s, "[(,]" k "=[0-9]+") ? substr(s, RSTART + length(k) + 2, RLENGTH - length(k) - 2) + 0 : 0 }
# value of a key in a JSON object without nesting
function field(s, k,    v) {
    if (!match(s, "\"" k "\": *(\"[^\"]*\"|[^,}\\]]*)")) return ""
    v = substr(s, RSTART + length(k) + 3, RLENGTH - length(k) - 3)
    sub(/^ */, "", v)
    gsub(/^"|"$/, "", v)
    return v
}
function show(x) { return x == "" || x == "null" ? "-" : x }
# sorts v[k, 1..n]; the median is v[k, int((n + 1)/2)]
function order(k, n,    a, b, t) {
    for (a = 1; a < n; a++) for (b = a + 1; b <= n; b++) if (v[k, b] < v[k, a]) { t = v[k, a]; v[k, a] = v[k, b]; v[k, b] = t }
}
function median(k, n) { return v[k, int((n + 1)/2)] }

# ---- test-backend-ops test

what == "ops" || what == "sanitize" {
    if (/not supported/) n_refused++
    if (/[0-9]+\/[0-9]+ tests passed/) { split($1, a, "/"); n_passed += a[1]; n_run += a[2] }
    if (/ERROR SUMMARY|RACECHECK SUMMARY/) { summary = $0; sub(/^=+ */, "", summary) }
}

# ---- llama-perplexity --kl-divergence

what == "logits" && /Mean +KLD:/ { kl = $3 }
what == "logits" && /Same top p:/ { top = $4 }

# ---- clocks, power, temperature, memory of the GPU in use

what == "samples" && $1 + 0 > 0 {
    n_samples++
    for (i = 1; i <= 5; i++) v[i, n_samples] = $i + 0
}

# ---- test-backend-ops perf: "op(parameters) us"

function shape(s) { return number(s, "kv") " " number(s, "nb") " " (s ~ /^FLASH/ ? number(s, "nh")/8 : number(s, "ns")) } # stock attention of N sequences is measured as 8*N heads
function bits(s, k) { return match(s, k "=hex[1-4]") ? substr(s, RSTART + RLENGTH - 1, 1) + 0 : 0 }
# bytes that one attention has to read
function bytes_of(s,    d, kv, nh, nb, ns, b, r) {
    kv = number(s, "kv"); nh = number(s, "nh"); nb = number(s, "nb")
    if (s ~ /^FLASH/) {
        d = number(s, "hsk") + number(s, "hsv")
        b = s ~ /type_K=f16/ ? 2 : s ~ /type_K=q8_0/ ? 34/32 : 18/32
        return kv*nh*d*b + 2*kv*nb
    }
    ns = number(s, "ns"); d = number(s, "hsk")/64; r = number(s, "refine")
    b = d*(8*bits(s, "type_k") + 2) + d*(8*bits(s, "type_v") + 2)
    return ns*(nh*(kv*b + (r >= 1 && r <= 4 ? (number(s, "n_ring") + number(s, "n_heavy"))*2*d*(8*r + 2) : 0)) + 2*kv*nb)
}
what == "perf" && NF == 2 {
    if (!($1 in n)) at[++m] = $1
    ops = number($1, "ops") # a chain of so many (test/ops/backend_ops_hex.h)
    v[$1, ++n[$1]] = sprintf("%.2f", $2/(ops ? ops : 1)) + 0
}

# ---- llama-bench -o jsonl: "cache depth test tokens-per-second"

what == "bench_lines" { printf "%s %d %s %.3f\n", cache, field($0, "n_depth"), field($0, "n_prompt") + 0 ? "prefill" : "decode", field($0, "avg_ts") }
what == "bench" && NF == 4 {
    k = $1 " " $2 " " $3
    if (!(k in n)) at[++m] = k
    v[k, ++n[k]] = $4 + 0
}

# ---- memory: samples of the GPU, then the log of llama-bench -v. The context of the greatest depth is the largest.

what == "memory" && FNR == NR && $1 + 0 > 0 { if ($5 + 0 > peak) peak = $5 + 0 }
what == "memory" && /CUDA[0-9]* +model buffer size *= */ { mb = $0; sub(/.*= */, "", mb); model_mib += mb }
what == "memory" && /CUDA[0-9]* +KV buffer size *= */ { mb = $0; sub(/.*= */, "", mb); kv_mib = mb + 0; if (kv_mib > kv_most) kv_most = kv_mib }
what == "memory" && /: KV cache [0-9.]* MiB, / { mb = $0; sub(/.*: KV cache /, "", mb); if (mb + 0 > kv_most) kv_most = mb + 0 } # with the tier
what == "memory" && /CUDA[0-9]* +compute buffer size *= */ { mb = $0; sub(/.*= */, "", mb); if (mb + 0 > compute_most) compute_most = mb + 0 }
what == "memory_rows" { rows = rows (rows == "" ? "" : ", ") $0 }

# ---- tables

what == "markdown" { all = all $0 "\n" }
# the objects of an array of the report
function objects(name, out,    s, n) {
    split("", out)
    if (!match(all, "\n *\"" name "\": \\[[^\n]*")) return 0
    s = substr(all, RSTART, RLENGTH)
    sub(/^[^\[]*\[/, "", s)
    n = split(s, out, /\}, *\{/)
    return s ~ /\{/ ? n : 0
}
function line(name,    s) {
    if (!match(all, "\n *\"" name "\": [^\n]*")) return ""
    s = substr(all, RSTART + 1, RLENGTH - 1)
    return s
}
function goal(text, have, ok) { printf "| %s | %s | %s |\n", text, have, ok ? "yes" : "**no**" }
function no_goal(text, why) { printf "| %s | - | not judged: %s |\n", text, why }

END {
    if (what == "ops") {
        printf "{\"op\": \"%s\", \"passed\": %d, \"failed\": %d, \"not_supported\": %d, \"exit_code\": %d}", op, n_passed, n_run - n_passed, n_refused, status
    } else if (what == "sanitize") {
        if (status == 124 || status == 137) summary = "cut off before its end" (summary == "" ? "" : "; " summary)
        gsub(/"/, "", summary)
        printf "{\"tool\": \"%s\", \"passed\": %d, \"failed\": %d, \"exit_code\": %d, \"summary\": \"%s\"}", tool, n_passed, n_run - n_passed, status, summary == "" ? "no summary" : summary
    } else if (what == "logits") {
        # README.md, "Limits of the logits"
        if (kl == "" || top == "" || kl !~ /^[0-9.e+-]+$/ || top !~ /^[0-9.]+$/) verdict = "no figures"
        else if (cache == "off") verdict = kl + 0 > 0.02 ? "KL above 0.02" : top + 0 < 85 ? "same top-1 below 85 %" : "ok"
        else {
            split(floor, f, " ")
            most = 10*f[1] > 0.05 ? 0.05 : 10*f[1] > 0.002 ? 10*f[1] : 0.002
            least = f[2] != "" && f[2] - 3 < 95 ? f[2] - 3 : 95
            verdict = f[2] == "" ? "nothing to compare with: f16 failed" : kl + 0 > most ? "KL above " most : top + 0 < least ? "same top-1 below " least " %" : "ok"
        }
        printf "{\"model\": \"%s\", \"cache\": \"%s\", \"ubatch\": %d, \"kl_mean\": %s, \"same_top1_percent\": %s, \"verdict\": \"%s\"}", model, cache, ub,
            kl ~ /^[0-9.e+-]+$/ ? kl : "null", top ~ /^[0-9.]+$/ ? top : "null", verdict
    } else if (what == "samples") {
        if (n_samples == 0) exit
        split("sm_mhz mem_mhz power_w temperature_c memory_mib", name, " ")
        printf "[{\"samples\": %d", n_samples
        for (i = 1; i <= 5; i++) { order(i, n_samples); printf ", \"%s_least\": %s, \"%s_median\": %s, \"%s_most\": %s", name[i], v[i, 1], name[i], median(i, n_samples), name[i], v[i, n_samples] }
        printf "}]\n"
    } else if (what == "perf") {
        gb = field(bandwidth, "measured_gb_s"); l2 = field(bandwidth, "l2_bytes") + 0
        for (i = 1; i <= m; i++) {
            k = at[i]
            order(k, n[k])
            if (match(k, /type_K=(f16|q8_0|q4_0)/)) stock[substr(k, RSTART + 7, RLENGTH - 7), shape(k)] = median(k, n[k])
            if (k ~ /^HEX_ATTN/) attn[shape(k)] = median(k, n[k])
        }
        printf "["
        for (i = 1; i <= m; i++) {
            k = at[i]; us = median(k, n[k]); s = shape(k); b = k !~ /COMMIT/ && number(k, "nb") == 1 ? bytes_of(k) : ""
            printf "%s{\"op\": \"%s\", \"us_median\": %s, \"us_min\": %s, \"us_max\": %s, \"rounds\": %d", (i > 1 ? ", " : ""), k, us, v[k, 1], v[k, n[k]], n[k]
            split("f16 q8_0 q4_0", name, " ")
            for (j = 1; j <= 3; j++) printf ", \"times_faster_than_%s\": %s", name[j], (k !~ /COMMIT/ && us > 0 && (name[j], s) in stock ? sprintf("%.3f", stock[name[j], s]/us) : "null")
            printf ", \"bytes\": %s, \"gb_per_s\": %s, \"share_of_bandwidth\": %s, \"may_sit_in_l2\": %s, \"share_of_attention\": %s}",
                b == "" ? "null" : sprintf("%.0f", b), b == "" ? "null" : sprintf("%.1f", b/us/1000), b == "" || gb == "" ? "null" : sprintf("%.3f", b/us/1000/gb),
                b == "" ? "null" : b*(number(k, "caches") ? number(k, "caches") : 1) < 2*(l2 > 0 ? l2 : 64e6) ? "true" : "false", k ~ /COMMIT/ && s in attn ? sprintf("%.4f", us/attn[s]) : "null"
        }
        printf "]\n"
    } else if (what == "bench") {
        printf "["
        for (i = 1; i <= m; i++) { k = at[i]; order(k, n[k]) }
        for (i = 1; i <= m; i++) {
            k = at[i]; split(k, a, " "); same = "f16 " a[2] " " a[3]
            printf "%s{\"cache\": \"%s\", \"depth\": %s, \"test\": \"%s\", \"tps_median\": %s, \"tps_min\": %s, \"tps_max\": %s, \"rounds\": %d, \"times_f16\": %s}", (i > 1 ? ", " : ""),
                a[1], a[2], a[3], median(k, n[k]), v[k, 1], v[k, n[k]], n[k], (same in n && median(same, n[same]) > 0 ? sprintf("%.3f", median(k, n[k])/median(same, n[same])) : "null")
        }
        printf "]\n"
    } else if (what == "memory") {
        printf "{\"cache\": \"%s\", \"model_mib\": %.2f, \"kv_mib\": %.2f, \"compute_mib\": %.2f, \"planned_mib\": %.2f, \"used_mib\": %s}\n", cache, model_mib, kv_most, compute_most,
            model_mib + kv_most + compute_most, (peak > 0 ? peak - before : "null")
    } else if (what == "memory_rows") {
        if (rows != "") printf "[%s]\n", rows
    } else if (what == "markdown") {
        printf "# HEX on %s\n\nDriver %s; clocks SM, memory: at most %s MHz; power limit %s W; commit %s.\n", field(line("gpu"), "gpu"), field(line("driver"), "driver"),
            field(line("clocks_max_sm_mem_mhz"), "clocks_max_sm_mem_mhz"), field(line("power_limit_w"), "power_limit_w"), field(line("commit"), "commit")
        if (objects("clocks", o)) printf "While ops were measured (%s samples): SM %s to %s MHz (median %s), memory %s to %s MHz, %s W, %s C (medians).\n", field(o[1], "samples"),
            field(o[1], "sm_mhz_least"), field(o[1], "sm_mhz_most"), field(o[1], "sm_mhz_median"), field(o[1], "mem_mhz_least"), field(o[1], "mem_mhz_most"), field(o[1], "power_w_median"), field(o[1], "temperature_c_median")
        b = line("bandwidth"); gb = field(b, "measured_gb_s")
        if (b != "") printf "Reading memory: %s GB/s measured, %s nominal.\n", gb, field(b, "nominal_gb_s")

        printf "\n| step | |\n|---|---|\n"
        split("models build ops logits tier perf bench sanitize", name, " ")
        for (i = 1; i <= 8; i++) if ((s = line("step_" name[i])) != "") printf "| %s | %s |\n", name[i], field(s, "step_" name[i])

        if (n_o = objects("ops", o)) {
            printf "\n## Ops against the CPU\n\n| op | passed | failed | not supported |\n|---|--:|--:|--:|\n"
            for (i = 1; i <= n_o; i++) printf "| `%s` | %s | %s | %s |\n", field(o[i], "op"), field(o[i], "passed"), field(o[i], "failed"), field(o[i], "not_supported")
        }
        if (n_o = objects("logits", o)) {
            printf "\n## Logits against the CPU\n\n| model | cache | tokens at once | mean KL | same top-1, %% | |\n|---|---|--:|--:|--:|---|\n"
            for (i = 1; i <= n_o; i++) printf "| %s | %s | %s | %s | %s | %s |\n", field(o[i], "model"), field(o[i], "cache"), field(o[i], "ubatch"), field(o[i], "kl_mean"), field(o[i], "same_top1_percent"), field(o[i], "verdict")
        }
        if (n_o = objects("tier", o)) {
            printf "\n## The tier on a GPU\n\n| check | mean KL | same top-1, %% | |\n|---|--:|--:|---|\n"
            for (i = 1; i <= n_o; i++) printf "| %s | %s | %s | %s |\n", field(o[i], "check"), show(field(o[i], "kl_mean")), show(field(o[i], "same_top1_percent")), field(o[i], "verdict")
        }
        if (n_o = objects("sanitize", o)) {
            printf "\n## Sanitizers\n\n| tool | tests passed | summary |\n|---|--:|---|\n"
            for (i = 1; i <= n_o; i++) printf "| %s | %s | %s |\n", field(o[i], "tool"), show(field(o[i], "passed")), field(o[i], "summary")
        }
        n_perf = objects("perf", perf)
        if (n_perf) {
            printf "\n## Ops\n\nTimes faster than stock attention of the same shape; GB/s of the bytes that one attention must read, and their share of what was measured for plain reads. Decoding goes over several caches in turns;\nwhere all of them are less than twice the L2 cache, marked *, bytes may sit there and no goal is judged.\n\n"
            printf "| op | us, median | least | most | x f16 | x q8_0 | x q4_0 | GB/s | share |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|\n"
            for (i = 1; i <= n_perf; i++) {
                p = perf[i]
                printf "| `%s` | %s | %s | %s | %s | %s | %s | %s | %s%s |\n", field(p, "op"), field(p, "us_median"), field(p, "us_min"), field(p, "us_max"), show(field(p, "times_faster_than_f16")),
                    show(field(p, "times_faster_than_q8_0")), show(field(p, "times_faster_than_q4_0")), show(field(p, "gb_per_s")), show(field(p, "share_of_bandwidth")), field(p, "may_sit_in_l2") == "true" ? " *" : ""
            }
        }
        n_bench = objects("bench", bench)
        if (n_bench) {
            printf "\n## Whole model, random weights in the shape of an 8B Llama, tokens per second\n\n| cache | depth | test | median | least | most | x f16 |\n|---|--:|---|--:|--:|--:|--:|\n"
            for (i = 1; i <= n_bench; i++) { p = bench[i]; printf "| %s | %s | %s | %s | %s | %s | %s |\n", field(p, "cache"), field(p, "depth"), field(p, "test"), field(p, "tps_median"), field(p, "tps_min"), field(p, "tps_max"), show(field(p, "times_f16")) }
        }
        n_mem = objects("memory", mem)
        if (n_mem) {
            printf "\n## Memory of the GPU, MiB\n\nAt the greatest depth. What CUDA itself takes is in `used`; the last columns are what a cache saves against f16, where that cancels.\n\n"
            printf "| cache | KV | compute | planned | used | saves, planned | saves, used |\n|---|--:|--:|--:|--:|--:|--:|\n"
            for (i = 1; i <= n_mem; i++) if (field(mem[i], "cache") == "f16") base = mem[i]
            for (i = 1; i <= n_mem; i++) {
                p = mem[i]
                printf "| %s | %s | %s | %s | %s | %s | %s |\n", field(p, "cache"), field(p, "kv_mib"), field(p, "compute_mib"), field(p, "planned_mib"), field(p, "used_mib"),
                    base == "" ? "-" : sprintf("%.1f", field(base, "planned_mib") - field(p, "planned_mib")), base == "" ? "-" : sprintf("%.1f", field(base, "used_mib") - field(p, "used_mib"))
            }
        }
        goals()
    }
}

function goals(    i, p, op, kv, ns, x, us, tps, depth, part, planned, used) {
    if (!n_perf && !n_bench) return
    printf "\n## Goals\n\n| goal | found | reached |\n|---|---|---|\n"
    for (i = 1; i <= n_perf; i++) {
        p = perf[i]; op = field(p, "op"); kv = number(op, "kv"); ns = number(op, "ns")
        if (op ~ /^HEX_COMMIT/ && number(op, "nb") == 1 && ns == 1) commit[kv] = field(p, "us_median")
        if (op !~ /^HEX_ATTN/) continue
        if (number(op, "nb") == 1 && kv >= 32768 && field(p, "may_sit_in_l2") == "true") {
            no_goal("decode op, " kv " cells, " ns " sequences", "what is read may sit in the L2 cache")
        } else if (number(op, "nb") == 1 && kv >= 32768) {
            x = field(p, "times_faster_than_f16");  if (x != "null") goal("decode op, " kv " cells, " ns " sequences: 3x f16", x, x >= 3)
            x = field(p, "times_faster_than_q8_0"); if (x != "null") goal("... 4x q8_0", x, x >= 4)
            x = field(p, "times_faster_than_q4_0"); if (x != "null") goal("... 4x q4_0", x, x >= 4)
            x = field(p, "share_of_bandwidth");     if (x != "null") goal("... half of the memory bandwidth", x, x >= 0.5)
        } else if (number(op, "nb") > 1) {
            x = field(p, "times_faster_than_f16");  if (x != "null") goal("prefill op, " kv " cells: as fast as f16", x, x >= 1)
        }
    }
    for (i = 1; i <= n_bench; i++) {
        p = bench[i]; depth = field(p, "depth") + 0
        if (field(p, "test") != "decode" || field(p, "cache") !~ /^hex/ || depth < 4096) continue
        x = field(p, "times_f16"); if (x != "null") goal("whole model decodes faster than f16: " field(p, "cache") " at " depth, x, x > 1)
        tps = field(p, "tps_median") + 0
        if (field(p, "cache") != "hex:balanced" || tps <= 0) continue
        if (!(depth in commit)) no_goal("commit under 3 % of decode time at " depth, "the op was not measured with so many cells")
        else { # the op is measured in the model's shape, a layer's
            part = commit[depth]*field(line("layers"), "layers")*tps/1e6
            goal("commit under 3 % of decode time at " depth, sprintf("%.2f %%", 100*part), part < 0.03)
        }
    }
    for (i = 1; i <= n_mem; i++) {
        p = mem[i]
        if (base == "" || field(p, "cache") !~ /^hex/ || field(p, "used_mib") == "null" || field(base, "used_mib") == "null") continue
        planned = field(base, "planned_mib") - field(p, "planned_mib"); used = field(base, "used_mib") - field(p, "used_mib")
        if (planned > 0) goal("memory as planned to 1 %: " field(p, "cache"), sprintf("%+.2f %% of what it saves", 100*(used/planned - 1)), used/planned > 0.99 && used/planned < 1.01)
    }
}
