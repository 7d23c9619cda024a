// The coarse products of hex_codes_kernels against exact ones: they are off by no more than rounding one factor to 8 bits
// allows, and exact where 8 bits hold it. Random shapes, rows, queries with outliers, weights with zeros.
#include "attn_case.h"

#include "cpu/hex_attn_kernels.h"

#include "core/check.h"

#include <cmath>

#if defined(__x86_64__)

static const struct hex_codes_kernels & K = hex_codes_kernels_avx512;
static const int STRIDE = HEX_TILE + 16; // whole sixteens are written

// n floats or bytes, at a multiple of 64 bytes.
template<typename T> struct aligned_array {
    std::vector<char> bytes;
    explicit aligned_array(size_t n) : bytes(n*sizeof(T) + 64) {}
    T * get() { return (T *) (((uintptr_t) bytes.data() + 63) & ~(uintptr_t) 63); }
};

// Rows of one hexk type, coded and decoded.
struct tile_case {
    int bits, n, n_blocks, n_q, d;
    std::vector<char>  codes;
    std::vector<float> x; // [HEX_TILE][d]
    const char * rows[HEX_TILE];

    explicit tile_case(rng & r) : bits(r.range(1, 4)), n(r.range(1, HEX_TILE)), n_blocks(r.range(1, 4)), n_q(8*r.range(1, HEX_MAX_QUERIES/8)), d(64*n_blocks) {
        const size_t size = hex_block_size(bits)*(size_t) n_blocks;
        codes.resize(size*HEX_TILE + 64);
        x.resize((size_t) (HEX_TILE*d));
        random_blocks(r, bits, 1, codes.data(), HEX_TILE*d);
        hex_dequantize(bits, codes.data(), x.data(), HEX_TILE*d);
        for (int j = 0; j < HEX_TILE; j++) {
            rows[j] = codes.data() + size*(size_t) j;
        }
    }
    size_t tile_bytes() const { return (size_t) (2*HEX_TILE*64*n_blocks); }
    double at(int j, int c) const { return (double) x[(size_t) (j*d + c)]; }
};

struct verdict { int bad = 0, bad_exact = 0; double most = 0; }; // most: of the bound

static void qk_case(rng & r, verdict & v) {
    tile_case t(r);
    const bool exact = r.chance(0.3); // queries that 8 bits hold
    std::vector<float> q((size_t) (t.n_q*t.d)), s((size_t) (t.n_q*STRIDE)), scale((size_t) (t.n_q*t.n_blocks));
    for (size_t i = 0; i < q.size(); i++) {
        q[i] = exact ? (float) (i % 64 == 0 ? 127 : r.range(-127, 127)) : r.chance(0.01) ? 30*r.gauss() : r.gauss();
    }
    std::vector<int32_t> offset(2*scale.size());
    aligned_array<int8_t>  limbs(128*scale.size());
    aligned_array<uint8_t> tile(t.tile_bytes());
    aligned_array<float>   scales((size_t) (HEX_TILE*t.n_blocks));
    for (int i = 0; i < t.n_q; i++) {
        const size_t b = (size_t) (i*t.n_blocks);
        K.query(&q[(size_t) (i*t.d)], t.n_blocks, limbs.get() + 128*b, &scale[b], &offset[2*b]);
    }
    K.unpack_k(t.bits, t.rows, t.n, t.n_blocks, tile.get(), scales.get());
    K.qk(tile.get(), scales.get(), t.n, t.n_blocks, limbs.get(), scale.data(), offset.data(), t.n_q, s.data(), STRIDE, true);

    for (int i = 0; i < t.n_q; i++) {
        for (int j = 0; j < t.n; j++) {
            double want = 0, sum = 0, bound = 0;
            for (int c = 0; c < t.d; c++) {
                const double x = t.at(j, c), qc = (double) q[(size_t) (i*t.d + c)];
                want  += qc*x;
                sum   += fabs(qc*x);
                bound += 64.6*(double) scale[(size_t) (i*t.n_blocks + c/64)]*fabs(x); // half of 128, and of the 15 bits before
            }
            const double err = fabs((double) s[(size_t) (i*STRIDE + j)] - want), floats = 1e-5*sum;
            v.bad       += !(err <= bound + floats);
            v.bad_exact += exact && !(err <= floats);
            v.most       = std::max(v.most, err/(bound + floats));
        }
    }
}

static void pv_case(rng & r, verdict & v) {
    tile_case t(r);
    std::vector<float> p((size_t) (t.n_q*HEX_TILE)), out((size_t) (t.n_q*t.d));
    for (float & x : p) {
        x = r.chance(0.3) ? 0 : (float) exp(-8*r.uniform());
    }
    aligned_array<uint8_t> tile(t.tile_bytes());
    aligned_array<float>   scales((size_t) (HEX_TILE*t.n_blocks));
    K.unpack_v(t.bits, t.rows, t.n, t.n_blocks, tile.get(), scales.get());
    K.pv(tile.get(), scales.get(), t.n, t.n_blocks, p.data(), HEX_TILE, t.n_q, out.data(), t.d, true);

    for (int i = 0; i < t.n_q; i++) {
        for (int c = 0; c < t.d; c++) {
            const float * scale = scales.get() + c/64*HEX_TILE;
            double want = 0, most = 0, codes = 0;
            for (int j = 0; j < t.n; j++) {
                const double pj = (double) p[(size_t) (i*HEX_TILE + j)];
                want  += pj*t.at(j, c);
                most   = std::max(most, pj*(double) scale[j]); // weights are integers of 255 for this one
                codes += scale[j] > 0 ? fabs(t.at(j, c))/(double) scale[j] : 0;
            }
            const double err = fabs((double) out[(size_t) (i*t.d + c)] - want), bound = most*(0.501/255*codes + 1e-4);
            v.bad += !(err <= bound);
            v.most = std::max(v.most, err > 0 ? err/bound : 0);
        }
    }
}

int main() {
    const int n_cases = sanitized ? 40 : 300;
    if (hex_isa_best() < HEX_ISA_AVX512) {
        printf("skipped: this CPU has no path with coarse products\n");
        return 77;
    }
    rng r { 11 };
    verdict qk, pv;
    for (int i = 0; i < n_cases; i++) {
        qk_case(r, qk);
        pv_case(r, pv);
    }
    check(qk.bad == 0 && qk.most > 0.1, "q.k is within the bound of rounding queries to 8 bits: %d cases, at most %.2f of it", n_cases, qk.most);
    check(qk.bad_exact == 0, "q.k is exact for queries of 8 bits");
    check(pv.bad == 0 && pv.most > 0.1, "p.v is within the bound of rounding weights to 8 bits: %d cases, at most %.2f of it", n_cases, pv.most);
    return check_exit_code();
}

#else
int main() {
    printf("skipped: no path with coarse products is compiled for this CPU\n");
    return 77;
}
#endif
