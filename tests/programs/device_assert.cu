// An assertion that fails on the device: its message, the error that sticks to the context from then on, and what
// becomes of the process after a reset.
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

    // A reset may end the failed context or not; whichever it is, the process goes on.
    cudaDeviceReset();
    cudaGetLastError();
    cudaError_t again = cudaMalloc(&data, sizeof(int));
    if (again == cudaSuccess) {
        set<<<1, 1>>>(data);
        MUST(cudaMemcpy(&host, data, sizeof(int), cudaMemcpyDeviceToHost));
        check<<<1, 32>>>(32);
        MUST(cudaDeviceSynchronize());
        MUST(cudaFree(data));
    }
    expect("works again or fails as before", (again == cudaSuccess && host == 5) || again == cudaErrorAssert);
    return verdict();
}
