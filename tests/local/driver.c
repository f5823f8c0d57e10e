// A small driver that knows little: less than the headers in some places, more in one. What it is called
// with shows in what it answers.
#include <stdio.h>
#include <string.h>

int cuInit(unsigned flags) { return flags == 0 ? 0 : 1; }

int cuDriverGetVersion(int *version) {
    *version = 13990;
    return 0;
}

// More arguments than registers, in two kinds of which only the order says which they are.
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **parameters, void **extra) {
    printf("%ld %u %u %u %u %u %u %u %ld %ld %ld\n", (long)function, gx, gy, gz, bx, by, bz, shared, (long)stream,
           (long)parameters, (long)extra);
    fflush(stdout);
    return 700;
}

int cuTexRefSetMipmapLevelClamp(void *reference, float least, float most) {
    printf("%ld %.2f %.2f\n", (long)reference, least, most);
    fflush(stdout);
    return 701;
}

int cuStreamSynchronize(void *stream) { return stream ? 400 : 0; }

int cuCtxGetDevice(int *device) { return *device = 0; }

int cuCtxGetCurrent(void **context) {
    *context = (void *)0x10;
    return 0;
}

int cuArrayCreate_v2(void **array, const void *shape) {
    static long made = 0x1000;
    *array = (void *)(made += 0x10);
    return shape ? 0 : 1;
}

int cuArrayDestroy(void *array) { return array ? 0 : 400; }

// Only a build for graphics has its types, so only its name is known.
int cuGLInit(void) { return 702; }

// Exported, and handed out at another address than the exported one.
int cuMemAlloc_v2(unsigned long long *address, size_t bytes) {
    *address = bytes;
    return 703;
}
static int inner_mem_alloc(unsigned long long *address, size_t bytes) { return cuMemAlloc_v2(address, bytes); }

static int from_the_future(int number) { return number + 1; }

int cuGetProcAddress_v2(const char *name, void **function, int version, unsigned long long flags, int *status) {
    struct { const char *name; int since; void *function; } known[] = {
        {"cuInit", 2000, (void *)cuInit},
        {"cuLaunchKernel", 4000, (void *)cuLaunchKernel},
        {"cuMemAlloc", 3020, (void *)inner_mem_alloc},
        {"cuMemAlloc", 13800, (void *)from_the_future},
        {"cuFromTheFuture", 13800, (void *)from_the_future},
    };
    *function = NULL;
    int found = 1, code = 500;  // CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND, CUDA_ERROR_NOT_FOUND
    for (size_t i = 0; i < sizeof known / sizeof *known; ++i) {
        if (strcmp(known[i].name, name) != 0) continue;
        if (known[i].since <= version) *function = known[i].function, found = 0, code = 0;
        else if (found) found = 2;  // CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT
    }
    if (status) *status = found;
    return code;
}
