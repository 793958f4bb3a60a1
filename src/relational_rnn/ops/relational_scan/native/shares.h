/* Slots that compete for the input: how its rows are shared out among them, what becomes of the memory, and the
 * gradient. Shares lie [N, n]; a softmax runs over the slots. */

/* The scores' factor, and that of a slot's summed shares in how far it may move: as `update_rate` of reference.py. */
INLINE REAL score_scale(const Call *c) { return 1 / SQUARE_ROOT((REAL)c->width); }
INLINE REAL share_scale(const Call *c) { return (REAL)MIN(c->slots, 4) / c->inputs; }

INLINE REAL sum_of_products(const REAL *restrict a, const REAL *restrict b, long n) {
    REAL sum = 0;
#pragma omp simd reduction(+ : sum)
    for (long i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

INLINE void add_scaled(REAL *restrict sum, REAL factor, const REAL *restrict x, long n) {
#pragma omp simd
    for (long i = 0; i < n; i++) sum[i] += factor * x[i];
}

/* The shares of one sequence. */
static void share_out(const Call *c, const REAL *keys, const REAL *queries, REAL *share) {
    const long m = c->width, slots = c->slots, n = c->inputs;
    const REAL scale = score_scale(c);
    for (long i = 0; i < slots * n; i++) {
        const REAL *key = keys + i / n * m, *query = queries + i % n * m;
        share[i] = sum_of_products(key, query, m) * scale;
        if (!is_finite(share[i])) share[i] = wide_dot(key, query, m) * scale;
    }
    for (long r = 0; r < n; r++) {
        REAL largest = share[r], sum = 0;
        for (long i = 1; i < slots; i++) largest = MAX(share[i * n + r], largest);
        for (long i = 0; i < slots; i++) sum += share[i * n + r] = exp_of(share[i * n + r] - largest);
        for (long i = 0; i < slots; i++) share[i * n + r] /= sum;
    }
}

/* What all numbers of a slot have in common of how far they move. */
INLINE REAL common_rate(const Call *c, const REAL *share) {
    REAL sum = 0;
    for (long r = 0; r < c->inputs; r++) sum += share[r];
    return sum * share_scale(c);
}

/* A row's new memory from its candidate (already normalised), its gate's sums (which become the gate), its shares, and
 * the old: without a share it is the old one bit for bit. */
INLINE void compete_row(const Call *c, const REAL *candidate, REAL *restrict gate, const REAL *share, const REAL *old,
                        REAL *new) {
    const long m = c->width;
    const REAL common = common_rate(c, share);
#pragma omp simd
    for (long i = 0; i < m; i++) {
        gate[i] = sigmoid_of(gate[i]);
        REAL rate = common * gate[i];
        rate = rate > 1 ? 1 : rate;
        new[i] = old[i] + rate * (tanh_of(candidate[i]) - old[i]);
    }
}

/* From the gradients of what a slot's numbers have in common of their rates, `d_common` [N], to those of one sequence's
 * keys and queries. */
static void share_backward(const Call *c, const REAL *share, const REAL *keys, const REAL *queries,
                           const REAL *d_common, REAL *d_keys, REAL *d_queries) {
    const long m = c->width, slots = c->slots, n = c->inputs;
    const REAL scale = share_scale(c) * score_scale(c);
    zero_row(d_keys, slots * m);
    zero_row(d_queries, n * m);
    for (long r = 0; r < n; r++) {
        REAL mean = 0;
        for (long i = 0; i < slots; i++) mean += share[i * n + r] * d_common[i];
        for (long i = 0; i < slots; i++) {
            const REAL d_score = share[i * n + r] * (d_common[i] - mean) * scale;
            add_scaled(d_keys + i * m, d_score, queries + r * m, m);
            add_scaled(d_queries + r * m, d_score, keys + i * m, m);
        }
    }
}

/* As `gates_backward`, where slots compete: the gradients of the candidate, of the gate's sums, of keys and queries,
 * and, through what stays, of the old memory. */
static void shares_backward(const Call *c, long batch, long at, long to, const Kept *k, const Differences *d,
                            const Sums *sums, const REAL *d_new, REAL *d_candidate, REAL *d_old, const Scratch *s) {
    const long m = c->width, slots = c->slots, n = c->inputs, q = queries_of(c, c->blocks - 1);
    const Parameter norm = block_parameters(c, c->blocks - 1).mlp_norm;
    const KeptBlock *top = &k->block[c->blocks - 1];
    for (long b = 0; b < batch; b++) {
        const long now = at * batch + b, then = to * batch + b;
        const REAL *share = k->share + now * slots * n;
        REAL *restrict terms = d->terms + then * m;
        zero_row(terms, m);
        for (long r = 0; r < slots; r++) {
            const long row = now * q + r;
            const REAL *restrict gate = k->gates + (now * slots + r) * m;
            const REAL *restrict old = k->before + (now * slots + r) * m;
            const REAL *restrict d_m = d_new + (b * slots + r) * m, *restrict total = top->total + row * m;
            REAL *restrict d_gate = d->gates + (then * slots + r) * m;
            REAL *restrict d_y = d_candidate + (b * q + r) * m, *restrict d_o = d_old + (b * slots + r) * m;
            const REAL mean = top->total_stats[row * 2], rstd = top->total_stats[row * 2 + 1];
            const REAL common = common_rate(c, share + r * n);
            REAL d_common = 0;
#pragma omp simd reduction(+ : d_common)
            for (long i = 0; i < m; i++) {
                REAL y = tanh_of((total[i] - mean) * rstd * norm.weight[i] + norm.bias[i]);
                REAL rate = common * gate[i], moved = rate > 1 ? 1 : rate;
                REAL d_rate = rate > 1 ? 0 : d_m[i] * (y - old[i]); /* what is cut has no gradient, as for clamp */
                d_common += d_rate * gate[i];
                d_gate[i] = d_rate * common * gate[i] * (1 - gate[i]);
                terms[i] += d_gate[i];
                d_y[i] = d_m[i] * moved * (1 - y * y);
                d_o[i] = d_m[i] * (1 - moved);
            }
            s->line[r] = d_common;
        }
        share_backward(c, share, k->keys + now * slots * m, k->queries + now * n * m, s->line,
                       d->keys + then * slots * m, d->queries + then * n * m);
    }
    add_rows(sums->gates, d->terms + to * batch * m, batch, m);
    add_rows(sums->keys, d->keys + to * batch * slots * m, batch * slots, m);
    add_rows(sums->queries, d->queries + to * batch * n * m, batch * n, m);
}
