/* One instance of the relational scan: for one instruction set (by the compiler's flags) and one type of numbers.
 * Compiled several times, with KERNELS the name of the instance and REAL_IS_DOUBLE 0 or 1. */

#include <math.h>
#include <string.h>

#include "call.h"

#include "instance.h"
#include "vector.h"
#include "rows.h"
#include "product.h"
#include "layout.h"
#include "attention.h"
#include "shares.h"
#include "forward.h"
#include "backward.h"
#include "weights.h"

long NAMED(numbers, KERNELS)(const Call *c, int what) {
    Packed packed;
    Kept kept;
    Differences differences;
    Scratch scratch;
    Sums sums;
    switch (what) {
    case NUMBERS_PACKED: return lay_packed(c, &packed, 0);
    case NUMBERS_KEPT: return lay_kept(c, c->tile_batch, &kept, 0);
    case NUMBERS_DIFFERENCES: return lay_differences(c, c->tile_batch, &differences, 0);
    case NUMBERS_SUMS: return 2 * lay_sums(c, &sums, 0);
    default: return lay_scratch(c, c->tile_batch, &scratch, 0);
    }
}

/* What one thread does of a phase: pieces of work until there are none left. */
void NAMED(work, KERNELS)(void *call, int phase, int worker) {
    Call *c = call;
    REAL *scratch = (REAL *)c->scratch + worker * lay_scratch(c, c->tile_batch, &(Scratch){0}, 0);
    for (;;) {
        long piece = __atomic_fetch_add(&c->next, 1, __ATOMIC_RELAXED);
        int more = 0;
        switch (phase) {
        case PHASE_PACK_FORWARD: more = pack_piece(c, piece, 0); break;
        case PHASE_PACK_BACKWARD: more = pack_piece(c, piece, 1); break;
        case PHASE_FORWARD: more = forward_tile(c, c->tile_from + piece, worker, scratch); break;
        case PHASE_BACKWARD: more = backward_tile(c, c->tile_from + piece, scratch); break;
        case PHASE_WEIGHTS: more = weights_piece(c, piece, scratch); break;
        case PHASE_FINISH: more = finish_piece(c, piece); break;
        }
        if (!more) return;
    }
}
