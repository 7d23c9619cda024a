// Trains the tables of the trellis codec and prints core/hex_codec_tables.c. Offline; some minutes on one core.
//
//     cc -O3 -march=native -ffast-math train_tables.c -lm -o train_tables && ./train_tables > hex_codec_tables.c
//
// Generalised Lloyd on Gaussian blocks that are normalised to their RMS, as the encoder does: search the best path of
// each block, move A and B to the centroids of the windows on the paths, repeat. There are very many local optima, so
// many starts are annealed with noise on the tables, and the best ones go on without. Then the tables are rounded to
// int8, and single steps of one entry are tried until none helps. The seed is fixed; another compiler may still round
// differently and end in another, about equally good optimum.
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 64, STATES = 256, STARTS = 96, SHORT = 120, FINALISTS = 4, LONG = 20, TRAIN = 2048, CHECK = 8192 };

#define PER_SIGMA 32.0f // table units
#define NOISE      3.0f // table units; falls to 2 % of it

typedef struct { float a[16], b[16]; } tables;

static uint64_t random_state = 0x9e3779b97f4a7c15u;

static double uniform(void) { // splitmix64
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return ((double) ((z ^ z >> 31) >> 11) + 0.5) / 9007199254740992.0;
}

static float gauss(void) {
    return (float) (sqrt(-2.0 * log(uniform())) * cos(6.283185307179586 * uniform()));
}

// Blocks of RMS PER_SIGMA.
static float * make_blocks(int n) {
    float * x = malloc((size_t) n * BLOCK * sizeof(float));
    for (int i = 0; x && i < n; i++) {
        double squares = 0.0;
        for (int j = 0; j < BLOCK; j++) {
            x[i*BLOCK + j] = gauss();
            squares += (double) x[i*BLOCK + j] * x[i*BLOCK + j];
        }
        for (int j = 0; j < BLOCK; j++) {
            x[i*BLOCK + j] *= PER_SIGMA / (float) sqrt(squares / BLOCK);
        }
    }
    return x;
}

// The best path of a block: see search() in hex_codec.c.
static void search(int k, const float * x, const float * value, uint8_t window[BLOCK]) {
    const int groups = STATES >> k;
    float metric[STATES], best[STATES / 2] = { 0 };
    uint8_t from[BLOCK][STATES / 2];
    for (int i = 0; i < BLOCK; i++) {
        for (int b = 0; b < STATES; b += groups) { // the new bits
            for (int g = 0; g < groups; g++) {
                const float d = x[i] - value[b + g];
                metric[b + g] = best[g] + d*d;
            }
        }
        for (int g = 0; g < groups; g++) {
            int h = 0;
            for (int other = 1; other < 1 << k; other++) {
                h = metric[g << k | other] < metric[g << k | h] ? other : h;
            }
            from[i][g] = (uint8_t) h;
            best[g]    = metric[g << k | h];
        }
    }
    int g = 0;
    for (int other = 1; other < groups; other++) {
        g = best[other] < best[g] ? other : g;
    }
    for (int i = BLOCK - 1; i >= 0; i--) {
        window[i] = (uint8_t) (g << k | from[i][g]);
        g = window[i] & (groups - 1);
    }
}

// Mean squared error of unit Gaussian samples, each block with its own scale. With sums: those of the samples by window
// and their number (without the scales, so that the tables keep the size of the data).
static double encode(int k, const tables * t, const float * x, int n, double sum[STATES], double count[STATES]) {
    float value[STATES];
    for (int w = 0; w < STATES; w++) {
        value[w] = t->a[w & 15] + t->b[w >> 4];
    }
    if (sum) {
        memset(sum,   0, STATES * sizeof(*sum));
        memset(count, 0, STATES * sizeof(*count));
    }
    double error = 0.0;
    for (int i = 0; i < n; i++, x += BLOCK) {
        uint8_t window[BLOCK];
        search(k, x, value, window);
        double xc = 0.0, cc = 1e-9;
        for (int j = 0; j < BLOCK; j++) {
            xc += (double) x[j] * value[window[j]];
            cc += (double) value[window[j]] * value[window[j]];
        }
        const double s = xc / cc;
        for (int j = 0; j < BLOCK; j++) {
            const double e = x[j] - s * value[window[j]];
            error += e*e;
            if (sum) {
                sum[window[j]]   += x[j];
                count[window[j]] += 1.0;
            }
        }
    }
    return error / ((double) n * BLOCK * PER_SIGMA * PER_SIGMA);
}

// The A and B nearest to the centroids of all windows, by alternating least squares.
static void centroids(tables * t, const double sum[STATES], const double count[STATES]) {
    for (int round = 0; round < 8; round++) {
        for (int part = 0; part < 2; part++) {
            float * fit = part ? t->b : t->a, * other = part ? t->a : t->b;
            for (int i = 0; i < 16; i++) {
                double num = 0.0, den = 0.0;
                for (int j = 0; j < 16; j++) {
                    const int w = part ? i << 4 | j : j << 4 | i;
                    num += sum[w] - count[w] * other[j];
                    den += count[w];
                }
                fit[i] = den > 0.0 ? (float) (num / den) : fit[i];
            }
        }
    }
}

