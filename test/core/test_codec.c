// The trellis codec: error on Gaussian data, bit layout, hostile input, every instruction set against the reference.
#include "core/hex_codec_impl.h"
#include "cpu/hex_isa.h"
#include "cpu/hex_vec_dot.h"
#include "ggml/hex_types.h"

#include "check.h"

#include <float.h>
#include <stdlib.h>

static uint64_t random_state;

static uint64_t random_bits(void) { // splitmix64
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static float gauss(void) {
    const double u = ((double) (random_bits() >> 11) + 0.5) / 9007199254740992.0;
    const double v = (double) (random_bits() >> 11) / 9007199254740992.0;
    return (float) (sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v));
}

// About Gaussian, without libm: the same floats everywhere.
static float gauss_exact(void) {
    int32_t sum = 0;
    for (uint64_t r = random_bits(), i = 0; i < 8; i++, r >>= 8) {
        sum += (int32_t) (r & 255) * 256 + (int32_t) (random_bits() & 255);
    }
    return (float) (sum - 8*32768) * 0x1p-16f;
}

static void * allocate(size_t size) { // exactly, so that a sanitizer sees a byte too many
    void * p = malloc(size);
    if (!p) {
        exit(2);
    }
    return p;
}

enum { MODES = 14 };

// A row of one of MODES shapes that no model should produce.
static const char * hostile_row(int mode, float * x, int n) {
    static const char * const names[MODES] = {
        "any bits", "zero", "one impulse", "one huge impulse", "inf and nan", "denormals", "largest floats", "constant",
        "alternating", "two magnitudes", "below the least scale", "around the least scale", "around the largest scale",
        "ramp",
    };
    for (int i = 0; i < n; i++) {
        const uint32_t r = (uint32_t) random_bits();
        switch (mode) {
            case  0: x[i] = hex_bits_float(r); break;
            case  1: x[i] = r & 1 ? -0.0f : 0.0f; break;
            case  2: x[i] = i % 64 == (int) (r % 7) ? -3.0f : 0.0f; break;
            case  3: x[i] = i % 64 == 5 ? 0x1.fp127f : gauss(); break;
            case  4: x[i] = r % 3 == 0 ? (r & 8 ? INFINITY : -INFINITY) : r % 3 == 1 ? NAN : gauss(); break;
            case  5: x[i] = hex_bits_float(r & 0x807fffffu); break;
            case  6: x[i] = r & 1 ? 0x1.fffffep127f : -0x1.fffffep127f; break;
            case  7: x[i] = -1.25f; break;
            case  8: x[i] = i % 2 ? 2.0f : -2.0f; break;
            case  9: x[i] = gauss() * (r % 16 == 0 ? 1000.0f : 0.001f); break;
            case 10: x[i] = gauss() * 0x1p-31f; break;
            case 11: x[i] = gauss() * 0x1p-20f; break;
            case 12: x[i] = gauss() * 0x1p13f; break;
            case 13: x[i] = (float) (i - n/2); break;
        }
    }
    return names[mode];
}

static double squares(const float * x, int n) {
    double s = 0.0;
    for (int i = 0; i < n; i++) {
        s += (double) x[i] * x[i];
    }
    return s;
}

// ---- format ----

static void test_tables(void) {
    for (int k = 1; k <= 4; k++) {
        int least = 0, most = 0;
        for (int w = 0; w < 256; w++) {
            const int v = hex_table_a[k][w & 15] + hex_table_b[k][w >> 4];
            least = v < least ? v : least;
            most  = v > most  ? v : most;
        }
        check(least >= -127 && most <= 127, "hex%d: values %d to %d are int8", k, least, most);
    }
}

