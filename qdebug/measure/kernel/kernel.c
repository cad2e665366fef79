/* The statistics of a block in one pass: the loop that qdebug/measure/kernel/plain.py has in NumPy.
   At the end, the loops of bins.py and of qdebug/measure/histogram.py.

   A block is read once, CHUNK elements at a time: converted to float64 in buffers that stay in the
   L1 cache, summed there, and merged into the column of its channel. The loops are written so that
   compilers vectorize them. Nothing is allocated, and no state is kept between calls.

   x: float reference, q: code, t = q - z its steps from zero, d = t * s, e = d - x, m: the float
   model's own value. Formulas are those of docs/metrics.md.

   Floats need IEEE 754 arithmetic in their own precision: build without -ffast-math, and with
   -ffp-contract=off, so that an exact code has an error of exactly zero. */

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if FLT_EVAL_METHOD != 0
#error "float64 is computed in another precision"
#endif

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

/* One copy of a function for each width of vectors: AVX-512, AVX2, and the SSE2 of every x86-64.
   glibc's loader picks one. Elsewhere there is one copy; NEON is a part of every AArch64. */
#if defined(__x86_64__) && defined(__GLIBC__) && (__GNUC__ >= 12 || __clang_major__ >= 17)
#define WIDE __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#elif defined(__x86_64__) && defined(__GLIBC__)
#define WIDE __attribute__((target_clones("avx2", "default")))
#else
#define WIDE
#endif
/* What such a function calls is inlined into it, and so comes in each width, too. */
#if defined(_MSC_VER) && !defined(__clang__)
#define INLINE static __forceinline
#else
#define INLINE static inline __attribute__((always_inline))
#endif

/* A reduction may add in any order, as SIMD requires; ignored by compilers that do not know it. */
#define PRAGMA(text) _Pragma(#text)
#define SIMD(...) PRAGMA(omp simd __VA_ARGS__)

/* The rows of the table of statistics, in the order of `qdebug.measure.statistics.Statistics`. */
#define SUMS(F)                                                                                    \
    F(count) F(non_finite) F(zeros) F(clipped) F(saturated) F(lost) F(small)                       \
    F(x_sum) F(x_magnitude) F(q_sum) F(e_sum) F(steps_sum) F(steps_outward) F(steps_square)        \
    F(quantizer_square) F(clipped_square) F(carried_square) F(d_square) F(xd_product)              \
    F(model_count) F(model_square) F(model_error_square) F(model_steps_square)                     \
    F(inherited_square) F(model_clipped) F(model_only)                                             \
    F(weights_count) F(weights_square) F(arithmetic_square) /* of NumPy: split in plain.py */      \
    F(expected_square) F(expected_variance) /* of NumPy: decoded.py */                             \
    F(x_moment) F(q_moment) F(e_moment) F(xq_moment) F(line_square)
#define LEAST(F) F(x_min) F(q_min) F(m_min)
#define MOST(F) F(x_max) F(q_max) F(m_max) F(e_max) F(steps_max)

#define ROW(name) name,
enum row { SUMS(ROW) LEAST(ROW) MOST(ROW) ROWS };
#define FIRST_LEAST x_min
#define FIRST_MOST x_max

#define NAME(name) #name " "
EXPORT const char qdebug_rows[] = SUMS(NAME) LEAST(NAME) MOST(NAME);

/* CRC-32 of this file, from the build; qdebug does not load the library of another source. */
#ifndef QDEBUG_SOURCE
#define QDEBUG_SOURCE 0
#endif
EXPORT const uint32_t qdebug_source = QDEBUG_SOURCE;

/* Elements of a channel converted and summed at a time: their buffers fit the L1 cache. Where rows
   of a channel are SHORT, it is GROUP channels and fewer elements of each; PITCH is the distance
   from one to the next in the buffers, odd in cache lines. */
enum { CHUNK = 1024, SHORT = 32, GROUP = 8, SHORT_CHUNK = 256, PITCH = SHORT_CHUNK + 8 };

/* How the codes of a channel map to floats. */
struct channel {
    double scale;
    double lowest, highest; /* steps of qmin and qmax */
    double low, high;       /* floats outside are clipped */
    int half_even;          /* how halves are rounded: to even, or away from zero */
    int best;               /* whether the codes are the best ones */
    double cancelled;       /* share of a sum of squares that is left of enough digits */
};

static const double SURELY_ROUNDED = 0.49999; /* as in statistics.py, as are the next */
static const double SMALL_STEPS = 4;
static const double CANCELLED = 1e-4, CANCELLED_LONG = 0.25, LONG_CODES = 1 << 16;
static const double LOST_SHARE = 1e-8, LOST_STEPS = 1e-9;

INLINE double least_of(double a, double b) { return a < b ? a : b; }
INLINE double most_of(double a, double b) { return a > b ? a : b; }
INLINE int is_finite(double a) { return fabs(a) <= DBL_MAX; }

