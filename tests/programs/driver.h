// The driver API without the runtime: found with dlopen, as runtimes and language bindings find it, or linked
// with -lcuda when LINKED is defined.
#pragma once

#include <cuda.h>

#ifndef LINKED
#include <dlfcn.h>
#endif

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

// The functions the programs use. cuda.h turns a name into that of its current version.
#define DRIVER_FUNCTIONS(X)                                                                        \
    X(cuInit) X(cuDriverGetVersion) X(cuGetErrorName) X(cuGetErrorString)                          \
    X(cuDeviceGetCount) X(cuDeviceGet) X(cuDeviceGetName) X(cuDeviceGetAttribute)                  \
    X(cuDeviceTotalMem) X(cuDevicePrimaryCtxRetain) X(cuDevicePrimaryCtxRelease)                   \
    X(cuDevicePrimaryCtxReset) X(cuDevicePrimaryCtxGetState) X(cuCtxSetCurrent) X(cuCtxGetCurrent) X(cuCtxPushCurrent)        \
    X(cuCtxPopCurrent) X(cuCtxGetDevice) X(cuCtxSynchronize) X(cuModuleLoadData)                   \
    X(cuModuleLoadDataEx) X(cuModuleUnload) X(cuModuleGetFunction) X(cuModuleGetGlobal)            \
    X(cuFuncGetAttribute) X(cuFuncLoad) X(cuFuncIsLoaded) X(cuMemAlloc) X(cuMemFree) X(cuMemcpyHtoD) X(cuMemcpyDtoH)               \
    X(cuMemcpyDtoD) X(cuMemcpy2D) X(cuMemcpy3D) X(cuMemsetD32) X(cuMemsetD8) X(cuMemGetInfo) X(cuMemGetAddressRange)           \
    X(cuLaunchKernel) X(cuStreamCreate) X(cuStreamSynchronize) X(cuStreamDestroy) X(cuStreamQuery) \
    X(cuEventCreate) X(cuEventRecord) X(cuEventSynchronize) X(cuEventElapsedTime)                  \
    X(cuEventDestroy) X(cuMemcpyHtoDAsync) X(cuMemcpyDtoHAsync) X(cuGetProcAddress)                \
    X(cuPointerGetAttribute) X(cuLinkCreate) X(cuLinkAddData) X(cuLinkComplete) X(cuLinkDestroy)

struct Driver {
#define DECLARE(name) decltype(&::name) name;
    DRIVER_FUNCTIONS(DECLARE)
#undef DECLARE
};

#define NAME_OF_EXPANDED(name) #name
#define NAME_OF(name) NAME_OF_EXPANDED(name)

inline Driver find_driver() {
    Driver found;
#ifdef LINKED
#define FIND(name) found.name = &::name;
    DRIVER_FUNCTIONS(FIND)
#else
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    if (!library) {
        printf("no driver: %s\n", dlerror());
        exit(1);
    }
#define FIND(name)                                                                                 \
    found.name = reinterpret_cast<decltype(&::name)>(dlsym(library, NAME_OF(name)));               \
    if (!found.name) {                                                                             \
        printf("the driver has no " NAME_OF(name) "\n");                                           \
        exit(1);                                                                                   \
    }
    DRIVER_FUNCTIONS(FIND)
#endif
#undef FIND
    return found;
}

inline Driver driver = find_driver();
inline int wrong_count = 0;

inline const char *name_of(CUresult result) {
    const char *name = nullptr;
    driver.cuGetErrorName(result, &name);
    return name ? name : "an unknown error";
}

#define MUST(call)                                                                                 \
    do {                                                                                           \
        CUresult must_result = driver.call;                                                        \
        if (must_result != CUDA_SUCCESS) {                                                         \
            printf("%s:%d: %s failed with %s\n", __FILE_NAME__, __LINE__, #call,                   \
                   name_of(must_result));                                                          \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

inline void expect_result(const char *what, CUresult wanted, CUresult got) {
    printf("%s: %s\n", what, name_of(got));
    if (got != wanted) {
        printf("  WRONG: expected %s\n", name_of(wanted));
        ++wrong_count;
    }
}

inline void expect(const char *what, bool holds) {
    printf("%s: %s\n", what, holds ? "yes" : "NO");
    if (!holds) ++wrong_count;
}

inline void expect_equal(const char *what, long long wanted, long long got) {
    printf("%s: %lld\n", what, got);
    if (got != wanted) {
        printf("  WRONG: expected %lld\n", wanted);
        ++wrong_count;
    }
}

inline int verdict() {
    if (wrong_count == 0) printf("passed\n");
    else printf("FAILED: %d wrong\n", wrong_count);
    return wrong_count == 0 ? 0 : 1;
}
