// The least that a program does with a device: memory, a copy there, a kernel, and the wait for it.
//
//     first_kernel once    # ends there, as if it were killed: without a look at what came of it
#include "expect.h"

#include <unistd.h>

__global__ void increment(int *numbers, int n) {
    if (int(threadIdx.x) < n) numbers[threadIdx.x] += 1;
}

int main(int count, char **) {
    const int n = 32;
    std::vector<int> numbers(n, 41);
    int *device;
    MUST(cudaMalloc(&device, n * sizeof(int)));
    MUST(cudaMemcpy(device, numbers.data(), n * sizeof(int), cudaMemcpyHostToDevice));
    increment<<<1, n>>>(device, n);
    MUST(cudaGetLastError());
    MUST(cudaDeviceSynchronize());
    if (count > 1) _exit(0);
    MUST(cudaMemcpy(numbers.data(), device, n * sizeof(int), cudaMemcpyDeviceToHost));
    expect_same("one more", std::vector<int>(n, 42), numbers);
    MUST(cudaFree(device));
    return verdict();
}
