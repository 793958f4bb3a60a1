/* Products: activations [rows, inner] times a weight that was arranged in panels of PANEL columns.
 *
 * A panel holds, for every inner index, PANEL neighbouring columns, so that the innermost loop reads it from front to
 * back; TILE_ROWS rows times one panel are kept in registers. A part of a panel, CHAIN of its inner indices, stays in the
 * nearest cache while BLOCK rows go over it. Every number of the result is the sum over the inner
 * index in one order, whatever rows it is computed with: a row's result does not depend on how rows are divided. */

#define PANEL (2 * LANES)
#define BLOCK 64  /* rows that go through a panel together */
#define AHEAD 32   /* inner indices from those at hand to those that are asked for */
#define CHAIN 128 /* products that are summed one after the other; sums of such sums round less than one long sum */

typedef enum { PLAIN, RELU, RELU_BACKWARD, TANH_BACKWARD } Ending;

typedef struct {
    long rows, inner, cols;
    long apart;    /* numbers from one row to the next, of a as of c, add and other; 0: rows lie side by side */
    const REAL *a; /* [rows, inner] */
    const REAL *panels;
    const REAL *weight; /* [cols, inner]: used as it is where there are no panels */
    long weight_apart;  /* numbers from one row of it to the next */
    const REAL *bias;   /* [cols], or NULL */
    const REAL *add;    /* added to the result: row r gets row r / add_group, or NULL */
    long add_group;
    Ending ending;
    const REAL *other; /* [rows, cols]: RELU_BACKWARD, the activations; TANH_BACKWARD, the tanh */
    REAL *c;           /* [rows, cols] */
} Product;

INLINE long panel_numbers(long inner, long cols) { return (cols + PANEL - 1) / PANEL * PANEL * inner; }

/* One panel: columns from `from` of the product's matrix, which is the weight [out, in] or its transpose; the weight's
 * rows are `apart` numbers apart. */
static void pack_panel(REAL *restrict panel, const REAL *restrict weight, long out, long in, long apart, int transposed,
                       long from) {
    long inner = transposed ? in : out, cols = transposed ? out : in, width = MIN(PANEL, cols - from);
    if (width < PANEL) zero_row(panel, inner * PANEL);
    if (transposed) { /* column j of the product is row j of the weight */
        for (long block = 0; block < inner; block += 16) /* so that a block of the panel stays near */
            for (long j = 0; j < width; j++) {
                const REAL *row = weight + (from + j) * apart;
                for (long k = block; k < MIN(block + 16, inner); k++) panel[k * PANEL + j] = row[k];
            }
    } else {
        for (long k = 0; k < inner; k++) copy_row(panel + k * PANEL, weight + k * apart + from, width);
    }
}

INLINE V ended(V v, const Product *p, long at) {
    if (p->ending == RELU) return pick(~(v < 0), v);
    if (p->ending == RELU_BACKWARD) return pick(~(load(p->other + at) <= 0), v);
    if (p->ending == TANH_BACKWARD) {
        V tanh = load(p->other + at);
        return v * (1 - tanh * tanh);
    }
    return v;
}

INLINE REAL ended_one(REAL v, const Product *p, long at) {
    if (p->ending == RELU) return v < 0 ? 0 : v;
    if (p->ending == RELU_BACKWARD) return p->other[at] <= 0 ? 0 : v;
    if (p->ending == TANH_BACKWARD) return v * (1 - p->other[at] * p->other[at]);
    return v;
}

/* The `add` of TANH_BACKWARD is added after the ending, of the others before it. Sums over the inner indices before
 * `first` lie in `partial` [count, PANEL]; those up to `last` are left there unless it is the last of all. */
INLINE void product_tile(const int count, const int ahead, const Product *p, long row, long from, const REAL *panel,
                         long first, long last, REAL *partial) {
    V sum[TILE_ROWS][2];
    const long inner = p->inner, cols = p->cols, fed = p->apart ? p->apart : inner, made = p->apart ? p->apart : cols;
    const REAL *a = p->a + row * fed;
#pragma GCC unroll 8
    for (int i = 0; i < count; i++) sum[i][0] = sum[i][1] = (V){0};
    for (long k = first; k < last; k++) {
        V left = load(panel + k * PANEL), right = load(panel + k * PANEL + LANES);
        if (ahead) { /* the first to go over this part of the panel: large weights come from afar */
            __builtin_prefetch(panel + (k + AHEAD) * PANEL);
            __builtin_prefetch(panel + (k + AHEAD) * PANEL + LANES);
        }
#pragma GCC unroll 8
        for (int i = 0; i < count; i++) {
            REAL x = a[i * fed + k];
            sum[i][0] += x * left;
            sum[i][1] += x * right;
        }
    }
    if (first > 0) {
#pragma GCC unroll 8
        for (int i = 0; i < count; i++) {
            sum[i][0] += load(partial + i * PANEL);
            sum[i][1] += load(partial + i * PANEL + LANES);
        }
    }
    if (last < inner) {
#pragma GCC unroll 8
        for (int i = 0; i < count; i++) {
            store(partial + i * PANEL, sum[i][0]);
            store(partial + i * PANEL + LANES, sum[i][1]);
        }
        return;
    }
    if (from + PANEL <= cols) {
#pragma GCC unroll 8
        for (int i = 0; i < count; i++) {
            const REAL *add = p->add ? p->add + (row + i) / p->add_group * made + from : 0;
            long at = (row + i) * made + from;
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++) {
                V v = sum[i][half];
                if (p->bias) v += load(p->bias + from + half * LANES);
                if (add && p->ending != TANH_BACKWARD) v += load(add + half * LANES);
                v = ended(v, p, at + half * LANES);
                if (add && p->ending == TANH_BACKWARD) v += load(add + half * LANES);
                store(p->c + at + half * LANES, v);
            }
        }
        return;
    }
    REAL edge[TILE_ROWS][PANEL];
