/* One tile through time, backward: gradients of the memory and of the input, and what the weights' products need. */

/* The product of gradients with a linear's weight, for the gradient of what was fed to it. */
INLINE Product back(long rows, const REAL *d, const Parameter *p, const REAL *panels, REAL *d_x) {
    return (Product){
        .rows = rows, .inner = p->out, .cols = p->in, .a = d, .panels = panels, .add_group = 1, .c = d_x};
}

/* From the gradient of a step's new memory [batch, N, M] to those of the candidate [batch, Q, M], of the gates'
 * sums, and, through the forget gate, of the old memory. Step `at` of what is kept is step `to` of the differences. */
static void gates_backward(const Call *c, long batch, long at, long to, const Kept *k, const Differences *d, const Sums *sums,
                           const REAL *d_new, REAL *d_candidate, REAL *d_old) {
    const long m = c->width, slots = c->slots, q = queries_of(c, c->blocks - 1), g = c->gates;
    const Parameter norm = block_parameters(c, c->blocks - 1).mlp_norm;
    const KeptBlock *top = &k->block[c->blocks - 1];
    for (long b = 0; b < batch; b++) {
        REAL *restrict terms = d->terms + (to * batch + b) * g;
        zero_row(terms, g);
        for (long r = 0; r < slots; r++) {
            const long slot = b * slots + r, row = (at * batch + b) * q + r;
            const REAL *restrict gates = k->gates + (at * batch * slots + slot) * g;
            const REAL *restrict d_m = d_new + slot * m, *restrict total = top->total + row * m;
            const REAL *restrict old = k->before + (at * batch * slots + slot) * m;
            REAL *restrict d_gates = d->gates + (to * batch * slots + slot) * g;
            REAL *restrict d_y = d_candidate + (b * q + r) * m, *restrict d_o = d_old + slot * m;
            const REAL mean = top->total_stats[row * 2], rstd = top->total_stats[row * 2 + 1];
            if (g == 2 * m) {
#pragma omp simd
                for (long i = 0; i < m; i++) {
                    REAL y = tanh_of((total[i] - mean) * rstd * norm.weight[i] + norm.bias[i]);
                    REAL in = gates[i], forget = gates[m + i], d_i = d_m[i];
                    REAL d_in = d_i * y * in * (1 - in), d_forget = d_i * old[i] * forget * (1 - forget);
                    d_gates[i] = d_in;
                    d_gates[m + i] = d_forget;
                    terms[i] += d_in;
                    terms[m + i] += d_forget;
                    d_y[i] = d_i * in * (1 - y * y);
                    d_o[i] = d_i * forget;
                }
                continue;
            }
            const REAL in = gates[0], forget = gates[1];
            REAL d_in = 0, d_forget = 0;
#pragma omp simd reduction(+ : d_in, d_forget)
            for (long i = 0; i < m; i++) {
                REAL y = tanh_of((total[i] - mean) * rstd * norm.weight[i] + norm.bias[i]);
                d_in += d_m[i] * y;
                d_forget += d_m[i] * old[i];
                d_y[i] = d_m[i] * in * (1 - y * y);
                d_o[i] = d_m[i] * forget;
            }
            terms[0] += d_gates[0] = d_in * in * (1 - in);
            terms[1] += d_gates[1] = d_forget * forget * (1 - forget);
        }
    }
    add_rows(sums->gates, d->terms + to * batch * g, batch, g);
}

/* One block at one step: from the gradient of its result [batch, Q, M] to that of what was fed to it, into `d_fed`
 * [batch, fed rows, M], which in the first block is added to; the input's rows are left for later there. */