static void test_scale(void) {
    for (int k = 1; k <= 4; k++) {
        const uint32_t last = (1u << (8 + k)) - 1;
        const uint16_t low_bits = (uint16_t) ((1u << (8 - k)) - 1);
        bool exact = hex_scale_decode(k, 0) == 0.0f && hex_scale_decode(k, low_bits) == 0.0f, back = true;
        for (uint32_t e = 1; e <= last; e++) {
            const float s = hex_scale_decode(k, (uint16_t) (e << (8 - k) | (e & low_bits)));
            exact = exact && fabs(s / exp2((double) e / (1 << (3 + k)) - 24.0) - 1.0) < 1e-7;
            back  = back && hex_scale_encode(k, s) == e;
        }
        check(exact, "hex%d: scales are 2^(e/%d - 24)", k, 1 << (3 + k));
        check(back, "hex%d: scales are encoded as themselves", k);

        bool nearest = true;
        for (int i = 0; i < 100000; i++) {
            const float s = (float) exp2(33.0 * (double) (random_bits() >> 40) / (1 << 24) - 25.0);
            const uint32_t e = hex_scale_encode(k, s);
            const float here  = fabsf(hex_scale_decode(k, (uint16_t) (e << (8 - k))) - s);
            const float below = e > 1    ? fabsf(hex_scale_decode(k, (uint16_t) ((e - 1) << (8 - k))) - s) : INFINITY;
            const float above = e < last ? fabsf(hex_scale_decode(k, (uint16_t) ((e + 1) << (8 - k))) - s) : INFINITY;
            nearest = nearest && e >= 1 && e <= last && here <= below && here <= above;
        }
        check(nearest && hex_scale_encode(k, FLT_MAX) == last && hex_scale_encode(k, FLT_MIN) == 1,
              "hex%d: the nearest scale is chosen", k);
    }
}

// Window i read one bit after the other, as the header of the codec words it.
static int naive_value(int k, const uint8_t * block, int i) {
    int w = 0;
    for (int bit = 0; bit < 8; bit++) {
        const int at = i*k + bit;
        w |= (block[at / 8] >> at % 8 & 1) << bit;
    }
    return hex_table_a[k][w % 16] + hex_table_b[k][w / 16];
}

static void test_layout(void) {
    check(sizeof(block_hex1) == 10 && sizeof(block_hex2) == 18 && sizeof(block_hex3) == 26 && sizeof(block_hex4) == 34,
          "block sizes");
    for (enum hex_isa isa = HEX_ISA_REF; isa <= hex_isa_best(); isa++) {
        hex_isa_set(isa);
        for (int k = 1; k <= 4; k++) {
            const size_t size = hex_block_size(k);
            bool unpack = true, dequantize = true;
            for (int i = 0; i < 3000; i++) {
                uint8_t * block = allocate(size);
                int8_t v[HEX_BLOCK];
                float y[HEX_BLOCK];
                for (size_t j = 0; j < size; j++) {
                    block[j] = (uint8_t) random_bits();
                }
                hex_block_unpack(k, block, v);
                hex_dequantize(k, block, y, HEX_BLOCK);
                const float scale = hex_scale_decode(k, (uint16_t) (block[8*k] | block[8*k + 1] << 8));
                for (int j = 0; j < HEX_BLOCK; j++) {
                    const int want = naive_value(k, block, j);
                    unpack     = unpack && v[j] == want;
                    dequantize = dequantize && y[j] == scale * (float) want;
                }
                free(block);
            }
            check(unpack, "hex%d %s: unpack reads the documented layout", k, hex_isa_name(isa));
            check(dequantize, "hex%d %s: dequantize is scale times value", k, hex_isa_name(isa));
        }
    }
}

// A change of these numbers is a change of format or encoder: state files and stored caches of before are lost.
static void test_known_answers(void) {
    static const uint64_t known[5] = {
        0, 0x7539a52dcd99fb62u, 0x8107915db4890f87u, 0x439fbe62c12d69dcu, 0x3bcb5eb58c7d1eb8u,
    };
    for (int k = 1; k <= 4; k++) {
        random_state = 42;
        uint64_t hash = 0xcbf29ce484222325u; // FNV-1a
        for (int i = 0; i < 64; i++) {
            float x[HEX_BLOCK];
            uint8_t block[34];
            for (int j = 0; j < HEX_BLOCK; j++) {
                x[j] = gauss_exact() * (float) (1 << i % 8);
            }
            hex_quantize_ref(k, x, block, HEX_BLOCK);
            for (size_t j = 0; j < hex_block_size(k); j++) {
                hash = (hash ^ block[j]) * 0x100000001b3u;
            }
        }
        check(hash == known[k], "hex%d: known bytes, hash 0x%016llx", k, (unsigned long long) hash);
    }
}

// ---- quality ----

