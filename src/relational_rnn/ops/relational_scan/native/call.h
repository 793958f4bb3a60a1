/* What one call of the library works on. The Python side (_native.py) mirrors this struct field by field. */

/* Shape legend (for all files of this folder):
 *   B  batch             N  memory slots                H  heads
 *   T  time steps        R  rows attended, N + n        K  key size, V value size per head
 *   I  input features    M  memory width, H * V         F  H * (2K + V), queries, keys and values of all heads
 *   n  input rows        G  gate width, M or 1          S  attention blocks, L layers of the MLP
 *   Q  rows whose result is used: R, but N in the last block
 * A tile is some sequences [nb of B] that one thread takes through time; its numbers lie [step][sequence][row][width].
 */

#ifndef RELATIONAL_SCAN_CALL_H
#define RELATIONAL_SCAN_CALL_H

typedef struct {
    /* sizes */
    long batch, steps, slots, inputs, features, width, heads, key;
    long gates;      /* of a slot: 2G numbers, M where slots compete, 0 without gates */
    long blocks, layers;
    long sonnet;     /* the formulation: 1 sonnet, 0 chapter */
    long competitive; /* whether slots compete for the input; then the gates' weights have M more rows below */
    long input_rows; /* whether the attended rows of the input are wanted */
    double input_bias, forget_bias;

    /* the piece of work */
    long tile_batch;             /* sequences per tile; the last tile may have fewer */
    long tile_from, tile_to;     /* tiles of this call */
    long step_from, step_to;     /* steps of this call */
    long kept_tile_from;         /* what `kept` holds: tiles from here on, */
    long kept_from, kept_steps;  /* steps from here on; 0 steps: nothing is kept, only the memory goes on */
    long packed_weights;         /* 0: products read the weights as they are, for calls too short to arrange them */
    long next;                   /* the next piece that is not taken by a thread */

    /* parameters as `flatten` in spec.py orders them, and their gradients in the same order */
    void **parameters, **gradients;

    /* tensors; a stride counts numbers, what is inside of it is contiguous */
    const void *x;               /* [B, T, n, I] */
    long x_batch, x_step;
    const void *memory;          /* [B, N, M], before step_from */
    const void *initial;         /* [N, M] or [B, N, M], or NULL */
    long initial_batch;          /* 0 where all sequences share it */
    const long long *lengths;    /* [B] or NULL */
    const unsigned char *reset;  /* [B, T] or NULL */
    void *outputs;               /* [B, T, N, M], or NULL when only what is kept is wanted */
    void *attended;              /* [B, T, n, M] or NULL */
    void *final;                 /* [B, N, M], after step_to - 1 */
    const void *d_outputs;       /* [B, T, N, M] or NULL */
    long d_outputs_batch, d_outputs_step;
    const void *d_attended;      /* [B, T, n, M] or NULL */
    long d_attended_batch, d_attended_step;
    void *d_memory;              /* [B, N, M]: in, after step_to - 1; out, before step_from */
    void *d_initial;             /* [B, N, M], added to, or NULL */
    void *d_x;                   /* [B, T, n, I], contiguous */

    /* memory to work in, its sizes told by `scan_numbers` */
    void *packed;                /* weights in the order of the products */
    void *kept;                  /* per tile: what the backward pass needs; per thread where nothing is kept */
    void *differences;           /* per tile: gradients that the weights' products need */
    void *sums;                  /* per tile: gradients of biases and norms, in all and of late; zero before the first call */
    void *scratch;               /* per thread */
} Call;

enum { NUMBERS_PACKED, NUMBERS_KEPT, NUMBERS_DIFFERENCES, NUMBERS_SUMS, NUMBERS_SCRATCH };
enum { PHASE_PACK_FORWARD, PHASE_FORWARD, PHASE_PACK_BACKWARD, PHASE_BACKWARD, PHASE_WEIGHTS, PHASE_FINISH };

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

static inline long tile_count(const Call *c) { return (c->batch + c->tile_batch - 1) / c->tile_batch; }
static inline long rows_of(const Call *c) { return c->slots + c->inputs; }
static inline long value_of(const Call *c) { return c->width / c->heads; }
static inline long qkv_of(const Call *c) { return c->heads * (2 * c->key + value_of(c)); }
static inline long queries_of(const Call *c, long block) {
    return c->input_rows || block < c->blocks - 1 ? rows_of(c) : c->slots;
}
static inline long fed_of(const Call *c, long block) { return block == 0 ? c->slots : rows_of(c); }
static inline int happens_at(const Call *c, long b, long t) { return c->lengths == 0 || t < c->lengths[b]; }
static inline int resets_at(const Call *c, long b, long t) {
    return c->reset != 0 && c->reset[b * c->steps + t] && happens_at(c, b, t);
}

#endif
