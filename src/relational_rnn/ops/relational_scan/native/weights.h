/* What is done for all tiles together: weights into panels, weights' gradients, and the sums of the small ones. */

typedef struct {
    Parameter p;
    REAL *panels;
} Arranged;

/* The number-th weight of a call and where its panels go; 0 when there is none. */
static int arranged(const Call *c, const Packed *packed, long number, Arranged *a) {
    if (number == 0) return *a = (Arranged){input_parameter(c), packed->input}, 1;
    number -= 1;
    if (number < c->layers) return *a = (Arranged){mlp_parameter(c, number), packed->mlp + number * packed->mlp_size}, 1;
    number -= c->layers;
    if (c->gates) {
        if (number == 0) return *a = (Arranged){gate_input_parameter(c), packed->gate_input}, 1;
        if (number == 1) return *a = (Arranged){gate_memory_parameter(c), packed->gate_memory}, 1;
        number -= 2;
    }
    if (c->competitive) {
        if (number == 0) return *a = (Arranged){key_parameter(c), packed->keys}, 1;
        number -= 1;
        if (number < c->inputs)
            return *a = (Arranged){query_parameter(c, number), packed->queries + number * packed->mlp_size}, 1;
        number -= c->inputs;
    }
    if (number < c->blocks)
        return *a = (Arranged){block_parameters(c, number).qkv, packed->qkv + number * packed->qkv_size}, 1;
    number -= c->blocks;
    if (!c->sonnet && number < c->blocks)
        return *a = (Arranged){block_parameters(c, number).out, packed->out + number * packed->mlp_size}, 1;
    return 0;
}

/* A piece: up to 8 panels of one weight. */
static int pack_piece(const Call *c, long piece, int backward) {
    Packed packed;
    lay_packed(c, &packed, c->packed);
    Arranged a;
    for (long number = 0; arranged(c, &packed, number, &a); number++) {
        const long inner = backward ? a.p.out : a.p.in, cols = backward ? a.p.in : a.p.out;
        const long pieces = (cols + 8 * PANEL - 1) / (8 * PANEL);
        if (piece >= pieces) {
            piece -= pieces;
            continue;
        }
        for (long from = piece * 8 * PANEL; from < MIN(cols, (piece + 1) * 8 * PANEL); from += PANEL)
            pack_panel(a.panels + from * inner, a.p.weight, a.p.out, a.p.in, a.p.apart, !backward, from);
        return 1;
    }
    return 0;
}

/* d_weight [out, in], its rows `apart` numbers apart, += d^T h over rows: `d` [rows, out] in a stripe of columns,
 * arranged TILE_ROWS by TILE_ROWS, and `h` [rows, in] in a panel. */
INLINE void weight_tile(const int count, const REAL *d, const REAL *h, long rows, REAL *to, long apart, long width) {
    V sum[TILE_ROWS][2];
#pragma GCC unroll 8
    for (int i = 0; i < count; i++) sum[i][0] = sum[i][1] = (V){0};
    for (long r = 0; r < rows; r++) {
        V left = load(h + r * PANEL), right = load(h + r * PANEL + LANES);
#pragma GCC unroll 8
        for (int i = 0; i < count; i++) {
            REAL x = d[r * TILE_ROWS + i];
            sum[i][0] += x * left;
            sum[i][1] += x * right;
        }
    }
    if (width == PANEL) {
#pragma GCC unroll 8
        for (int i = 0; i < count; i++) {
            store(to + i * apart, load(to + i * apart) + sum[i][0]);
            store(to + i * apart + LANES, load(to + i * apart + LANES) + sum[i][1]);
        }
        return;
    }
    REAL edge[TILE_ROWS][PANEL];
#pragma GCC unroll 8
    for (int i = 0; i < count; i++) {
        store(edge[i], sum[i][0]);
        store(edge[i] + LANES, sum[i][1]);
    }
    for (int i = 0; i < count; i++)
        for (long j = 0; j < width; j++) to[i * apart + j] += edge[i][j];
}

/* Rows of gradients and what was fed, of one tile. */
typedef struct {
    const REAL *d, *h;
    long rows;
    long apart; /* numbers from one row to the next, of both; 0: rows lie side by side */
} Pair;

