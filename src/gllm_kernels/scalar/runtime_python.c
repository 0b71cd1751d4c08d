/* A METH_FASTCALL function whose body checks numpy arrays and calls a kernel.
 *
 * Compiled without Python's headers: where things are inside CPython's and numpy's objects comes
 * in `abi`, which executable/abi.py probes and tests before the first use. The function never
 * raises and never changes a reference but that of its result: whatever it does not recognise, it
 * answers with NotImplemented, and the caller takes the checked path in Python.
 * Array flags: numpy/ndarraytypes.h (C_CONTIGUOUS 1, ALIGNED 0x100, WRITEABLE 0x400). */
#include "runtime.h"

#define MAX_PARAMS 12
#define MAX_SLOTS 32
#define MAX_DIMS 16
#define STACK_SCRATCH 8192

enum { ARRAY = 0, FLOAT = 1, INT = 2 };
enum { SLOT_POINTER = 0, SLOT_INT = 1, SLOT_FLOAT = 2, SLOT_RESULT = 3 };
enum { RETURN_NONE = -1, RETURN_FLOAT = -2 };

typedef char object;

struct abi {
    int64_t type, data, nd, dims, descr, flags, float_value; /* byte offsets */
    object *ndarray, *float_type, *int_type, *none, *not_implemented;
    void (*retain)(object *);
    void *(*save_thread)(void);
    void (*restore_thread)(void *);
    object *(*float_new)(double);
    long (*int_value)(object *, int *overflow);
};

/* dims[0] is 1, so a product of fewer than three dimensions fills up with it. */
struct term {
    int64_t coefficient, a, b, c;
};

struct polynomial {
    int64_t first, count;
};

struct param {
    int64_t kind;
    object *descr;     /* the dtype's singleton */
    int64_t itemsize;
    int64_t flags;     /* that must be set */
    int64_t star;      /* dimension that stands for all leading extents, or 0 */
    int64_t nd;        /* extents after the star */
    int64_t dims[6];   /* dimension of each of them, or of an integer argument */
    int64_t exclusive; /* output: 1 = overlaps no other array, 2 = or is exactly the same memory */
};

struct slot {
    int64_t kind, index;
    struct polynomial value;
};

struct descriptor {
    int64_t method[4]; /* the PyMethodDef */
    const struct abi *abi;
    kernel_fn *kernel;
    int64_t params, slots;
    int64_t result;        /* index of the argument to return, or RETURN_* */
    int64_t release_above; /* more work than this runs without the interpreter lock */
    int64_t alone;         /* more work than this is divided among `threads` */
    int64_t threads, tiles, grain;
    struct team **team;    /* null inside until the process has a team */
    char *memory;          /* scratch of all threads; whoever uses it holds the team's lock */
    int64_t bytes;
    struct polynomial units, work, scratch;
    struct param param[MAX_PARAMS];
    struct slot slot[MAX_SLOTS];
    struct term term[];
};

/* What the arguments have told so far. */
struct binding {
    int64_t dims[MAX_DIMS];
    uint32_t known;
    const int64_t *star_extents[MAX_DIMS];
    int64_t star_count[MAX_DIMS];
    char *data[MAX_PARAMS];
    int64_t bytes[MAX_PARAMS];
    float value[MAX_PARAMS];
};

#define FIELD(type, base, offset) (*(type *)((base) + (offset)))

static int bind(struct binding *b, int64_t dim, int64_t value)
{
    if (b->known >> dim & 1)
        return b->dims[dim] == value;
    b->known |= 1u << dim;
    b->dims[dim] = value;
    return 1;
}

/* All leading extents: their product is the dimension, and two arrays that share it must agree
 * in every one of them. */
static int bind_star(struct binding *b, int64_t dim, const int64_t *extents, int64_t count)
{
    int64_t product = 1;
    for (int64_t i = 0; i < count; i++)
        product *= extents[i];
    if (b->star_extents[dim]) {
        if (b->star_count[dim] != count)
            return 0;
        for (int64_t i = 0; i < count; i++)
            if (b->star_extents[dim][i] != extents[i])
                return 0;
    }
    b->star_extents[dim] = extents;
    b->star_count[dim] = count;
    return bind(b, dim, product);
}

static int take_array(const struct abi *abi, const struct param *p, object *o, struct binding *b,
                      int64_t index)
{
    if (FIELD(object *, o, abi->type) != abi->ndarray)
        return 0;
    int64_t nd = FIELD(int32_t, o, abi->nd), lead = nd - p->nd;
    if (FIELD(object *, o, abi->descr) != p->descr || lead < 0 || (lead > 0 && !p->star))
        return 0;
    if ((FIELD(int32_t, o, abi->flags) & p->flags) != p->flags)
        return 0;
    const int64_t *extents = FIELD(const int64_t *, o, abi->dims);
    if (p->star && !bind_star(b, p->star, extents, lead))
        return 0;
    int64_t bytes = p->itemsize * (p->star ? b->dims[p->star] : 1);
    for (int64_t i = 0; i < p->nd; i++) {
        if (!bind(b, p->dims[i], extents[lead + i]))
            return 0;
        bytes *= extents[lead + i];
    }
    b->data[index] = FIELD(char *, o, abi->data);
    b->bytes[index] = bytes;
    return 1;
}

static int take(const struct abi *abi, const struct param *p, object *o, struct binding *b,
                int64_t index)
{
    if (p->kind == ARRAY)
        return take_array(abi, p, o, b, index);
    if (p->kind == FLOAT) {
        if (FIELD(object *, o, abi->type) != abi->float_type)
            return 0;
        b->value[index] = (float)FIELD(double, o, abi->float_value);
        return 1;
    }
    if (FIELD(object *, o, abi->type) != abi->int_type)
        return 0;
    int overflow = 0;
    int64_t value = abi->int_value(o, &overflow);
    return !overflow && bind(b, p->dims[0], value);
}

