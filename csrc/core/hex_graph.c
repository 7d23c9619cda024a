#include "hex_graph.h"

#include "hex_graph_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    MAX_CELLS = 1 << 30, // cell + period stays inside int32
    MAX_PAIRS = 1 << 20,
    MAX_TRIES = 64,
};

int32_t hex_graph_cell(const struct hex_graph * g, int32_t pair, int32_t slot) {
    return hex_graph_cell_impl(g, pair, slot);
}

int32_t hex_graph_slot(const struct hex_graph * g, int32_t pair, int32_t cell) {
    return hex_graph_slot_impl(g, pair, cell);
}

bool hex_graph_channel(const struct hex_graph * g, int32_t cell, int32_t channel) {
    return hex_graph_channel_impl(g, cell, channel);
}

bool hex_graph_valid(const struct hex_graph * g) {
    if (g->kind == HEX_BACKBONE_NONE) {
        return g->degree == 0;
    }
    return g->kind > HEX_BACKBONE_NONE && g->kind <= HEX_BACKBONE_CHANNELS
        && g->n_cells >= 1 && g->n_cells <= MAX_CELLS
        && g->n_pairs >= 1 && g->n_pairs <= MAX_PAIRS
        && g->degree  >= 1 && g->n_pairs % g->degree == 0
        && g->period  == g->n_pairs / g->degree;
}

// ---- the certificate

// Lower triangle of B B^T, B the biadjacency matrix with each entry divided by sqrt(degree of pair * degree of cell),
// less its top component 1/P (eigenvalue 1, the constant vector, as all pairs have equal degree). Its eigenvalues are
// the squared singular values of B, from the second on. `order` and `first` hold P and period + 1 integers.
static void gram_matrix(const struct hex_graph * g, int32_t n_blocks, double * a, int32_t * order, int32_t * first) {
    const size_t n = (size_t) g->n_pairs;

    for (size_t i = 0; i < n * n; i++) {
        a[i] = 0.0;
    }
    for (int32_t block = 0; block < n_blocks; block++) {
        // Sort the pairs by their cell in this block, stably: within a cell they ascend.
        for (int32_t c = 0; c <= g->period; c++) {
            first[c] = 0;
        }
        for (int32_t p = 0; p < g->n_pairs; p++) {
            first[hex_graph_offset(g, p, block) + 1]++;
        }
        for (int32_t c = 0; c < g->period; c++) {
            first[c + 1] += first[c];
        }
        for (int32_t p = 0; p < g->n_pairs; p++) {
            order[first[hex_graph_offset(g, p, block)]++] = p; // leaves first[c] = end of cell c
        }
        for (int32_t c = 0; c < g->period; c++) {
            const int32_t begin = c > 0 ? first[c - 1] : 0;
            const double  share = (double) g->degree / (first[c] - begin); // 1 but for RANDOM: sums stay exact
            for (int32_t i = begin; i < first[c]; i++) {
                double * row = a + (size_t) order[i] * n;
                for (int32_t j = begin; j <= i; j++) {
                    row[order[j]] += share;
                }
            }
        }
    }
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j <= i; j++) {
            a[i*n + j] = a[i*n + j] / ((double) g->degree * n_blocks) - 1.0 / (double) n;
        }
    }
}

// Householder reduction of a symmetric matrix (lower triangle, destroyed) to tridiagonal form, last row first, without
// the vectors: Golub and Van Loan, Matrix Computations, section 8.3.1. off[i] couples i-1 and i; `w` is scratch.
static void tridiagonalize(double * a, size_t n, double * diag, double * off, double * w) {
    for (size_t i = n; i-- > 0;) {
        double * u = a + i*n; // becomes the Householder vector of the leading i x i matrix
        diag[i] = u[i];
        off [i] = i == 1 ? u[0] : 0.0;
        if (i < 2) {
            continue;
        }
        double norm2 = 0.0;
        for (size_t j = 0; j < i; j++) {
            norm2 += u[j]*u[j];
        }
        if (norm2 < 1e-300) { // nothing to eliminate, and no division by a denormal
            continue;
        }
        const double alpha = u[i-1] > 0.0 ? -sqrt(norm2) : sqrt(norm2); // the sign that avoids cancellation
        const double h     = norm2 - alpha*u[i-1];                      // half the squared length of u
        off[i]  = alpha;
        u[i-1] -= alpha;

        for (size_t r = 0; r < i; r++) { // w = A u, from the lower triangle
            const double * row = a + r*n;
            double         sum = row[r]*u[r];
            for (size_t c = 0; c < r; c++) {
                sum  += row[c]*u[c];
                w[c] += row[c]*u[r];
            }
            w[r] = sum;
        }
        double k = 0.0;
        for (size_t j = 0; j < i; j++) {
            w[j] /= h;
            k    += u[j]*w[j];
        }
        k /= 2.0*h;
        for (size_t j = 0; j < i; j++) {
            w[j] -= k*u[j];
        }
        for (size_t r = 0; r < i; r++) { // A -= u w^T + w u^T
            double * row = a + r*n;
            for (size_t c = 0; c <= r; c++) {
                row[c] -= u[r]*w[c] + w[r]*u[c];
            }
        }
    }
}

