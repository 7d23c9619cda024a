// The backbone: structure of every kind, its inverse, hostile indices, and the certificate.
#include "core/hex_graph.h"
#include "core/hex_graph_impl.h"

#include "check.h"

#include <math.h>
#include <stdlib.h>

// Layers x KV heads of models from 135M to 70B parameters, and degrees near 1/30, 1/15, 1/8 and 1/4.
static const struct { int32_t n_pairs, degree[4]; const char * shape; } shapes[] = {
    {  90, {  3,  6, 10,  18 }, "30x3" },
    { 256, {  8, 16, 32,  64 }, "32x8" },
    { 384, { 12, 24, 48,  96 }, "48x8" },
    { 640, { 20, 40, 80, 160 }, "80x8" },
};

static struct hex_graph graph(enum hex_backbone kind, uint32_t seed, int32_t n_pairs, int32_t degree, int32_t n_cells) {
    const struct hex_graph g = { .kind = (int32_t) kind, .seed = seed, .n_pairs = n_pairs, .degree = degree,
                                 .period = n_pairs / degree, .n_cells = n_cells };
    return g;
}

// ---- structure

static void test_permutation(void) {
    static unsigned char seen[4096];
    bool ok = true;
    for (uint32_t n = 1; n <= 4096; n = n < 40 ? n + 1 : n * 2 - 7) {
        for (uint32_t key = 0; key < 20; key++) {
            for (uint32_t i = 0; i < n; i++) {
                seen[i] = 0;
            }
            for (uint32_t i = 0; i < n; i++) {
                const uint32_t x = hex_permute(i, n, key * 0x9e3779b9u);
                ok = ok && x < n && !seen[x];
                seen[x < n ? x : 0] = 1;
            }
        }
    }
    check(ok, "hex_permute is a permutation for 1 to 4096 values");

    // Pairs of values must land together as often as in a uniform permutation: the weak point of few Feistel rounds.
    enum { N = 64, D = 4, KEYS = 20000 };
    static int together[N][N];
    for (uint32_t key = 0; key < KEYS; key++) {
        uint32_t y[N];
        for (uint32_t i = 0; i < N; i++) {
            y[i] = hex_permute(i, N, hex_hash32(key)) / D;
        }
        for (int i = 0; i < N; i++) {
            for (int j = 0; j < i; j++) {
                together[i][j] += y[i] == y[j];
            }
        }
    }
    const double expected = KEYS * (D - 1.0) / (N - 1.0);
    double chi2 = 0.0;
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < i; j++) {
            chi2 += (together[i][j] - expected) * (together[i][j] - expected) / expected;
        }
    }
    const double freedom = N*(N - 1)/2.0;
    check(chi2 < 1.2*freedom, "pairs meet as by chance: chi-square %.0f for %.0f degrees of freedom", chi2, freedom);
}

// Expander: every cell in exactly d pairs, every pair has exactly one cell per block.
static void test_degrees(void) {
    for (size_t i = 0; i < sizeof(shapes)/sizeof(*shapes); i++) {
        for (int j = 0; j < 4; j++) {
            const struct hex_graph g = graph(HEX_BACKBONE_EXPANDER, 1, shapes[i].n_pairs, shapes[i].degree[j], 1000);
            bool ok = hex_graph_valid(&g);
            for (int32_t block = 0; block*g.period < g.n_cells; block++) {
                int32_t degree[64] = { 0 }; // of the block's cells
                for (int32_t p = 0; p < g.n_pairs; p++) {
                    const int32_t c = hex_graph_cell(&g, p, block) - block*g.period;
                    ok = ok && c >= 0 && c < g.period;
                    degree[ok ? c : 0]++;
                }
                for (int32_t c = 0; c < g.period; c++) {
                    ok = ok && degree[c] == g.degree;
                }
            }
            check(ok, "%s degree %d: every cell in %d pairs, every pair once in %d cells", shapes[i].shape, g.degree,
                  g.degree, g.period);
        }
    }
}

