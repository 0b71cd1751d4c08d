/* Steps that are not generated: calling a scalar operator, and copying a strided view.
 * executable/steps.py builds their argument blocks. */
#include "runtime.h"

extern void *memcpy(void *to, const void *from, size_t bytes);

enum { RESULT_NONE = 0, RESULT_FLOAT = 1, RESULT_INT64 = 2, RESULT_INT32 = 3, RESULT_DOUBLE = 4 };

#define INTS                                                                                      \
    int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,     \
        int64_t, int64_t, int64_t, int64_t
#define FLOATS float, float, float, float, float, float, float, float

/* In the System V ABI the first six integers go to registers and the rest to the stack, in order;
 * eight floats go to xmm0..7. A callee that declares fewer never looks at the others, and the
 * caller removes the stack arguments: so one call with all of them calls every signature. */
typedef void void_fn(INTS, FLOATS);
typedef float float_fn(INTS, FLOATS);
typedef double double_fn(INTS, FLOATS);
typedef int64_t int64_fn(INTS, FLOATS);
typedef int32_t int32_fn(INTS, FLOATS);

struct call {
    void *code;
    int64_t result_kind;
    char *result;
    int64_t result_step; /* bytes between the results of unit u and u + 1 */
    int64_t ints[14];    /* pointers and integers, in order */
    int64_t steps[14];   /* what each of them grows by from unit to unit */
    int64_t floats[8];   /* bits in the low half */
};

/* For each unit u: result[u] = code(ints + u * steps, floats). */
void gk_call_scalar(const int64_t *args, int64_t begin, int64_t end, void *scratch)
{
    (void)scratch;
    const struct call *c = (const struct call *)args;
    float f[8];
    for (int k = 0; k < 8; k++)
        f[k] = slot_float(c->floats[k]);
    for (int64_t u = begin; u < end; u++) {
        int64_t i[14];
        for (int k = 0; k < 14; k++)
            i[k] = c->ints[k] + u * c->steps[k];
        char *result = c->result + u * c->result_step;
#define ARGUMENTS                                                                                 \
    i[0], i[1], i[2], i[3], i[4], i[5], i[6], i[7], i[8], i[9], i[10], i[11], i[12], i[13], f[0], \
        f[1], f[2], f[3], f[4], f[5], f[6], f[7]
        if (c->result_kind == RESULT_FLOAT)
            *(float *)result = ((float_fn *)c->code)(ARGUMENTS);
        else if (c->result_kind == RESULT_DOUBLE)
            *(double *)result = ((double_fn *)c->code)(ARGUMENTS);
        else if (c->result_kind == RESULT_INT64)
            *(int64_t *)result = ((int64_fn *)c->code)(ARGUMENTS);
        else if (c->result_kind == RESULT_INT32)
            *(int32_t *)result = ((int32_fn *)c->code)(ARGUMENTS);
        else
            ((void_fn *)c->code)(ARGUMENTS);
    }
}

struct copy {
    const char *from;
    char *to;
    int64_t extents[5]; /* outermost first; unused leading ones are 1 */
    int64_t from_strides[5]; /* in elements; zero repeats, negative walks backwards */
    int64_t to_strides[5];
};

static uint32_t as_is(uint32_t bits) { return bits; }

static uint32_t bf16_to_f32(uint32_t bits) { return bits << 16; }

