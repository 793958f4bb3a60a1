/* One tile through time, forward. */

/* The product of rows with a linear's weight, forward. */
INLINE Product linear(const Call *c, long rows, const REAL *a, const Parameter *p, const REAL *panels, REAL *y) {
    return (Product){.rows = rows,
                     .inner = p->in,
                     .cols = p->out,
                     .a = a,
                     .panels = c->packed_weights ? panels : 0,
                     .weight = p->weight,
                     .weight_apart = p->apart,
                     .bias = p->bias,
                     .add_group = 1,
                     .c = y};
}

/* The input of some steps of a tile, [step][sequence][n][I], 0 where a step does not happen: padding may hold NaN. */
static void gather_input(const Call *c, long first, long batch, long from, long steps, REAL *to) {
    const long numbers = c->inputs * c->features;
    for (long t = from; t < from + steps; t++)
        for (long b = first; b < first + batch; b++, to += numbers) {
            if (happens_at(c, b, t)) copy_row(to, (const REAL *)c->x + b * c->x_batch + t * c->x_step, numbers);
            else zero_row(to, numbers);
        }
}

/* What some steps take from their input alone: its rows, their q k v in the first block, its gate terms, its queries
 * where slots compete. */
static void hoist(const Call *c, const Packed *packed, long first, long batch, long from, long steps, REAL *rows,
                  REAL *z_rows, REAL *queries, const Scratch *s) {
    const long count = steps * batch;
    const Parameter input = input_parameter(c), qkv = block_parameters(c, 0).qkv;
    gather_input(c, first, batch, from, steps, s->x);
    Product p = linear(c, count * c->inputs, s->x, &input, packed->input, rows);
    product(&p);
    p = linear(c, count * c->inputs, rows, &qkv, packed->qkv, z_rows);
    product(&p);
    if (c->gates) {
        const Parameter gate_input = gate_input_parameter(c);
        p = linear(c, count, rows, &gate_input, packed->gate_input, s->terms);
        p.bias = s->gate_bias;
        product(&p);
    }
    for (long r = 0; c->competitive && r < c->inputs; r++) {
        const Parameter query = query_parameter(c, r);
        const REAL *panels = packed->queries + r * packed->mlp_size;
        p = linear(c, count, rows + r * c->width, &query, panels, queries + r * c->width);
        p.apart = c->inputs * c->width;
        product(&p);
    }
}

/* Both biases and the two constants. */
static void combine_gate_biases(const Call *c, REAL *bias) {
    const REAL *a = gate_input_parameter(c).bias, *b = gate_memory_parameter(c).bias;
    for (long i = 0; i < c->gates; i++)
        bias[i] = a[i] + b[i] + (REAL)(c->competitive || i < c->gates / 2 ? c->input_bias : c->forget_bias);
}

/* One block at one step: from `fed` [batch, fed rows, M] (and the input's rows, in the first block) to the block's
 * total [batch, Q, M], which its last norm is still to be applied to. */
