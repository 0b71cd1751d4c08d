/* The thread team: walks a table of steps, each cut into tiles that threads take one by one.
 *
 * Nobody waits for a thread, only for tiles: a step ends when its last tile is done, and whoever
 * did that tile opens the next step. A worker that the system has put aside between two tiles
 * holds up nothing, so more threads than cores cost little and cannot hang.
 *
 * `state` says which step is open and how many of its tiles are taken: one compare-and-swap takes
 * a tile of exactly that step, or fails. Its serial is odd while no step is open; only then are
 * the fields of the open step written, so what was read before a successful swap was valid.
 *
 * No global variables: everything is in a `team` that the caller allocates (zeroed, 64-byte
 * aligned, gk_team_bytes() long). Waiting spins shortly and then parks in a futex. */
#include "runtime.h"

#define MAX_THREADS 1024
#define SPINS 2000 /* some 20 us of `pause` */
#define LINE __attribute__((aligned(64)))

extern int pthread_create(unsigned long *thread, const void *attr, void *(*start)(void *), void *);
extern int pthread_join(unsigned long thread, void **result);
extern int pthread_sigmask(int how, const void *set, void *old);
extern int clock_gettime(int clock, int64_t *seconds_and_ns);

struct worker {
    struct team *team;
    int64_t id;
    unsigned long thread;
};

struct team {
    LINE uint32_t lock;       /* 0 free, 1 held, 2 held and waited for */
    int64_t size;             /* threads, the caller included */
    uint32_t stop, finished;
    struct job job;
    int64_t index;            /* of the open step */
    LINE struct step open;    /* the open step, copied: its table may be gone when read late */
    int64_t tiles;
    int64_t threads;          /* this many take part: workers of higher number look on */
    char *scratch;
    int64_t scratch_stride;
    LINE uint64_t state;      /* serial << 32 | tiles taken */
    LINE int64_t done;        /* tiles */
    LINE uint32_t sleepers;
    LINE struct worker workers[MAX_THREADS];
};

/* ---- waiting ------------------------------------------------------------------------------ */

/* syscall 202 on x86-64; rcx and r11 are overwritten by the instruction. */
static long futex(uint32_t *word, long operation, uint32_t value)
{
    register long timeout __asm__("r10") = 0;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(202L), "D"(word), "S"(operation), "d"((long)value), "r"(timeout)
                     : "rcx", "r11", "memory");
    return result;
}

#define FUTEX_WAIT_PRIVATE 128
#define FUTEX_WAKE_PRIVATE 129

static uint32_t *serial_word(struct team *team)
{
    return (uint32_t *)&team->state + 1; /* the high half: little-endian */
}

/* Until the serial differs from old. The sleeper announces itself before the kernel compares the
 * word again, publish() changes the word before it looks for sleepers: one sees the other. */
static void wait_while(struct team *team, uint32_t old)
{
    uint32_t *word = serial_word(team);
    for (int i = 0; i < SPINS; i++) {
        if (__atomic_load_n(word, __ATOMIC_ACQUIRE) != old)
            return;
        __builtin_ia32_pause();
    }
    __atomic_fetch_add(&team->sleepers, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(word, __ATOMIC_SEQ_CST) == old)
        futex(word, FUTEX_WAIT_PRIVATE, old);
    __atomic_fetch_sub(&team->sleepers, 1, __ATOMIC_SEQ_CST);
}

static void publish(struct team *team, uint32_t serial)
{
    __atomic_store_n(&team->state, (uint64_t)serial << 32, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&team->sleepers, __ATOMIC_SEQ_CST))
        futex(serial_word(team), FUTEX_WAKE_PRIVATE, 0x7fffffff);
}