// Every slot's cell leads back to the slot, every refined cell is found, and each pair has n_static slots.
static void test_inverse(void) {
    for (int kind = HEX_BACKBONE_EXPANDER; kind <= HEX_BACKBONE_LOG; kind++) {
        bool ok = true;
        for (int32_t n_cells = 1; n_cells <= 3000; n_cells = n_cells < 40 ? n_cells + 1 : n_cells*3) {
            static const int32_t degrees[] = { 1, 6, 45, 90 };
            for (size_t i = 0; i < 4; i++) {
                const struct hex_graph g = graph((enum hex_backbone) kind, 7, 90, degrees[i], n_cells);
                const int32_t n_slots = hex_graph_n_slots(&g);
                ok = ok && n_slots == (n_cells + g.period - 1)/g.period;
                for (int32_t p = 0; p < 90; p += 13) {
                    int32_t found = 0, last = -1, outside = 0;
                    for (int32_t s = 0; s < n_slots; s++) {
                        const int32_t cell = hex_graph_cell(&g, p, s);
                        ok = ok && cell > last;
                        last = cell;
                        outside += cell >= n_cells;
                        ok = ok && hex_graph_slot(&g, p, cell) == (cell < n_cells ? s : -1);
                    }
                    for (int32_t c = 0; c < n_cells; c++) {
                        const int32_t s = hex_graph_slot(&g, p, c);
                        ok = ok && (s < 0 || hex_graph_cell(&g, p, s) == c);
                        found += s >= 0;
                    }
                    ok = ok && found == n_slots - outside && outside <= 1;
                }
            }
        }
        check(ok, "%s: slots and cells are inverse, strictly increasing", hex_backbone_name((enum hex_backbone) kind));
    }
    for (int32_t n_cells = 2048; n_cells <= 32768; n_cells *= 4) {
        const struct hex_graph g = graph(HEX_BACKBONE_LOG, 1, 90, 6, n_cells);
        const int32_t m = hex_graph_n_slots(&g);
        const int32_t half = hex_graph_cell(&g, 0, m/2);
        check(hex_graph_cell(&g, 0, 0) == 0 && hex_graph_cell(&g, 0, m - 1) == n_cells - 1 && half < n_cells/4,
              "log: %d slots over %d cells, half of them in the first %d", m, n_cells, half);
    }
}

static void test_hostile_indices(void) {
    static const int32_t bad[] = { INT32_MIN, INT32_MIN + 1, -1000, -1, 90, 2048, 1 << 30, INT32_MAX - 1, INT32_MAX };
    for (int kind = HEX_BACKBONE_NONE; kind <= HEX_BACKBONE_CHANNELS; kind++) {
        struct hex_graph g = graph((enum hex_backbone) kind, 0xffffffffu, 90, 6, 2048);
        if (kind == HEX_BACKBONE_NONE) {
            g.degree = g.period = 0;
        }
        bool ok = hex_graph_valid(&g);
        for (size_t i = 0; i < sizeof(bad)/sizeof(*bad); i++) {
            const bool slot_ok = bad[i] >= 0 && bad[i] < 137, cell_ok = bad[i] >= 0 && bad[i] < 2048;
            ok = ok && hex_graph_cell(&g, bad[i], 0) == -1 && hex_graph_slot(&g, bad[i], 0) == -1
                    && !hex_graph_channel(&g, 0, bad[i]);
            ok = ok && (slot_ok || hex_graph_cell(&g, 0, bad[i]) == -1);
            ok = ok && (cell_ok || (hex_graph_slot(&g, 0, bad[i]) == -1 && !hex_graph_channel(&g, bad[i], 0)));
        }
        check(ok, "%s: indices out of range are answered, not followed", hex_backbone_name((enum hex_backbone) kind));
    }
    // The largest graph that is valid: nothing overflows (run under the undefined-behaviour sanitizer).
    for (int kind = HEX_BACKBONE_EXPANDER; kind <= HEX_BACKBONE_LOG; kind++) {
        bool ok = true;
        for (int32_t degree = 1; degree <= 1 << 20; degree *= 32) {
            const struct hex_graph g = graph((enum hex_backbone) kind, 3, 1 << 20, degree, 1 << 30);
            const int32_t s = hex_graph_n_slots(&g) - 1;
            const int32_t c = hex_graph_cell(&g, (1 << 20) - 1, s);
            ok = ok && hex_graph_valid(&g) && c >= 0 && c < 1 << 30 && hex_graph_slot(&g, (1 << 20) - 1, c) == s;
        }
        check(ok, "%s: a million pairs, a billion cells", hex_backbone_name((enum hex_backbone) kind));
    }
    const struct hex_graph good = graph(HEX_BACKBONE_EXPANDER, 1, 90, 6, 2048);
    struct hex_graph g[8];
    for (int i = 0; i < 8; i++) {
        g[i] = good;
    }
    g[0].kind = 6;           g[1].kind = -1;      g[2].n_pairs = 0;   g[3].degree = 7;
    g[4].degree = -6;        g[5].period = 0;     g[6].n_cells = 0;   g[7].n_cells = INT32_MAX;
    bool ok = hex_graph_valid(&good);
    for (int i = 0; i < 8; i++) {
        ok = ok && !hex_graph_valid(&g[i]);
    }
    check(ok, "graphs whose fields do not fit are refused");
}