static void weight_stripe(const Parameter *p, Pair pair, long from, const Scratch *s) {
    const long out = MIN(STRIPE, p->out - from), in = p->in;
    const long d_apart = pair.apart ? pair.apart : p->out, h_apart = pair.apart ? pair.apart : in;
    const long groups = (out + TILE_ROWS - 1) / TILE_ROWS;
    for (long row = 0; row < pair.rows; row += DEPTH) {
        const long depth = MIN(DEPTH, pair.rows - row);
        for (long g = 0; g < groups; g++) {
            const long width = MIN(TILE_ROWS, out - g * TILE_ROWS);
            REAL *to = s->stripe + g * DEPTH * TILE_ROWS;
            const REAL *d = pair.d + row * d_apart + from + g * TILE_ROWS;
            if (width == TILE_ROWS)
                for (long r = 0; r < depth; r++) memcpy(to + r * TILE_ROWS, d + r * d_apart, TILE_ROWS * sizeof(REAL));
            else
                for (long r = 0; r < depth; r++) copy_row(to + r * TILE_ROWS, d + r * d_apart, width);
        }
        for (long col = 0; col < in; col += PANEL) {
            const long width = MIN(PANEL, in - col);
            const REAL *h = pair.h + row * h_apart + col;
            if (width == PANEL)
                for (long r = 0; r < depth; r++) {
                    store(s->panel + r * PANEL, load(h + r * h_apart));
                    store(s->panel + r * PANEL + LANES, load(h + r * h_apart + LANES));
                }
            else
                for (long r = 0; r < depth; r++) {
                    zero_row(s->panel + r * PANEL, PANEL);
                    copy_row(s->panel + r * PANEL, h + r * h_apart, width);
                }
            for (long g = 0; g < groups; g++) {
                const REAL *d = s->stripe + g * DEPTH * TILE_ROWS;
                REAL *to = p->d_weight + (from + g * TILE_ROWS) * p->apart + col;
                switch (MIN(TILE_ROWS, out - g * TILE_ROWS)) {
                case 1: weight_tile(1, d, s->panel, depth, to, p->apart, width); break;
                case 2: weight_tile(2, d, s->panel, depth, to, p->apart, width); break;
                case 3: weight_tile(3, d, s->panel, depth, to, p->apart, width); break;
                case 4: weight_tile(4, d, s->panel, depth, to, p->apart, width); break;
                case 5: weight_tile(5, d, s->panel, depth, to, p->apart, width); break;
                case TILE_ROWS: weight_tile(TILE_ROWS, d, s->panel, depth, to, p->apart, width); break;
#if TILE_ROWS > 6
                case 6: weight_tile(6, d, s->panel, depth, to, p->apart, width); break;
                case 7: weight_tile(7, d, s->panel, depth, to, p->apart, width); break;
#endif
                }
            }
        }
    }
}

/* The pairs of rows that make the gradient of a weight, per tile: one per use of it. What is kept may begin at an
 * earlier step than the differences do. */
static int pair_of(const Call *c, const Kept *k, const Differences *d, long batch, long number, long use, Pair *pair) {
    const long m = c->width, count = (c->step_to - c->step_from) * batch, past = (c->step_from - c->kept_from) * batch;
    const long slots = c->slots, n = c->inputs;
    if (number == 0) return *pair = (Pair){d->rows, d->x, count * n}, use < 1;
    number -= 1;
    if (number < c->layers) { /* the MLP is shared by all blocks */
        if (use >= c->blocks) return 0;
        const KeptBlock *kept = &k->block[use];
        const BlockDifferences *own = &d->block[use];
        const long q = queries_of(c, use);
        pair->rows = count * q;
        pair->apart = 0;
        pair->d = number == c->layers - 1 ? own->total : own->hidden + number * own->hidden_size;
        if (number > 0) pair->h = kept->hidden + (number - 1) * kept->hidden_size + past * q * m;
        else pair->h = c->sonnet ? own->middle : kept->middle + past * q * m;
        return 1;
    }
    number -= c->layers;
    if (c->gates) {
        if (number == 0) return *pair = (Pair){d->terms, k->rows + past * n * m, count}, use < 1;
        if (number == 1) return *pair = (Pair){d->gates, k->squashed + past * slots * m, count * slots}, use < 1;
        number -= 2;
    }
    if (c->competitive) {
        if (number == 0) return *pair = (Pair){d->keys, k->before + past * slots * m, count * slots}, use < 1;
        number -= 1;
        if (number < n)
            return *pair = (Pair){d->queries + number * m, k->rows + (past * n + number) * m, count, n * m}, use < 1;
        number -= n;
    }
    if (number < c->blocks) {
        if (number > 0)
            return *pair = (Pair){d->block[number].z, d->block[number - 1].result, count * (slots + n)}, use < 1;
        if (use == 0) return *pair = (Pair){d->block[0].z, k->before + past * slots * m, count * slots}, 1;
        return *pair = (Pair){d->block[0].z_rows, k->rows + past * n * m, count * n}, use < 2;
    }
    number -= c->blocks;
    const long q = queries_of(c, number);
    return *pair = (Pair){d->block[number].middle, k->block[number].mixed + past * q * m, count * q}, use < 1;
}

