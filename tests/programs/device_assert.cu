// An assertion that fails on the device: its message, and the error that sticks to the process from then on, whatever
// it resets.
#undef NDEBUG
#include "expect.h"

#include <cassert>

__global__ void check(int limit) {
    int thread = blockIdx.x * blockDim.x + threadIdx.x;
    assert(thread < limit && "as many as that");
}

__global__ void set(int *out) { *out = 5; }

int main() {
    check<<<4, 32>>>(128);
    MUST(cudaDeviceSynchronize());
    int *data = nullptr, host = 0;
    MUST(cudaMalloc(&data, sizeof(int)));
    check<<<4, 32>>>(126);
    expect_error("launch", cudaSuccess, cudaGetLastError());
    expect_error("synchronize", cudaErrorAssert, cudaDeviceSynchronize());
    expect_error("kept", cudaErrorAssert, cudaPeekAtLastError());
    expect_error("a later call", cudaErrorAssert, cudaMalloc((void **)&data, 16));
    expect_error("a later copy", cudaErrorAssert, cudaMemcpy(&host, data, 4, cudaMemcpyDeviceToHost));
    expect_error("a later wait", cudaErrorAssert, cudaStreamSynchronize(0));
    set<<<1, 1>>>(data);
    expect_error("a later launch", cudaErrorAssert, cudaGetLastError());

    // Only another process finds the device well again; the runtime says so in its own way.
    cudaDeviceReset();
    cudaGetLastError();
    expect_error("the device after a reset", cudaErrorDevicesUnavailable, cudaSetDevice(0));
    return verdict();
}