static void forward_block(const Call *c, const Packed *packed, long index, long batch, const REAL *fed,
                          const REAL *input_rows, const REAL *z_rows, const KeptBlock *k, long at, const Scratch *s) {
    const BlockParameters p = block_parameters(c, index);
    const long q = queries_of(c, index), r = rows_of(c), count = fed_of(c, index), m = c->width, f = qkv_of(c);
    const long rows = batch * q, norm_rows = c->sonnet ? batch * r * 2 : 0;
    REAL *z = k->z + at * batch * count * f, *mixed = k->mixed + at * rows * m;
    REAL *z_stats = k->z_stats + at * norm_rows, *weights = k->weights + at * rows * r * c->heads;
    REAL *middle = c->sonnet ? s->middle : k->middle + at * rows * m;
    Product product_of = linear(c, batch * count, fed, &p.qkv, packed->qkv + index * packed->qkv_size, z);
    product(&product_of);
    for (long b = 0; b < batch; b++) {
        const Rows z_of = {z + b * count * f, z_rows + b * c->inputs * f, count};
        const Rows h_of = {fed + b * count * m, input_rows + b * c->inputs * m, count};
        const REAL *residual[r];
        if (c->sonnet)
            for (long i = 0; i < r; i++) {
                norm_stats(row_of(&z_of, i, f), f, z_stats + (b * r + i) * 2);
                residual[i] = row_of(&h_of, i, m);
            }
        prepare_qkv(c, &z_of, z_stats + b * r * 2, &p.qkv_norm, s->qkv);
        attend(c, q, s->qkv, weights + b * q * r * c->heads, s, c->sonnet ? residual : 0, mixed + b * q * m);
        if (c->sonnet)
            for (long i = b * q; i < (b + 1) * q; i++) {
                REAL *stats = k->mixed_stats + (at * rows + i) * 2;
                norm_stats(mixed + i * m, m, stats);
                norm_apply(mixed + i * m, m, stats, p.attention_norm.weight, p.attention_norm.bias, middle + i * m);
            }
    }
    if (!c->sonnet) {
        product_of = linear(c, rows, mixed, &p.out, packed->out + index * packed->mlp_size, middle);
        product(&product_of);
    }
    const REAL *below = middle;
    for (long layer = 0; layer < c->layers; layer++) {
        const Parameter w = mlp_parameter(c, layer);
        const int last = layer == c->layers - 1;
        const long place = c->kept_steps ? layer : layer % 2;
        REAL *y = (last ? k->total : k->hidden + place * k->hidden_size) + at * rows * m;
        product_of = linear(c, rows, below, &w, packed->mlp + layer * packed->mlp_size, y);
        product_of.add = last ? middle : 0;
        product_of.ending = last ? PLAIN : RELU;
        product(&product_of);
        below = y;
    }
    for (long i = 0; i < rows; i++) norm_stats(below + i * m, m, k->total_stats + (at * rows + i) * 2);
}

/* A row's new memory from its candidate (already normalised), its gates' sums (which become the gates), and the old. */
INLINE void gate_row(const Call *c, const REAL *candidate, REAL *restrict gates, const REAL *old, REAL *new) {
    const long m = c->width;
    if (c->gates == 2 * m) {
#pragma omp simd
        for (long i = 0; i < m; i++) {
            REAL in = sigmoid_of(gates[i]), forget = sigmoid_of(gates[m + i]);
            gates[i] = in;
            gates[m + i] = forget;
            new[i] = in * tanh_of(candidate[i]) + forget * old[i];
        }
        return;
    }
    const REAL in = gates[0] = sigmoid_of(gates[0]), forget = gates[1] = sigmoid_of(gates[1]);
#pragma omp simd
    for (long i = 0; i < m; i++) new[i] = in * tanh_of(candidate[i]) + forget * old[i];
}