/* The whole number nearest to a; halves go away from zero if `half_away` is 1, to even if it is 0.
   Beyond 2^51, where this is wrong, all codes are clamped. Adding 1.5 * 2^52 leaves no digits for a
   fraction, and rounds halves to even. */
INLINE double rounded(double a, double half_away) {
    const double even = (a + 0x1.8p52) - 0x1.8p52;
    const double moved = copysign(fabs(a - even) == 0.5 ? half_away : 0, a);
    return fabs(even) < fabs(a) ? even + moved : even;
}

/* The best codes of n floats, as steps from zero. A product is not rounded as the quotient is, which
   matters near halves only: if there are any, all are divided. */
WIDE static void quantize(const double *restrict x, double *restrict t, int n,
                          const struct channel *c) {
    const double s = c->scale, steps = 1 / s, lowest = c->lowest, highest = c->highest;
    double most_left = 0;
    SIMD(reduction(max : most_left))
    for (int i = 0; i < n; i++) {
        const double a = x[i] * steps, even = (a + 0x1.8p52) - 0x1.8p52;
        most_left = most_of(fabs(a - even), most_left);
        t[i] = most_of(least_of(even, highest), lowest);
    }
    if (most_left < SURELY_ROUNDED)
        return;
    const double half_away = c->half_even ? 0 : 1;
    for (int i = 0; i < n; i++)
        t[i] = most_of(least_of(rounded(x[i] / s, half_away), highest), lowest);
}

/* Sums, extremes and counts of one chunk, to a row of the table in which q stands for t.
   Each loop has as many sums as there are registers; `e` is room for n elements. */
