// Contexts beside the runtime's, which come and go.
#pragma once

#include "expect.h"

#include <cuda.h>
#include <dlfcn.h>

#define MUST_DRIVER(call)                                                                          \
    do {                                                                                           \
        CUresult must_result = (call);                                                             \
        if (must_result != CUDA_SUCCESS) {                                                         \
            printf("%s:%d: %s failed with %d\n", __FILE_NAME__, __LINE__, #call, must_result);     \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

template <typename Function>
Function *driver_function(const char *name) {
    static void *library = dlopen("libcuda.so.1", RTLD_NOW);
    auto found = reinterpret_cast<Function *>(dlsym(library, name));
    if (!found) {
        printf("the driver has no %s\n", name);
        exit(1);
    }
    return found;
}

// A context of the first device, which is current in this thread until it ends.
class OtherContext {
  public:
    OtherContext() {
        auto create = driver_function<CUresult(CUcontext *, unsigned, CUdevice)>("cuCtxCreate_v2");
        MUST_DRIVER(create(&context, 0, 0));
    }
    // This thread's context is what it was before; this one is there still.
    void leave() {
        CUcontext left;
        MUST_DRIVER(driver_function<CUresult(CUcontext *)>("cuCtxPopCurrent_v2")(&left));
    }
    void end() { MUST_DRIVER(driver_function<CUresult(CUcontext)>("cuCtxDestroy_v2")(context)); }

  private:
    CUcontext context;
};