/* An output may not reach into another array: kernels load and store in an order of their own. */
static int disjoint(const struct descriptor *d, const struct binding *b)
{
    for (int64_t i = 0; i < d->params; i++) {
        if (d->param[i].kind != ARRAY || !d->param[i].exclusive)
            continue;
        for (int64_t k = 0; k < d->params; k++) {
            if (k == i || d->param[k].kind != ARRAY)
                continue;
            if (b->data[i] >= b->data[k] + b->bytes[k] || b->data[k] >= b->data[i] + b->bytes[i])
                continue;
            if (d->param[i].exclusive == 2 && b->data[i] == b->data[k] &&
                b->bytes[i] == b->bytes[k])
                continue;
            return 0;
        }
    }
    return 1;
}

static int64_t evaluate(const struct descriptor *d, struct polynomial p, const int64_t *dims)
{
    int64_t total = 0;
    for (int64_t i = p.first; i < p.first + p.count; i++) {
        const struct term *t = &d->term[i];
        total += t->coefficient * dims[t->a] * dims[t->b] * dims[t->c];
    }
    return total;
}

static void fill(const struct descriptor *d, const struct binding *b, int64_t *args, float *result)
{
    for (int64_t i = 0; i < d->slots; i++) {
        const struct slot *s = &d->slot[i];
        union {
            float value;
            int32_t bits;
        } low;
        if (s->kind == SLOT_POINTER) {
            args[i] = (int64_t)b->data[s->index];
        } else if (s->kind == SLOT_INT) {
            args[i] = evaluate(d, s->value, b->dims);
        } else if (s->kind == SLOT_FLOAT) {
            low.value = b->value[s->index];
            args[i] = low.bits;
        } else {
            args[i] = (int64_t)result;
        }
    }
}

static void run_here(const struct descriptor *d, const int64_t *args, int64_t units, int64_t work)
{
    char scratch[STACK_SCRATCH] __attribute__((aligned(64)));
    void *thread = work > d->release_above ? d->abi->save_thread() : 0;
    uint32_t mode = float_mode_enter();
    d->kernel(args, 0, units, scratch);
    float_mode_leave(mode);
    if (thread)
        d->abi->restore_thread(thread);
}

/* 0 where there is no such team, or too little memory. What could wait for another caller gives
 * the interpreter lock away. */
static int run_in_team(const struct descriptor *d, const struct job *job, int64_t work)
{
    struct team *team = *d->team;
    if (!team || job->scratch_stride * job->threads > d->bytes ||
        (job->threads > 1 && gk_team_size(team) < job->threads))
        return 0;
    if (work <= d->release_above && gk_try_run(team, job))
        return 1;
    void *thread = d->abi->save_thread();
    gk_run(team, job);
    d->abi->restore_thread(thread);
    return 1;
}

static int run(const struct descriptor *d, const struct binding *b, const int64_t *args)
{
    int64_t units = evaluate(d, d->units, b->dims), work = evaluate(d, d->work, b->dims);
    int64_t scratch = evaluate(d, d->scratch, b->dims);
    int64_t threads = work > d->alone ? d->threads : 1;
    if (units <= 0)
        return 1;
    if (threads == 1 && scratch <= STACK_SCRATCH) {
        run_here(d, args, units, work);
        return 1;
    }
    int64_t grains = (units - 1) / (d->grain * d->tiles) + 1;
    struct step step = {d->kernel, args, units, grains * d->grain};
    struct job job = {&step, 1, threads, d->memory, (scratch + 63) / 64 * 64, 0};
    return run_in_team(d, &job, work);
}

static object *answer(const struct abi *abi, object *o)
{
    abi->retain(o);
    return o;
}

/* self is the `bytes` object whose payload, 32 bytes in, is the descriptor. */
object *gk_fastcall(object *self, object *const *given, int64_t count)
{
    const struct descriptor *d = (const struct descriptor *)(self + 32);
    const struct abi *abi = d->abi;
    struct binding b;
    int64_t args[MAX_SLOTS];
    float result = 0;
    if (count != d->params)
        return answer(abi, abi->not_implemented);
    b.known = 1;
    for (int i = 0; i < MAX_DIMS; i++) {
        b.dims[i] = i == 0;
        b.star_extents[i] = 0;
    }
    for (int64_t i = 0; i < count; i++)
        if (!take(abi, &d->param[i], given[i], &b, i))
            return answer(abi, abi->not_implemented);
    if (!disjoint(d, &b))
        return answer(abi, abi->not_implemented);
    fill(d, &b, args, &result);
    if (!run(d, &b, args))
        return answer(abi, abi->not_implemented);
    if (d->result == RETURN_FLOAT)
        return abi->float_new((double)result);
    return answer(abi, d->result == RETURN_NONE ? abi->none : given[d->result]);
}

/* For the self-test: out[i] = 2 * in[i] + add, args {in, out, n, add}. */
void gk_probe(const int64_t *args, int64_t begin, int64_t end, void *scratch)
{
    const float *in = (const float *)args[0];
    float *out = (float *)args[1];
    *(volatile char *)scratch = 0;
    for (int64_t i = begin; i < end && i < args[2]; i++)
        out[i] = 2 * in[i] + slot_float(args[3]);
}

/* For the self-test: *result = n, args {n, result}. */
void gk_probe_result(const int64_t *args, int64_t begin, int64_t end, void *scratch)
{
    (void)begin, (void)end, (void)scratch;
    *(float *)args[1] = (float)args[0];
}
