/* The sums that qdebug's statistics take over a block, in one loop: float32 values, int8 codes, one
   scale. Built with -ffast-math so that the compiler may add in any order, as SIMD requires. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>

struct sums {
    double x, magnitude, steps, error, outward;    /* x, |x|, q - z, e, e away from zero */
    double x_square, steps_square, x_steps, error_square;
    double x_min, x_max, q_min, q_max, error_max;
    double zeros, saturated, doubtful;             /* doubtful: the code may not be Q(x) */
};

void measure(const float *xs, const int8_t *qs, size_t n, double scale, double zero_point,
             struct sums *out) {
    struct sums s = {.x_min = INFINITY, .x_max = -INFINITY, .q_min = 127, .q_max = -128};
    const double half = 0.49999 * scale;
    for (size_t i = 0; i < n; i++) {
        const double x = xs[i], q = qs[i];
        const double steps = q - zero_point, e = steps * scale - x, size = fabs(e);
        s.x += x;
        s.magnitude += fabs(x);
        s.steps += steps;
        s.error += e;
        s.outward += x > 0 ? e : x < 0 ? -e : 0;
        s.x_square += x * x;
        s.steps_square += steps * steps;
        s.x_steps += x * steps;
        s.error_square += e * e;
        s.x_min = x < s.x_min ? x : s.x_min;
        s.x_max = x > s.x_max ? x : s.x_max;
        s.q_min = q < s.q_min ? q : s.q_min;
        s.q_max = q > s.q_max ? q : s.q_max;
        s.error_max = size > s.error_max ? size : s.error_max;
        s.zeros += x == 0;
        s.saturated += q == -128 || q == 127;
        s.doubtful += size > half;
    }
    *out = s;
}