WIDE static void take(const double *restrict x, const double *restrict t, double *restrict e, int n,
                      const struct channel *c, double *restrict row) {
    const double s = c->scale, lowest = c->lowest, highest = c->highest;

    double sum_x = 0, sum_t = 0, sum_e = 0, magnitude = 0, outward = 0;
    double xx = 0, tt = 0, xt = 0, ee = 0;
    SIMD(reduction(+ : sum_x, sum_t, sum_e, magnitude, outward, xx, tt, xt, ee))
    for (int i = 0; i < n; i++) {
        const double error = t[i] * s - x[i], away_from_zero = copysign(1, x[i]) * error;
        e[i] = error;
        sum_x += x[i];
        sum_t += t[i];
        sum_e += error;
        magnitude += fabs(x[i]);
        outward += x[i] == 0 ? 0 : away_from_zero;
        xx += x[i] * x[i];
        tt += t[i] * t[i];
        xt += x[i] * t[i];
        ee += error * error;
    }

    double least_x = INFINITY, most_x = -INFINITY, least_t = INFINITY, most_t = -INFINITY;
    double most_e = 0;
    SIMD(reduction(min : least_x, least_t) reduction(max : most_x, most_t, most_e))
    for (int i = 0; i < n; i++) {
        least_x = least_of(x[i], least_x);
        most_x = most_of(x[i], most_x);
        least_t = least_of(t[i], least_t);
        most_t = most_of(t[i], most_t);
        most_e = most_of(fabs(e[i]), most_e);
    }

    /* Floats that are not zero: all, those of small codes, those of the code of zero. Three counts
       in one number, whose digits they share. */
    const double small_one = 0x1p20, lost_one = 0x1p40;
    double counts = 0;
    SIMD(reduction(+ : counts))
    for (int i = 0; i < n; i++) {
        const double is_small = fabs(t[i]) <= SMALL_STEPS ? small_one : 0;
        const double is_lost = t[i] == 0 ? lost_one : 0;
        counts += x[i] == 0 ? 0 : 1 + is_small + is_lost;
    }
    const int64_t some = (int64_t)counts, below = ((int64_t)1 << 20) - 1;

    double at_limit = 0;
    if (least_t == lowest || most_t == highest) {
        SIMD(reduction(+ : at_limit))
        for (int i = 0; i < n; i++)
            at_limit += t[i] == lowest ? 1 : t[i] == highest ? 1 : 0;
    }

    /* A sum of squares about zero gives that about the mean, unless that cancels its digits. */
    double x_about = xx - sum_x * sum_x / n, t_about = tt - sum_t * sum_t / n;
    double xt_about = xt - sum_x * sum_t / n, e_about = ee - sum_e * sum_e / n;
    if (x_about < c->cancelled * xx || t_about < c->cancelled * tt) {
        const double mean_x = sum_x / n, mean_t = sum_t / n;
        double off_x = 0, off_t = 0; /* what the rounded means are off */
        x_about = t_about = xt_about = 0;
        SIMD(reduction(+ : x_about, t_about, xt_about, off_x, off_t))
        for (int i = 0; i < n; i++) {
            const double from_x = x[i] - mean_x, from_t = t[i] - mean_t;
            x_about += from_x * from_x;
            t_about += from_t * from_t;
            xt_about += from_x * from_t;
            off_x += from_x;
            off_t += from_t;
        }
        x_about -= off_x * off_x / n;
        t_about -= off_t * off_t / n;
        xt_about -= off_x * off_t / n;
        sum_x = mean_x * n + off_x;
    }
    if (e_about < CANCELLED * ee) {
        const double mean_e = sum_e / n;
        double off_e = 0;
        e_about = 0;
        SIMD(reduction(+ : e_about, off_e))
        for (int i = 0; i < n; i++) {
            const double from_e = e[i] - mean_e;
            e_about += from_e * from_e;
            off_e += from_e;
        }
        e_about -= off_e * off_e / n;
        sum_e = mean_e * n + off_e;
    }

    /* What the least-squares line of x over t leaves: e less its own line is the same, and small. */
    const double fit = xt_about / most_of(t_about, DBL_MIN), slope = s - fit;
    double left = e_about - slope * slope * t_about;
    const double lost_digits = DBL_EPSILON * (ee + 4 * s * fabs(slope) * tt);
    if (lost_digits > LOST_SHARE * left + n * (LOST_STEPS * fit) * (LOST_STEPS * fit)) {
        const double middle = (sum_e - slope * sum_t) / n;
        left = 0;
        SIMD(reduction(+ : left))
        for (int i = 0; i < n; i++) {
            const double from_line = e[i] - slope * t[i] - middle;
            left += from_line * from_line;
        }
    }

    /* The best codes, if some code may be another. */
    double best_ee = ee, carried = 0, clipped_ee = 0, outside = 0;
    if (most_e > SURELY_ROUNDED * s) {
        const double *const best = c->best ? t : e;
        if (!c->best) {
            quantize(x, e, n, c);
            best_ee = 0;
            SIMD(reduction(+ : best_ee, carried))
            for (int i = 0; i < n; i++) {
                const double best_e = e[i] * s - x[i], away = t[i] - e[i];
                best_ee += best_e * best_e;
                carried += away * away;
            }
        }
        const double low = c->low, high = c->high;
        if (least_x < low || most_x > high) {
            SIMD(reduction(+ : outside, clipped_ee))
            for (int i = 0; i < n; i++) {
                const double beyond = x[i] < low ? 1 : x[i] > high ? 1 : 0;
                const double steps = (best[i] * s - x[i]) / s;
                outside += beyond;
                clipped_ee += beyond * (steps * steps);
            }
        }
    }

    memset(row, 0, sizeof(double) * ROWS);
    row[count] = n;
    row[zeros] = (double)(n - (some & below));
    row[clipped] = outside;
    row[saturated] = at_limit;
    row[lost] = (double)(some >> 40);
    row[small] = (double)(some >> 20 & below);
    row[x_sum] = sum_x;
    row[x_magnitude] = magnitude;
    row[q_sum] = sum_t;
    row[e_sum] = sum_e;
    row[steps_sum] = sum_e / s;
    row[steps_outward] = outward / s;
    row[steps_square] = ee / s / s;
    row[quantizer_square] = best_ee / s / s;
    row[clipped_square] = clipped_ee;
    row[carried_square] = carried;
    row[d_square] = tt * s * s;
    row[xd_product] = xt * s;
    row[x_moment] = x_about;
    row[q_moment] = t_about;
    row[e_moment] = e_about;
    row[xq_moment] = xt_about;
    row[line_square] = most_of(left, 0);
    row[x_min] = least_x;
    row[q_min] = least_t;
    row[m_min] = INFINITY;
    row[x_max] = most_x;
    row[q_max] = most_t;
    row[m_max] = -INFINITY;
    row[e_max] = most_e;
    row[steps_max] = most_e / s;
}

/* The rows about the float model's own values, all finite. */
WIDE static void take_model(const double *restrict x, const double *restrict t,
                            const double *restrict m, int n, const struct channel *c,
                            double *restrict row) {
    const double s = c->scale, low = c->low, high = c->high;
    double mm = 0, errors = 0, inherited = 0;
    SIMD(reduction(+ : mm, errors, inherited))
    for (int i = 0; i < n; i++) {
        const double error = t[i] * s - m[i], before = x[i] - m[i];
        mm += m[i] * m[i];
        errors += error * error;
        inherited += before * before;
    }
    double least = INFINITY, most = -INFINITY, outside = 0;
    SIMD(reduction(min : least) reduction(max : most))
    for (int i = 0; i < n; i++) {
        least = least_of(m[i], least);
        most = most_of(m[i], most);
    }
    if (least < low || most > high) {
        SIMD(reduction(+ : outside))
        for (int i = 0; i < n; i++)
            outside += m[i] < low ? 1 : m[i] > high ? 1 : 0;
    }
    row[model_count] = n;
    row[model_square] = mm;
    row[model_error_square] = errors;
    row[model_steps_square] = errors / s / s;
    row[inherited_square] = inherited / s / s;
    row[model_clipped] = outside;
    row[m_min] = least;
    row[m_max] = most;
}

