// An assertion that fails on the device: the error that sticks to the context from then on.
#undef NDEBUG
#include "expect.h"

#include <cassert>

__global__ void check(int limit) { assert(int(threadIdx.x) < limit); }

int main() {
    check<<<1, 32>>>(32);
    MUST(cudaDeviceSynchronize());
    check<<<1, 32>>>(31);
    expect_error("launch", cudaSuccess, cudaGetLastError());
    expect_error("synchronize", cudaErrorAssert, cudaDeviceSynchronize());
    void *data = nullptr;
    expect_error("a later call", cudaErrorAssert, cudaMalloc(&data, 16));
    return verdict();
}
