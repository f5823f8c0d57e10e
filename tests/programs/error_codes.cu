// What each wrong call answers, that the answer is kept for cudaGetLastError, and that it harms nothing.
#include "expect.h"

__global__ void set(int *out) { *out = 5; }

void refused(const char *what, cudaError_t wanted, cudaError_t got) {
    expect_error(what, wanted, got);
    expect_error("  kept", wanted, cudaGetLastError());
}

int main() {
    int count = 0, device = -1;
    MUST(cudaGetDeviceCount(&count));
    expect("there is a device", count > 0);
    refused("device 9999", cudaErrorInvalidDevice, cudaSetDevice(9999));
    refused("device -1", cudaErrorInvalidDevice, cudaSetDevice(-1));
    MUST(cudaGetDevice(&device));
    expect_equal("current device", 0, device);

    cudaDeviceProp properties;
    refused("properties of device 9999", cudaErrorInvalidDevice, cudaGetDeviceProperties(&properties, 9999));
    int value;
    refused("attribute 9999", cudaErrorInvalidValue, cudaDeviceGetAttribute(&value, (cudaDeviceAttr)9999, 0));
    refused("malloc into nothing", cudaErrorInvalidValue, cudaMalloc((void **)nullptr, 16));
    void *none = (void *)1;
    expect_error("malloc of nothing", cudaSuccess, cudaMalloc(&none, 0));
    expect("gives no address", none == nullptr);
    expect_error("free of nothing", cudaSuccess, cudaFree(nullptr));

    int *data = nullptr;
    MUST(cudaMalloc(&data, 64));
    MUST(cudaFree(data));
    refused("double free", cudaErrorInvalidValue, cudaFree(data));
    int on_stack = 0;
    refused("free of a host address", cudaErrorInvalidValue, cudaFree(&on_stack));
    MUST(cudaMalloc(&data, 64));
    refused("free of an inner address", cudaErrorInvalidValue, cudaFree(data + 1));
    refused("copy in no direction", cudaErrorInvalidMemcpyDirection,
            cudaMemcpy(data, &on_stack, 4, (cudaMemcpyKind)77));
    refused("copy from nowhere", cudaErrorInvalidValue, cudaMemcpy(data, nullptr, 4, cudaMemcpyHostToDevice));
    refused("copy beyond the end", cudaErrorInvalidValue,
            cudaMemcpy(data, std::vector<char>(4096 * 1024).data(), 4096 * 1024, cudaMemcpyHostToDevice));
    refused("set beyond the end", cudaErrorInvalidValue, cudaMemset(data, 0, 4096 * 1024));
    refused("events of no kind", cudaErrorInvalidValue, cudaEventCreateWithFlags((cudaEvent_t *)&none, 0x1000));
    refused("streams of no kind", cudaErrorInvalidValue, cudaStreamCreateWithFlags((cudaStream_t *)&none, 0x1000));
    refused("free of pinned memory that is none", cudaErrorInvalidValue, cudaFreeHost(&on_stack));

    // Streams, events and functions.
    cudaEvent_t event, untimed;
    MUST(cudaEventCreate(&event));
    MUST(cudaEventCreateWithFlags(&untimed, cudaEventDisableTiming));
    float milliseconds = 0;
    refused("a stream into nothing", cudaErrorInvalidValue, cudaStreamCreate(nullptr));
    refused("an event into nothing", cudaErrorInvalidValue, cudaEventCreate(nullptr));
    refused("no event recorded", cudaErrorInvalidResourceHandle, cudaEventRecord(nullptr));
    refused("no event waited for", cudaErrorInvalidResourceHandle, cudaStreamWaitEvent(0, nullptr, 0));
    MUST(cudaEventRecord(event));
    MUST(cudaEventRecord(untimed));
    MUST(cudaDeviceSynchronize());
    refused("time to an event that takes none", cudaErrorInvalidResourceHandle,
            cudaEventElapsedTime(&milliseconds, event, untimed));
    refused("time into nothing", cudaErrorInvalidValue, cudaEventElapsedTime(nullptr, event, event));
    refused("no host function", cudaErrorInvalidValue, cudaLaunchHostFunc(0, nullptr, nullptr));
    cudaFuncAttributes attributes;
    refused("attributes into nothing", cudaErrorInvalidValue, cudaFuncGetAttributes(nullptr, set));

    // Shapes and host memory.
    std::vector<char> rows(4096);
    refused("rows longer than their pitch", cudaErrorInvalidPitchValue,
            cudaMemcpy2D(data, 8, rows.data(), 64, 16, 2, cudaMemcpyHostToDevice));
    refused("a pitch into nothing", cudaErrorInvalidValue, cudaMallocPitch((void **)nullptr, nullptr, 64, 2));
    refused("pinned memory into nothing", cudaErrorInvalidValue, cudaHostAlloc(nullptr, 64, cudaHostAllocDefault));
    refused("pinned memory of no kind", cudaErrorInvalidValue, cudaHostAlloc(&none, 64, 0x1000));
    refused("unregistered memory", cudaErrorHostMemoryNotRegistered, cudaHostUnregister(rows.data()));
    refused("an attribute of device 9999", cudaErrorInvalidDevice,
            cudaDeviceGetAttribute(&value, cudaDevAttrWarpSize, 9999));

    // An error is kept until it is asked for, over calls that succeed and looks that leave it.
    expect_error("an error", cudaErrorInvalidValue, cudaMalloc((void **)nullptr, 16));
    MUST(cudaMemset(data, 0, 64));
    expect_error("  kept over a call that succeeds", cudaErrorInvalidValue, cudaPeekAtLastError());
    expect_error("another", cudaErrorInvalidDevice, cudaSetDevice(9999));
    expect_error("  takes its place", cudaErrorInvalidDevice, cudaPeekAtLastError());
    expect_error("  and is still there", cudaErrorInvalidDevice, cudaGetLastError());
    expect_error("  once", cudaSuccess, cudaGetLastError());
    MUST(cudaEventDestroy(event));
    MUST(cudaEventDestroy(untimed));

    printf("%s: %s\n", cudaGetErrorName(cudaErrorMemoryAllocation), cudaGetErrorString(cudaErrorMemoryAllocation));
    printf("%s: %s\n", cudaGetErrorName((cudaError_t)123456), cudaGetErrorString((cudaError_t)123456));

    set<<<1, 1>>>(data);
    MUST(cudaGetLastError());
    MUST(cudaMemcpy(&on_stack, data, 4, cudaMemcpyDeviceToHost));
    expect_equal("the device still works", 5, on_stack);
    MUST(cudaFree(data));
    return verdict();
}
