/* What the run-time sources share: types, the kernel ABI, the thread team, and three things of the machine. */
#ifndef GK_RUNTIME_H
#define GK_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

/* A kernel works on the units [begin, end); args are 64-bit slots: pointers, integers, or a
 * float in the low four bytes. */
typedef void kernel_fn(const int64_t *args, int64_t begin, int64_t end, void *scratch);

/* One row of the table. A step with units <= 0 does nothing. */
struct step {
    kernel_fn *code;
    const int64_t *args;
    int64_t units;
    int64_t grain;
};

/* What one gk_run is given; scratch of thread i begins at scratch + i * scratch_stride. */
struct job {
    const struct step *steps;
    int64_t count;
    int64_t threads;
    char *scratch;
    int64_t scratch_stride;
    int64_t *times; /* null, or count + 1 clock readings in nanoseconds */
};

struct team;
void gk_run(struct team *team, const struct job *job);
int gk_try_run(struct team *team, const struct job *job);
int64_t gk_team_size(const struct team *team);

/* MXCSR after reset: round to nearest, denormals kept, exceptions masked. Other libraries of the
 * process may have set flush-to-zero; results here must not depend on that. */
#define MXCSR_DEFAULT 0x1f80u
#define MXCSR_CONTROL 0xffc0u

static inline uint32_t float_mode_enter(void)
{
    uint32_t before = __builtin_ia32_stmxcsr();
    if ((before & MXCSR_CONTROL) != MXCSR_DEFAULT)
        __builtin_ia32_ldmxcsr(MXCSR_DEFAULT);
    return before;
}

static inline void float_mode_leave(uint32_t before)
{
    if ((before & MXCSR_CONTROL) != MXCSR_DEFAULT)
        __builtin_ia32_ldmxcsr(before);
}

static inline float slot_float(int64_t slot)
{
    union {
        int32_t bits;
        float value;
    } low = {.bits = (int32_t)slot};
    return low.value;
}

#endif