static void test_channels(void) {
    static const int32_t sizes[][2] = { { 64, 4 }, { 64, 1 }, { 64, 64 }, { 128, 8 }, { 256, 16 } };
    for (size_t i = 0; i < sizeof(sizes)/sizeof(*sizes); i++) {
        const struct hex_graph g = graph(HEX_BACKBONE_CHANNELS, 1, sizes[i][0], sizes[i][1], 512);
        bool ok = true;
        for (int32_t cell = 0; cell < g.n_cells; cell++) {
            int32_t kept = 0;
            for (int32_t channel = 0; channel < g.n_pairs; channel++) {
                kept += hex_graph_channel(&g, cell, channel);
            }
            ok = ok && kept == g.degree && hex_graph_slot(&g, 0, cell) == -1;
        }
        for (int32_t channel = 0; channel < g.n_pairs; channel++) {
            for (int32_t block = 0; block < g.n_cells/g.period; block++) {
                int32_t kept = 0;
                for (int32_t c = 0; c < g.period; c++) {
                    kept += hex_graph_channel(&g, block*g.period + c, channel);
                }
                ok = ok && kept == 1;
            }
        }
        check(ok && hex_graph_cell(&g, 0, 0) == -1, "channels: a cell keeps %d of %d, a channel is kept once in %d cells",
              g.degree, g.n_pairs, g.period);
    }
}

// The formula is part of the format (state files): these values must never change.
static void test_frozen_values(void) {
    const struct hex_graph e = graph(HEX_BACKBONE_EXPANDER, 1, 90, 6, 2048);
    const struct hex_graph r = graph(HEX_BACKBONE_RANDOM, 1, 90, 6, 2048);
    const struct hex_graph l = graph(HEX_BACKBONE_LOG, 1, 90, 6, 2048);
    uint32_t hash = 0;
    for (int32_t p = 0; p < 90; p++) {
        for (int32_t s = 0; s < hex_graph_n_slots(&e); s++) {
            hash = hex_hash32(hash ^ (uint32_t) hex_graph_cell(&e, p, s));
            hash = hex_hash32(hash ^ (uint32_t) hex_graph_cell(&r, p, s));
            hash = hex_hash32(hash ^ (uint32_t) hex_graph_cell(&l, p, s));
        }
    }
    check(hash == 0x3ad39567u, "the formulas give the values that state files rely on (hash 0x%08x)", (unsigned) hash);
}

// ---- the certificate