static void backward_block(const Call *c, const Packed *packed, long index, long batch, long at, long to,
                           const Kept *kept,                           const Differences *diff, const Sums *sums, const REAL *d_result, REAL *d_fed,
                           const Scratch *s) {
    const BlockParameters p = block_parameters(c, index);
    const KeptBlock *k = &kept->block[index];
    const BlockDifferences *d = &diff->block[index];
    const long q = queries_of(c, index), r = rows_of(c), count = fed_of(c, index), m = c->width, f = qkv_of(c);
    const long rows = batch * q;
    REAL *d_total = d->total + to * rows * m, *middle = d->middle + to * rows * m;
    for (long i = 0; i < rows; i++) {
        const REAL *total = k->total + (at * rows + i) * m, *stats = k->total_stats + (at * rows + i) * 2;
        REAL *sum = sums->block[index].mlp_norm;
        norm_backward(d_result + i * m, total, m, stats, p.mlp_norm.weight, d_total + i * m, sum, sum + m,
                      sums->mlp + (c->layers - 1) * m);
        if (d->result) norm_apply(total, m, stats, p.mlp_norm.weight, p.mlp_norm.bias, d->result + (to * rows + i) * m);
    }
    const REAL *above = d_total;
    for (long layer = c->layers - 1; layer > 0; layer--) {
        const Parameter w = mlp_parameter(c, layer);
        REAL *below = d->hidden + (layer - 1) * d->hidden_size + to * rows * m;
        Product product_of = back(rows, above, &w, packed->mlp + layer * packed->mlp_size, below);
        product_of.ending = RELU_BACKWARD;
        product_of.other = k->hidden + (layer - 1) * k->hidden_size + at * rows * m;
        product(&product_of);
        add_rows(sums->mlp + (layer - 1) * m, below, rows, m);
        above = below;
    }
    const Parameter first = mlp_parameter(c, 0);
    REAL *d_middle = c->sonnet ? s->middle : middle, *d_attended = s->d_mixed;
    Product product_of = back(rows, above, &first, packed->mlp, d_middle);
    product_of.add = d_total;
    product(&product_of);
    if (c->sonnet) {
        REAL *sum = sums->block[index].attention_norm;
        for (long i = 0; i < rows; i++) {
            const REAL *mixed = k->mixed + (at * rows + i) * m, *stats = k->mixed_stats + (at * rows + i) * 2;
            norm_apply(mixed, m, stats, p.attention_norm.weight, p.attention_norm.bias, middle + i * m);
            norm_backward(d_middle + i * m, mixed, m, stats, p.attention_norm.weight, d_attended + i * m, sum, sum + m,
                          0);
        }
    } else {
        add_rows(sums->block[index].out, d_middle, rows, m);
        product_of = back(rows, d_middle, &p.out, packed->out + index * packed->mlp_size, d_attended);
        product(&product_of);
    }
    REAL *d_z = d->z + to * batch * count * f, *d_z_rows = d->z_rows + to * batch * c->inputs * f;
    for (long b = 0; b < batch; b++) {
        const Rows z = {k->z + (at * batch + b) * count * f, kept->z_rows + (at * batch + b) * c->inputs * f, count};
        const REAL *stats = k->z_stats + (at * batch + b) * r * 2 * (c->sonnet != 0);
        prepare_qkv(c, &z, stats, &p.qkv_norm, s->qkv);
        attend_backward(c, q, s->qkv, k->weights + (at * batch + b) * r * q * c->heads, d_attended + b * q * m, s);
        qkv_backward(c, &z, stats, &p.qkv_norm, s, d_z + b * count * f, d_z_rows + b * c->inputs * f,
                     sums->block[index].qkv_norm, sums->block[index].qkv);
    }
    /* Past the attention, in the sonnet's formulation: the rows that were used. */
    if (index > 0) zero_row(d_fed, batch * count * m);
    if (c->sonnet)
        for (long b = 0; b < batch; b++) {
            add_rows(d_fed + b * count * m, d_attended + b * q * m, 1, MIN(q, count) * m);
            if (index == 0 && q > count)
                copy_row(diff->rows + (to * batch + b) * c->inputs * m, d_attended + (b * q + count) * m,
                         c->inputs * m);
        }
    product_of = back(batch * count, d_z, &p.qkv, packed->qkv + index * packed->qkv_size, d_fed);
    product_of.add = d_fed;
    product(&product_of);
}

/* Sums over few rows join the total: sums of sums round less than one long sum. */
static void settle(REAL *total, REAL *recent, long size) {
    add_rows(total, recent, 1, size);
    zero_row(recent, size);
}

/* What the steps' inputs get, all of them at once, after the last step. */
static void unhoist(const Call *c, const Packed *packed, long first, long batch, const Differences *d, const Sums *total,
                    const Sums *recent, const Scratch *s) {
    const long steps = c->step_to - c->step_from, count = steps * batch, n = c->inputs, m = c->width;
    const Parameter input = input_parameter(c), qkv = block_parameters(c, 0).qkv;
    Product p = back(count * n, d->block[0].z_rows, &qkv, packed->qkv, d->rows);
    if (c->sonnet && queries_of(c, 0) > c->slots) p.add = d->rows;
    product(&p);
    if (c->gates) {
        const Parameter gate_input = gate_input_parameter(c);
        p = back(count, d->terms, &gate_input, packed->gate_input, d->rows);
        p.add = d->rows;
        product(&p);
    }
    for (long r = 0; c->competitive && r < n; r++) {
        const Parameter query = query_parameter(c, r);
        p = back(count, d->queries + r * m, &query, packed->queries + r * packed->mlp_size, d->rows + r * m);
        p.add = p.c;
        p.apart = n * m;
        product(&p);
    }
    for (long from = 0; from < count * n; from += CHAIN) {
        add_rows(recent->input, d->rows + from * m, MIN(CHAIN, count * n - from), m);
        settle(total->input, recent->input, m);
    }
    const long hoisted = hoisted_steps(c), numbers = n * c->features;
    for (long from = 0; from < steps; from += hoisted) {
        const long some = MIN(hoisted, steps - from);
        p = back(some * batch * n, d->rows + from * batch * n * m, &input, packed->input, s->x);
        product(&p);
        for (long t = 0; t < some; t++)
            for (long b = 0; b < batch; b++)
                copy_row((REAL *)c->d_x + ((first + b) * c->steps + c->step_from + from + t) * numbers,
                         s->x + (t * batch + b) * numbers, numbers);
    }
    gather_input(c, first, batch, c->step_from, steps, d->x);
}

