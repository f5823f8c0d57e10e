// Throws the device's context away and starts over: module variables have their first values again.
#include "expect.h"

__device__ int counter = 5;

__global__ void count(int *out) { *out = ++counter; }

int run() {
    int *device = nullptr, host = 0;
    MUST(cudaMalloc(&device, sizeof(int)));
    count<<<1, 1>>>(device);
    MUST(cudaGetLastError());
    MUST(cudaMemcpy(&host, device, sizeof(int), cudaMemcpyDeviceToHost));
    MUST(cudaFree(device));
    return host;
}

int main() {
    expect_equal("first", 6, run());
    expect_equal("second", 7, run());
    int *kept = nullptr;
    MUST(cudaMalloc(&kept, 1 << 20));
    MUST(cudaDeviceReset());
    expect_equal("after a reset", 6, run());
    expect_error("memory of before", cudaErrorInvalidValue, cudaFree(kept));
    cudaGetLastError();
    MUST(cudaDeviceReset());
    MUST(cudaDeviceReset());
    expect_equal("and again", 6, run());
    return verdict();
}