// sigma2 by power iteration on B^T B with B as adjacency lists, the known top vectors projected out at every step: no
// Gram matrix, no tridiagonal form, nothing shared with the library but hex_graph_cell. Weights 1/sqrt(degrees).
static double brute_sigma2(const struct hex_graph * g, int32_t n_cells) {
    const int32_t n_blocks = n_cells / g->period, n = n_blocks*g->period;
    double *  x = calloc((size_t) n, sizeof(*x));           // on cells
    double *  y = calloc((size_t) g->n_pairs, sizeof(*y));  // on pairs
    double *  w = calloc((size_t) n, sizeof(*w));           // sqrt of the cells' degrees: the top right vector
    int32_t * cell = calloc((size_t) g->n_pairs*(size_t) n_blocks, sizeof(*cell));
    double sigma = 0.0, last = -1.0;
    if (!x || !y || !w || !cell) {
        check(false, "memory");
        goto done;
    }
    for (int32_t p = 0; p < g->n_pairs; p++) {
        for (int32_t b = 0; b < n_blocks; b++) {
            cell[p*n_blocks + b] = hex_graph_cell(g, p, b);
            w[cell[p*n_blocks + b]] += 1.0;
        }
    }
    uint32_t random = 12345;
    for (int32_t c = 0; c < n; c++) {
        random = random*1664525u + 1013904223u;
        w[c] = sqrt(w[c]);
        x[c] = w[c] > 0.0 ? (double) random/4294967296.0 - 0.5 : 0.0;
    }
    for (int step = 0; step < 20000 && fabs(sigma - last) > 1e-13; step++) {
        double dot = 0.0, ww = 0.0, norm = 0.0;
        for (int32_t c = 0; c < n; c++) {
            dot += x[c]*w[c];
            ww  += w[c]*w[c];
        }
        for (int32_t c = 0; c < n; c++) {
            x[c] -= dot/ww*w[c];
            norm += x[c]*x[c];
        }
        norm = sqrt(norm);
        for (int32_t p = 0; p < g->n_pairs; p++) {
            y[p] = 0.0;
            for (int32_t b = 0; b < n_blocks; b++) {
                const int32_t c = cell[p*n_blocks + b];
                y[p] += x[c]/norm/(w[c]*sqrt(n_blocks));
            }
        }
        for (int32_t c = 0; c < n; c++) {
            x[c] = 0.0;
        }
        last  = sigma;
        sigma = 0.0;
        for (int32_t p = 0; p < g->n_pairs; p++) {
            sigma += y[p]*y[p];
            for (int32_t b = 0; b < n_blocks; b++) {
                const int32_t c = cell[p*n_blocks + b];
                x[c] += y[p]/(w[c]*sqrt(n_blocks));
            }
        }
        sigma = sqrt(sigma);
    }
done:
    free(x);
    free(y);
    free(w);
    free(cell);
    return sigma;
}

