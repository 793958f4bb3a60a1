/* One tile of the fast-weight scan through time, backward: gradients of the memory, of what is carried and of the input,
 * and what the weights' products need. */

typedef struct {
    REAL *total, *recent;
    long rows; /* in what is recent */
} NormSums;

/* Sums over few rows join the total: sums of sums round less than one long sum. */
static void settle(NormSums *sums, long size) {
    add_rows(sums->total, sums->recent, 1, size);
    zero_row(sums->recent, size);
    sums->rows = 0;
}

/* From the gradients of a norm's results to those of its total; `d` and `d_total` may be the same. */
static void norm_rows_backward(const FastCall *c, long number, const REAL *d, const REAL *total, const REAL *stats,
                               long rows, NormOf norm, const NormSums *sums, REAL *d_total) {
    const long w = c->width;
    REAL *sum = sums->recent + number * 2 * w;
    for (long i = 0; i < rows; i++)
        norm_backward(d + i * w, total + i * w, w, stats + 2 * i, norm.weight, d_total + i * w, sum, sum + w, 0);
}

/* One sequence's write: from the gradients of the memory after it (to which that of the read after it is added) and of
 * `found` (or NULL) to those of its rows of KEYS and WRITTEN, before norms and sigmoids, and of what the memory held. */
static void write_memory_backward(const FastCall *c, const REAL *all_keys, const REAL *written, const REAL *scales,
                                  const REAL *before, const REAL *old, const REAL *d_found, REAL *d_memory,
                                  REAL *d_keys, REAL *d_written, REAL *d_old, const Scratch *s) {
    const long keys = c->key, values = c->value, heads = c->heads;
    const long at_errors = heads * keys, at_strengths = at_errors + heads * values, at_keeps = at_strengths + heads;
    REAL *restrict correction = s->correction, *restrict d_correction = s->d_correction;
    for (long h = 0; h < heads; h++) {
        const REAL *key = all_keys + h * keys, *query = written + h * keys, *error = written + at_errors + h * values;
        const REAL *matrix = before + h * keys * values, *held = old + h * values;
        const REAL *d_f = d_found ? d_found + h * values : 0;
        const REAL strength = written[at_strengths + h], keep = written[at_keeps + h];
        REAL *d_key = d_keys + h * keys, *d_query = d_written + h * keys;
        REAL *d_error = d_written + at_errors + h * values, *d_held = d_old + h * values;
        for (long v = 0; v < values; v++) correction[v] = strength * error[v];
        /* The gradient of what is kept, times what is kept. */
        REAL d_keep = keep * write_backward(d_memory + h * keys * values, matrix, key, query, d_f, correction, keys, values,
                                     d_correction, d_key, d_query);
        REAL d_strength = 0;
        for (long v = 0; v < values; v++) {
            d_strength += d_correction[v] * error[v];
            d_error[v] = strength * d_correction[v];
            d_keep -= d_error[v] * held[v];
            d_held[v] = -keep * d_error[v];
        }
        read_backward(1, matrix, d_held, keys, values, d_key);
        if (d_f) {
            const REAL share = dot(correction, d_f, values);
            for (long k = 0; k < keys; k++) d_query[k] = keep * d_query[k] + share * key[k];
        }
        d_written[at_strengths + h] = d_strength * strength * (1 - strength / (REAL)c->max_strength);
        d_written[at_keeps + h] = d_keep * (1 - keep);
    }
    normalise_backward(d_keys, all_keys, heads, keys, scales);
    normalise_backward(d_written, written, heads, keys, scales + heads);
}

/* The gradient of the memory before a step, from that of the one after, by all ways. */
static void through_step(const FastCall *c, long batch, long b, const REAL *all_keys, const REAL *written,
                         const REAL *const *read_keys, const Scratch *s, REAL *d_memory) {
    const long values = c->heads * c->value, at_keeps = written_numbers(c) - c->heads;
    const REAL *keys[MAX(c->reads, 1)], *d_reads[MAX(c->reads, 1)];
    for (long h = 0; h < c->heads; h++) {
        for (long j = 0; j < c->reads; j++) {
            keys[j] = read_keys[j] + (b * c->heads + h) * c->key;
            d_reads[j] = s->d_reads + (j * batch + b) * values + h * c->value;
        }
        memory_backward(d_memory + h * c->key * c->value, written[at_keeps + h], all_keys + h * c->key,
                        s->d_old + b * values + h * c->value, c->reads, keys, d_reads, c->key, c->value);
    }
}

