/* One tile of the fast-weight scan through time, forward. */

/* Total, norm: of the rows of a tile. */
static void norm_rows(const REAL *total, long rows, long width, NormOf norm, REAL *stats, REAL *y) {
    for (long i = 0; i < rows; i++, total += width, y += width) {
        norm_stats(total, width, stats + 2 * i);
        norm_apply(total, width, stats + 2 * i, norm.weight, norm.bias, y);
    }
}

/* What one sequence writes at one step: from its rows of KEYS and WRITTEN as linears made them, and the memory before. */
static void write_memory(const FastCall *c, REAL *all_keys, REAL *written, REAL *scales, const REAL *before, REAL *old,
                         REAL *found, REAL *after, const Scratch *s) {
    const long keys = c->key, values = c->value, heads = c->heads;
    REAL *errors = written + heads * keys, *strengths = errors + heads * values, *keeps = strengths + heads;
    REAL *restrict correction = s->correction, *restrict kept_key = s->keys, *restrict kept_query = kept_key + keys;
    normalise_keys(all_keys, heads, keys, scales);
    normalise_keys(written, heads, keys, scales + heads);
    for (long h = 0; h < heads; h++) {
        const long at = h * keys * values;
        const REAL *key = all_keys + h * keys, *query = written + h * keys;
        const REAL strength = strengths[h] = (REAL)c->max_strength * sigmoid_of(strengths[h]);
        const REAL keep = keeps[h] = sigmoid_of(keeps[h]);
        REAL *error = errors + h * values, *held = old + h * values, *seen = found + h * values;
        for (long k = 0; k < keys; k++) { /* the keys, not what they find: as by the definition what is kept is read */
            kept_key[k] = keep * key[k];
            kept_query[k] = keep * query[k];
        }
        read_matrix(before + at, kept_key, keys, values, held);
        for (long v = 0; v < values; v++) {
            error[v] -= held[v];
            correction[v] = strength * error[v];
        }
        if (c->outputs_needed) {
            /* What the query reads after the write: what it saw before, and its share of the correction. */
            read_matrix(before + at, kept_query, keys, values, seen);
            const REAL share = dot(query, key, keys);
            for (long v = 0; v < values; v++) seen[v] += share * correction[v];
        }
        write_matrix(before + at, keep, key, correction, keys, values, after + at);
    }
}

/* Zeros in the rows of a table that the steps of a tile do not reach. */
static void zero_steps(const FastCall *c, REAL *table, long width, long first, long batch, long from) {
    for (long t = from; t < c->steps; t++) zero_row(table + (t * c->batch + first) * width, batch * width);
}