static int backward_tile(const Call *c, long tile, REAL *scratch) {
    if (tile >= c->tile_to) return 0;
    const long first = tile * c->tile_batch, batch = MIN(c->tile_batch, c->batch - first), m = c->width;
    const long slots = c->slots, n = c->inputs, memory_numbers = slots * m, last = c->blocks - 1;
    const long q = queries_of(c, last);
    Packed packed;
    Kept k;
    Differences d;
    Sums sums;
    Scratch s;
    lay_packed(c, &packed, c->packed);
    lay_scratch(c, c->tile_batch, &s, scratch);
    find_kept(c, tile, 0, batch, &k);
    find_differences(c, tile, batch, &d);
    const long size = lay_sums(c, &(Sums){0}, 0);
    REAL *total = (REAL *)c->sums + tile * 2 * size, *recent = total + size;
    Sums totals;
    lay_sums(c, &totals, total);
    lay_sums(c, &sums, recent);
    long summed = 0; /* rows in what is recent */
    REAL *d_memory = s.d_memory, *d_before = s.d_before;
    copy_row(d_memory, (const REAL *)c->d_memory + first * memory_numbers, batch * memory_numbers);
    for (long t = c->step_to - 1; t >= c->step_from; t--) {
        const long at = t - c->kept_from, to_step = t - c->step_from;
        /* s.d_h holds the gradient of a block's result, s.h the that of a new memory: 0 where the step does not happen. */
        for (long b = 0; b < batch; b++) {
            REAL *to = s.h + b * memory_numbers;
            if (!happens_at(c, first + b, t)) {
                zero_row(to, memory_numbers);
                continue;
            }
            copy_row(to, d_memory + b * memory_numbers, memory_numbers);
            if (c->d_outputs)
                add_rows(to, (const REAL *)c->d_outputs + (first + b) * c->d_outputs_batch + t * c->d_outputs_step, 1,
                         memory_numbers);
        }
        if (c->competitive) {
            shares_backward(c, batch, at, to_step, &k, &d, &sums, s.h, s.d_h, d_before, &s);
        } else if (c->gates) {
            gates_backward(c, batch, at, to_step, &k, &d, &sums, s.h, s.d_h, d_before);
        } else {
            zero_row(d_before, batch * memory_numbers);
            for (long b = 0; b < batch; b++)
                copy_row(s.d_h + b * q * m, s.h + b * memory_numbers, memory_numbers);
        }
        for (long b = 0; q > slots && b < batch; b++) {
            REAL *to = s.d_h + (b * q + slots) * m;
            if (c->d_attended && happens_at(c, first + b, t))
                copy_row(to, (const REAL *)c->d_attended + (first + b) * c->d_attended_batch + t * c->d_attended_step,
                         n * m);
            else zero_row(to, n * m);
        }
        for (long i = last; i > 0; i--) {
            backward_block(c, &packed, i, batch, at, to_step, &k, &d, &sums, s.d_h, s.h, &s);
            REAL *swapped = s.d_h;
            s.d_h = s.h;
            s.h = swapped;
        }
        backward_block(c, &packed, 0, batch, at, to_step, &k, &d, &sums, s.d_h, d_before, &s);
        if (c->gates) {
            const Parameter weight = gate_memory_parameter(c);
            Product p = back(batch * slots, d.gates + to_step * batch * slots * c->gates, &weight, packed.gate_memory,
                             d_before);
            p.ending = TANH_BACKWARD;
            p.other = k.squashed + at * batch * memory_numbers;
            p.add = d_before;
            product(&p);
        }
        if (c->competitive) {
            const Parameter key = key_parameter(c);
            Product p = back(batch * slots, d.keys + to_step * batch * memory_numbers, &key, packed.keys, d_before);
            p.add = d_before;
            product(&p);
        }
        for (long b = 0; b < batch; b++) {
            REAL *to = d_before + b * memory_numbers;
            if (!happens_at(c, first + b, t)) { /* the memory went on unchanged */
                copy_row(to, d_memory + b * memory_numbers, memory_numbers);
            } else if (resets_at(c, first + b, t)) {
                if (c->d_initial)
                    add_rows((REAL *)c->d_initial + (first + b) * memory_numbers, to, 1, memory_numbers);
                zero_row(to, memory_numbers);
            }
        }
        REAL *swapped = d_memory;
        d_memory = d_before;
        d_before = swapped;
        summed += batch * q;
        if (summed >= CHAIN || t == c->step_from) {
            settle(total, recent, size);
            summed = 0;
        }
    }
    copy_row((REAL *)c->d_memory + first * memory_numbers, d_memory, batch * memory_numbers);
    unhoist(c, &packed, first, batch, &d, &totals, &sums, &s);
    return 1;
}