// Least squared distance of a path to x at a given scale, in double precision: what the integer search approximates.
static double exact_distance(int k, const float * x, float scale) {
    const int groups = 256 >> k;
    double best[128] = { 0 }, metric[256];
    for (int i = 0; i < HEX_BLOCK; i++) {
        for (int w = 0; w < 256; w++) {
            const double d = x[i] - (double) scale * (hex_table_a[k][w & 15] + hex_table_b[k][w >> 4]);
            metric[w] = best[w % groups] + d*d;
        }
        for (int g = 0; g < groups; g++) {
            best[g] = HUGE_VAL;
            for (int h = 0; h < 1 << k; h++) {
                best[g] = fmin(best[g], metric[g << k | h]);
            }
        }
    }
    double least = HUGE_VAL;
    for (int g = 0; g < groups; g++) {
        least = fmin(least, best[g]);
    }
    return least;
}

// The limits are what the tables reach and 1 %. Shannon's bound is 4^-k.
static void test_gaussian(void) {
    static const double limit[5] = { 0.0, 0.2667, 0.0732, 0.0192, 0.00507 };
    enum { N = 1 << 20 };
    float * x = allocate(N * sizeof(float)), * y = allocate(N * sizeof(float));
    uint8_t * blocks = allocate(N / HEX_BLOCK * 34);
    for (int i = 0; i < N; i++) {
        x[i] = gauss();
    }
    for (int k = 1; k <= 4; k++) {
        hex_quantize_ref(k, x, blocks, N);
        hex_dequantize_ref(k, blocks, y, N);
        double error = 0.0, found = 0.0, exact = 0.0, scales = 0.0;
        for (int i = 0; i < N; i++) {
            error += (double) (x[i] - y[i]) * (x[i] - y[i]);
        }
        for (int b = 0; b < N/HEX_BLOCK; b++) {
            const double d = hex_block_scale(k, blocks + (size_t) b*hex_block_size(k));
            scales += d*d*HEX_BLOCK;
        }
        check(fabs(error/scales/hex_code_noise[k] - 1) < 0.01, "hex%d: noise %.2f squared scales, the constant says %.2f", k,
              error/scales, (double) hex_code_noise[k]);
        error /= N;
        check(error < limit[k], "hex%d: mean squared error %.5f of a unit Gaussian, limit %.5f", k, error, limit[k]);

        for (int b = 0; b < 512; b++) {
            const uint8_t * block = blocks + (size_t) b * hex_block_size(k);
            exact += exact_distance(k, x + b*HEX_BLOCK, hex_block_scale(k, block));
            for (int i = b*HEX_BLOCK; i < (b + 1)*HEX_BLOCK; i++) {
                found += (double) (x[i] - y[i]) * (x[i] - y[i]);
            }
        }
        check(found < 1.02 * exact, "hex%d: %.2f %% above the best path at the stored scale", k,
              100.0 * (found / exact - 1.0));
    }
    free(x);
    free(y);
    free(blocks);
}

// x . y = x . x to half a step of the scale, or half way there; samples and hostile rows keep their codes.
static void test_unbias(void) {
    for (int k = 1; k <= 4; k++) {
        const double step = exp2(1.0 / (1 << (3 + k)));
        double worst = 1.0, before = 0.0, half = 0.0;
        bool   same = true, sound = true;
        for (int n = 0; n < 2000; n++) {
            float x[HEX_BLOCK], y[4][HEX_BLOCK];
            uint8_t block[4][34] = { { 0 } };
            const float share[4] = { 0.0f, 0.5f, 1.0f, 1.0f };
            double xx = 0.0, xy[4] = { 0.0 };
            for (int i = 0; i < HEX_BLOCK; i++) {
                x[i] = gauss();
                xx += (double) x[i]*(double) x[i];
            }
            if (n % 4 == 3) {
                hostile_row(n / 4 % MODES, x, HEX_BLOCK);
            }
            for (int s = 0; s < 4; s++) {
                hex_quantize_ref(k, x, block[s], HEX_BLOCK);
                hex_unbias(k, x, block[s], HEX_BLOCK, share[s]);
                hex_dequantize_ref(k, block[s], y[s], HEX_BLOCK);
                same = same && memcmp(block[s], block[0], 8*(size_t) k) == 0 && ((block[s][8*k] ^ block[0][8*k]) & ((1 << (8 - k)) - 1)) == 0;
                for (int i = 0; i < HEX_BLOCK; i++) {
                    sound = sound && isfinite(y[s][i]) && fabsf(y[s][i]) <= 2.1f*fabsf(y[0][i]);
                    xy[s] += (double) x[i]*(double) y[s][i];
                }
            }
            same = same && memcmp(block[2], block[3], 34) == 0;
            if (n % 4 != 3) {
                before += xy[0]/xx/1500;
                half   += xy[1]/xx/1500;
                worst   = fmax(worst, fmax(xy[2]/xx, xx/xy[2]));
            }
        }
        check(worst < sqrt(step)*1.001, "hex%d: unbiased to a factor of %.4f, half a step of the scale is %.4f", k, worst, sqrt(step));
        check(before < 1.0 && fabs(half - (1.0 + before)/2) < 0.01, "hex%d: least squares is short by %.4f, half the share by %.4f", k, 1 - before, 1 - half);
        check(same && sound, "hex%d: only scales change, by at most 2, on hostile rows as well", k);
    }
}