static void test_certificate_value(void) {
    static const struct { enum hex_backbone kind; int32_t n_pairs, degree, n_cells; } cases[] = {
        { HEX_BACKBONE_EXPANDER,  90,  6, 2048 }, { HEX_BACKBONE_EXPANDER,  90,  3,  700 },
        { HEX_BACKBONE_EXPANDER, 256, 32, 1024 }, { HEX_BACKBONE_EXPANDER,  12,  4, 4096 },
        { HEX_BACKBONE_EXPANDER,  90, 45,    9 }, { HEX_BACKBONE_RANDOM,    90,  6, 2048 },
        { HEX_BACKBONE_RANDOM,    64, 16,  512 },
    };
    struct hex_certificate c;
    for (size_t i = 0; i < sizeof(cases)/sizeof(*cases); i++) {
        const struct hex_graph g = graph(cases[i].kind, 5, cases[i].n_pairs, cases[i].degree, cases[i].n_cells);
        const double brute = brute_sigma2(&g, g.n_cells);
        const bool   ok    = hex_graph_certify(&g, g.n_cells, &c) && fabs(c.sigma2 - brute) < 1e-6;
        check(ok, "%s %d pairs, degree %d, %d cells: sigma2 %.9f, by power iteration %.9f",
              hex_backbone_name(cases[i].kind), g.n_pairs, g.degree, g.n_cells, c.sigma2, brute);
    }
    // Known answers.
    struct hex_graph g = graph(HEX_BACKBONE_STRIDED, 1, 90, 6, 2048);
    bool ok = hex_graph_certify(&g, 2048, &c);
    check(ok && fabs(c.sigma2 - 1.0) < 1e-12, "strided: 15 components, sigma2 = 1 (%.15f)", c.sigma2);
    check(c.factor > 2.0 && c.factor > HEX_CERTIFICATE_FACTOR, "strided fails the certificate: factor %.2f", c.factor);

    g = graph(HEX_BACKBONE_EXPANDER, 1, 90, 90, 2048);
    ok = hex_graph_certify(&g, 2048, &c);
    check(ok && c.sigma2 < 1e-7, "complete: sigma2 = 0 (%.1e)", c.sigma2);

    g = graph(HEX_BACKBONE_EXPANDER, 1, 90, 1, 2048);
    ok = hex_graph_certify(&g, 2048, &c);
    check(ok && fabs(c.sigma2 - 1.0) < 1e-12, "degree 1: 90 stars, sigma2 = 1");

    // Two blocks of two cells, four pairs: {a,b},{c,d} against {a,c},{b,d} is a cycle of four cells: its normalised
    // adjacency has eigenvalues 1, 0, -1, so sigma2^2 = (1 + 0)/2; the same split twice is disconnected.
    bool cycle = false, twice = false;
    for (uint32_t seed = 1; seed < 100; seed++) {
        g = graph(HEX_BACKBONE_EXPANDER, seed, 4, 2, 4);
        bool same = true; // are the pairs with pair 0 the same in both blocks?
        for (int32_t p = 1; p < 4; p++) {
            same = same && (hex_graph_cell(&g, p, 0) == hex_graph_cell(&g, 0, 0))
                        == (hex_graph_cell(&g, p, 1) == hex_graph_cell(&g, 0, 1));
        }
        ok = ok && hex_graph_certify(&g, 4, &c) && fabs(c.sigma2 - (same ? 1.0 : sqrt(0.5))) < 1e-12;
        (same ? &twice : &cycle)[0] = true;
    }
    check(ok && cycle && twice, "four pairs, two blocks: sigma2 = sqrt(1/2), or 1 when disconnected");

    g = graph(HEX_BACKBONE_EXPANDER, 1, 90, 6, 2048);
    struct hex_certificate whole, partial;
    ok = hex_graph_certify(&g, 2040, &whole) && hex_graph_certify(&g, 2048, &partial);
    check(ok && whole.sigma2 == partial.sigma2 && whole.ramanujan == partial.ramanujan,
          "a partial last block does not count");
    check(fabs(whole.ramanujan - (sqrt(5.0) + sqrt(135.0))/sqrt(6.0*136.0)) < 1e-15, "the bound is the formula's");

    g.kind = HEX_BACKBONE_LOG;
    check(!hex_graph_certify(&g, 2048, &c), "log has no certificate");
    g.kind = HEX_BACKBONE_EXPANDER;
    check(!hex_graph_certify(&g, 29, &c) && !hex_graph_certify(&g, -5, &c), "one block has no certificate");
}

static void test_shapes(void) {
    for (size_t i = 0; i < sizeof(shapes)/sizeof(*shapes); i++) {
        for (int j = 0; j < 4; j++) {
            for (int32_t n_cells = 2048; n_cells <= 32768; n_cells *= 4) {
                struct hex_graph       g;
                struct hex_certificate c;
                char       err[256] = "";
                const bool ok = hex_graph_make(&g, HEX_BACKBONE_EXPANDER, 1, shapes[i].n_pairs, shapes[i].degree[j],
                                               n_cells, &c, err, sizeof(err));
                check(ok && c.factor <= HEX_CERTIFICATE_FACTOR && g.n_cells == n_cells,
                      "%s degree %3d n_cells %5d: sigma2 %.4f, bound %.4f, factor %.4f, seed %u %s", shapes[i].shape,
                      shapes[i].degree[j], n_cells, c.sigma2, c.ramanujan, c.factor, (unsigned) g.seed, err);
            }
        }
    }
}

