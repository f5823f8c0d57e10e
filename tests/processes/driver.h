// What the C programs of this folder share: the driver API by name, a kernel that ends soon and one
// that does not, and how a result is told. No header of CUDA's is needed.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))

enum { NOT_INITIALIZED = 3, DEINITIALIZED = 4 };

static void *symbol(const char *name) {
    static void *library;
    if (!library) library = dlopen("libcuda.so.1", RTLD_NOW);
    void *found = library ? dlsym(library, name) : NULL;
    if (!found) {
        printf("no %s: %s\n", name, dlerror());
        exit(9);
    }
    return found;
}

// A driver call; its arguments must have the types of cuda.h.
#define CU(name, ...) (((int (*)())symbol(#name))(__VA_ARGS__))

#define MUST(call)                                                                                 \
    do {                                                                                           \
        int must_code = (call);                                                                    \
        if (must_code != 0) {                                                                      \
            printf("line %d: %s gave %d\n", __LINE__, #call, must_code);                           \
            fflush(stdout);                                                                        \
            _exit(8);                                                                              \
        }                                                                                          \
    } while (0)

// Prints `what` and ends the program unless it holds.
#define EXPECT(what)                                                                               \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            printf("line %d: not so: %s\n", __LINE__, #what);                                      \
            fflush(stdout);                                                                        \
            _exit(7);                                                                              \
        }                                                                                          \
    } while (0)

static const char KERNELS[] =
    ".version 7.0\n.target sm_52\n.address_size 64\n"
    // Adds 1 to each of n words.
    ".visible .entry add_one(.param .u64 p, .param .u32 n) {\n"
    " .reg .b32 %r<6>; .reg .b64 %d<4>; .reg .pred %q;\n"
    " ld.param.u64 %d0, [p]; ld.param.u32 %r0, [n];\n"
    " mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mov.u32 %r3, %tid.x;\n"
    " mad.lo.u32 %r4, %r1, %r2, %r3;\n"
    " setp.ge.u32 %q, %r4, %r0; @%q ret;\n"
    " mul.wide.u32 %d1, %r4, 4; add.u64 %d2, %d0, %d1;\n"
    " ld.global.u32 %r5, [%d2]; add.u32 %r5, %r5, 1; st.global.u32 [%d2], %r5; ret; }\n"
    // Goes round until the word at p is not 0.
    ".visible .entry wait_for(.param .u64 p) {\n"
    " .reg .b32 %r; .reg .b64 %d; .reg .pred %q;\n"
    " ld.param.u64 %d, [p];\n"
    "again: ld.volatile.global.u32 %r, [%d]; setp.eq.u32 %q, %r, 0; @%q bra again; ret; }\n";

typedef struct {
    void *context, *add_one, *wait_for;
} Device;

UNUSED static Device start(void) {
    Device device;
    int ordinal;
    void *module;
    MUST(CU(cuInit, 0));
    MUST(CU(cuDeviceGet, &ordinal, 0));
    MUST(CU(cuDevicePrimaryCtxRetain, &device.context, ordinal));
    MUST(CU(cuCtxSetCurrent, device.context));
    MUST(CU(cuModuleLoadData, &module, KERNELS));
    MUST(CU(cuModuleGetFunction, &device.add_one, module, "add_one"));
    MUST(CU(cuModuleGetFunction, &device.wait_for, module, "wait_for"));
    return device;
}

UNUSED static uint64_t allocate(size_t bytes) {
    uint64_t address;
    MUST(CU(cuMemAlloc_v2, &address, bytes));
    return address;
}

UNUSED static int launch(void *function, unsigned blocks, unsigned threads, void *stream, void **arguments) {
    return CU(cuLaunchKernel, function, blocks, 1, 1, threads, 1, 1, 0, stream, arguments, NULL);
}

UNUSED static void add_one(const Device *device, uint64_t words, uint32_t count, void *stream) {
    void *arguments[] = {&words, &count};
    MUST(launch(device->add_one, (count + 127) / 128, 128, stream, arguments));
}

// Starts a kernel that does not end by itself; returns the word that would end it.
UNUSED static uint64_t run_for_ever(const Device *device, void *stream) {
    uint64_t word = allocate(4);
    void *arguments[] = {&word};
    MUST(CU(cuMemsetD32_v2, word, 0, (size_t)1));
    MUST(CU(cuCtxSynchronize)); // what ends it comes in another stream, and must come later
    MUST(launch(device->wait_for, 1, 1, stream, arguments));
    return word;
}

// Ends it. The calling thread needs a current context.
UNUSED static void end_the_kernel(uint64_t word) {
    void *stream;
    MUST(CU(cuStreamCreate, &stream, 1));
    MUST(CU(cuMemsetD32Async, word, 1, (size_t)1, stream));
    MUST(CU(cuStreamSynchronize, stream));
}

// Adds up there and back again, and checks every word.
UNUSED static void work(const Device *device, uint32_t count, int times) {
    size_t bytes = 4 * (size_t)count;
    uint32_t *host = malloc(bytes);
    uint64_t words = allocate(bytes);
    for (uint32_t i = 0; i < count; ++i) host[i] = i;
    for (int round = 0; round < times; ++round) {
        MUST(CU(cuMemcpyHtoD_v2, words, host, bytes));
        add_one(device, words, count, NULL);
        MUST(CU(cuCtxSynchronize));
        MUST(CU(cuMemcpyDtoH_v2, host, words, bytes));
    }
    for (uint32_t i = 0; i < count; ++i) EXPECT(host[i] == i + (uint32_t)times);
    MUST(CU(cuMemFree_v2, words));
    free(host);
}

UNUSED static void say(const char *line) {
    puts(line);
    fflush(stdout);
}

// Waits for a child and ends the program unless it ended with 0.
UNUSED static void expect_well(pid_t child) {
    int status;
    EXPECT(child > 0);
    EXPECT(waitpid(child, &status, 0) == child);
    if (status != 0) printf("the child ended with %#x\n", status);
    EXPECT(status == 0);
}

// Reads one byte, which means: go on. At the end of input too.
UNUSED static void wait_for_word(void) {
    char byte;
    while (read(0, &byte, 1) < 0 && errno == EINTR) {
    }
}
