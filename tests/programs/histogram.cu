// Counts bytes with atomics in global memory and, through a histogram of each block's own, in shared memory.
#include "expect.h"

__global__ void count_global(const unsigned char *text, unsigned *bins, int n) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        atomicAdd(&bins[text[i]], 1u);
}

__global__ void count_shared(const unsigned char *text, unsigned *bins, int n) {
    __shared__ unsigned mine[256];
    for (int bin = threadIdx.x; bin < 256; bin += blockDim.x) mine[bin] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        atomicAdd(&mine[text[i]], 1u);
    __syncthreads();
    for (int bin = threadIdx.x; bin < 256; bin += blockDim.x) atomicAdd(&bins[bin], mine[bin]);
}

int main() {
    const int n = 1 << 18;
    std::vector<unsigned char> text(n);
    std::vector<unsigned> bins(256), zero(256);
    Random random(5);
    for (unsigned char &c : text) {
        unsigned spread = random.next() % 200;
        c = (unsigned char)(spread * random.next() % 251);
        ++bins[c];
    }
    DeviceArray<unsigned char> in(text);
    DeviceArray<unsigned> global(zero), shared(zero);
    count_global<<<8, 256>>>(in, global, n);
    MUST(cudaGetLastError());
    count_shared<<<16, 128>>>(in, shared, n);
    MUST(cudaGetLastError());
    expect_same("global bins", bins, global.read());
    expect_same("shared bins", bins, shared.read());
    return verdict();
}
