/* One instance of everything: for one instruction set (by the compiler's flags) and one type of numbers.
 * Compiled several times, with KERNELS the name of the instance and REAL_IS_DOUBLE 0 or 1. */

#include <math.h>
#include <string.h>

#include "call.h"

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define TILE_ROWS 8
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#define TILE_ROWS 6
#else
#define VECTOR_BYTES 16
#define TILE_ROWS 6
#endif

#if REAL_IS_DOUBLE
#define REAL double
#define INTEGER long long
#define ROUNDER 6755399441055744.0 /* 1.5 * 2^52 */
#define LN2_HIGH 6.93147180369123816490e-01
#define LN2_LOW 1.90821492927058770002e-10
#define MANTISSA_BITS 52
#define EXPONENT_BIAS 1023
#define EXP_LOW -708.0
#define EXP_HIGH 709.0
#define TANH_ONE 22.0
#define SQUARE_ROOT sqrt
#else
#define REAL float
#define INTEGER int
#define ROUNDER 12582912.0f /* 1.5 * 2^23 */
#define LN2_HIGH 0.693359375f
#define LN2_LOW -2.12194440e-4f
#define MANTISSA_BITS 23
#define EXPONENT_BIAS 127
#define EXP_LOW -87.0f
#define EXP_HIGH 88.0f
#define TANH_ONE 10.0f
#define SQUARE_ROOT sqrtf
#endif

#include "vector.h"
#include "rows.h"
#include "product.h"
#include "layout.h"
#include "attention.h"
#include "forward.h"
#include "backward.h"
#include "weights.h"

#define NAMED2(prefix, name) prefix##_##name
#define NAMED(prefix, name) NAMED2(prefix, name)

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
void NAMED(work, KERNELS)(Call *c, int phase, int worker) {
    REAL *scratch = (REAL *)c->scratch + worker * lay_scratch(c, c->tile_batch, &(Scratch){0}, 0);
    for (;;) {
        long piece = __atomic_fetch_add(&c->next, 1, __ATOMIC_RELAXED);
        int more = 0;
        switch (phase) {
        case PHASE_PACK_FORWARD: more = pack_piece(c, piece, 0); break;
        case PHASE_PACK_BACKWARD: more = pack_piece(c, piece, 1); break;
        case PHASE_FORWARD: more = forward_tile(c, c->tile_from + piece, scratch); break;
        case PHASE_BACKWARD: more = backward_tile(c, c->tile_from + piece, scratch); break;
        case PHASE_WEIGHTS: more = weights_piece(c, piece, scratch); break;
        case PHASE_FINISH: more = finish_piece(c, piece); break;
        }
        if (!more) return;
    }
}