/* Ulrich Drepper, "Futexes are tricky", mutex 2: state 2 says that somebody waits. */
static void acquire(uint32_t *lock)
{
    uint32_t free = 0;
    if (__atomic_compare_exchange_n(lock, &free, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        return;
    while (__atomic_exchange_n(lock, 2, __ATOMIC_ACQUIRE))
        futex(lock, FUTEX_WAIT_PRIVATE, 2);
}

static void release(uint32_t *lock)
{
    if (__atomic_exchange_n(lock, 0, __ATOMIC_RELEASE) == 2)
        futex(lock, FUTEX_WAKE_PRIVATE, 1);
}

/* ---- walking the table -------------------------------------------------------------------- */

static int64_t now(void)
{
    int64_t time[2];
    clock_gettime(1, time); /* CLOCK_MONOTONIC */
    return time[0] * 1000000000 + time[1];
}

static char *scratch_of(const struct team *team, int64_t id)
{
    return team->scratch + id * team->scratch_stride;
}

/* Called by whoever did the last tile of the open step: do steps of one tile at once, open the
 * next step of several, or declare the job finished. */
static void advance(struct team *team, int64_t id)
{
    const struct job *job = &team->job;
    uint32_t closed = *serial_word(team) | 1;
    __atomic_store_n(&team->state, (uint64_t)closed << 32, __ATOMIC_SEQ_CST);
    for (;;) {
        if (job->times)
            job->times[team->index + 1] = now();
        if (++team->index >= job->count)
            break;
        const struct step *step = &job->steps[team->index];
        if (step->units > step->grain) {
            team->open = *step;
            team->tiles = (step->units + step->grain - 1) / step->grain;
            team->done = 0;
            publish(team, closed + 1);
            return;
        }
        if (step->units > 0)
            step->code(step->args, 0, step->units, scratch_of(team, id));
    }
    team->finished = 1;
    publish(team, closed + 2);
}

static void run_tile(const struct step *step, int64_t tile, char *scratch)
{
    int64_t begin = tile * step->grain, rest = step->units - begin;
    step->code(step->args, begin, begin + (rest < step->grain ? rest : step->grain), scratch);
}

/* Take tiles: the caller (id 0) until the job is finished, a worker until the team ends. */
static void take_part(struct team *team, int64_t id)
{
    for (;;) {
        uint64_t state = __atomic_load_n(&team->state, __ATOMIC_ACQUIRE);
        uint32_t serial = (uint32_t)(state >> 32), tile = (uint32_t)state;
        if (serial & 1) {
            if (id ? team->stop : team->finished)
                return;
            wait_while(team, serial);
            continue;
        }
        struct step step = team->open;
        int64_t tiles = team->tiles;
        char *scratch = scratch_of(team, id);
        if (tile >= tiles || id >= team->threads) {
            wait_while(team, serial);
            continue;
        }
        if (!__atomic_compare_exchange_n(&team->state, &state, state + 1, 0, __ATOMIC_ACQ_REL,
                                         __ATOMIC_RELAXED))
            continue;
        run_tile(&step, tile, scratch);
        if (__atomic_add_fetch(&team->done, 1, __ATOMIC_ACQ_REL) == tiles)
            advance(team, id);
    }
}

static void run_alone(const struct job *job)
{
    if (job->times)
        job->times[0] = now();
    for (int64_t i = 0; i < job->count; i++) {
        const struct step *step = &job->steps[i];
        if (step->units > 0)
            step->code(step->args, 0, step->units, job->scratch);
        if (job->times)
            job->times[i + 1] = now();
    }
}

static void *work(void *argument)
{
    struct worker *self = argument;
    float_mode_enter();
    take_part(self->team, self->id);
    return 0;
}

/* ---- called from Python ------------------------------------------------------------------- */

int64_t gk_team_bytes(void)
{
    return sizeof(struct team);
}

/* Make the team `size` threads strong; returns how many it has. Signals stay with the threads
 * that Python knows: a new thread inherits the mask, so all are blocked while it is created. */
int64_t gk_team_grow(struct team *team, int64_t size)
{
    uint64_t all[16], before[16];
    for (int i = 0; i < 16; i++)
        all[i] = ~(uint64_t)0;
    acquire(&team->lock);
    if (team->size == 0)
        team->size = 1;
    pthread_sigmask(2, all, before); /* SIG_SETMASK */
    while (team->size < size && team->size < MAX_THREADS) {
        struct worker *worker = &team->workers[team->size];
        worker->team = team;
        worker->id = team->size;
        if (pthread_create(&worker->thread, 0, work, worker))
            break;
        team->size++;
    }
    pthread_sigmask(2, before, 0);
    int64_t reached = team->size;
    release(&team->lock);
    return reached;
}

static void run_locked(struct team *team, const struct job *job)
{
    uint32_t mode = float_mode_enter();
    team->job = *job;
    if (job->threads <= 1 || team->size <= 1) {
        run_alone(&team->job);
    } else {
        team->index = -1;
        team->finished = 0;
        team->threads = job->threads;
        team->scratch = job->scratch;
        team->scratch_stride = job->scratch_stride;
        advance(team, 0);
        take_part(team, 0);
    }
    float_mode_leave(mode);
    release(&team->lock);
}

/* Walk the table; returns when every step is done. Callers wait for each other. */
void gk_run(struct team *team, const struct job *job)
{
    acquire(&team->lock);
    run_locked(team, job);
}

/* The same, or 0 at once where it would have to wait for another caller. */
int gk_try_run(struct team *team, const struct job *job)
{
    uint32_t free = 0;
    if (!__atomic_compare_exchange_n(&team->lock, &free, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        return 0;
    run_locked(team, job);
    return 1;
}

int64_t gk_team_size(const struct team *team)
{
    return __atomic_load_n(&team->size, __ATOMIC_RELAXED);
}

/* End and join the workers. */
void gk_team_stop(struct team *team)
{
    acquire(&team->lock);
    team->stop = 1;
    publish(team, (*serial_word(team) | 1) + 2);
    for (int64_t i = 1; i < team->size; i++)
        pthread_join(team->workers[i].thread, 0);
    team->size = 1;
    team->stop = 0;
    release(&team->lock);
}
