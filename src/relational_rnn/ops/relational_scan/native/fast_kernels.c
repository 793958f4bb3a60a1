/* One instance of the fast-weight scan: for one instruction set (by the compiler's flags) and one type of numbers.
 * Compiled several times, with KERNELS the name of the instance and REAL_IS_DOUBLE 0 or 1. */

#include <math.h>
#include <string.h>

#include "call.h"
#include "fast_call.h"
#include "instance.h"
#include "vector.h"
#include "rows.h"
#include "product.h"
#include "fast_layout.h"
#include "fast_matrix.h"
#include "fast_forward.h"
#include "fast_backward.h"

long NAMED(fast_numbers, KERNELS)(const FastCall *c, int what) {
    Weight weights[weight_count(c)];
    switch (what) {
    case FAST_PACKED: return lay_weights(c, weights, 0);
    case FAST_SUMS: return 2 * sums_size(c);
    default: return lay_scratch(c, &(Scratch){0}, 0);
    }
}

/* What one thread does of a phase: pieces of work until there are none left. */
void NAMED(fast_work, KERNELS)(void *call, int phase, int worker) {
    FastCall *c = call;
    Scratch scratch;
    const long size = lay_scratch(c, &scratch, 0);
    lay_scratch(c, &scratch, (REAL *)c->scratch + worker * size);
    scratch.first_row = worker * c->tile_batch;
    for (;;) {
        long piece = __atomic_fetch_add(&c->next, 1, __ATOMIC_RELAXED);
        int more = 0;
        switch (phase) {
        case FAST_PACK_FORWARD: more = pack_piece(c, piece, 0); break;
        case FAST_PACK_BACKWARD: more = pack_piece(c, piece, 1); break;
        case FAST_FORWARD: more = forward_tile(c, piece, &scratch); break;
        case FAST_BACKWARD: more = backward_tile(c, piece, &scratch); break;
        }
        if (!more) return;
    }
}