static int backward_tile(const FastCall *c, long tile, const Scratch *s) {
    const long first = tile * c->tile_batch, batch = MIN(c->tile_batch, c->batch - first);
    if (batch <= 0) return 0;
    const long w = c->width, n = memory_numbers(c), values = c->heads * c->value, keys = c->heads * c->key;
    const long last = tile_steps(c, first, batch), reads = c->reads, written_size = written_numbers(c);
    Weight weights[weight_count(c)];
    lay_weights(c, weights, c->packed);
    const long size = sums_size(c);
    REAL *total_sums = (REAL *)c->sums + tile * 2 * size;
    NormSums sums = {total_sums, total_sums + size, 0};
    for (long t = last - 1; t >= 0; t--) {
        const REAL *read_keys[MAX(reads, 1)], *before[batch];
        for (long b = 0; b < batch; b++)
            before[b] = resets_in(c, first + b, t) ? initial_memory(c, first + b)
                        : t == 0 ? (const REAL *)c->memory + (first + b) * n
                                 : memory_after(c, first + b, t - 1);
        REAL *d_out = c->outputs_needed ? difference(c, D_OUT, t, first) : 0;
        if (c->outputs_needed) {
            for (long b = 0; b < batch; b++) {
                REAL *d_y = d_out + b * w;
                zero_row(d_y, w);
                if (!happens_in(c, first + b, t)) continue;
                if (c->carry) copy_row(d_y, (const REAL *)c->d_carried + (first + b) * w, w);
                if (c->d_outputs)
                    add_rows(d_y, (const REAL *)c->d_outputs + (first + b) * c->d_outputs_batch + t * c->d_outputs_step,
                             1, w);
            }
            norm_rows_backward(c, reads + 1, d_out, active(c, s, OUT_TOTAL, t, first), active(c, s, OUT_STATS, t, first),
                               batch, norm_of(c, OUT_NORM), &sums, d_out);
            backward_product(weights + OUT, batch, d_out, 0, 0, s->d_found);
        }
        const REAL *all_keys = active(c, s, KEYS, t, first), *written = active(c, s, WRITTEN, t, first);
        REAL *d_keys = difference(c, D_KEYS, t, first), *d_written = difference(c, D_WRITTEN, t, first);
        for (long b = 0; b < batch; b++) {
            REAL *d_memory = (REAL *)c->d_memory + (first + b) * n;
            if (!happens_in(c, first + b, t)) {
                zero_row(d_keys + b * keys, keys);
                zero_row(d_written + b * written_size, written_size);
                continue;
            }
            if (c->d_memories)
                add_rows(d_memory, (const REAL *)c->d_memories + (first + b) * c->d_memories_batch + t * c->d_memories_step,
                         1, n);
            write_memory_backward(c, all_keys + b * keys, written + b * written_size, active(c, s, SCALES, t, first + b),
                                  before[b], active(c, s, OLD, t, first + b),
                                  c->outputs_needed ? s->d_found + b * values : 0, d_memory, d_keys + b * keys,
                                  d_written + b * written_size, s->d_old + b * values, s);
        }
        REAL *d_mlp = difference(c, D_MLP, t, first), *d_hidden = difference(c, D_HIDDEN, t, first);
        REAL *d_input = difference(c, D_INPUT, t, first), *d_h = reads ? s->d_h : d_input;
        backward_product(weights + WRITE, batch, d_written, d_out, 0, s->d_h);
        norm_rows_backward(c, reads, s->d_h, active(c, s, MLP_TOTAL, t, first), active(c, s, MLP_STATS, t, first), batch,
                           norm_of(c, MLP_NORM), &sums, d_mlp);
        backward_product(weights + MLP_OUT, batch, d_mlp, 0, active(c, s, HIDDEN, t, first), d_hidden);
        backward_product(weights + MLP_IN, batch, d_hidden, d_mlp, 0, d_h);
        for (long j = reads - 1; j >= 0; j--) {
            const Weight *weight = weights + read_weight(j);
            const REAL *key = read_keys[j] = active(c, s, read_table(j, READ_KEY), t, first);
            REAL *d_key = difference(c, d_read_table(j, D_READ_KEY), t, first);
            REAL *d_value = difference(c, d_read_table(j, D_READ_VALUE), t, first);
            REAL *d_found = s->d_reads + j * batch * values;
            norm_rows_backward(c, j, d_h, active(c, s, read_table(j, READ_TOTAL), t, first),
                               active(c, s, read_table(j, READ_STATS), t, first), batch, read_norm(c, j), &sums, d_value);
            backward_product(weight + 1, batch, d_value, 0, 0, d_found);
            for (long b = 0; b < batch; b++) {
                if (!happens_in(c, first + b, t)) {
                    zero_row(d_key + b * keys, keys);
                    continue;
                }
                for (long head = 0; head < c->heads; head++)
                    read_backward(0, before[b] + head * c->key * c->value, d_found + b * values + head * c->value,
                                  c->key, c->value, d_key + b * keys + head * c->key);
            }
            normalise_backward(d_key, key, batch * c->heads, c->key, active(c, s, read_table(j, READ_SCALES), t, first));
            d_h = j ? s->d_h : d_input;
            backward_product(weight, batch, d_key, d_value, 0, d_h);
        }
        if (c->carry) {
            backward_product(weights + RECURRENT, batch, d_input, 0, 0, s->d_before);
            backward_product(weights + RECURRENT_KEY, batch, d_keys, s->d_before, 0, s->d_before);
        }
        for (long b = 0; b < batch; b++) {
            if (!happens_in(c, first + b, t)) continue; /* memory and output went on unchanged */
            REAL *d_memory = (REAL *)c->d_memory + (first + b) * n, *d_carried = 0;
            through_step(c, batch, b, all_keys + b * keys, written + b * written_size, read_keys, s, d_memory);
            if (c->carry) {
                d_carried = (REAL *)c->d_carried + (first + b) * w;
                copy_row(d_carried, s->d_before + b * w, w);
            }
            if (!resets_in(c, first + b, t)) continue;
            if (c->d_initial) add_rows((REAL *)c->d_initial + (first + b) * n, d_memory, 1, n);
            if (c->d_initial_carried) add_rows((REAL *)c->d_initial_carried + (first + b) * w, d_carried, 1, w);
            zero_row(d_memory, n);
            if (d_carried) zero_row(d_carried, w);
        }
        sums.rows += batch;
        if (sums.rows >= CHAIN) settle(&sums, size);
    }
    settle(&sums, size);
    for (long what = 0; what < FIRST_D_READ + reads * D_READ_TABLES; what++)
        if (c->differences[what]) zero_steps(c, c->differences[what], c->difference_widths[what], first, batch, last);
    return 1;
}