/* Add the statistics of more elements, as `_pooled` does: sums about means, and about lines, are
   the parts' own plus what their means and lines are apart. */
INLINE void merge(double *to, const double *more) {
    const double n = to[count], k = more[count], weight = n > 0 && k > 0 ? n * k / (n + k) : 0;
    const double x_apart = weight > 0 ? more[x_sum] / k - to[x_sum] / n : 0;
    const double q_apart = weight > 0 ? more[q_sum] / k - to[q_sum] / n : 0;
    const double e_apart = weight > 0 ? more[e_sum] / k - to[e_sum] / n : 0;
    const double own = to[xq_moment] / most_of(to[q_moment], DBL_MIN), own_q = to[q_moment];
    const double other = more[xq_moment] / most_of(more[q_moment], DBL_MIN);
    for (int i = 0; i < FIRST_LEAST; i++)
        to[i] += more[i];
    for (int i = FIRST_LEAST; i < FIRST_MOST; i++)
        to[i] = least_of(more[i], to[i]);
    for (int i = FIRST_MOST; i < ROWS; i++)
        to[i] = most_of(more[i], to[i]);
    to[x_moment] += weight * x_apart * x_apart;
    to[q_moment] += weight * q_apart * q_apart;
    to[e_moment] += weight * e_apart * e_apart;
    to[xq_moment] += weight * x_apart * q_apart;
    const double slope = to[xq_moment] / most_of(to[q_moment], DBL_MIN);
    const double apart = x_apart - slope * q_apart;
    to[line_square] += own_q * (own - slope) * (own - slope) + weight * apart * apart +
                       more[q_moment] * (other - slope) * (other - slope);
}

/* Types of arrays: NumPy's kind and size, f4 for float32. All are in the machine's byte order. */
enum type { F2, F4, F8, I1, U1, I2, U2, I4 };

/* float16 to float32: sign, exponent and fraction move to their places; the exponent's bias
   differs by 112. Subnormal numbers are multiples of 2^-24; infinity and NaN keep their kind. */
INLINE double of_half(uint16_t half) {
    const uint32_t rest = half & 0x7fff;
    const uint32_t bits = (rest << 13) + (rest >= 0x7c00 ? 224u << 23 : 112u << 23);
    float normal;
    memcpy(&normal, &bits, sizeof normal);
    const float value = rest < 0x400 ? (float)(int32_t)rest * 0x1p-24f : normal;
    return half & 0x8000 ? -value : value;
}

/* A piece of a block: `width` elements of each of `channels` channels in each of `rows` rows. */
struct piece {
    ptrdiff_t first;    /* element of the block */
    ptrdiff_t row_step; /* elements from row to row */
    ptrdiff_t step;     /* elements from channel to channel */
    int rows, channels, width;
};

#define EACH(ctype, value)                                                                         \
    {                                                                                              \
        const ctype *const restrict block = (const ctype *)from + p->first;                        \
        if (width == 1) {                                                                          \
            for (int r = 0; r < rows; r++)                                                         \
                for (int k = 0; k < p->channels; k++)                                              \
                    to[k * PITCH + r] = value(block[r * row_step + k]) - minus[k];                 \
            break;                                                                                 \
        }                                                                                          \
        for (int k = 0; k < p->channels; k++)                                                      \
            for (int r = 0; r < rows; r++) {                                                       \
                const ctype *const restrict a = block + r * row_step + k * p->step;                \
                double *const restrict b = to + k * PITCH + r * width;                             \
                for (int i = 0; i < width; i++)                                                    \
                    b[i] = value(a[i]) - minus[k];                                                 \
            }                                                                                      \
        break;                                                                                     \
    }

/* A piece as float64, less `minus` of its channel; channels are PITCH apart. */
WIDE static void load(double *restrict to, const void *restrict from, int type,
                      const struct piece *p, const double *minus) {
    const int rows = p->rows, width = p->width;
    const ptrdiff_t row_step = p->row_step;
    switch (type) {
    case F2: EACH(uint16_t, of_half)
    case F4: EACH(float, (double))
    case F8: EACH(double, )
    case I1: EACH(int8_t, (double))
    case U1: EACH(uint8_t, (double))
    case I2: EACH(int16_t, (double))
    case U2: EACH(uint16_t, (double))
    case I4: EACH(int32_t, (double))
    }
}

/* Widen a range by n numbers, without those that are not finite. */
WIDE static void widen(const double *restrict x, int n, double *low, double *high) {
    double least = *low, most = *high;
    SIMD(reduction(min : least) reduction(max : most))
    for (int i = 0; i < n; i++) {
        least = least_of(fabs(x[i]) <= DBL_MAX ? x[i] : INFINITY, least);
        most = most_of(fabs(x[i]) <= DBL_MAX ? x[i] : -INFINITY, most);
    }
    *low = least;
    *high = most;
}

