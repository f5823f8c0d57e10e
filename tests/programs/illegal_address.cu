// A kernel that writes where nothing is: the error appears when the program waits, sticks to every later
// call, and does not end the process.
#include "expect.h"

__global__ void write(int *where) { *where = 1; }

int main() {
    int *data = nullptr;
    MUST(cudaMalloc(&data, 16));
    int *managed = nullptr, *mapped = nullptr, *seen = nullptr;
    MUST(cudaMallocManaged(&managed, 16));
    MUST(cudaHostAlloc(&mapped, 16, cudaHostAllocMapped));
    MUST(cudaHostGetDevicePointer(&seen, mapped, 0));
    write<<<1, 1>>>(data);
    write<<<1, 1>>>(managed);
    write<<<1, 1>>>(seen);
    MUST(cudaDeviceSynchronize());
    write<<<1, 1>>>((int *)0x123450);
    expect_error("launch", cudaSuccess, cudaGetLastError());
    expect_error("synchronize", cudaErrorIllegalAddress, cudaDeviceSynchronize());
    void *more = nullptr;
    int host = 0;
    expect_error("malloc", cudaErrorIllegalAddress, cudaMalloc(&more, 16));
    expect_error("copy", cudaErrorIllegalAddress, cudaMemcpy(&host, data, 4, cudaMemcpyDeviceToHost));
    write<<<1, 1>>>(data);
    expect_error("launch after it", cudaErrorIllegalAddress, cudaGetLastError());
    expect_error("free", cudaErrorIllegalAddress, cudaFree(data));
    // Memory of the host that the failed device shared is gone all the same.
    expect_error("free managed memory", cudaErrorIllegalAddress, cudaFree(managed));
    expect_error("free mapped memory", cudaErrorIllegalAddress, cudaFreeHost(mapped));
    expect_error("synchronize after that", cudaErrorIllegalAddress, cudaDeviceSynchronize());
    return verdict();
}