/* A piece: a stripe of rows of one weight's gradient, over all tiles of the call one after the other. */
static int weights_piece(const Call *c, long piece, REAL *scratch) {
    Packed packed;
    Kept k;
    Differences d;
    Scratch s;
    Arranged a;
    Pair pair;
    lay_packed(c, &packed, c->packed);
    lay_scratch(c, c->tile_batch, &s, scratch);
    for (long number = 0; arranged(c, &packed, number, &a); number++) {
        const long pieces = (a.p.out + STRIPE - 1) / STRIPE;
        if (piece >= pieces) {
            piece -= pieces;
            continue;
        }
        for (long tile = c->tile_from; tile < c->tile_to; tile++) {
            const long batch = MIN(c->tile_batch, c->batch - tile * c->tile_batch);
            find_kept(c, tile, 0, batch, &k);
            find_differences(c, tile, batch, &d);
            for (long use = 0; pair_of(c, &k, &d, batch, number, use, &pair); use++)
                weight_stripe(&a.p, pair, piece * STRIPE, &s);
        }
        return 1;
    }
    return 0;
}

/* The only piece: gradients of biases and norms, from the sums of all tiles in order. */
static int finish_piece(const Call *c, long piece) {
    if (piece > 0) return 0;
    const long size = lay_sums(c, &(Sums){0}, 0), m = c->width, f = qkv_of(c);
    for (long tile = 0; tile < tile_count(c); tile++) {
        Sums s;
        lay_sums(c, &s, (REAL *)c->sums + tile * 2 * size);
        add_rows(input_parameter(c).d_bias, s.input, 1, m);
        for (long layer = 0; layer < c->layers; layer++)
            add_rows(mlp_parameter(c, layer).d_bias, s.mlp + layer * m, 1, m);
        if (c->gates) {
            add_rows(gate_input_parameter(c).d_bias, s.gates, 1, c->gates);
            add_rows(gate_memory_parameter(c).d_bias, s.gates, 1, c->gates);
        }
        if (c->competitive) {
            add_rows(key_parameter(c).d_bias, s.keys, 1, m);
            add_rows(query_parameter(c, 0).d_bias, s.queries, 1, m);
        }
        for (long i = 0; i < c->blocks; i++) {
            const BlockParameters p = block_parameters(c, i);
            add_rows(p.qkv.d_bias, s.block[i].qkv, 1, f);
            add_rows(p.mlp_norm.d_weight, s.block[i].mlp_norm, 1, m);
            add_rows(p.mlp_norm.d_bias, s.block[i].mlp_norm + m, 1, m);
            if (c->sonnet) {
                add_rows(p.qkv_norm.d_weight, s.block[i].qkv_norm, 1, f);
                add_rows(p.qkv_norm.d_bias, s.block[i].qkv_norm + f, 1, f);
                add_rows(p.attention_norm.d_weight, s.block[i].attention_norm, 1, m);
                add_rows(p.attention_norm.d_bias, s.block[i].attention_norm + m, 1, m);
            } else {
                add_rows(p.out.d_bias, s.block[i].out, 1, m);
            }
        }
    }
    return 1;
}
