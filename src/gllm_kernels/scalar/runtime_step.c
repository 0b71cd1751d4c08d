/* Steps that are not generated: calling a scalar operator, and copying a strided view.
 * executable/steps.py builds their argument blocks. */
#include "runtime.h"

extern void *memcpy(void *to, const void *from, size_t bytes);

enum { RESULT_NONE = 0, RESULT_FLOAT = 1, RESULT_INT = 2 };

#define INTS                                                                                      \
    int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t,     \
        int64_t, int64_t, int64_t, int64_t
#define FLOATS float, float, float, float, float, float, float, float

/* In the System V ABI the first six integers go to registers and the rest to the stack, in order;
 * eight floats go to xmm0..7. A callee that declares fewer never looks at the others, and the
 * caller removes the stack arguments: so one call with all of them calls every signature. */
typedef void void_fn(INTS, FLOATS);
typedef float float_fn(INTS, FLOATS);
typedef int64_t int_fn(INTS, FLOATS);

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
        else if (c->result_kind == RESULT_INT)
            *(int64_t *)result = ((int_fn *)c->code)(ARGUMENTS);
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

static void copy_row(const int32_t *from, int64_t from_stride, int32_t *to, int64_t to_stride,
                     int64_t count)
{
    if (from_stride == 1 && to_stride == 1) {
        if (count > 0)
            memcpy(to, from, (size_t)count * 4);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        to[i * to_stride] = from[i * from_stride];
}

/* to[i,j,k,l,m] = from[i,j,k,l,m] of 4-byte elements; a unit is one row: the product of the four
 * outer extents are the units. */
void gk_copy(const int64_t *args, int64_t begin, int64_t end, void *scratch)
{
    (void)scratch;
    const struct copy *c = (const struct copy *)args;
    for (int64_t u = begin; u < end; u++) {
        int64_t rest = u, from = 0, to = 0;
        for (int k = 3; k >= 0; k--) {
            int64_t index = rest % c->extents[k];
            rest /= c->extents[k];
            from += index * c->from_strides[k];
            to += index * c->to_strides[k];
        }
        copy_row((const int32_t *)c->from + from, c->from_strides[4], (int32_t *)c->to + to,
                 c->to_strides[4], c->extents[4]);
    }
}
