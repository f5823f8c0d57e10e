// A process that may have little: `limits FILES`, `limits threads`, `limits none`.
#include "driver.h"
#include <sys/resource.h>

static void add_five(void *number) { *(int *)number += 5; }

static void without_threads(void) {
    Device device = start();
    int number = 0;
    work(&device, 5000, 5);
    // Sent by itself, though nobody waits.
    uint64_t word = allocate(4);
    MUST(CU(cuMemsetD32_v2, word, 1, (size_t)1));
    add_one(&device, word, 1, NULL);
    int code = CU(cuLaunchHostFunc, NULL, add_five, &number);
    MUST(CU(cuCtxSynchronize));
    EXPECT(number == (code ? 0 : 5));
    printf("host function %d\n", code);
    work(&device, 100, 2);
    say("ok");
}

int main(int count, char **arguments) {
    (void)count;
    if (!strcmp(arguments[1], "threads")) return without_threads(), 0;
    void *init = symbol("cuInit");
    if (strcmp(arguments[1], "none")) {
        struct rlimit few = {(rlim_t)atoi(arguments[1]), (rlim_t)atoi(arguments[1])};
        EXPECT(setrlimit(RLIMIT_NOFILE, &few) == 0);
    }
    printf("cuInit %d\n", ((int (*)(unsigned))init)(0));
    return 0;
}
