/* Where everything lies: parameters, arranged weights, what is kept of a tile, and scratch. */

typedef struct {
    const REAL *weight, *bias;
    REAL *d_weight, *d_bias;
    long out, in;
    long apart; /* numbers from one row of the weight to the next */
} Parameter; /* of a linear, or of a norm (whose `out` is its width and whose `in` is 0) */

typedef struct {
    Parameter qkv, mlp_norm, qkv_norm, attention_norm, out;
} BlockParameters;

INLINE Parameter parameter(const Call *c, long pair, long out, long in) {
    void **g = c->gradients;
    return (Parameter){(const REAL *)c->parameters[2 * pair], (const REAL *)c->parameters[2 * pair + 1],
                       g ? (REAL *)g[2 * pair] : 0, g ? (REAL *)g[2 * pair + 1] : 0, out, in, in};
}
INLINE Parameter input_parameter(const Call *c) { return parameter(c, 0, c->width, c->features); }
INLINE Parameter mlp_parameter(const Call *c, long layer) { return parameter(c, 1 + layer, c->width, c->width); }
INLINE Parameter gate_input_parameter(const Call *c) {
    return parameter(c, 1 + c->layers, c->gates, c->inputs * c->width);
}
INLINE Parameter gate_memory_parameter(const Call *c) { return parameter(c, 2 + c->layers, c->gates, c->width); }
/* Where slots compete: the M rows below the gate's, and of those the M columns from `column` on. */
INLINE Parameter below_gate(const Call *c, Parameter gate, long column) {
    const long m = c->width, from = m * gate.apart + column;
    return (Parameter){gate.weight + from, gate.bias + m, gate.d_weight ? gate.d_weight + from : 0,
                       gate.d_bias ? gate.d_bias + m : 0, m, m, gate.apart};
}
INLINE Parameter key_parameter(const Call *c) { return below_gate(c, gate_memory_parameter(c), 0); }
INLINE Parameter query_parameter(const Call *c, long row) {
    return below_gate(c, gate_input_parameter(c), row * c->width);
}
INLINE BlockParameters block_parameters(const Call *c, long block) {
    long pair = 1 + c->layers + (c->gates ? 2 : 0) + block * (c->sonnet ? 4 : 3);
    BlockParameters p = {0};
    p.qkv = parameter(c, pair, qkv_of(c), c->width);
    p.mlp_norm = parameter(c, pair + 1, c->width, 0);
    if (c->sonnet) {
        p.qkv_norm = parameter(c, pair + 2, qkv_of(c), 0);
        p.attention_norm = parameter(c, pair + 3, c->width, 0);
    } else {
        p.out = parameter(c, pair + 2, c->width, c->width);
    }
    return p;
}

INLINE REAL *take(REAL **from, long count) {
    REAL *taken = *from;
    *from += (count + 15) / 16 * 16;
    return taken;
}
#define COUNT(cursor, base) ((long)((cursor) - (base)))

/* The weights in panels, for y = W x (forward) or for d_x = W^T d_y (backward); S and L vary, so these are tables. */
typedef struct {
    REAL *input, *gate_input, *gate_memory;
    REAL *keys, *queries; /* where slots compete; n queries, `mlp_size` apart */
    REAL *mlp;         /* L of them, `mlp_size` apart */
    REAL *qkv, *out;   /* S of them, `qkv_size` and `mlp_size` apart */
    long mlp_size, qkv_size;
} Packed;

static long lay_packed(const Call *c, Packed *p, REAL *base) {
    REAL *at = base;
    long m = c->width, f = qkv_of(c), i = c->features, nm = c->inputs * m, g = c->gates;
#define EITHER(out, in) MAX(panel_numbers(in, out), panel_numbers(out, in))
    p->mlp_size = EITHER(m, m);
    p->qkv_size = EITHER(f, m);
    p->input = take(&at, EITHER(m, i));
    p->gate_input = g ? take(&at, EITHER(g, nm)) : 0;
    p->gate_memory = g ? take(&at, EITHER(g, m)) : 0;
    p->keys = c->competitive ? take(&at, p->mlp_size) : 0;
    p->queries = c->competitive ? take(&at, c->inputs * p->mlp_size) : 0;
    p->mlp = take(&at, c->layers * p->mlp_size);
    p->qkv = take(&at, c->blocks * p->qkv_size);
    p->out = c->sonnet ? 0 : take(&at, c->blocks * p->mlp_size);
#undef EITHER
    return COUNT(at, base);
}

/* What the backward pass needs of one block of a tile: [step][sequence][row][width] each */
typedef struct {
    REAL *z, *z_stats;           /* q k v of the fed rows, before their norm; mean and rstd of the norm of all R rows */
    REAL *weights;               /* [R, H * Q], softmax over the first axis */
    REAL *mixed, *mixed_stats;   /* sonnet: h + attended; chapter: attended */
    REAL *middle;                /* chapter: attended W^O */
    REAL *hidden;                /* L - 1 of them, `hidden_size` apart: after their ReLU; two in turn where nothing is kept */
    REAL *total, *total_stats;   /* before the last norm */
    long hidden_size;
} KeptBlock;

