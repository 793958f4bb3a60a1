/* What Python calls: picks the instance for this processor and type of numbers, and lets threads work on a call. */

#include <stddef.h>

#include "call.h"
#include "fast_call.h"

typedef void (*Work)(void *call, int phase, int worker);

#define DECLARE(name)                                      \
    long numbers_##name(const Call *c, int what);          \
    void work_##name(void *c, int phase, int worker);      \
    long fast_numbers_##name(const FastCall *c, int what); \
    void fast_work_##name(void *c, int phase, int worker);
#define BOTH(prefix, name) {prefix##_float32_##name, prefix##_float64_##name}
#define INSTANCES(name) {#name, BOTH(numbers, name), BOTH(work, name), BOTH(fast_numbers, name), BOTH(fast_work, name)}

DECLARE(float32_baseline)
DECLARE(float64_baseline)
#ifdef HAVE_AVX2
DECLARE(float32_avx2)
DECLARE(float64_avx2)
#endif
#ifdef HAVE_AVX512
DECLARE(float32_avx512)
DECLARE(float64_avx512)
#endif

static const struct {
    const char *name;
    long (*numbers[2])(const Call *, int);
    Work work[2];
    long (*fast_numbers[2])(const FastCall *, int);
    Work fast_work[2];
} instances[] = {
#ifdef HAVE_AVX512
    INSTANCES(avx512),
#endif
#ifdef HAVE_AVX2
    INSTANCES(avx2),
#endif
    INSTANCES(baseline),
};

/* The name of an instance, the fastest first; NULL past the last one. */
const char *scan_instance(int i) {
    return i >= 0 && i < (int)(sizeof instances / sizeof *instances) ? instances[i].name : NULL;
}

/* Whether this processor has what the instance needs. */
int scan_supported(int i) {
    const char *name = scan_instance(i);
    if (name == NULL) return 0;
#ifdef HAVE_AVX2
    __builtin_cpu_init();
    if (name[0] == 'a' && name[3] == '2') return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
#ifdef HAVE_AVX512
    if (name[0] == 'a' && name[3] == '5')
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#endif
    return 1;
}

/* The sizes of the structs, so that the Python side can tell that it has the same ones in mind. */
long scan_call_bytes(void) { return sizeof(Call); }
long fast_call_bytes(void) { return sizeof(FastCall); }

long scan_numbers(const Call *c, int instance, int is_double, int what) {
    return instances[instance].numbers[is_double](c, what);
}
long fast_numbers(const FastCall *c, int instance, int is_double, int what) {
    return instances[instance].fast_numbers[is_double](c, what);
}

/* A digest of the sources that this was compiled from. */
const char *scan_sources(void) { return SOURCES; }

/* One thread's share of a phase. */
void scan_work(Call *c, int instance, int is_double, int phase, int worker) {
    instances[instance].work[is_double](c, phase, worker);
}
void fast_work(FastCall *c, int instance, int is_double, int phase, int worker) {
    instances[instance].fast_work[is_double](c, phase, worker);
}

typedef void (*Parallel)(void (*)(void *), void *, unsigned, unsigned);

typedef struct {
    void *call;
    Work work;
    int phase, worker;
} Team;

static void join_team(void *data) {
    Team *team = data;
    int worker = __atomic_fetch_add(&team->worker, 1, __ATOMIC_RELAXED);
    team->work(team->call, team->phase, worker);
}

static void run(void *call, long *next, Work work, const int *phases, int count, int threads, Parallel parallel) {
    for (int i = 0; i < count; i++) {
        Team team = {call, work, phases[i], 0};
        *next = 0;
        if (parallel == NULL || threads == 1) join_team(&team);
        else parallel(join_team, &team, threads, 0);
    }
}

/* Phases one after the other, each by `threads` threads of the OpenMP that torch runs on: its pool is there already,
 * and its threads do not compete with threads of ours. `parallel` is that library's GOMP_parallel; NULL: one thread. */
void scan_run(Call *c, int instance, int is_double, const int *phases, int count, int threads, Parallel parallel) {
    run(c, &c->next, instances[instance].work[is_double], phases, count, threads, parallel);
}
void fast_run(FastCall *c, int instance, int is_double, const int *phases, int count, int threads, Parallel parallel) {
    run(c, &c->next, instances[instance].fast_work[is_double], phases, count, threads, parallel);
}
