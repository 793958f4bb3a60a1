/* Attention of all rows of one sequence to all of them, and its gradient. Weights lie [R][H * Q]: the softmax runs over
 * the first axis, for all heads and queries side by side. */

/* Rows of q k v as they are kept: the fed rows, then (in the first block) those of the input. */
typedef struct {
    const REAL *fed, *rest;
    long count; /* of the fed ones */
} Rows;

INLINE const REAL *row_of(const Rows *rows, long r, long width) {
    return r < rows->count ? rows->fed + r * width : rows->rest + (r - rows->count) * width;
}

/* q k v of one sequence after their norm, padded to whole vectors per head. */
static void prepare_qkv(const Call *c, const Rows *z, const REAL *stats, const Parameter *norm, REAL *qkv) {
    const long f = qkv_of(c), head = padded_head(c), wide = c->heads * head, k = c->key, v = value_of(c);
    const int pad = is_padded(c);
    for (long r = 0; r < rows_of(c); r++) {
        const REAL *from = row_of(z, r, f);
        REAL *to = qkv + r * wide;
        if (!pad) {
            if (norm->weight) norm_apply(from, f, stats + 2 * r, norm->weight, norm->bias, to);
            else copy_row(to, from, f);
            continue;
        }
        zero_row(to, wide);
        for (long h = 0; h < c->heads; h++)
            for (long part = 0; part < 3; part++) {
                long at = h * (2 * k + v) + part * k, n = part < 2 ? k : v;
                REAL *out = to + h * head + part * padded(k);
                if (norm->weight) norm_apply(from + at, n, stats + 2 * r, norm->weight + at, norm->bias + at, out);
                else copy_row(out, from + at, n);
            }
    }
}

INLINE REAL dot(const REAL *a, const REAL *b, long n) {
    V sums = load(a) * load(b);
    for (long i = LANES; i < n; i += LANES) sums += load(a + i) * load(b + i);
    return sum_lanes(sums);
}

/* Adds the attended values of one sequence to `residual` (NULL: to nothing), [Q, M]. */
static void attend(const Call *c, long queries, const REAL *qkv, REAL *weights, const Scratch *s,
                   const REAL *const *residual, REAL *mixed) {
    const long rows = rows_of(c), k = padded(c->key), v = value_of(c), head = padded_head(c), wide = c->heads * head;
    const long matrices = c->heads * queries;
    REAL *restrict line = s->line, *restrict q = s->query;
    const REAL scale = 1 / SQUARE_ROOT((REAL)c->key);
    for (long h = 0; h < c->heads; h++)
        for (long i = 0; i < queries; i++) {
            const REAL *query = qkv + i * wide + h * head;
            for (long at = 0; at < k; at += LANES) store(q + at, load(query + at) * scale);
            int finite = 1;
            for (long j = 0; j < rows; j++) {
                const REAL logit = dot(q, qkv + j * wide + h * head + k, k);
                weights[j * matrices + h * queries + i] = logit;
                finite &= is_finite(logit);
            }
            for (long j = 0; !finite && j < rows; j++)
                weights[j * matrices + h * queries + i] = wide_dot(q, qkv + j * wide + h * head + k, k);
        }
    copy_row(line, weights, matrices);
    for (long j = 1; j < rows; j++)
#pragma omp simd
        for (long e = 0; e < matrices; e++) {
            REAL x = weights[j * matrices + e];
            line[e] = x > line[e] ? x : line[e];
        }
    for (long j = 0; j < rows; j++)
#pragma omp simd
        for (long e = 0; e < matrices; e++)
            weights[j * matrices + e] = exp_of(weights[j * matrices + e] - line[e]);
    zero_row(line, matrices);
    for (long j = 0; j < rows; j++)
#pragma omp simd
        for (long e = 0; e < matrices; e++) line[e] += weights[j * matrices + e];
#pragma omp simd
    for (long e = 0; e < matrices; e++) line[e] = 1 / line[e];
    for (long j = 0; j < rows; j++)
#pragma omp simd
        for (long e = 0; e < matrices; e++) weights[j * matrices + e] *= line[e];
    for (long i = 0; i < queries; i++)
        for (long h = 0; h < c->heads; h++) {
            const REAL *values = qkv + h * head + 2 * k, *weight = weights + h * queries + i;
            const REAL *from = residual ? residual[i] + h * v : 0;
            REAL *to = mixed + i * c->width + h * v;
            for (long at = 0; at < v; at += LANES) {
                V sum = {0};
                for (long j = 0; j < rows; j++) sum += weight[j * matrices] * load(values + j * wide + at);
                if (at + LANES <= v) {
                    store(to + at, from ? sum + load(from + at) : sum);
                    continue;
                }
                for (long l = 0; l < v - at; l++) to[at + l] = from ? sum[l] + from[at + l] : sum[l];
            }
        }
}