#define MAX_BLOCKS 64 /* calls of more do not come here */
typedef struct {
    REAL *before;         /* [N, M], the memory before the step */
    REAL *rows, *z_rows;  /* the input's rows and their q k v in the first block */
    REAL *squashed;       /* tanh of the memory */
    REAL *gates;          /* [N, gates] */
    REAL *keys, *queries; /* [N, M] and [n, M], where slots compete */
    REAL *share;          /* [N, n], softmax over the first axis */
    KeptBlock block[MAX_BLOCKS];
} Kept;

/* Steps whose input rows are computed together: enough rows to make products worth their while. */
INLINE long hoisted_steps(const Call *c) {
    return MAX(1, MIN(c->step_to - c->step_from, 128 / (c->tile_batch * c->inputs)));
}

static long lay_kept(const Call *c, long batch, Kept *k, REAL *base) {
    REAL *at = base;
    long steps = MAX(1, c->kept_steps), row_steps = c->kept_steps ? steps : hoisted_steps(c);
    long n = steps * batch, m = c->width;
    k->before = take(&at, n * c->slots * m);
    k->rows = take(&at, row_steps * batch * c->inputs * m);
    k->z_rows = take(&at, row_steps * batch * c->inputs * qkv_of(c));
    k->squashed = c->gates ? take(&at, n * c->slots * m) : 0;
    k->gates = c->gates ? take(&at, n * c->slots * c->gates) : 0;
    k->keys = c->competitive ? take(&at, n * c->slots * m) : 0;
    k->queries = c->competitive ? take(&at, row_steps * batch * c->inputs * m) : 0;
    k->share = c->competitive ? take(&at, n * c->slots * c->inputs) : 0;
    REAL *const first = at, *end = at;
    for (long i = 0; i < c->blocks; i++) {
        KeptBlock *b = &k->block[i];
        long q = queries_of(c, i), r = rows_of(c);
        if (!c->kept_steps) at = first; /* every block in the place of the one before */
        b->z = take(&at, n * fed_of(c, i) * qkv_of(c));
        b->z_stats = c->sonnet ? take(&at, n * r * 2) : 0;
        b->weights = take(&at, n * r * c->heads * q);
        b->mixed = take(&at, n * q * m);
        b->mixed_stats = c->sonnet ? take(&at, n * q * 2) : 0;
        b->middle = c->sonnet ? 0 : take(&at, n * q * m);
        b->hidden_size = n * q * m;
        b->hidden = take(&at, (c->kept_steps ? c->layers - 1 : MIN(c->layers - 1, 2)) * b->hidden_size);
        b->total = take(&at, n * q * m);
        b->total_stats = take(&at, n * q * 2);
        end = MAX(end, at);
    }
    return COUNT(end, base);
}

/* The kept numbers of a tile of a call, or the room that a worker has for those of one step where nothing is kept. */
INLINE void find_kept(const Call *c, long tile, long worker, long batch, Kept *k) {
    const long place = c->kept_steps ? tile - c->kept_tile_from : worker;
    lay_kept(c, batch, k, (REAL *)c->kept + place * lay_kept(c, c->tile_batch, k, 0));
}

/* Gradients that a weight's product needs, for the steps of one call: [step][sequence][row][width] */
typedef struct {
    REAL *z, *z_rows;  /* of q k v, before their norm; z_rows in the first block only */
    REAL *hidden;      /* L - 1 of them, `hidden_size` apart */
    REAL *total;
    REAL *middle;      /* chapter: the gradient of attended W^O; sonnet: the middle itself, computed again */
    REAL *result;      /* the block's result, computed again; not in the last block */
    long hidden_size;
} BlockDifferences;

typedef struct {
    REAL *gates;  /* [N, gates] */
    REAL *terms;  /* [gates], their sums over the slots */
    REAL *keys, *queries; /* [N, M] and [n, M], where slots compete */
    REAL *rows;   /* of the input's rows */
    REAL *x;      /* the input itself, 0 where a step does not happen */
    BlockDifferences block[MAX_BLOCKS];
} Differences;