static double lloyd(int k, tables * t, const float * x, int n, int rounds, float noise) {
    double sum[STATES], count[STATES], error = 0.0;
    for (int i = 0; i < rounds; i++) {
        error = encode(k, t, x, n, sum, count);
        centroids(t, sum, count);
        const float now = noise * powf(0.02f, (float) i / (float) rounds);
        for (int j = 0; noise > 0.0f && j < 16; j++) {
            t->a[j] += now * gauss();
            t->b[j] += now * gauss();
        }
    }
    return error;
}

// Even starts: noise. Odd ones: spread levels in a random order in one table, small offsets in the other; that is the
// better shape where a window has many old bits to tell apart.
static void start(int index, int k, tables * t) {
    for (int i = 0; i < 16; i++) {
        t->a[i] = PER_SIGMA * 0.7f * gauss();
        t->b[i] = PER_SIGMA * 0.7f * gauss();
    }
    if (index % 2 == 1) {
        for (int i = 0; i < 16; i++) {
            t->b[i] = PER_SIGMA * 1.9f * (float) (2*i - 15) / 15.0f;
            t->a[i] *= k == 4 ? 0.3f : 0.6f;
        }
        for (int i = 15; i > 0; i--) {
            const int j = (int) (uniform() * (i + 1));
            const float swap = t->b[i];
            t->b[i] = t->b[j];
            t->b[j] = swap;
        }
    }
}

static int fits_int8(const tables * t) {
    float a = 0.0f, b = 0.0f, c = 0.0f, d = 0.0f;
    for (int i = 0; i < 16; i++) {
        a = fmaxf(a, t->a[i]); b = fmaxf(b, t->b[i]);
        c = fminf(c, t->a[i]); d = fminf(d, t->b[i]);
    }
    return a + b <= 127.0f && c + d >= -127.0f;
}

static double round_and_refine(int k, tables * t, const float * x, int n) {
    for (int i = 0; i < 16; i++) {
        t->a[i] = roundf(t->a[i]);
        t->b[i] = roundf(t->b[i]);
    }
    double error = encode(k, t, x, n, NULL, NULL);
    for (int helped = 1; helped;) {
        helped = 0;
        for (int i = 0; i < 64; i++) {
            float * entry = (i & 32 ? t->b : t->a) + i % 16;
            const float old = *entry;
            *entry += i & 16 ? 1.0f : -1.0f;
            const double e = fits_int8(t) ? encode(k, t, x, n, NULL, NULL) : HUGE_VAL;
            if (e < error) {
                error  = e;
                helped = 1;
            } else {
                *entry = old;
            }
        }
    }
    return error;
}

static tables train(int k, const float * x, const float * check) {
    tables best[FINALISTS];
    double error[FINALISTS];
    for (int i = 0; i < FINALISTS; i++) {
        error[i] = HUGE_VAL;
    }
    for (int i = 0; i < STARTS; i++) {
        tables t;
        start(i, k, &t);
        double e = lloyd(k, &t, x, TRAIN / 4, SHORT, NOISE);
        for (int j = 0; j < FINALISTS; j++) { // insert, the worst falls out
            if (e < error[j]) {
                const tables out = best[j];
                const double worse = error[j];
                best[j]  = t; t = out;
                error[j] = e; e = worse;
            }
        }
    }
    int pick = 0;
    for (int j = 0; j < FINALISTS; j++) {
        error[j] = lloyd(k, &best[j], x, TRAIN, LONG, 0.0f);
        pick = error[j] < error[pick] ? j : pick;
    }
    const double e_int8 = round_and_refine(k, &best[pick], x, TRAIN);
    fprintf(stderr, "%d bits: trained %.5f, as int8 %.5f, on other data %.5f\n", k, error[pick], e_int8,
            encode(k, &best[pick], check, CHECK, NULL, NULL));
    return best[pick];
}

static void print_tables(char name, const tables t[5]) {
    printf("HEX_TABLE const int8_t hex_table_%c[5][16] = {\n    { 0 },\n", name);
    for (int k = 1; k <= 4; k++) {
        printf("    {");
        for (int i = 0; i < 16; i++) {
            printf("%s%4d", i ? "," : "", (int) (name == 'a' ? t[k].a[i] : t[k].b[i]));
        }
        printf(" },\n");
    }
    printf("};\n\n");
}

int main(void) {
    float * x = make_blocks(TRAIN), * check = make_blocks(CHECK);
    if (!x || !check) {
        return 1;
    }
    tables t[5];
    for (int k = 1; k <= 4; k++) {
        t[k] = train(k, x, check);
    }
    free(x);
    free(check);

    printf("// Printed by train_tables.c. One sigma is %d units; every sum A + B is an int8.\n", (int) PER_SIGMA);
    printf("#include \"hex_codec_impl.h\"\n\n#ifndef HEX_TABLE\n#    define HEX_TABLE\n#endif\n\n");
    print_tables('a', t);
    print_tables('b', t);
    printf("HEX_TABLE const uint32_t hex_scale_mantissa[128] = {\n");
    for (int j = 0; j < 128; j++) {
        const long m = lround((exp2(j / 128.0) - 1.0) * 8388608.0);
        printf("%s0x%06lx,%s", j % 8 ? " " : "    ", m, j % 8 == 7 ? "\n" : "");
    }
    printf("};\n");
    return 0;
}