static int forward_tile(const FastCall *c, long tile, const Scratch *s) {
    const long first = tile * c->tile_batch, batch = MIN(c->tile_batch, c->batch - first);
    if (batch <= 0) return 0;
    const long w = c->width, n = memory_numbers(c), values = c->heads * c->value, keys = c->heads * c->key;
    const long last = tile_steps(c, first, batch);
    Weight weights[weight_count(c)];
    lay_weights(c, weights, c->packed);
    const REAL *now[batch]; /* the memory of every sequence; in `final` where not every memory is wanted */
    for (long b = 0; b < batch; b++) {
        now[b] = (const REAL *)c->memory + (first + b) * n;
        if (!c->memories) now[b] = memcpy((REAL *)c->final + (first + b) * n, now[b], n * sizeof(REAL));
    }
    if (c->carry) copy_row(active(c, s, CARRIED, 0, first), (const REAL *)c->carried + first * w, batch * w);
    for (long t = 0; t < last; t++) {
        REAL *h = active(c, s, input_table(c, 0), t, first), *carried = active(c, s, CARRIED, t, first);
        for (long b = 0; b < batch; b++) {
            const REAL *p = (const REAL *)c->p + (first + b) * c->p_batch + t * c->p_step;
            if (happens_in(c, first + b, t)) {
                copy_row(h + b * w, p, w);
                copy_row(active(c, s, KEYS, t, first + b), p + w, keys);
            } else { /* padding may hold anything, even NaN */
                zero_row(h + b * w, w);
                zero_row(active(c, s, KEYS, t, first + b), keys);
            }
            if (!resets_in(c, first + b, t)) continue;
            now[b] = initial_memory(c, first + b);
            if (!c->memories) now[b] = memcpy((REAL *)c->final + (first + b) * n, now[b], n * sizeof(REAL));
            if (c->carry) copy_row(carried + b * w, initial_output(c, first + b), w);
        }
        if (c->carry) {
            REAL *written_keys = active(c, s, KEYS, t, first);
            forward_product(weights + RECURRENT, batch, carried, h, PLAIN, h);
            forward_product(weights + RECURRENT_KEY, batch, carried, written_keys, PLAIN, written_keys);
        }
        for (long j = 0; j < c->reads; j++) {
            const Weight *weight = weights + read_weight(j);
            REAL *key = active(c, s, read_table(j, READ_KEY), t, first);
            REAL *scales = active(c, s, read_table(j, READ_SCALES), t, first);
            REAL *found = active(c, s, read_table(j, READ_FOUND), t, first);
            REAL *total = active(c, s, read_table(j, READ_TOTAL), t, first);
            REAL *next = active(c, s, input_table(c, j + 1), t, first);
            forward_product(weight, batch, h, 0, PLAIN, key);
            normalise_keys(key, batch * c->heads, c->key, scales);
            for (long b = 0; b < batch; b++) {
                if (!happens_in(c, first + b, t)) {
                    zero_row(found + b * values, values);
                    continue;
                }
                for (long head = 0; head < c->heads; head++)
                    read_matrix(now[b] + head * c->key * c->value, key + b * keys + head * c->key, c->key, c->value,
                                found + b * values + head * c->value);
            }
            forward_product(weight + 1, batch, found, h, PLAIN, total);
            norm_rows(total, batch, w, read_norm(c, j), active(c, s, read_table(j, READ_STATS), t, first), next);
            h = next;
        }
        REAL *hidden = active(c, s, HIDDEN, t, first), *total = active(c, s, MLP_TOTAL, t, first);
        REAL *writer = active(c, s, WRITER, t, first), *written = active(c, s, WRITTEN, t, first);
        REAL *old = active(c, s, OLD, t, first), *found = active(c, s, FOUND, t, first);
        forward_product(weights + MLP_IN, batch, h, 0, RELU, hidden);
        forward_product(weights + MLP_OUT, batch, hidden, h, PLAIN, total);
        norm_rows(total, batch, w, norm_of(c, MLP_NORM), active(c, s, MLP_STATS, t, first), writer);
        forward_product(weights + WRITE, batch, writer, 0, PLAIN, written);
        for (long b = 0; b < batch; b++) {
            REAL *after = c->memories ? memory_after(c, first + b, t) : (REAL *)c->final + (first + b) * n;
            if (!happens_in(c, first + b, t)) {
                if (c->memories) zero_row(after, n);
                if (c->outputs_needed) zero_row(found + b * values, values);
                continue;
            }
            write_memory(c, active(c, s, KEYS, t, first + b), written + b * written_numbers(c),
                         active(c, s, SCALES, t, first + b), now[b], old + b * values, found + b * values, after, s);
            now[b] = after;
        }
        if (!c->outputs_needed) continue;
        REAL *out_total = active(c, s, OUT_TOTAL, t, first), *stats = active(c, s, OUT_STATS, t, first);
        forward_product(weights + OUT, batch, found, writer, PLAIN, out_total);
        const NormOf norm = norm_of(c, OUT_NORM);
        for (long b = 0; b < batch; b++) {
            const int happens = happens_in(c, first + b, t);
            REAL *y = c->outputs ? (REAL *)c->outputs + ((first + b) * c->steps + t) * w : 0;
            REAL *next = c->carry ? active(c, s, CARRIED, t + 1, first + b) : 0;
            norm_stats(out_total + b * w, w, stats + 2 * b);
            if (!happens) {
                if (y) zero_row(y, w);
                if (next && next != carried + b * w) copy_row(next, carried + b * w, w);
                continue;
            }
            REAL *to = next ? next : y;
            norm_apply(out_total + b * w, w, stats + 2 * b, norm.weight, norm.bias, to);
            if (y && y != to) copy_row(y, to, w);
        }
    }
    for (long b = first; b < first + batch; b++) {
        if (c->memories) {
            copy_row((REAL *)c->final + b * n, now[b - first], n);
            if (last < c->steps) zero_row(memory_after(c, b, last), (c->steps - last) * n);
        }
        if (c->outputs && last < c->steps)
            zero_row((REAL *)c->outputs + (b * c->steps + last) * w, (c->steps - last) * w);
    }
    if (c->carry) copy_row((REAL *)c->final_carried + first * w, active(c, s, CARRIED, last, first), batch * w);
    if (c->kept)
        for (long what = 0; what < FIRST_READ + c->reads * READ_TABLES; what++)
            if (c->activations[what])
                zero_steps(c, c->activations[what], c->activation_widths[what], first, batch, last);
    return 1;
}
