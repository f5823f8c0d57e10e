// Signals at any moment: no call shows that one came, and no byte is lost.
#include "driver.h"

static volatile sig_atomic_t signals;

static void count_signal(int number) {
    (void)number;
    ++signals;
    // Async-signal-safe calls are a handler's right.
    int saved = errno;
    (void)!write(-1, "", 1);
    errno = saved;
}

static Device device;
static uint64_t word;

static void *end_it_later(void *context) {
    usleep(800000);
    MUST(CU(cuCtxSetCurrent, context));
    end_the_kernel(word);
    return NULL;
}

// Somebody stops this process in the middle of a wait and lets it go on three seconds later.
static void stopped(void) {
    pthread_t thread;
    word = run_for_ever(&device, NULL);
    pthread_create(&thread, NULL, end_it_later, device.context);
    pid_t child = fork();
    if (child == 0) {
        usleep(200000);
        kill(getppid(), SIGSTOP);
        sleep(3);
        kill(getppid(), SIGCONT);
        _exit(0);
    }
    MUST(CU(cuCtxSynchronize));
    pthread_join(thread, NULL);
    expect_well(child);
    work(&device, 3000, 1);
}

int main(void) {
    for (int restart = 0; restart < 2; ++restart) {
        struct sigaction action = {.sa_handler = count_signal, .sa_flags = restart ? SA_RESTART : 0};
        struct itimerval every = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
        sigaction(SIGALRM, &action, NULL);
        sigaction(SIGPROF, &action, NULL);
        setitimer(ITIMER_REAL, &every, NULL);
        setitimer(ITIMER_PROF, &every, NULL);
        if (restart == 0) device = start();
        for (int round = 0; round < 3; ++round) {
            work(&device, 4 << 20, 1);
            work(&device, 3000, 30);
        }
        setitimer(ITIMER_REAL, &never, NULL);
        setitimer(ITIMER_PROF, &never, NULL);
    }
    EXPECT(signals > 0);
    stopped();
    say("ok");
    return 0;
}