#pragma GCC unroll 8
    for (int i = 0; i < count; i++) {
        store(edge[i], sum[i][0]);
        store(edge[i] + LANES, sum[i][1]);
    }
    for (int i = 0; i < count; i++) {
        const REAL *add = p->add ? p->add + (row + i) / p->add_group * made + from : 0;
        for (long j = 0; j < cols - from; j++) {
            long at = (row + i) * made + from + j;
            REAL v = edge[i][j];
            if (p->bias) v += p->bias[from + j];
            if (add && p->ending != TANH_BACKWARD) v += add[j];
            v = ended_one(v, p, at);
            if (add && p->ending == TANH_BACKWARD) v += add[j];
            p->c[at] = v;
        }
    }
}

/* Few rows, and a weight that no time was spent on: each number is one product of two rows. */
INLINE void product_of_rows(const int count, const Product *p, long row) {
    const long inner = p->inner, cols = p->cols, whole = inner / LANES * LANES;
    const long fed = p->apart ? p->apart : inner, made = p->apart ? p->apart : cols;
    const REAL *a = p->a + row * fed;
    for (long j = 0; j < cols; j++) {
        const REAL *weight = p->weight + j * p->weight_apart;
        V sums[4];
#pragma GCC unroll 4
        for (int i = 0; i < count; i++) sums[i] = (V){0};
        for (long k = 0; k < whole; k += LANES) {
            V w = load(weight + k);
#pragma GCC unroll 4
            for (int i = 0; i < count; i++) sums[i] += load(a + i * fed + k) * w;
        }
#pragma GCC unroll 4
        for (int i = 0; i < count; i++) {
            REAL v = sum_lanes(sums[i]);
            for (long k = whole; k < inner; k++) v += a[i * fed + k] * weight[k];
            if (p->bias) v += p->bias[j];
            if (p->add) v += p->add[(row + i) / p->add_group * made + j];
            p->c[(row + i) * made + j] = ended_one(v, p, (row + i) * made + j);
        }
    }
}

static void product_by_rows(const Product *p) {
    long row = 0;
    for (; row + 4 <= p->rows; row += 4) product_of_rows(4, p, row);
    for (; row < p->rows; row++) product_of_rows(1, p, row);
}

static void product(const Product *p) {
    if (!p->panels) {
        product_by_rows(p);
        return;
    }
    REAL partial[BLOCK * PANEL];
    for (long block = 0; block < p->rows; block += BLOCK) {
        const long rows = MIN(block + BLOCK, p->rows);
        const REAL *panel = p->panels;
        for (long from = 0; from < p->cols; from += PANEL, panel += PANEL * p->inner)
            for (long first = 0; first < p->inner || first == 0; first += CHAIN) {
                const long last = MIN(first + CHAIN, p->inner);
                REAL *sums = partial;
                long row = block;
                if (row + TILE_ROWS <= rows) {
                    product_tile(TILE_ROWS, 1, p, row, from, panel, first, last, sums);
                    row += TILE_ROWS, sums += TILE_ROWS * PANEL;
                }
                for (; row + TILE_ROWS <= rows; row += TILE_ROWS, sums += TILE_ROWS * PANEL)
                    product_tile(TILE_ROWS, 0, p, row, from, panel, first, last, sums);
                if (row + 4 <= rows)
                    product_tile(4, 0, p, row, from, panel, first, last, sums), row += 4, sums += 4 * PANEL;
                if (row + 2 <= rows)
                    product_tile(2, 0, p, row, from, panel, first, last, sums), row += 2, sums += 2 * PANEL;
                if (row < rows) product_tile(1, 0, p, row, from, panel, first, last, sums);
            }
    }
}
