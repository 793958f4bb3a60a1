/* Layer normalisation of single rows, and small helpers on rows. */

#define LAYER_NORM_EPS ((REAL)1e-5)

INLINE void copy_row(REAL *to, const REAL *from, long n) { memcpy(to, from, n * sizeof(REAL)); }
INLINE void zero_row(REAL *to, long n) { memset(to, 0, n * sizeof(REAL)); }

INLINE int is_finite(REAL x) { return x - x == 0; }

/* What is left of a row whose squares are not finite: as by the definition nothing, so that its bias is all that the
 * norm gives, but for infinities and NaN in the row itself. */
static __attribute__((noinline)) void norm_stats_beyond(const REAL *x, long n, REAL *stats) {
    for (long i = 0; i < n; i++)
        if (!is_finite(x[i])) return;
    stats[0] = stats[1] = 0;
}

/* stats: mean, reciprocal standard deviation */
static void norm_stats(const REAL *x, long n, REAL *stats) {
    REAL sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
    for (long i = 0; i < n; i++) sum += x[i];
    REAL mean = sum / n;
#pragma omp simd reduction(+ : squares)
    for (long i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
    stats[0] = mean;
    stats[1] = 1 / SQUARE_ROOT(squares / n + LAYER_NORM_EPS);
    if (!is_finite(squares)) norm_stats_beyond(x, n, stats);
}

INLINE void norm_apply(const REAL *restrict x, long n, const REAL *stats, const REAL *restrict weight,
                       const REAL *restrict bias, REAL *restrict y) {
    REAL mean = stats[0], rstd = stats[1];
#pragma omp simd
    for (long i = 0; i < n; i++) y[i] = (x[i] - mean) * rstd * weight[i] + bias[i];
}

/* From the gradient d of the result to that of x (which may be written over d); sums: weight, bias, and, with
 * `d_x_sum`, the gradient of x itself (that of the bias of the linear before). */
INLINE void norm_backward(const REAL *d, const REAL *restrict x, long n, const REAL *stats,
                          const REAL *restrict weight, REAL *d_x, REAL *restrict weight_sum,
                          REAL *restrict bias_sum, REAL *restrict d_x_sum) {
    REAL mean = stats[0], rstd = stats[1], sum = 0, product = 0;
#pragma omp simd reduction(+ : sum, product)
    for (long i = 0; i < n; i++) {
        REAL normal = (x[i] - mean) * rstd, scaled = d[i] * weight[i];
        sum += scaled;
        product += scaled * normal;
        weight_sum[i] += d[i] * normal;
        bias_sum[i] += d[i];
    }
    sum /= n;
    product /= n;
    if (d_x_sum) {
#pragma omp simd
        for (long i = 0; i < n; i++) {
            REAL normal = (x[i] - mean) * rstd;
            REAL v = rstd * (d[i] * weight[i] - sum - normal * product);
            d_x[i] = v;
            d_x_sum[i] += v;
        }
    } else {
#pragma omp simd
        for (long i = 0; i < n; i++) {
            REAL normal = (x[i] - mean) * rstd;
            d_x[i] = rstd * (d[i] * weight[i] - sum - normal * product);
        }
    }
}

/* a . b with room for sums that only in between are too large. */
static __attribute__((noinline)) REAL wide_dot(const REAL *a, const REAL *b, long n) {
    long double sum = 0;
    for (long i = 0; i < n; i++) sum += (long double)a[i] * b[i];
    return (REAL)sum;
}

static void add_rows(REAL *restrict sum, const REAL *restrict rows, long count, long n) {
    for (long r = 0; r < count; r++)
#pragma omp simd
        for (long i = 0; i < n; i++) sum[i] += rows[r * n + i];
}
