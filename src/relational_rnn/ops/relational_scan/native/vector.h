/* Vectors, and the functions that need more than arithmetic. REAL and VECTOR_BYTES are given by kernels.c. */

#define LANES ((long)(VECTOR_BYTES / sizeof(REAL)))
#define INLINE static inline __attribute__((always_inline))

typedef REAL V __attribute__((vector_size(VECTOR_BYTES)));
typedef REAL Unaligned __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));
typedef INTEGER Mask __attribute__((vector_size(VECTOR_BYTES)));

INLINE V load(const REAL *p) { return *(const Unaligned *)p; }
INLINE void store(REAL *p, V v) { *(Unaligned *)p = v; }
INLINE V pick(Mask mask, V a) { return (V)(mask & (Mask)a); } /* a where the mask is set, else 0 */

/* Halves are added to halves: compilers make shuffles of the unions. */
typedef REAL V16 __attribute__((vector_size(16)));
INLINE REAL sum_lanes_16(V16 v) {
    REAL sum = v[0] + v[16 / sizeof(REAL) / 2];
    return sizeof(REAL) == 8 ? sum : sum + (v[1] + v[16 / sizeof(REAL) - 1]);
}
#if VECTOR_BYTES >= 32
typedef REAL V32 __attribute__((vector_size(32)));
INLINE REAL sum_lanes_32(V32 v) {
    union { V32 whole; V16 half[2]; } u = {v};
    return sum_lanes_16(u.half[0] + u.half[1]);
}
#endif
#if VECTOR_BYTES >= 64
INLINE REAL sum_lanes_64(V v) {
    union { V whole; V32 half[2]; } u = {v};
    return sum_lanes_32(u.half[0] + u.half[1]);
}
#define sum_lanes sum_lanes_64
#elif VECTOR_BYTES >= 32
#define sum_lanes sum_lanes_32
#else
#define sum_lanes sum_lanes_16
#endif

/* e^r - 1 for |r| <= ln(2) / 2, from its Taylor series */
INLINE REAL small_expm1(REAL r) {
#if REAL_IS_DOUBLE
    REAL p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
#else
    REAL p = 1.0f / 5040;
#endif
    p = p * r + (REAL)(1.0 / 720);
    p = p * r + (REAL)(1.0 / 120);
    p = p * r + (REAL)(1.0 / 24);
    p = p * r + (REAL)(1.0 / 6);
    p = p * r + (REAL)0.5;
    return p * r * r + r;
}

/* x = k ln 2 + r, as (2^k, r); x in the range where 2^k is a normal number */
INLINE REAL split_power(REAL x, REAL *r) {
    union { REAL number; INTEGER bits; } k;
    k.number = x * (REAL)1.44269504088896340736 + ROUNDER; /* the sum's last bits are the rounded quotient */
    REAL quotient = k.number - ROUNDER;
    *r = x - quotient * LN2_HIGH - quotient * LN2_LOW;
    k.bits = (k.bits << MANTISSA_BITS) + ((INTEGER)EXPONENT_BIAS << MANTISSA_BITS);
    return k.number;
}

/* e^x, 0 from where it is smaller than a normal number, infinity from where it is too large; NaN stays NaN */
INLINE REAL exp_of(REAL x) {
    REAL inside = x < EXP_LOW ? EXP_LOW : x, r;
    inside = inside > EXP_HIGH ? EXP_HIGH : inside;
    REAL power = split_power(inside, &r);
    REAL y = power + power * small_expm1(r);
    y = x < EXP_LOW ? 0 : y;
    return x > EXP_HIGH ? (REAL)__builtin_inf() : y;
}

INLINE REAL sigmoid_of(REAL x) { return 1 / (1 + exp_of(-x)); }

/* (e^2|x| - 1) / (e^2|x| + 1) with the sign of x: exact to a few last places near 0, too */
INLINE REAL tanh_of(REAL x) {
    REAL twice = x < 0 ? -2 * x : 2 * x, r;
    twice = twice > 2 * TANH_ONE ? 2 * TANH_ONE : twice;
    REAL power = split_power(twice, &r);
    REAL m = power * small_expm1(r) + (power - 1);
    REAL y = m / (m + 2);
    return x < 0 ? -y : y;
}
