// A kernel that writes where nothing is: the error appears when the program waits, sticks to every later
// call, and does not end the process.
#include "expect.h"

__global__ void write(int *where) { *where = 1; }

int main() {
    int *data = nullptr;
    MUST(cudaMalloc(&data, 16));
    write<<<1, 1>>>(data);
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
    return verdict();
}