static long lay_differences(const Call *c, long batch, Differences *d, REAL *base) {
    REAL *at = base;
    long n = (c->step_to - c->step_from) * batch, m = c->width, f = qkv_of(c);
    d->gates = c->gates ? take(&at, n * c->slots * c->gates) : 0;
    d->terms = c->gates ? take(&at, n * c->gates) : 0;
    d->keys = c->competitive ? take(&at, n * c->slots * m) : 0;
    d->queries = c->competitive ? take(&at, n * c->inputs * m) : 0;
    d->rows = take(&at, n * c->inputs * m);
    d->x = take(&at, n * c->inputs * c->features);
    for (long i = 0; i < c->blocks; i++) {
        BlockDifferences *b = &d->block[i];
        long q = queries_of(c, i);
        b->z = take(&at, n * fed_of(c, i) * f);
        b->z_rows = i == 0 ? take(&at, n * c->inputs * f) : 0;
        b->hidden_size = n * q * m;
        b->hidden = take(&at, (c->layers - 1) * b->hidden_size);
        b->total = take(&at, n * q * m);
        b->middle = take(&at, n * q * m);
        b->result = i < c->blocks - 1 ? take(&at, n * q * m) : 0;
    }
    return COUNT(at, base);
}

INLINE void find_differences(const Call *c, long tile, long batch, Differences *d) {
    const long size = lay_differences(c, c->tile_batch, d, 0);
    lay_differences(c, batch, d, (REAL *)c->differences + (tile - c->tile_from) * size);
}

/* Gradients of biases and norms of one tile, added up over its rows and steps */
typedef struct {
    REAL *input, *gates, *mlp; /* mlp: L of [M] */
    REAL *keys, *queries;
    struct {
        REAL *qkv, *out, *qkv_norm, *attention_norm, *mlp_norm; /* norms: weight, then bias */
    } block[MAX_BLOCKS];
} Sums;

static long lay_sums(const Call *c, Sums *s, REAL *base) {
    REAL *at = base;
    long m = c->width, f = qkv_of(c);
    s->input = take(&at, m);
    s->gates = take(&at, c->gates);
    s->mlp = take(&at, c->layers * m);
    s->keys = c->competitive ? take(&at, m) : 0;
    s->queries = c->competitive ? take(&at, m) : 0;
    for (long i = 0; i < c->blocks; i++) {
        s->block[i].qkv = take(&at, f);
        s->block[i].out = take(&at, m);
        s->block[i].qkv_norm = take(&at, 2 * f);
        s->block[i].attention_norm = take(&at, 2 * m);
        s->block[i].mlp_norm = take(&at, 2 * m);
    }
    return COUNT(at, base);
}

/* One head's share of a row of q k v, padded to whole vectors. */
INLINE long padded(long n) { return (n + LANES - 1) / LANES * LANES; }
INLINE long padded_head(const Call *c) { return 2 * padded(c->key) + padded(value_of(c)); }
INLINE int is_padded(const Call *c) { return c->key % LANES != 0 || value_of(c) % LANES != 0; }

#define DEPTH 128   /* rows of a weight's product that are summed before they are added to the gradient */
#define STRIPE (8 * TILE_ROWS) /* rows of a weight's gradient that one thread computes together */

typedef struct {
    REAL *x;                     /* the input of the hoisted steps */
    REAL *terms, *gate_bias;     /* of the gates */
    REAL *qkv, *d_qkv, *d_row;   /* of one sequence, padded; and one row, not padded */
    REAL *logits, *line;         /* attention of one sequence, one number per query and head; shares of one sequence */
    REAL *query;                 /* of one row and head, divided by sqrt(K), padded */
    REAL *d_attended;            /* of one sequence, padded */
    REAL *middle, *below, *h, *d_h, *d_mixed, *d_before, *d_memory; /* rows of the tile */
    REAL *panel, *stripe;        /* operands of a weight's product, in calls for gradients */
} Scratch;

static long lay_scratch(const Call *c, long batch, Scratch *s, REAL *base) {
    REAL *at = base;
    long r = rows_of(c), m = c->width, f = qkv_of(c), wide = batch * r * m;
    s->x = take(&at, hoisted_steps(c) * batch * c->inputs * MAX(c->features, 1));
    s->terms = take(&at, hoisted_steps(c) * batch * c->gates);
    s->gate_bias = take(&at, c->gates);
    s->qkv = take(&at, r * c->heads * padded_head(c));
    s->d_qkv = take(&at, r * c->heads * padded_head(c));
    s->d_row = take(&at, f);
    s->logits = take(&at, r * c->heads * r);
    s->line = take(&at, c->heads * r);
    s->query = take(&at, padded(c->key));
    s->d_attended = take(&at, r * c->heads * padded(value_of(c)));
    s->middle = take(&at, wide);
    s->below = take(&at, wide);
    s->h = take(&at, wide);
    s->d_h = take(&at, wide);
    s->d_mixed = take(&at, wide);
    s->d_before = take(&at, batch * c->slots * m);
    s->d_memory = take(&at, batch * c->slots * m);
    s->panel = c->gradients ? take(&at, DEPTH * PANEL) : 0;
    s->stripe = c->gradients ? take(&at, DEPTH * STRIPE) : 0;
    return COUNT(at, base);
}