static void test_make(void) {
    struct hex_graph       g;
    struct hex_certificate c;
    char err[256] = "";

    check(hex_graph_make(&g, HEX_BACKBONE_NONE, 1, 90, 0, 2048, &c, err, sizeof(err)) && hex_graph_valid(&g)
          && hex_graph_cell(&g, 0, 0) == -1 && hex_graph_n_slots(&g) == 0, "none: an empty graph");
    check(!hex_graph_make(&g, HEX_BACKBONE_EXPANDER, 1, 90, 7, 2048, NULL, err, sizeof(err)), "refused: %s", err);
    check(!hex_graph_make(&g, HEX_BACKBONE_EXPANDER, 1, 90, 0, 2048, NULL, NULL, 0), "refused: degree 0");
    check(!hex_graph_make(&g, HEX_BACKBONE_EXPANDER, 1, 90, 6, 0, NULL, err, sizeof(err)), "refused: no cells");
    check(!hex_graph_make(&g, HEX_BACKBONE_EXPANDER, 1, 4096, 64, 8192, NULL, err, sizeof(err)), "refused: %s", err);
    check(hex_graph_make(&g, HEX_BACKBONE_RANDOM, 1, 4096, 64, 8192, &c, err, sizeof(err)), "which random takes");

    for (int32_t n_cells = 1; n_cells < 30; n_cells += 14) {
        check(hex_graph_make(&g, HEX_BACKBONE_EXPANDER, 1, 90, 6, n_cells, &c, err, sizeof(err)) && c.factor == 0.0,
              "%d cells, less than two blocks: accepted without a certificate", n_cells);
    }
    check(hex_graph_make(&g, HEX_BACKBONE_EXPANDER, 1, 90, 1, 2048, &c, err, sizeof(err)) && fabs(c.sigma2 - 1.0) < 1e-12,
          "degree 1 is accepted, and says sigma2 = 1");
    bool ok = hex_graph_make(&g, HEX_BACKBONE_CHANNELS, 1, 64, 4, 2048, &c, err, sizeof(err));
    check(ok && c.factor <= HEX_CERTIFICATE_FACTOR, "channels, 4 of 64: factor %.4f", c.factor);
    for (int kind = HEX_BACKBONE_RANDOM; kind <= HEX_BACKBONE_LOG; kind++) {
        ok = hex_graph_make(&g, (enum hex_backbone) kind, 9, 90, 6, 2048, &c, err, sizeof(err));
        check(ok && g.seed == 9, "%s is taken as it is: factor %.2f", hex_backbone_name((enum hex_backbone) kind), c.factor);
    }

    // Few blocks and small models: a bad draw is refused and the next seed is tried.
    int32_t moved = 0;
    ok = true;
    for (int32_t n_pairs = 2; n_pairs <= 64; n_pairs++) {
        for (int32_t degree = 2; degree <= n_pairs; degree++) {
            for (int32_t blocks = 2; n_pairs % degree == 0 && blocks <= 256; blocks *= 2) {
                const int32_t n_cells = blocks*(n_pairs/degree);
                ok = ok && hex_graph_make(&g, HEX_BACKBONE_EXPANDER, 1, n_pairs, degree, n_cells, &c, err, sizeof(err));
                moved += g.seed != 1;
            }
        }
    }
    check(ok && moved > 0, "every degree of 2 to 64 pairs finds a graph, %d of them not with the first seed", moved);
}

int main(void) {
    test_permutation();
    test_degrees();
    test_inverse();
    test_hostile_indices();
    test_channels();
    test_frozen_values();
    test_certificate_value();
    test_shapes();
    test_make();
    return check_exit_code();
}