/* Nearest even; a NaN keeps its sign and becomes quiet. */
static uint32_t f32_to_bf16(uint32_t bits)
{
    if ((bits & 0x7fffffff) > 0x7f800000)
        return bits >> 16 | 0x40;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

static uint32_t f16_to_f32(uint32_t half)
{
    uint32_t sign = (half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 0x3ff;
    if (exponent == 31)
        return sign | 0x7f800000 | fraction << 13;
    if (exponent == 0) {
        if (fraction == 0)
            return sign;
        exponent = 1; /* a denormal is fraction * 2^-24: shift until the leading bit is implicit */
        for (; !(fraction & 0x400); fraction <<= 1)
            exponent--;
        fraction &= 0x3ff;
    }
    return (sign | fraction << 13) + ((exponent + 112) << 23);
}

/* Nearest even. What is below the last place of the result decides: more than half goes up, half
 * goes up where the result is odd; the carry may reach the exponent, and infinity. */
static uint32_t f32_to_f16(uint32_t bits)
{
    uint32_t sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    if (size > 0x7f800000)
        return sign | 0x7e00 | (size >> 13 & 0x3ff);
    if (size >= 0x47800000) /* 2^16 */
        return sign | 0x7c00;
    if (size < 0x33000000) /* 2^-25, half of the smallest denormal */
        return sign;
    uint32_t shift = 13, value = size - (112u << 23);
    if (size < 0x38800000) { /* 2^-14: a denormal counts 2^-24 */
        shift = 126 - (size >> 23);
        value = (size & 0x7fffff) | 0x800000;
    }
    uint32_t rest = value & ((1u << shift) - 1), half = 1u << (shift - 1);
    value >>= shift;
    return sign | (value + (rest > half || (rest == half && (value & 1))));
}

/* to[i,j,k,l,m] = convert(from[i,j,k,l,m]); a unit is one row: the product of the four outer
 * extents are the units. */
#define COPY(name, from_type, to_type, convert)                                                   \
    void name(const int64_t *args, int64_t begin, int64_t end, void *scratch)                     \
    {                                                                                             \
        (void)scratch;                                                                            \
        const struct copy *c = (const struct copy *)args;                                         \
        int64_t from_stride = c->from_strides[4], to_stride = c->to_strides[4];                   \
        for (int64_t u = begin; u < end; u++) {                                                   \
            int64_t from, to;                                                                     \
            copy_row(c, u, &from, &to);                                                           \
            const from_type *source = (const from_type *)c->from + from;                          \
            to_type *target = (to_type *)c->to + to;                                              \
            if (sizeof(from_type) == sizeof(to_type) && from_stride == 1 && to_stride == 1) {     \
                if (c->extents[4] > 0)                                                            \
                    memcpy(target, source, (size_t)c->extents[4] * sizeof(to_type));              \
                continue;                                                                         \
            }                                                                                     \
            for (int64_t i = 0; i < c->extents[4]; i++)                                           \
                target[i * to_stride] = (to_type)convert(source[i * from_stride]);                \
        }                                                                                         \
    }

/* The first elements of row u, counted from the start of both arrays. */
static void copy_row(const struct copy *c, int64_t u, int64_t *from, int64_t *to)
{
    *from = *to = 0;
    for (int k = 3; k >= 0; k--) {
        int64_t index = u % c->extents[k];
        u /= c->extents[k];
        *from += index * c->from_strides[k];
        *to += index * c->to_strides[k];
    }
}

COPY(gk_copy, uint32_t, uint32_t, as_is)
COPY(gk_copy_8, uint8_t, uint8_t, as_is)
COPY(gk_copy_16, uint16_t, uint16_t, as_is)
COPY(gk_copy_64, uint64_t, uint64_t, )
COPY(gk_widen_f16, uint16_t, uint32_t, f16_to_f32)
COPY(gk_widen_bf16, uint16_t, uint32_t, bf16_to_f32)
COPY(gk_round_f16, uint32_t, uint16_t, f32_to_f16)
COPY(gk_round_bf16, uint32_t, uint16_t, f32_to_bf16)

/* out[i,j] = table[rows[i],j] of 16-bit elements, as scalar_gather */
void gk_gather_16(const uint16_t *table, const int32_t *rows, uint16_t *out, size_t t, size_t n)
{
    for (size_t i = 0; i < t; i++)
        for (size_t j = 0; j < n; j++)
            out[i * n + j] = table[(ptrdiff_t)rows[i] * (ptrdiff_t)n + (ptrdiff_t)j];
}
