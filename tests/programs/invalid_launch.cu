// Launches that cannot be: each is refused with its own error, the error is reported once, and a good launch
// after them works.
#include "expect.h"

__global__ void fill(int *out, int value) { out[blockIdx.x * blockDim.x + threadIdx.x] = value; }

__global__ void __launch_bounds__(64) bounded(int *out) { out[threadIdx.x] = 1; }

// The runtime of CUDA 12 has a code of its own for what the driver calls an invalid value.
const cudaError_t impossible = CUDART_VERSION < 13000 ? cudaErrorInvalidConfiguration : cudaErrorInvalidValue;

void refused(const char *what, cudaError_t wanted) {
    expect_error(what, wanted, cudaGetLastError());
    expect_error("  and then", cudaSuccess, cudaGetLastError());
}

int main() {
    DeviceArray<int> out(256);
    fill<<<1, 1025>>>(out, 1);
    refused("1025 threads", impossible);
    fill<<<1, dim3(32, 32, 2)>>>(out, 1);
    refused("32x32x2 threads", impossible);
    fill<<<1, dim3(1, 1, 65)>>>(out, 1);
    refused("a block 65 deep", impossible);
    fill<<<1, dim3(1u << 31, 1u << 31, 1u << 31)>>>(out, 1);
    refused("more threads than a number holds", impossible);
    fill<<<1, 0>>>(out, 1);
    refused("no threads", impossible);
    fill<<<0, 32>>>(out, 1);
    refused("no blocks", impossible);
    fill<<<dim3(1, 65536), 32>>>(out, 1);
    refused("a grid 65536 high", impossible);
    fill<<<1, 32, 1 << 20>>>(out, 1);
    refused("a megabyte of shared memory", cudaErrorInvalidValue);
    expect_error("a launch without a function", cudaErrorInvalidResourceHandle,
                 cudaLaunchKernel((const void *)&refused, dim3(1), dim3(1), nullptr, 0, nullptr));
    expect_error("  peeked", cudaErrorInvalidResourceHandle, cudaPeekAtLastError());
    expect_error("  taken", cudaErrorInvalidResourceHandle, cudaGetLastError());
    expect_error("  gone", cudaSuccess, cudaGetLastError());
    bounded<<<1, 65>>>(out);
    // Two errors are documented for this, and which one comes is the driver's choice.
    expect("65 threads of at most 64 are refused", cudaGetLastError() != cudaSuccess);

    fill<<<2, 128>>>(out, 42);
    expect_error("a good launch", cudaSuccess, cudaGetLastError());
    expect_error("and its end", cudaSuccess, cudaDeviceSynchronize());
    expect_same("its result", std::vector<int>(256, 42), out.read());
    return verdict();
}