// A power of two moves the scale and nothing else.
static void test_scaling(void) {
    for (int k = 1; k <= 4; k++) {
        bool same = true;
        for (int i = 0; i < 200; i++) {
            float x[HEX_BLOCK], x16[HEX_BLOCK];
            uint8_t a[34], b[34];
            for (int j = 0; j < HEX_BLOCK; j++) {
                x[j]   = gauss();
                x16[j] = 16.0f * x[j];
            }
            hex_quantize_ref(k, x,   a, HEX_BLOCK);
            hex_quantize_ref(k, x16, b, HEX_BLOCK);
            same = same && memcmp(a, b, 8*(size_t) k) == 0
                && hex_get_scale_word(b, k) - hex_get_scale_word(a, k) == 4u << 11; // 4 octaves of 2^(3+k) steps
        }
        check(same, "hex%d: a row times 16 has the same codes", k);
    }
}

static void test_hostile(void) {
    enum { N = 4*HEX_BLOCK };
    for (int k = 1; k <= 4; k++) {
        for (int mode = 0; mode < MODES; mode++) {
            bool finite = true, useful = true;
            const char * name = "";
            for (int repeat = 0; repeat < 50; repeat++) {
                float x[N], y[N];
                uint8_t blocks[N / HEX_BLOCK * 34];
                name = hostile_row(mode, x, N);
                hex_quantize_ref(k, x, blocks, N);
                hex_dequantize_ref(k, blocks, y, N);
                for (int i = 0; i < N; i += HEX_BLOCK) {
                    float clean[HEX_BLOCK], e[HEX_BLOCK];
                    float amax = 0.0f;
                    for (int j = 0; j < HEX_BLOCK; j++) {
                        clean[j] = isfinite(x[i + j]) ? x[i + j] : 0.0f;
                        amax     = fmaxf(amax, fabsf(clean[j]));
                        e[j]     = clean[j] - y[i + j];
                        finite   = finite && isfinite(y[i + j]);
                    }
                    if (amax < 16384.0f) { // inside the range of the scale, and then zero is never better
                        useful = useful && squares(e, HEX_BLOCK) <= squares(clean, HEX_BLOCK);
                    }
                }
            }
            check(finite && useful, "hex%d: %s: finite, and no worse than zero", k, name);
        }
    }
}

// ---- instruction sets ----

static bool same_as_ref(int k, const float * x, int n) {
    const size_t size = (size_t) (n / HEX_BLOCK) * hex_block_size(k);
    uint8_t * want = allocate(size), * got = allocate(size);
    float * y = allocate((size_t) n * sizeof(float)), * z = allocate((size_t) n * sizeof(float));
    memset(got, 0xa5, size);
    hex_quantize_ref(k, x, want, n);
    hex_quantize(k, x, got, n);
    bool same = memcmp(want, got, size) == 0;
    hex_dequantize_ref(k, want, y, n);
    hex_dequantize(k, want, z, n);
    same = same && memcmp(y, z, (size_t) n * sizeof(float)) == 0;
    free(want);
    free(got);
    free(y);
    free(z);
    return same;
}

static void test_isa(enum hex_isa isa) {
    hex_isa_set(isa);
    check(hex_isa_get() == isa, "%s is in use", hex_isa_name(isa));
    enum { N = 256*HEX_BLOCK };
    float * x = allocate(N * sizeof(float));
    for (int k = 1; k <= 4; k++) {
        for (int i = 0; i < N; i++) {
            x[i] = gauss() * (float) (1 + i / 4096);
        }
        check(same_as_ref(k, x, N), "hex%d %s: Gaussian rows, same bits as the reference", k, hex_isa_name(isa));

        bool same = true;
        for (int mode = 0; mode < MODES; mode++) {
            for (int repeat = 0; repeat < 20; repeat++) {
                const int n = HEX_BLOCK * (1 + repeat % 5);
                hostile_row(mode, x, n);
                same = same && same_as_ref(k, x, n);
            }
        }
        check(same, "hex%d %s: hostile rows, same bits as the reference", k, hex_isa_name(isa));
    }
    free(x);
}

