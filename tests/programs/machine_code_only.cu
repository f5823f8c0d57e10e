// Built without PTX, for one device only: on any other the launch finds no image, and says so.
// nvcc: -gencode arch=compute_75,code=sm_75
#include "expect.h"

__global__ void set(int *out) { *out = 5; }

int main() {
    int *out = nullptr, major = 0, minor = 0;
    MUST(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
    MUST(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0));
    MUST(cudaMalloc(&out, sizeof(int)));
    set<<<1, 1>>>(out);
    if (major == 7 && minor >= 5) expect_error("launch", cudaSuccess, cudaGetLastError());
    else expect_error("launch", cudaErrorNoKernelImageForDevice, cudaGetLastError());
    MUST(cudaFree(out));
    return verdict();
}
