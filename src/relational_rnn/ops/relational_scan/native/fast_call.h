/* What one call of the fast-weight scan works on. The Python side (ops/fast_weight_scan/cpu.py) mirrors this struct
 * field by field, and the tables below in order. */

/* Shape legend (for all files fast_*.h):
 *   B  batch             W  width                       H  heads
 *   T  time steps        R  reads                       K  key size, V value size per head
 *   N  numbers of a memory, H * K * V                   F  H K + H V + 2 H, what a step makes of what it has read
 * A tile is some sequences that one thread takes through time. All tables lie [step][sequence][width], for the whole
 * batch, so that a weight's gradient is one product over all rows of two of them.
 */

#ifndef RELATIONAL_RNN_FAST_CALL_H
#define RELATIONAL_RNN_FAST_CALL_H

typedef struct {
    /* sizes */
    long batch, steps, width, heads, key, value, reads;
    long carry;          /* whether a step sees the output of the step before */
    long outputs_needed; /* whether outputs are computed at all */
    double max_strength;

    /* the piece of work */
    long tile_batch; /* sequences per tile; the last tile may have fewer */
    long kept;       /* 1: each step has a place of its own in the tables; 0: each thread has room for one step of a tile */
    long packed_weights; /* 0: a step of few rows reads the weights as they are, which takes no time to arrange them */
    long next;       /* the next piece that is not taken by a thread */

    void **parameters; /* weight, bias in turn: recurrent, first of h, then of the keys (NULL without carry; no bias),
                          mlp_in, mlp_out, write, out, mlp_norm, out_norm, then of every read key, value, norm */

    /* tensors; a stride counts numbers, what is inside of it is contiguous */
    const void *p; /* [B, T, W + H K]: the projected input, of h and of the keys to write under */
    long p_batch, p_step;
    const void *memory;          /* [B, N], before the first step */
    const void *carried;         /* [B, W], or NULL without carry */
    const void *initial;         /* [B, N], or [N] with initial_batch 0; NULL without resets */
    const void *initial_carried; /* the same of W numbers */
    long initial_batch, initial_carried_batch;
    const long long *lengths;   /* [B] or NULL */
    const unsigned char *reset; /* [B, T] or NULL */
    void *outputs;              /* [B, T, W], or NULL */
    void *memories;             /* [B, T, N], after every step; or NULL: then nothing may be kept */
    void *final;                /* [B, N] */
    void *final_carried;        /* [B, W], or NULL without carry */
    const void *d_outputs;      /* [B, T, W] or NULL */
    long d_outputs_batch, d_outputs_step;
    const void *d_memories;     /* [B, T, N] or NULL */
    long d_memories_batch, d_memories_step;
    void *d_memory;             /* [B, N]: in, of the last; out, of the one before the first step */
    void *d_carried;            /* [B, W], the same, or NULL without carry */
    void *d_initial;            /* [B, N], added to, or NULL */
    void *d_initial_carried;    /* [B, W], added to, or NULL */

    /* tables, and the numbers in a row of each */
    void **activations;
    const long *activation_widths;
    void **differences; /* gradients that the weights' products need */
    const long *difference_widths;

    /* memory to work in, its sizes told by `fast_numbers` */
    void *packed;  /* weights in the order of the products */
    void *sums;    /* per tile: gradients of norms, in all and of late; zero before the call */
    void *scratch; /* per thread */
} FastCall;

enum { FAST_PACKED, FAST_SUMS, FAST_SCRATCH };
enum { FAST_PACK_FORWARD, FAST_FORWARD, FAST_PACK_BACKWARD, FAST_BACKWARD };

/* Activations. A norm's total is what it is applied to; its statistics are mean and reciprocal deviation. */
enum {
    CARRIED,    /* [W], the output before the step; T + 1 steps */
    MLP_INPUT,  /* [W] */
    HIDDEN,     /* [W], after the ReLU */
    MLP_TOTAL,  /* [W] */
    MLP_STATS,  /* [2] */
    WRITER,     /* [W], what the write is computed from */
    KEYS,       /* [H K], of the write, normalised */
    WRITTEN,    /* [F]: queries, normalised; value - what was held; strengths; keeps */
    SCALES,     /* [2 H], by which keys, then queries were multiplied */
    OLD,        /* [H V], what is kept of the memory before the step holds for the key */
    FOUND,      /* [H V], what the query reads after the write */
    OUT_TOTAL,  /* [W] */
    OUT_STATS,  /* [2] */
    FIRST_READ, /* of every read, READ_TABLES of them: */
    READ_INPUT = 0, /* [W] */
    READ_KEY,       /* [H K], normalised */
    READ_SCALES,    /* [H] */
    READ_FOUND,     /* [H V] */
    READ_TOTAL,     /* [W] */
    READ_STATS,     /* [2] */
    READ_TABLES
};

/* Differences: gradients of the results of linears. */
enum {
    D_INPUT,      /* [W], of h before the reads: of p, and of the recurrent linear of h */
    D_KEYS,       /* [H K], of the keys before they are normalised: the same, of the keys */
    D_HIDDEN,     /* [W], before the ReLU */
    D_MLP,        /* [W] */
    D_WRITTEN,    /* [F] */
    D_OUT,        /* [W] */
    FIRST_D_READ, /* of every read, D_READ_TABLES of them: */
    D_READ_KEY = 0, /* [H K], before it is normalised */
    D_READ_VALUE,   /* [W] */
    D_READ_TABLES
};

#endif
