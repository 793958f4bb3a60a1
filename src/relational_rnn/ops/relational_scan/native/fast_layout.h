/* Where everything of the fast-weight scan lies: weights, tables, and scratch. */

typedef struct {
    const REAL *weight, *bias; /* [out, in], [out] or NULL */
    REAL *panels;
    long out, in;
} Weight;

/* The order of `parameters`, in pairs: linears first, of the reads last. */
enum { RECURRENT, RECURRENT_KEY, MLP_IN, MLP_OUT, WRITE, OUT, MLP_NORM, OUT_NORM, FIRST_READ_PAIR, LINEARS = MLP_NORM };

INLINE long weight_count(const FastCall *c) { return LINEARS + 2 * c->reads; }
INLINE long read_weight(long read) { return LINEARS + 2 * read; } /* its key; its value is the next */
INLINE long memory_numbers(const FastCall *c) { return c->heads * c->key * c->value; }
INLINE long written_numbers(const FastCall *c) { return c->heads * (c->key + c->value + 2); }

typedef struct {
    const REAL *weight, *bias;
} NormOf;
INLINE NormOf norm_of(const FastCall *c, long pair) {
    return (NormOf){c->parameters[2 * pair], c->parameters[2 * pair + 1]};
}
INLINE NormOf read_norm(const FastCall *c, long read) { return norm_of(c, FIRST_READ_PAIR + 3 * read + 2); }

INLINE REAL *take(REAL **from, long count) {
    REAL *taken = *from;
    *from += (count + 15) / 16 * 16;
    return taken;
}
#define COUNT(cursor, base) ((long)((cursor) - (base)))

/* All linears, and where their panels go; a linear that is not there has the weight NULL. */
static long lay_weights(const FastCall *c, Weight *weights, REAL *base) {
    const long w = c->width, keys = c->heads * c->key, values = c->heads * c->value;
    REAL *at = base;
    for (long i = 0; i < weight_count(c); i++) {
        const long pair = i < LINEARS ? i : FIRST_READ_PAIR + (i - LINEARS) / 2 * 3 + (i - LINEARS) % 2;
        const int is_key = i >= LINEARS && (i - LINEARS) % 2 == 0, is_value = i >= LINEARS && !is_key;
        const long out = is_key || i == RECURRENT_KEY ? keys : i == WRITE ? written_numbers(c) : w, in = is_value || i == OUT ? values : w;
        const int there = i == RECURRENT || i == RECURRENT_KEY ? c->carry : i == OUT ? c->outputs_needed : 1;
        const void *weight = there && c->parameters ? c->parameters[2 * pair] : 0;
        const void *bias = weight ? c->parameters[2 * pair + 1] : 0;
        REAL *panels = take(&at, there ? MAX(panel_numbers(in, out), panel_numbers(out, in)) : 0);
        weights[i] = (Weight){weight, bias, c->packed_weights ? panels : 0, out, in};
    }
    return COUNT(at, base);
}

/* A piece: up to 8 panels of one weight. */
static int pack_piece(const FastCall *c, long piece, int backward) {
    Weight weights[weight_count(c)];
    lay_weights(c, weights, c->packed);
    for (long i = 0; i < weight_count(c); i++) {
        const Weight *a = weights + i;
        if (!a->weight) continue;
        const long inner = backward ? a->out : a->in, cols = backward ? a->in : a->out;
        const long pieces = (cols + 8 * PANEL - 1) / (8 * PANEL);
        if (piece >= pieces) {
            piece -= pieces;
            continue;
        }
        for (long from = piece * 8 * PANEL; from < MIN(cols, (piece + 1) * 8 * PANEL); from += PANEL)
            pack_panel(a->panels + from * inner, a->weight, a->out, a->in, a->in, !backward, from);
        return 1;
    }
    return 0;
}

/* y = x W^T + bias + add, for rows of a tile */
static void forward_product(const Weight *weight, long rows, const REAL *x, const REAL *add, Ending ending, REAL *y) {
    Product p = {.rows = rows,
                 .inner = weight->in,
                 .cols = weight->out,
                 .a = x,
                 .panels = weight->panels,
                 .weight = weight->weight,
                 .weight_apart = weight->in,
                 .bias = weight->bias,
                 .add = add,
                 .add_group = 1,
                 .ending = ending,
                 .c = y};
    product(&p);
}

