/* One head's matrix [K, V] of one sequence: what is read, what is written, and the gradients of both. */

#define KEY_EPSILON ((REAL)1e-6) /* added to squared lengths, as in reference.py */

/* Rows of `size` numbers, `count` of them, scaled to length 1 in place. */
INLINE void normalise_keys(REAL *restrict rows, long count, long size, REAL *restrict scales) {
    for (long i = 0; i < count; i++, rows += size) {
        REAL squares = 0;
#pragma omp simd reduction(+ : squares)
        for (long k = 0; k < size; k++) squares += rows[k] * rows[k];
        const REAL scale = scales[i] = 1 / SQUARE_ROOT(squares + KEY_EPSILON);
#pragma omp simd
        for (long k = 0; k < size; k++) rows[k] *= scale;
    }
}

/* From gradients of the scaled rows `keys` to those of the rows before, in place. */
INLINE void normalise_backward(REAL *restrict d, const REAL *restrict keys, long count, long size,
                               const REAL *restrict scales) {
    for (long i = 0; i < count; i++, d += size, keys += size) {
        REAL along = 0;
#pragma omp simd reduction(+ : along)
        for (long k = 0; k < size; k++) along += d[k] * keys[k];
#pragma omp simd
        for (long k = 0; k < size; k++) d[k] = scales[i] * (d[k] - keys[k] * along);
    }
}

INLINE REAL dot(const REAL *a, const REAL *b, long n) {
    const long whole = n / LANES * LANES;
    V sums = {0};
    for (long i = 0; i < whole; i += LANES) sums += load(a + i) * load(b + i);
    REAL sum = sum_lanes(sums);
    for (long i = whole; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* found[v] = sum over k of key[k] * matrix[k, v], for `vectors` vectors of v. Even and odd k are summed apart: so the
 * sums wait less for each other. */
INLINE void read_vectors(const int vectors, const REAL *matrix, const REAL *key, long keys, long values, REAL *found) {
    V even[4], odd[4];
#pragma GCC unroll 4
    for (int i = 0; i < vectors; i++) even[i] = odd[i] = (V){0};
    long k = 0;
    for (; k + 2 <= keys; k += 2, matrix += 2 * values)
#pragma GCC unroll 4
        for (int i = 0; i < vectors; i++) {
            even[i] += key[k] * load(matrix + i * LANES);
            odd[i] += key[k + 1] * load(matrix + values + i * LANES);
        }
#pragma GCC unroll 4
    for (int i = 0; i < vectors; i++) {
        if (k < keys) even[i] += key[k] * load(matrix + i * LANES);
        store(found + i * LANES, even[i] + odd[i]);
    }
}

static void read_matrix(const REAL *matrix, const REAL *key, long keys, long values, REAL *found) {
    long v = 0;
    for (; v + 4 * LANES <= values; v += 4 * LANES) read_vectors(4, matrix + v, key, keys, values, found + v);
    for (; v + LANES <= values; v += LANES) read_vectors(1, matrix + v, key, keys, values, found + v);
    for (; v < values; v++) {
        REAL sum = 0;
        for (long k = 0; k < keys; k++) sum += key[k] * matrix[k * values + v];
        found[v] = sum;
    }
}

/* d_key[k] = sum over v of matrix[k, v] * d_found[v], added to what is there or not */
INLINE void read_backward(const int adds, const REAL *matrix, const REAL *d_found, long keys, long values, REAL *d_key) {
    for (long k = 0; k < keys; k++) d_key[k] = dot(matrix + k * values, d_found, values) + (adds ? d_key[k] : 0);
}

/* after = keep * before + key correction^T; both may be the same. */
static void write_matrix(const REAL *before, REAL keep, const REAL *key, const REAL *correction, long keys, long values,
                         REAL *after) {
    const long whole = values / LANES * LANES;
    for (long k = 0; k < keys; k++, before += values, after += values) {
        for (long v = 0; v < whole; v += LANES)
            store(after + v, keep * load(before + v) + key[k] * load(correction + v));
        for (long v = whole; v < values; v++) after[v] = keep * before[v] + key[k] * correction[v];
    }
}

/* The gradient `d` [K, V] of the memory after a write takes in that of the read after it, `d_found` (or NULL), by the
 * query; then: d_correction[v] = sum over k of key[k] * d[k, v]; d_key[k] = sum over v of d[k, v] * correction[v];
 * d_query[k] = sum over v of before[k, v] * d_found[v]. Returns the sum of d * before. */
static REAL write_backward(REAL *restrict d, const REAL *restrict before, const REAL *restrict key,
                           const REAL *restrict query, const REAL *restrict d_found, const REAL *restrict correction,
                           long keys, long values, REAL *restrict d_correction, REAL *restrict d_key,
                           REAL *restrict d_query) {
    const long whole = values / LANES * LANES;
    V both = {0};
    REAL rest = 0;
    zero_row(d_correction, values);
    for (long k = 0; k < keys; k++, d += values, before += values) {
        V to_key = {0}, to_query = {0}, to_keep = {0}; /* sums of sums round less than one long sum */
        for (long v = 0; v < whole; v += LANES) {
            V d_v = load(d + v), old = load(before + v);
            if (d_found) {
                V d_f = load(d_found + v);
                d_v += query[k] * d_f;
                to_query += old * d_f;
                store(d + v, d_v);
            }
            to_key += d_v * load(correction + v);
            to_keep += d_v * old;
            store(d_correction + v, load(d_correction + v) + key[k] * d_v);
        }
        REAL key_sum = sum_lanes(to_key), query_sum = sum_lanes(to_query), keep_sum = 0;
        both += to_keep;
        for (long v = whole; v < values; v++) {
            if (d_found) {
                d[v] += query[k] * d_found[v];
                query_sum += before[v] * d_found[v];
            }
            key_sum += d[v] * correction[v];
            keep_sum += d[v] * before[v];
            d_correction[v] += key[k] * d[v];
        }
        d_key[k] = key_sum;
        d_query[k] = query_sum;
        rest += keep_sum;
    }
    return sum_lanes(both) + rest;
}

/* d = keep * d + key d_old^T, and of every read its key times the gradient of what it found. */
static void memory_backward(REAL *restrict d, REAL keep, const REAL *restrict key, const REAL *restrict d_old,
                            long reads, const REAL *const *read_keys, const REAL *const *d_reads, long keys,
                            long values) {
    const long whole = values / LANES * LANES;
    for (long k = 0; k < keys; k++, d += values) {
        for (long v = 0; v < whole; v += LANES) {
            V sum = keep * load(d + v) + key[k] * load(d_old + v);
            for (long j = 0; j < reads; j++) sum += read_keys[j][k] * load(d_reads[j] + v);
            store(d + v, sum);
        }
        for (long v = whole; v < values; v++) {
            REAL sum = keep * d[v] + key[k] * d_old[v];
            for (long j = 0; j < reads; j++) sum += read_keys[j][k] * d_reads[j][v];
            d[v] = sum;
        }
    }
}