/* The bits of n numbers as float32, in `unit`: finite ones stay finite, and only those. */
WIDE static void to_float32(const double *restrict x, uint32_t *restrict bits, int n, double unit) {
    for (int i = 0; i < n; i++) {
        const double value = x[i] / unit;
        const float near = (float)(value > FLT_MAX ? FLT_MAX : value < -FLT_MAX ? -FLT_MAX : value);
        const float kept = fabs(x[i]) <= DBL_MAX ? near : INFINITY;
        memcpy(bits + i, &kept, sizeof kept);
    }
}

/* A way through a block of (outer, channels, inner): row `outer`, of which some is `done`. */
struct walk {
    const ptrdiff_t rows, channels, inner;
    ptrdiff_t row, done;
};

/* The next piece of `here` channels from `first` on, at most `room` elements of each: whole rows if
   they fit. */
static struct piece next_piece(struct walk *w, ptrdiff_t first, int here, int room) {
    struct piece p = {(w->row * w->channels + first) * w->inner + w->done,
                      w->channels * w->inner, w->inner, 1, here, 0};
    const ptrdiff_t fit = room / w->inner, rows = w->rows - w->row, rest = w->inner - w->done;
    if (w->done == 0 && fit > 0) {
        p.rows = (int)(rows < fit ? rows : fit);
        p.width = (int)w->inner;
        w->row += p.rows;
    } else {
        p.width = (int)(rest < room ? rest : room);
        w->done += p.width;
        if (w->done == w->inner) {
            w->done = 0;
            w->row++;
        }
    }
    return p;
}

/* Keep the elements for which `of` is finite; returns how many. `m` may be null. */
static int without_gaps(const double *of, double *x, double *t, double *m, int n) {
    int kept = 0;
    for (int i = 0; i < n; i++) {
        if (!is_finite(of[i]))
            continue;
        x[kept] = x[i];
        t[kept] = t[i];
        if (m)
            m[kept] = m[i];
        kept++;
    }
    return kept;
}

/* Merge n elements of a channel, which are overwritten, into `row`. */
static void add(double *x, double *t, double *m, int n, const struct channel *c, double *row) {
    double found[ROWS], room[CHUNK];
    take(x, t, room, n, c, found);
    if (!is_finite(found[x_sum])) {
        for (int i = 0; i < n; i++)
            row[model_only] += m && !is_finite(x[i]) && is_finite(m[i]);
        const int kept = without_gaps(x, x, t, m, n);
        row[non_finite] += n - kept;
        n = kept;
        take(x, t, room, n, c, found);
    }
    if (!n)
        return;
    if (m) {
        take_model(x, t, m, n, c, found);
        if (!is_finite(found[model_square]))
            take_model(x, t, m, without_gaps(m, x, t, m, n), c, found);
    }
    merge(row, found);
}

/* Merge a block into the columns of its channels.

   floats, codes, model: arrays of (outer, channels, inner) in C order. Where codes is null, the
   best codes are taken; model may be null, too.
   scale, zero_point: of the block's channels. table: ROWS rows, `stride` apart, at the block's
   first channel. */
EXPORT void qdebug_measure(const void *floats, int float_type, const void *codes, int code_type,
                           const void *model, int model_type, ptrdiff_t outer, ptrdiff_t channels,
                           ptrdiff_t inner, const double *scale, const int64_t *zero_point,
                           int64_t qmin, int64_t qmax, int half_even, double *table,
                           ptrdiff_t stride) {
    /* Rows of few elements are read for several channels at once. */
    const int group = inner < SHORT ? GROUP : 1, chunk = inner < SHORT ? SHORT_CHUNK : CHUNK;
    double x[GROUP * PITCH], t[GROUP * PITCH], m[GROUP * PITCH];
    const double nothing[GROUP] = {0};
    if (!inner)
        return;

    for (ptrdiff_t first = 0; first < channels; first += group) {
        const int here = (int)(channels - first < group ? channels - first : group);
        struct channel c[GROUP];
        double zero[GROUP], row[GROUP][ROWS];
        for (int k = 0; k < here; k++) {
            const double s = scale[first + k];
            zero[k] = (double)zero_point[first + k];
            c[k].scale = s;
            c[k].lowest = (double)qmin - zero[k];
            c[k].highest = (double)qmax - zero[k];
            c[k].low = c[k].lowest * s - s / 2;
            c[k].high = c[k].highest * s + s / 2;
            c[k].half_even = half_even;
            c[k].best = !codes;
            c[k].cancelled = (double)(qmax - qmin) >= LONG_CODES ? CANCELLED_LONG : CANCELLED;
            for (int i = 0; i < ROWS; i++)
                row[k][i] = i < FIRST_LEAST ? 0 : i < FIRST_MOST ? INFINITY : -INFINITY;
        }

        int n = 0; /* elements of each channel in the buffers */
        struct walk w = {outer, channels, inner, 0, 0};
        while (w.row < outer) {
            const struct piece p = next_piece(&w, first, here, chunk - n);
            load(x + n, floats, float_type, &p, nothing);
            if (codes)
                load(t + n, codes, code_type, &p, zero);
            else
                for (int k = 0; k < here; k++)
                    quantize(x + k * PITCH + n, t + k * PITCH + n, p.rows * p.width, &c[k]);
            if (model)
                load(m + n, model, model_type, &p, nothing);
            n += p.rows * p.width;
            const int fits_no_row = w.done == 0 && inner <= chunk && n + inner > chunk;
            if (w.row == outer || n == chunk || fits_no_row) {
                for (int k = 0; k < here; k++)
                    add(x + k * PITCH, t + k * PITCH, model ? m + k * PITCH : NULL, n, &c[k], row[k]);
                n = 0;
            }
        }

        for (int k = 0; k < here; k++) {
            /* In the table, codes stand for themselves. */
            row[k][q_sum] += zero[k] * row[k][count];
            row[k][q_min] += zero[k];
            row[k][q_max] += zero[k];
            double column[ROWS];
            for (int i = 0; i < ROWS; i++)
                column[i] = table[i * stride + first + k];
            merge(column, row[k]);
            for (int i = 0; i < ROWS; i++)
                table[i * stride + first + k] = column[i];
        }
    }
}

