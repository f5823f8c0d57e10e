// Shared memory whose size is given at launch, beside static shared memory, up to and beyond the 48 KiB
// that need no asking.
#include "expect.h"

__global__ void reverse(const int *in, int *out, int n) {
    extern __shared__ int buffer[];
    __shared__ volatile int sign; // volatile: the compiler would fold it away
    if (threadIdx.x == 0) sign = -1;
    for (int i = threadIdx.x; i < n; i += blockDim.x) buffer[i] = in[blockIdx.x * n + i];
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) out[blockIdx.x * n + i] = sign * buffer[n - 1 - i];
}

__global__ void two_views(double *out) {
    extern __shared__ __align__(16) unsigned char raw[];
    double *real = (double *)raw;
    unsigned short *small = (unsigned short *)(raw + 32 * sizeof(double));
    real[threadIdx.x] = threadIdx.x * 0.5;
    small[threadIdx.x] = (unsigned short)(threadIdx.x * 100);
    __syncthreads();
    out[threadIdx.x] = real[31 - threadIdx.x] + small[(threadIdx.x + 1) % 32];
}

void check(int n, int blocks, cudaError_t wanted) {
    std::vector<int> in(n * blocks), reversed(n * blocks);
    for (int b = 0; b < blocks; ++b)
        for (int i = 0; i < n; ++i) {
            in[b * n + i] = b * 100000 + i;
            reversed[b * n + n - 1 - i] = -(b * 100000 + i);
        }
    DeviceArray<int> source(in), out(n * blocks);
    reverse<<<blocks, 128, n * sizeof(int)>>>(source, out, n);
    char what[48];
    snprintf(what, sizeof what, "%zu bytes of shared memory", n * sizeof(int));
    expect_error(what, wanted, cudaGetLastError());
    if (wanted == cudaSuccess) expect_same("reversed", reversed, out.read());
}

int main() {
    check(10, 3, cudaSuccess);
    check(1000, 7, cudaSuccess);
    check(12000, 2, cudaSuccess);
    check(14000, 2, cudaErrorInvalidValue);
    MUST(cudaFuncSetAttribute(reverse, cudaFuncAttributeMaxDynamicSharedMemorySize, 60000));
    check(14000, 2, cudaSuccess);
    expect_error("asking for more than there is", cudaErrorInvalidValue,
                 cudaFuncSetAttribute(reverse, cudaFuncAttributeMaxDynamicSharedMemorySize, 10 << 20));
    cudaGetLastError();

    cudaFuncAttributes attributes;
    MUST(cudaFuncGetAttributes(&attributes, reverse));
    // Whether the alignment of the dynamic part counts is the driver's choice.
    expect("a word of static shared memory", attributes.sharedSizeBytes >= 4 && attributes.sharedSizeBytes <= 16);
    expect_equal("dynamic shared bytes", 60000, attributes.maxDynamicSharedSizeBytes);

    DeviceArray<double> out(32);
    two_views<<<1, 32, 32 * (sizeof(double) + sizeof(short))>>>(out);
    MUST(cudaGetLastError());
    std::vector<double> wanted(32);
    for (int i = 0; i < 32; ++i) wanted[i] = (31 - i) * 0.5 + (i + 1) % 32 * 100;
    expect_same("two views of one buffer", wanted, out.read());
    return verdict();
}