static int forward_tile(const Call *c, long tile, long worker, REAL *scratch) {
    if (tile >= c->tile_to) return 0;
    const long first = tile * c->tile_batch, batch = MIN(c->tile_batch, c->batch - first), m = c->width;
    const long slots = c->slots, n = c->inputs, memory_numbers = slots * m, last = c->blocks - 1;
    const long q = queries_of(c, last), hoisted = hoisted_steps(c);
    Packed packed;
    Kept k;
    Scratch s;
    lay_packed(c, &packed, c->packed);
    lay_scratch(c, c->tile_batch, &s, scratch);
    find_kept(c, tile, worker, batch, &k);
    if (c->gates) combine_gate_biases(c, s.gate_bias);
    const long start = c->kept_steps ? c->step_from - c->kept_from : 0;
    for (long b = 0; b < batch; b++)
        copy_row(k.before + (start * batch + b) * memory_numbers, (const REAL *)c->memory + (first + b) * memory_numbers, memory_numbers);
    for (long t = c->step_from; t < c->step_to; t++) {
        const long step = t - c->step_from, at = c->kept_steps ? t - c->kept_from : 0, in_block = step % hoisted;
        const long row_at = c->kept_steps ? at : in_block;
        REAL *rows = k.rows + row_at * batch * n * m, *z_rows = k.z_rows + row_at * batch * n * qkv_of(c);
        REAL *queries = k.queries + row_at * batch * n * m, *before = k.before + at * batch * memory_numbers;
        if (in_block == 0) hoist(c, &packed, first, batch, t, MIN(hoisted, c->step_to - t), rows, z_rows, queries, &s);
        for (long b = 0; b < batch; b++)
            if (resets_at(c, first + b, t))
                copy_row(before + b * memory_numbers, (const REAL *)c->initial + (first + b) * c->initial_batch,
                         memory_numbers);
        const REAL *h = before;
        for (long i = 0; i <= last; i++) {
            forward_block(c, &packed, i, batch, h, rows, z_rows, &k.block[i], at, &s);
            if (i == last) break;
            const Parameter norm = block_parameters(c, i).mlp_norm;
            const long count = batch * rows_of(c);
            for (long j = 0; j < count; j++)
                norm_apply(k.block[i].total + (at * count + j) * m, m, k.block[i].total_stats + (at * count + j) * 2,
                           norm.weight, norm.bias, s.h + j * m);
            h = s.h;
        }
        REAL *squashed = k.squashed + at * batch * memory_numbers, *gates = k.gates + at * batch * slots * c->gates;
        if (c->gates) {
#pragma omp simd
            for (long i = 0; i < batch * memory_numbers; i++) squashed[i] = tanh_of(before[i]);
            const Parameter weight = gate_memory_parameter(c);
            Product p = linear(c, batch * slots, squashed, &weight, packed.gate_memory, gates);
            p.bias = 0;
            p.add = s.terms + in_block * batch * c->gates;
            p.add_group = slots;
            product(&p);
        }
        REAL *share = k.share + at * batch * slots * n, *keys = k.keys + at * batch * memory_numbers;
        if (c->competitive) {
            const Parameter weight = key_parameter(c);
            Product p = linear(c, batch * slots, before, &weight, packed.keys, keys);
            product(&p);
            for (long b = 0; b < batch; b++)
                share_out(c, keys + b * memory_numbers, queries + b * n * m, share + b * slots * n);
        }
        const Parameter norm = block_parameters(c, last).mlp_norm;
        const KeptBlock *top = &k.block[last];
        REAL *after = t + 1 == c->step_to ? (REAL *)c->final + first * memory_numbers
                                          : before + (c->kept_steps ? batch * memory_numbers : 0);
        for (long b = 0; b < batch; b++) {
            const int happens = happens_at(c, first + b, t);
            for (long r = 0; r < q; r++) {
                const long row = (at * batch + b) * q + r;
                REAL *candidate = s.below;
                norm_apply(top->total + row * m, m, top->total_stats + row * 2, norm.weight, norm.bias, candidate);
                if (r >= slots) {
                    if (!c->attended) continue;
                    REAL *to = (REAL *)c->attended + (((first + b) * c->steps + t) * n + r - slots) * m;
                    if (happens) copy_row(to, candidate, m);
                    else zero_row(to, m);
                    continue;
                }
                const long slot = b * slots + r;
                const REAL *old = before + slot * m;
                REAL *new = after + slot * m;
                if (c->competitive)
                    compete_row(c, candidate, gates + slot * m, share + slot * n, old, happens ? new : candidate);
                else if (c->gates)
                    gate_row(c, candidate, gates + slot * c->gates, old, happens ? new : candidate);
                else if (happens)
                    copy_row(new, candidate, m);
                if (!happens && new != old) copy_row(new, old, m);
            }
            if (c->outputs) {
                REAL *to = (REAL *)c->outputs + ((first + b) * c->steps + t) * memory_numbers;
                if (happens) copy_row(to, after + b * memory_numbers, memory_numbers);
                else zero_row(to, memory_numbers);
            }
        }
    }
    return 1;
}