/* Whether n numbers are all finite. */
WIDE static int all_finite(const double *restrict x, int n) {
    double sum = 0;
    SIMD(reduction(+ : sum))
    for (int i = 0; i < n; i++)
        sum += 0 * x[i];
    return sum == 0;
}

/* The rows about the cells of n elements, all finite: half distances below and above, and ends,
   which may be null. Without width (scale 0) there are no steps. */
WIDE static void take_cells(const double *restrict x, const double *restrict d,
                            const double *restrict below, const double *restrict above,
                            const double *restrict ends, int n, double *restrict row) {
    double squares = 0, variances = 0, sum = 0, outward = 0, uu = 0, most = 0;
    SIMD(reduction(+ : squares, variances, sum, outward, uu) reduction(max : most))
    for (int i = 0; i < n; i++) {
        const double a = below[i], b = above[i], width = a + b, e = d[i] - x[i];
        const double aa = a * a, ab = a * b, bb = b * b, square = (aa - ab + bb) / 3;
        const double u = width > 0 ? e / width : 0;
        squares += square;
        variances += (aa * aa - aa * ab + ab * ab - ab * bb + bb * bb) / 5 - square * square;
        sum += u;
        outward += x[i] == 0 ? 0 : copysign(1, x[i]) * u;
        uu += u * u;
        most = most_of(fabs(u), most);
    }
    row[expected_square] = squares;
    row[expected_variance] = variances;
    row[steps_sum] = sum;
    row[steps_outward] = outward;
    row[steps_square] = uu;
    row[steps_max] = most;
    if (!ends)
        return;
    double outside = 0, outside_ee = 0, at_end = 0;
    SIMD(reduction(+ : outside, outside_ee, at_end))
    for (int i = 0; i < n; i++) {
        const double e = d[i] - x[i];
        /* One comparison at a time: GCC 12 miscounts `a && b ? 1 : c && d ? 1 : 0` in vectors. */
        const double over = ends[i] < 0 ? e - below[i] : ends[i] > 0 ? -above[i] - e : 0;
        const double beyond = over > 0 ? 1 : 0;
        outside += beyond;
        outside_ee += beyond * (e * e);
        at_end += ends[i] == 0 ? 0 : 1;
    }
    row[clipped] = outside;
    row[clipped_square] = outside_ee;
    row[saturated] = at_end;
}

/* An array of a block that may be null, with its type. */
struct array {
    const void *values;
    int type;
};

/* Merge a block whose codes were decoded into the columns of its channels: the values are the
   floats that they stand for.

   floats, values: arrays of (outer, channels, inner) in C order; below, above: both, or null; ends:
   only with them, or null. table: ROWS rows, `stride` apart, at the block's first channel. */