/* From the gradient of what is attended [Q, M] to that of q k v, padded, in `s->d_qkv`. */
static void attend_backward(const Call *c, long queries, const REAL *qkv, const REAL *weights, const REAL *d_attended,
                            const Scratch *s) {
    const long rows = rows_of(c), k = padded(c->key), v = padded(value_of(c)), head = padded_head(c);
    const long wide = c->heads * head, matrices = c->heads * queries, value = value_of(c);
    REAL *restrict d_logits = s->logits, *restrict line = s->line;
    long stride = c->width, per_head = value;
    if (v != value) { /* whole vectors here too */
        stride = c->heads * v, per_head = v;
        zero_row(s->d_attended, queries * stride);
        for (long i = 0; i < queries; i++)
            for (long h = 0; h < c->heads; h++)
                copy_row(s->d_attended + i * stride + h * v, d_attended + i * c->width + h * value, value);
        d_attended = s->d_attended;
    }
    for (long h = 0; h < c->heads; h++)
        for (long i = 0; i < queries; i++) {
            const REAL *d = d_attended + i * stride + h * per_head;
            for (long j = 0; j < rows; j++)
                d_logits[j * matrices + h * queries + i] = dot(d, qkv + j * wide + h * head + 2 * k, v);
        }
    zero_row(line, matrices);
    for (long j = 0; j < rows; j++)
#pragma omp simd
        for (long e = 0; e < matrices; e++) line[e] += weights[j * matrices + e] * d_logits[j * matrices + e];
    const REAL scale = 1 / SQUARE_ROOT((REAL)c->key);
    for (long j = 0; j < rows; j++)
#pragma omp simd
        for (long e = 0; e < matrices; e++) {
            long at = j * matrices + e;
            d_logits[at] = weights[at] * (d_logits[at] - line[e]) * scale;
        }
    for (long h = 0; h < c->heads; h++) {
        const REAL *of_head = qkv + h * head;
        for (long i = 0; i < rows; i++) {
            REAL *d_q = s->d_qkv + i * wide + h * head;
            if (i >= queries) { /* its result is not used */
                zero_row(d_q, k);
                continue;
            }
            const REAL *d = d_logits + h * queries + i;
            for (long at = 0; at < k; at += LANES) {
                V sum = {0};
                for (long j = 0; j < rows; j++) sum += d[j * matrices] * load(of_head + j * wide + k + at);
                store(d_q + at, sum);
            }
        }
        for (long j = 0; j < rows; j++) {
            REAL *d_k = s->d_qkv + j * wide + h * head + k, *d_v = d_k + k;
            const REAL *d = d_logits + j * matrices + h * queries, *weight = weights + j * matrices + h * queries;
            for (long at = 0; at < k; at += LANES) {
                V sum = {0};
                for (long i = 0; i < queries; i++) sum += d[i] * load(of_head + i * wide + at);
                store(d_k + at, sum);
            }
            for (long at = 0; at < v; at += LANES) {
                V sum = {0};
                for (long i = 0; i < queries; i++) sum += weight[i] * load(d_attended + i * stride + h * per_head + at);
                store(d_v + at, sum);
            }
        }
    }
}

/* From the gradient in `s->d_qkv` through the norm to that of z, row by row, with the sums of the parameters. */
static void qkv_backward(const Call *c, const Rows *z, const REAL *stats, const Parameter *norm, const Scratch *s,
                         REAL *d_fed, REAL *d_rest, REAL *norm_sum, REAL *bias_sum) {
    const long f = qkv_of(c), head = padded_head(c), wide = c->heads * head, k = c->key, v = value_of(c);
    const int pad = is_padded(c);
    for (long r = 0; r < rows_of(c); r++) {
        const REAL *d = s->d_qkv + r * wide;
        REAL *to = r < z->count ? d_fed + r * f : d_rest + (r - z->count) * f;
        if (pad) {
            for (long h = 0; h < c->heads; h++)
                for (long part = 0; part < 3; part++)
                    copy_row(s->d_row + h * (2 * k + v) + part * k, d + h * head + part * padded(k), part < 2 ? k : v);
            d = s->d_row;
        }
        if (norm->weight) {
            norm_backward(d, row_of(z, r, f), f, stats + 2 * r, norm->weight, to, norm_sum, norm_sum + f, bias_sum);
        } else {
            copy_row(to, d, f);
            add_rows(bias_sum, d, 1, f);
        }
    }
}
