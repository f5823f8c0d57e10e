// Threads that come and go around CUDA calls, and code that runs before main and after it.
#include "driver.h"

static Device device;
static uint64_t word;

static void *wait_in_vain(void *unused) {
    (void)unused;
    MUST(CU(cuCtxSetCurrent, device.context));
    MUST(CU(cuCtxSynchronize));
    pthread_testcancel();
    return "not cancelled";
}

// A thread that is cancelled in a call ends after it; the others notice nothing.
static void cancelled(void) {
    pthread_t threads[2];
    void *result;
    device = start();
    word = run_for_ever(&device, NULL);
    for (int i = 0; i < 2; ++i) pthread_create(&threads[i], NULL, wait_in_vain, NULL);
    usleep(300000);
    for (int i = 0; i < 2; ++i) EXPECT(pthread_cancel(threads[i]) == 0);
    usleep(100000);
    end_the_kernel(word);
    for (int i = 0; i < 2; ++i) {
        EXPECT(pthread_join(threads[i], &result) == 0);
        EXPECT(result == PTHREAD_CANCELED);
    }
    work(&device, 1000, 2);
    say("ok");
}

static void *work_alone(void *main_thread) {
    pthread_join(*(pthread_t *)main_thread, NULL);
    MUST(CU(cuCtxSetCurrent, device.context));
    work(&device, 1000, 2);
    say("ok");
    exit(0);
}

// main's thread ends, the process does not.
static void main_thread_ends(void) {
    static pthread_t main_thread, thread;
    main_thread = pthread_self();
    device = start();
    pthread_create(&thread, NULL, work_alone, &main_thread);
    pthread_exit(NULL);
}

static void *come_and_go(void *unused) {
    (void)unused;
    MUST(CU(cuCtxSetCurrent, device.context));
    add_one(&device, word, 1, NULL);
    return NULL; // with the launch perhaps still in a batch
}

static void many_threads(void) {
    uint32_t sum = 0;
    device = start();
    word = allocate(4);
    MUST(CU(cuMemsetD32_v2, word, 0, (size_t)1));
    for (int round = 0; round < 300; ++round) {
        pthread_t thread;
        EXPECT(pthread_create(&thread, NULL, come_and_go, NULL) == 0);
        EXPECT(pthread_join(thread, NULL) == 0);
    }
    MUST(CU(cuMemcpyDtoH_v2, &sum, word, (size_t)4));
    EXPECT(sum == 300);
    say("ok");
}

// A driver that was closed as often as it was opened still ends in peace.
static void closed(void) {
    for (int round = 0; round < 3; ++round) {
        void *library = dlopen("libcuda.so.1", RTLD_NOW);
        EXPECT(library);
        device = start();
        work(&device, 100, 1);
        dlclose(library);
    }
    say("ok");
}

static void too_late(void) {
    uint64_t address;
    printf("registered before the first use: %d\n", CU(cuMemAlloc_v2, &address, (size_t)4));
    fflush(stdout);
}

static void in_time(void) {
    work(&device, 100, 1);
    say("registered after the first use: 0");
}

// What a handler finds depends on whether it was registered before CUDA was first used.
static void handlers(void) {
    atexit(too_late);
    device = start();
    work(&device, 100, 1);
    atexit(in_time);
}

static const char *wanted(void) {
    const char *mode = getenv("MODE");
    return mode ? mode : "";
}

__attribute__((constructor)) static void before_main(void) {
    if (strcmp(wanted(), "constructor")) return;
    device = start();
    work(&device, 100, 1);
    say("before main");
}

__attribute__((destructor)) static void after_main(void) {
    if (strcmp(wanted(), "constructor")) return;
    printf("after main: %d\n", CU(cuCtxSynchronize));
    fflush(stdout);
}

static void constructor(void) {
    work(&device, 100, 1);
    say("main");
}

int main(void) {
    const char *mode = wanted();
    if (!strcmp(mode, "cancelled")) cancelled();
    else if (!strcmp(mode, "main_thread_ends")) main_thread_ends();
    else if (!strcmp(mode, "many_threads")) many_threads();
    else if (!strcmp(mode, "closed")) closed();
    else if (!strcmp(mode, "handlers")) handlers();
    else if (!strcmp(mode, "constructor")) constructor();
    else return 6;
    return 0;
}