EXPORT void qdebug_decoded(const void *floats, int float_type, const void *values, int value_type,
                           const void *below, int below_type, const void *above, int above_type,
                           const void *ends, int end_type, ptrdiff_t outer, ptrdiff_t channels,
                           ptrdiff_t inner, double *table, ptrdiff_t stride) {
    const struct array given[5] = {{floats, float_type}, {values, value_type}, {below, below_type},
                                   {above, above_type}, {ends, end_type}};
    const int known = !below ? 2 : !ends ? 4 : 5;
    /* To `take`, the values are codes with a scale of 1 and without limits. */
    const struct channel c = {1, NAN, NAN, -INFINITY, INFINITY, 0, 1, CANCELLED};
    const double nothing = 0;
    double a[5][CHUNK], room[CHUNK], found[ROWS];
    for (ptrdiff_t k = 0; k < channels; k++) {
        struct walk w = {outer, channels, inner, 0, 0};
        while (inner && w.row < outer) {
            const struct piece p = next_piece(&w, k, 1, CHUNK);
            const int all = p.rows * p.width;
            int n = all, gaps = 0;
            for (int j = 0; j < known; j++) {
                load(a[j], given[j].values, given[j].type, &p, &nothing);
                gaps |= !all_finite(a[j], all);
            }
            if (gaps) {
                n = 0;
                for (int i = 0; i < all; i++) {
                    double sum = 0;
                    for (int j = 0; j < known; j++)
                        sum += 0 * (a[j][n] = a[j][i]);
                    n += sum == 0;
                }
            }
            table[non_finite * stride + k] += all - n;
            if (!n)
                continue;
            take(a[0], a[1], room, n, &c, found);
            found[small] = found[quantizer_square] = 0;
            found[steps_sum] = found[steps_outward] = found[steps_square] = 0;
            found[steps_max] = -INFINITY;
            if (known < 5)
                found[clipped] = found[clipped_square] = found[saturated] = NAN;
            if (known > 2)
                take_cells(a[0], a[1], a[2], a[3], known > 4 ? a[4] : NULL, n, found);
            double column[ROWS];
            for (int i = 0; i < ROWS; i++)
                column[i] = table[i * stride + k];
            merge(column, found);
            for (int i = 0; i < ROWS; i++)
                table[i * stride + k] = column[i];
        }
    }
}

/* Widen low and high, one for each channel, by the finite elements of a block. */
EXPORT void qdebug_extremes(const void *floats, int float_type, ptrdiff_t outer, ptrdiff_t channels,
                            ptrdiff_t inner, double *low, double *high) {
    const double nothing = 0;
    double x[CHUNK];
    for (ptrdiff_t k = 0; k < channels; k++) {
        struct walk w = {outer, channels, inner, 0, 0};
        while (inner && w.row < outer) {
            const struct piece p = next_piece(&w, k, 1, CHUNK);
            load(x, floats, float_type, &p, &nothing);
            widen(x, p.rows * p.width, low + k, high + k);
        }
    }
}

/* Count the finite elements of a block in bins of float32 numbers, as `Summarizer` has them.

   unit, first: of each channel; its elements are counted in `unit`, and `first` is the number of its
   lowest bin. A bin's number is the exponent and the first mantissa bits of a number. counts: of
   (channels, 2, bins), numbers from zero on and negative ones. */
EXPORT void qdebug_count(const void *floats, int float_type, ptrdiff_t outer, ptrdiff_t channels,
                         ptrdiff_t inner, const double *unit, const int64_t *first,
                         int mantissa_bits, int64_t bins, int64_t *counts) {
    const double nothing = 0;
    const int shift = 23 - mantissa_bits;
    double x[CHUNK];
    uint32_t bits[CHUNK];
    for (ptrdiff_t k = 0; k < channels; k++) {
        int64_t *const of = counts + k * 2 * bins;
        struct walk w = {outer, channels, inner, 0, 0};
        while (inner && w.row < outer) {
            const struct piece p = next_piece(&w, k, 1, CHUNK);
            const int n = p.rows * p.width;
            load(x, floats, float_type, &p, &nothing);
            to_float32(x, bits, n, unit[k]);
            for (int i = 0; i < n; i++) {
                const uint32_t magnitude = bits[i] & 0x7fffffff;
                if (magnitude > 0x7f7fffff)
                    continue; /* not finite */
                int64_t bin = (int64_t)(magnitude >> shift) - first[k];
                bin = bin < 0 ? 0 : bin < bins ? bin : bins - 1;
                const int negative = bits[i] > 0x80000000;
                of[negative * bins + bin]++;
            }
        }
    }
}

/* Where n numbers lie among bins of equal width, counted from the first edge; numbers beyond the
   edges lie on them, and NaN is NaN. */
WIDE static void place_in_bins(const double *restrict x, double *restrict place, int n, double low,
                               double high, double bins) {
    const double each = bins / (high - low);
    for (int i = 0; i < n; i++)
        place[i] = (most_of(least_of(x[i], high), low) - low) * each + 0 * x[i];
}

/* Count n numbers, without NaN, in bins between edges; those beyond them in the nearest. What lies
   NEAR_EDGE is compared with the edge, which is not exactly where equal widths have it. */