/* d_x = d W + add, where `activations` (if given) are positive */
static void backward_product(const Weight *weight, long rows, const REAL *d, const REAL *add, const REAL *activations,
                             REAL *d_x) {
    Product p = {.rows = rows,
                 .inner = weight->out,
                 .cols = weight->in,
                 .a = d,
                 .panels = weight->panels,
                 .add = add,
                 .add_group = 1,
                 .ending = activations ? RELU_BACKWARD : PLAIN,
                 .other = activations,
                 .c = d_x};
    product(&p);
}

INLINE REAL *difference(const FastCall *c, long what, long t, long b) {
    return (REAL *)c->differences[what] + (t * c->batch + b) * c->difference_widths[what];
}
INLINE long read_table(long read, long what) { return FIRST_READ + read * READ_TABLES + what; }
INLINE long d_read_table(long read, long what) { return FIRST_D_READ + read * D_READ_TABLES + what; }
/* What read `read` sees; after the last one, what the MLP sees. */
INLINE long input_table(const FastCall *c, long read) {
    return read < c->reads ? read_table(read, READ_INPUT) : MLP_INPUT;
}

INLINE int happens_in(const FastCall *c, long b, long t) { return c->lengths == 0 || t < c->lengths[b]; }
INLINE int resets_in(const FastCall *c, long b, long t) {
    return c->reset != 0 && c->reset[b * c->steps + t] && happens_in(c, b, t);
}
/* The steps of a tile: those of its longest sequence. */
INLINE long tile_steps(const FastCall *c, long first, long batch) {
    if (!c->lengths) return c->steps;
    long most = 0;
    for (long b = first; b < first + batch; b++) most = MAX(most, (long)c->lengths[b]);
    return MIN(most, c->steps);
}
INLINE const REAL *initial_memory(const FastCall *c, long b) { return (const REAL *)c->initial + b * c->initial_batch; }
INLINE const REAL *initial_output(const FastCall *c, long b) {
    return (const REAL *)c->initial_carried + b * c->initial_carried_batch;
}
INLINE REAL *memory_after(const FastCall *c, long b, long t) {
    return (REAL *)c->memories + (b * c->steps + t) * memory_numbers(c);
}

/* Gradients of norms, added up over rows and steps of a tile: weight and bias, of the reads, the MLP, the output. */
INLINE long sums_size(const FastCall *c) { return (c->reads + 2) * 2 * c->width; }

typedef struct {
    REAL *correction;     /* [V]; forward, and in the backward pass its gradient, too */
    REAL *d_correction;   /* [V] */
    REAL *d_h, *d_before; /* [rows of the tile, W] */
    REAL *d_found, *d_old; /* [rows of the tile, H V] */
    REAL *d_reads;        /* R of them */
    REAL *keys;           /* [2 K], key and query by what is kept */
    long first_row;       /* of the tables, where nothing is kept and every worker has its own */
} Scratch;

static long lay_scratch(const FastCall *c, Scratch *s, REAL *base) {
    REAL *at = base;
    const long rows = c->tile_batch, values = c->heads * c->value;
    s->correction = take(&at, c->value);
    s->d_correction = take(&at, c->value);
    s->d_h = take(&at, rows * c->width);
    s->d_before = take(&at, rows * c->width);
    s->d_found = take(&at, rows * values);
    s->d_old = take(&at, rows * values);
    s->d_reads = take(&at, c->reads * rows * values);
    s->keys = take(&at, 2 * c->key);
    return COUNT(at, base);
}

/* Rows of the tables, from sequence b at step t on. */
INLINE REAL *active(const FastCall *c, const Scratch *s, long what, long t, long b) {
    const long row = c->kept ? t * c->batch + b : s->first_row + b % c->tile_batch;
    return (REAL *)c->activations[what] + row * c->activation_widths[what];
}
