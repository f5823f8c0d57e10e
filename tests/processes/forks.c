// Processes made by a process that uses CUDA.
#include "driver.h"

static int child_is_refused(void) {
    uint64_t address = 0;
    int number = -1;
    return CU(cuInit, 0) == NOT_INITIALIZED && CU(cuDeviceGetCount, &number) == NOT_INITIALIZED &&
           CU(cuMemAlloc_v2, &address, (size_t)64) == NOT_INITIALIZED &&
           CU(cuMemFree_v2, address) == NOT_INITIALIZED &&
           CU(cuCtxSynchronize) == NOT_INITIALIZED && CU(cuDriverGetVersion, &number) == 0 &&
           number >= 12000;
}

// Without pthread_atfork's handlers, as sandboxes and other languages' runtimes fork.
static pid_t bare_fork(void) { return (pid_t)syscall(SYS_fork); }

static void once(void) {
    Device device = start();
    work(&device, 1000, 3);
}

// The parent goes on, and so does its connection, whatever the child does and however it was made.
static void after_use(void) {
    Device device = start();
    work(&device, 1000, 1);
    for (int round = 0; round < 4; ++round) {
        pid_t child = round % 2 ? bare_fork() : fork();
        if (child == 0) {
            int refused = child_is_refused();
            if (round < 2) _exit(!refused);
            exit(!refused);
        }
        work(&device, 1000, 1);
        expect_well(child);
    }
    work(&device, 1000, 1);
    say("ok");
}

// cuDriverGetVersion is no initialisation: parent and child may each begin.
static void before_init(void) {
    int version = 0;
    EXPECT(CU(cuDriverGetVersion, &version) == 0 && version >= 12000);
    for (int round = 0; round < 2; ++round) {
        pid_t child = round ? bare_fork() : fork();
        if (child == 0) {
            once();
            exit(0);
        }
        expect_well(child);
    }
    once();
    say("ok");
}

static Device shared_device;
static volatile int storm_is_over, rounds[3];

static void *hammer(void *number) {
    MUST(CU(cuCtxSetCurrent, shared_device.context));
    uint32_t count = (intptr_t)number == 0 ? 200000 : 300;
    while (!storm_is_over) {
        work(&shared_device, count, 3);
        ++rounds[(intptr_t)number];
    }
    return NULL;
}

// Forks while other threads are anywhere in the driver, holding whatever it locks.
static void storm(void) {
    pthread_t threads[3];
    shared_device = start();
    for (intptr_t i = 0; i < 3; ++i) pthread_create(&threads[i], NULL, hammer, (void *)i);
    while (!rounds[0] || !rounds[1] || !rounds[2]) usleep(1000);
    for (int round = 0; round < 200; ++round) {
        usleep(rand() % 2000);
        pid_t child = fork();
        if (child == 0) {
            alarm(60);
            int refused = child_is_refused();
            if (round % 2) exit(!refused);
            _exit(!refused);
        }
        expect_well(child);
    }
    storm_is_over = 1;
    for (int i = 0; i < 3; ++i) pthread_join(threads[i], NULL);
    work(&shared_device, 1000, 1);
    say("ok");
}

static void *initialise(void *unused) {
    (void)unused;
    MUST(CU(cuInit, 0));
    return NULL;
}

// Forks while another thread is in the middle of cuInit: a child begins anew or is refused.
static void while_starting(void) {
    pthread_t thread;
    symbol("cuInit");
    pthread_create(&thread, NULL, initialise, NULL);
    for (int round = 0; round < 12; ++round) {
        pid_t child = fork();
        if (child == 0) {
            alarm(60);
            int code = CU(cuInit, 0);
            exit(code != 0 && code != NOT_INITIALIZED);
        }
        expect_well(child);
    }
    pthread_join(thread, NULL);
    once();
    say("ok");
}

// A child's own descriptors stay its own, through as many forks as it likes.
static void twice(void) {
    Device device = start();
    work(&device, 100, 1);
    pid_t child = fork();
    if (child == 0) {
        int files[8];
        for (int i = 0; i < 8; ++i) EXPECT((files[i] = open("/dev/null", O_WRONLY)) > 2);
        pid_t grandchild = fork();
        if (grandchild == 0) {
            for (int i = 0; i < 8; ++i) EXPECT(write(files[i], "x", 1) == 1);
            exit(!child_is_refused());
        }
        expect_well(grandchild);
        exit(0);
    }
    expect_well(child);
    work(&device, 100, 1);
    say("ok");
}

// The parent is killed while its child lives: the child must not keep its session alive.
static void orphan(void) {
    Device device = start();
    work(&device, 100, 1);
    if (fork() == 0) {
        say("child");
        wait_for_word();
        EXPECT(child_is_refused());
        say("ok");
        exit(0);
    }
    for (;;) pause(); // until it is killed
}

// Another program in this process's place begins anew.
static void replaced(char *program) {
    Device device = start();
    work(&device, 100, 1);
    run_for_ever(&device, NULL);
    execl(program, program, "once_and_wait", NULL);
    EXPECT(!"exec");
}

static void once_and_wait(void) {
    once();
    say("ok");
    wait_for_word();
}

// A process that cuts itself off from whoever started it, and uses CUDA only then.
static void daemon_later(void) {
    if (fork() != 0) _exit(0);
    setsid();
    if (fork() != 0) _exit(0);
    say("daemon");
    wait_for_word();
    int code = CU(cuInit, 0);
    printf("cuInit %d\n", code);
    fflush(stdout);
    if (code == 0) {
        once();
        say("ok");
    }
}

// Functions of the program that streams call may start programs, too.
static void CUDA_function(void *argument) {
    *(int *)argument = system("exit 5");
    pid_t child = fork();
    if (child == 0) _exit(child_is_refused() ? 0 : 1);
    expect_well(child);
}

static void in_a_callback(void) {
    Device device = start();
    int status = 0;
    MUST(CU(cuLaunchHostFunc, NULL, CUDA_function, &status));
    MUST(CU(cuCtxSynchronize));
    EXPECT(WEXITSTATUS(status) == 5);
    work(&device, 100, 1);
    say("ok");
}

int main(int count, char **arguments) {
    const char *mode = count > 1 ? arguments[1] : "";
    if (!strcmp(mode, "once")) once(), say("ok");
    else if (!strcmp(mode, "after_use")) after_use();
    else if (!strcmp(mode, "before_init")) before_init();
    else if (!strcmp(mode, "storm")) storm();
    else if (!strcmp(mode, "while_starting")) while_starting();
    else if (!strcmp(mode, "twice")) twice();
    else if (!strcmp(mode, "orphan")) orphan();
    else if (!strcmp(mode, "replaced")) replaced(arguments[0]);
    else if (!strcmp(mode, "once_and_wait")) once_and_wait();
    else if (!strcmp(mode, "daemon_later")) daemon_later();
    else if (!strcmp(mode, "in_a_callback")) in_a_callback();
    else return 6;
    return 0;
}