static void tally(const double *x, int n, const double *edges, ptrdiff_t bins, int64_t *counts) {
    static const double NEAR_EDGE = 1e-6;
    const double low = edges[0], high = edges[bins];
    double place[CHUNK];
    place_in_bins(x, place, n, low, high, (double)bins);
    for (int i = 0; i < n; i++) {
        if (isnan(place[i]))
            continue;
        ptrdiff_t bin = (ptrdiff_t)place[i];
        const double beyond = place[i] - (double)bin;
        if (beyond < NEAR_EDGE || beyond > 1 - NEAR_EDGE || bin >= bins) {
            const double value = most_of(least_of(x[i], high), low);
            bin = bin < bins ? bin : bins - 1;
            while (value < edges[bin])
                bin--;
            while (bin + 1 < bins && value >= edges[bin + 1])
                bin++;
        }
        counts[bin]++;
    }
}

/* n floats as codes, x / s + z, and their errors times `inside`; those without one are NaN. Returns
   how many exact zeros stayed exact; they have no error to count. */
WIDE static int in_codes(double *restrict x, double *restrict q, double *restrict e, int n, double s,
                         double z, double inside) {
    int exact = 0;
    SIMD(reduction(+ : exact))
    for (int i = 0; i < n; i++) {
        const int same = (x[i] == 0) & (q[i] == z);
        const double code = x[i] / s + z, gap = fabs(code) <= DBL_MAX ? 0 : NAN;
        exact += same;
        x[i] = code + gap;
        q[i] += gap;
        e[i] = same ? NAN : (q[i] - x[i]) * inside;
    }
    return exact;
}

/* Count a block as `Distributions` does: x / s + z and q in the bins of code_edges, q - x / s - z
   times `inside` in those of error_edges. Returns how many exact zeros stayed exact. */
EXPORT int64_t qdebug_distribute(const void *floats, int float_type, const void *codes,
                                 int code_type, ptrdiff_t outer, ptrdiff_t channels,
                                 ptrdiff_t inner, const double *scale, const int64_t *zero_point,
                                 const double *code_edges, ptrdiff_t code_bins,
                                 int64_t *float_counts, int64_t *code_counts,
                                 const double *error_edges, ptrdiff_t error_bins,
                                 int64_t *error_counts, double inside) {
    const double nothing = 0;
    double x[CHUNK], q[CHUNK], e[CHUNK];
    int64_t exact = 0;
    for (ptrdiff_t k = 0; k < channels; k++) {
        const double s = scale[k], z = (double)zero_point[k];
        struct walk w = {outer, channels, inner, 0, 0};
        while (inner && w.row < outer) {
            const struct piece p = next_piece(&w, k, 1, CHUNK);
            const int n = p.rows * p.width;
            load(x, floats, float_type, &p, &nothing);
            load(q, codes, code_type, &p, &nothing);
            exact += in_codes(x, q, e, n, s, z, inside);
            tally(x, n, code_edges, code_bins, float_counts);
            tally(q, n, code_edges, code_bins, code_counts);
            tally(e, n, error_edges, error_bins, error_counts);
        }
    }
    return exact;
}

/* Sum of w * (D(Q(x)) - x)^2 over n finite numbers. One that lies halfway between two codes is
   equally far from both, so it does not matter how halves are rounded. */
WIDE static double squared_error(const double *restrict x, const double *restrict w, int n,
                                 double s, double lowest, double highest) {
    const double steps = 1 / s;
    double sum = 0;
    SIMD(reduction(+ : sum))
    for (int i = 0; i < n; i++) {
        const double nearest = (x[i] * steps + 0x1.8p52) - 0x1.8p52;
        const double e = most_of(least_of(nearest, highest), lowest) * s - x[i];
        sum += w[i] * (e * e);
    }
    return sum;
}

/* The squared error of the finite elements of a block under each of some candidates.

   weights: of each element, float64; null for one each. scale, zero_point: of (candidates,
   channels). least: of (channels); a candidate that exceeds it is measured no
   further. totals: of (candidates, channels), added to. */
EXPORT void qdebug_errors(const void *floats, int float_type, const void *weights, ptrdiff_t outer,
                          ptrdiff_t channels, ptrdiff_t inner, ptrdiff_t candidates,
                          const double *scale, const int64_t *zero_point, int64_t qmin,
                          int64_t qmax, const double *least, double *totals) {
    const double nothing = 0;
    double x[CHUNK], w[CHUNK];
    for (int i = 0; i < CHUNK; i++)
        w[i] = 1;
    for (ptrdiff_t k = 0; k < channels; k++) {
        struct walk way = {outer, channels, inner, 0, 0};
        while (inner && way.row < outer) {
            const struct piece p = next_piece(&way, k, 1, CHUNK);
            load(x, floats, float_type, &p, &nothing);
            if (weights)
                load(w, weights, F8, &p, &nothing);
            const int n = without_gaps(x, x, w, NULL, p.rows * p.width);
            for (ptrdiff_t c = k; c < candidates * channels; c += channels)
                if (totals[c] <= least[k])
                    totals[c] += squared_error(x, w, n, scale[c], (double)(qmin - zero_point[c]),
                                               (double)(qmax - zero_point[c]));
        }
    }
}