// Whether a tridiagonal matrix has an eigenvalue above x: a positive pivot of T - x I (Sylvester's law of inertia).
static bool has_eigenvalue_above(const double * diag, const double * off, size_t n, double x) {
    double q = 1.0;
    for (size_t i = 0; i < n; i++) {
        q = diag[i] - x - off[i]*off[i]/q; // off[0] = 0
        if (q > 0.0) {
            return true;
        }
        if (q == 0.0) {
            q = -1e-300; // the next pivot is then +infinity where off is not 0, as it should be
        }
    }
    return false;
}

// Largest eigenvalue by bisection from Gershgorin's bound: Barth, Martin and Wilkinson 1967.
static double largest_eigenvalue(const double * diag, const double * off, size_t n) {
    double lo = diag[0], hi = diag[0];
    for (size_t i = 0; i < n; i++) {
        const double radius = fabs(off[i]) + (i + 1 < n ? fabs(off[i+1]) : 0.0);
        lo = fmax(lo, diag[i]);
        hi = fmax(hi, diag[i] + radius);
    }
    for (int i = 0; i < 60; i++) {
        const double mid = lo + (hi - lo)/2;
        if (has_eigenvalue_above(diag, off, n, mid)) {
            lo = mid;
        } else {
            hi = mid;
        }
    }
    return lo;
}

bool hex_graph_certify(const struct hex_graph * g, int32_t n_cells, struct hex_certificate * out) {
    *out = (struct hex_certificate) { 0 };
    if (!hex_graph_valid(g) || g->kind == HEX_BACKBONE_NONE || g->kind == HEX_BACKBONE_LOG
        || n_cells / g->period < 2 || n_cells > MAX_CELLS || g->n_pairs > HEX_CERTIFICATE_MAX_PAIRS) {
        return false;
    }
    const size_t  n        = (size_t) g->n_pairs;
    const int32_t n_blocks = n_cells / g->period;

    double *  a = malloc((n*n + 3*n) * sizeof(*a)); // the matrix, then diagonal, off-diagonal, scratch
    int32_t * s = malloc((2*n + 1) * sizeof(*s));
    if (a && s) {
        double * diag = a + n*n;
        gram_matrix(g, n_blocks, a, s, s + n);
        tridiagonalize(a, n, diag, diag + n, diag + 2*n);
        const double lambda = largest_eigenvalue(diag, diag + n, n);
        const double dl = g->degree, dr = n_blocks;

        out->sigma2    = sqrt(fmax(lambda, 0.0)); // the matrix is positive semidefinite up to rounding
        out->ramanujan = (sqrt(dl - 1.0) + sqrt(dr - 1.0)) / sqrt(dl*dr);
        out->factor    = out->sigma2 / out->ramanujan;
    }
    const bool ok = a && s;
    free(a);
    free(s);
    return ok;
}

// ---- construction

bool hex_graph_make(struct hex_graph * g, enum hex_backbone kind, uint32_t seed, int32_t n_pairs, int32_t degree,
                    int32_t n_cells, struct hex_certificate * cert, char * err, size_t err_size) {
    struct hex_certificate unused;
    if (!cert) {
        cert = &unused;
    }
    if (!err) {
        err_size = 0; // snprintf then writes nothing
    }
    *cert = (struct hex_certificate) { 0 };
    *g    = (struct hex_graph) { .kind = HEX_BACKBONE_NONE };
    if (kind == HEX_BACKBONE_NONE) {
        return true;
    }
    const bool divides = n_pairs > 0 && degree > 0 && n_pairs % degree == 0;
    *g = (struct hex_graph) {
        .kind = (int32_t) kind, .seed = seed, .n_pairs = n_pairs, .degree = degree,
        .period = divides ? n_pairs / degree : 0, .n_cells = n_cells,
    };
    if (!hex_graph_valid(g)) {
        snprintf(err, err_size,
                 "backbone: no graph of kind %d with %d pairs, degree %d, %d cells; the degree must divide the pairs "
                 "(at most %d), the cells be 1..%d", (int) kind, (int) n_pairs, (int) degree, (int) n_cells,
                 (int) MAX_PAIRS, (int) MAX_CELLS);
        return false;
    }
    const bool must = (kind == HEX_BACKBONE_EXPANDER || kind == HEX_BACKBONE_CHANNELS)
                   && degree > 1 && n_cells / g->period >= 2;
    if (!must) {
        hex_graph_certify(g, n_cells, cert); // informative
        return true;
    }
    if (n_pairs > HEX_CERTIFICATE_MAX_PAIRS) {
        snprintf(err, err_size, "backbone: %d pairs are beyond the %d that can be certified; use kind random",
                 (int) n_pairs, HEX_CERTIFICATE_MAX_PAIRS);
        return false;
    }
    for (uint32_t i = 0; i < MAX_TRIES; i++) {
        g->seed = seed + i;
        if (!hex_graph_certify(g, n_cells, cert)) {
            snprintf(err, err_size, "backbone: no memory to certify %d pairs; use kind random", (int) n_pairs);
            return false;
        }
        if (cert->factor <= HEX_CERTIFICATE_FACTOR + 1e-9) { // two blocks of degree 2 have bound 1 and sigma2 1
            return true;
        }
    }
    snprintf(err, err_size,
             "backbone: factor %.3f of seed %u is above %.2f, as that of %d seeds before it; use another share, or kind random",
             cert->factor, (unsigned) g->seed, HEX_CERTIFICATE_FACTOR, (int) MAX_TRIES - 1);
    return false;
}
