// Ways for a process to end in the middle of its work: `ends HOW [WHERE]`.
//
// WHERE is what other threads do meanwhile: `kernel` (a kernel runs and nobody waits for it), `wait`
// (a thread waits for it), `upload` and `download` (a large copy waits behind it).
#include "driver.h"

static Device device;
static uint64_t large;
enum { LARGE = 64 << 20 };

static void *wait_for_ever(void *where) {
    MUST(CU(cuCtxSetCurrent, device.context));
    char *host = calloc(1, LARGE);
    if (!strcmp(where, "wait")) CU(cuCtxSynchronize);
    else if (!strcmp(where, "upload")) CU(cuMemcpyHtoD_v2, large, host, (size_t)LARGE);
    else if (!strcmp(where, "download")) CU(cuMemcpyDtoH_v2, host, large, (size_t)LARGE);
    return NULL;
}

static void leave(int signal) {
    (void)signal;
    _exit(42);
}

int main(int count, char **arguments) {
    const char *how = arguments[1], *where = count > 2 ? arguments[2] : "kernel";
    device = start();
    large = allocate(LARGE);
    run_for_ever(&device, NULL);
    if (strcmp(where, "kernel")) {
        pthread_t thread;
        pthread_create(&thread, NULL, wait_for_ever, (void *)where);
        usleep(300000); // it should be in the middle of it; sooner is as good a test
    }
    say("running");
    if (!strcmp(how, "exit")) exit(3);
    if (!strcmp(how, "_exit")) _exit(4);
    if (!strcmp(how, "abort")) abort();
    if (!strcmp(how, "handler")) {
        signal(SIGSEGV, leave);
        *(volatile int *)8 = 0;
    }
    if (!strcmp(how, "segv")) *(volatile int *)8 = 0;
    if (!strcmp(how, "signal")) {
        for (;;) pause();
    }
    return 5; // "return"
}
