/* What differs between instances: vectors by the compiler's flags, numbers by REAL_IS_DOUBLE (0 or 1). */

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

#define NAMED2(prefix, name) prefix##_##name
#define NAMED(prefix, name) NAMED2(prefix, name)