static void test_vec_dot(enum hex_isa isa) {
    hex_isa_set(isa);
    static void (* const dot[5])(int, float *, size_t, const void *, size_t, const void *, size_t, int) = {
        NULL, ggml_vec_dot_hex1_q8_0, ggml_vec_dot_hex2_q8_0, ggml_vec_dot_hex3_q8_0, ggml_vec_dot_hex4_q8_0,
    };
    // Halves whose floats are known: 1, 0.5, 2^-24 (denormal), 1.5, -2.
    static const uint16_t half[5] = { 0x3c00, 0x3800, 0x0001, 0x3e00, 0xc000 };
    static const float value[5] = { 1.0f, 0.5f, 0x1p-24f, 1.5f, -2.0f };
    for (int k = 1; k <= 4; k++) {
        double error = 0.0, energy = 0.0;
        for (int repeat = 0; repeat < 200; repeat++) {
            const int n = HEX_BLOCK * (1 + repeat % 9);
            const size_t size = (size_t) (n / HEX_BLOCK) * hex_block_size(k);
            uint8_t * x = allocate(size);
            hex_block_q8_0 * y = allocate((size_t) n / 32 * sizeof(*y));
            float * xf = allocate((size_t) n * sizeof(float)), s = 0.0f;
            for (int i = 0; i < n; i++) {
                xf[i] = gauss();
            }
            hex_quantize(k, xf, x, n);
            hex_dequantize_ref(k, x, xf, n);
            double want = 0.0;
            for (int i = 0; i < n; i++) {
                const int which = (i / 32 + repeat) % 5;
                y[i / 32].d          = half[which];
                y[i / 32].qs[i % 32] = (int8_t) random_bits(); // -128 too
                want += (double) xf[i] * value[which] * y[i / 32].qs[i % 32];
            }
            dot[k](n, &s, 0, x, 0, y, 0, 1);
            error  += (s - want) * (s - want);
            energy += want * want;
            free(x);
            free(y);
            free(xf);
        }
        check(error <= 1e-12 * energy, "hex%d %s: vec_dot, NMSE %.1e", k, hex_isa_name(isa), error / energy);
    }
}

// ---- ggml ----

static void test_types(void) {
    enum { ROWS = 3, COLUMNS = 2*HEX_BLOCK, N = ROWS*COLUMNS };
    float x[N], y[N], z[N];
    uint8_t a[N / HEX_BLOCK * 34], b[N / HEX_BLOCK * 34], c[N / HEX_BLOCK * 34];
    hostile_row(9, x, N);
#define CHECK_TYPE(K) do { \
        const size_t size = N / HEX_BLOCK * sizeof(block_hex##K); \
        quantize_row_hex##K##_ref(x, a, N); \
        quantize_row_hex##K(x, b, N); \
        const size_t written = quantize_hex##K(x, c, ROWS, COLUMNS, NULL); \
        check(written == size && memcmp(a, b, size) == 0 && memcmp(a, c, size) == 0, \
              "hex" #K ": ggml encoders agree"); \
        dequantize_row_hex##K(a, y, N); \
        hex_dequantize_ref(K, a, z, N); \
        check(memcmp(y, z, sizeof(y)) == 0, "hex" #K ": ggml decoder"); \
    } while (0)
    CHECK_TYPE(1);
    CHECK_TYPE(2);
    CHECK_TYPE(3);
    CHECK_TYPE(4);
}

int main(void) {
    const enum hex_isa start = hex_isa_get();
    test_tables();
    test_scale();
    test_layout();
    test_known_answers();
    test_unbias();
    test_scaling();
    test_hostile();
    for (enum hex_isa isa = HEX_ISA_REF; isa <= hex_isa_best(); isa++) {
        test_isa(isa);
        test_vec_dot(isa);
    }
    hex_isa_set(start);
    test_types();
    test_gaussian();
    return check_exit_code();
}
