// The soft GPU, but that a launch starts nothing, runs as much code as a real driver does for one, and takes as long:
// what a worker adds to a launch shows as it would on a GPU, of which machines that measure have none.
#include <time.h>

// Of NVIDIA's 580.159 on an H200 (docs/performance.md). The code below takes less, but not twice the same.
enum { NANOSECONDS = 3700 };

// Ten and a hundred of what `one` makes of a number that begins like this.
#define TEN(one, n) one(n##0) one(n##1) one(n##2) one(n##3) one(n##4) one(n##5) one(n##6) one(n##7) one(n##8) one(n##9)
#define HUNDRED(one, n)                                                                                     \
    TEN(one, n##0) TEN(one, n##1) TEN(one, n##2) TEN(one, n##3) TEN(one, n##4) TEN(one, n##5) TEN(one, n##6) \
    TEN(one, n##7) TEN(one, n##8) TEN(one, n##9)
#define ALL(one)                                                                        \
    HUNDRED(one, 1) HUNDRED(one, 2) HUNDRED(one, 3) HUNDRED(one, 4) HUNDRED(one, 5) HUNDRED(one, 6) \
    HUNDRED(one, 7) HUNDRED(one, 8)

enum { WORDS = 4096 };
static unsigned long state[WORDS];

// Some hundred bytes of code, with a branch that nobody foretells.
#define STEP(n)                                                                   \
    static __attribute__((noinline)) unsigned long step_##n(unsigned long value) { \
        if (value & 1 << n % 6) {                                                  \
            state[n * 37 % WORDS] += value;                                        \
        } else {                                                                   \
            state[n * 53 % WORDS] ^= value >> 3;                                   \
        }                                                                          \
        return value * (n * 2654435761 | 1) + state[n * 71 % WORDS];               \
    }
ALL(STEP)

static long now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000L + at.tv_nsec;
}

int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **parameters, void **extra) {
    long begin = now();
    unsigned long value = state[0];
#define TAKE(n) value = step_##n(value);
    ALL(TAKE)
    state[0] = value;
    while (now() - begin < NANOSECONDS) {}
    return 0;
}
