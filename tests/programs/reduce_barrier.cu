// Sums by a tree in shared memory with a barrier at each level, for block sizes that are and are not
// powers of two, and barriers that count and vote.
#include "expect.h"

__global__ void sum_blocks(const int *in, long long *out, int n) {
    extern __shared__ long long partial[];
    long long mine = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) mine += in[i];
    partial[threadIdx.x] = mine;
    __syncthreads();
    for (unsigned width = blockDim.x; width > 1;) {
        unsigned half = (width + 1) / 2;
        if (threadIdx.x < width / 2) partial[threadIdx.x] += partial[threadIdx.x + half];
        __syncthreads();
        width = half;
    }
    if (threadIdx.x == 0) out[blockIdx.x] = partial[0];
}

__global__ void vote(const int *in, int *counts) {
    int value = in[blockIdx.x * blockDim.x + threadIdx.x];
    int odd = __syncthreads_count(value & 1);
    int all = __syncthreads_and(value > 0);
    int any = __syncthreads_or(value > 900);
    if (threadIdx.x == 0) {
        counts[blockIdx.x * 3] = odd;
        counts[blockIdx.x * 3 + 1] = all != 0;
        counts[blockIdx.x * 3 + 2] = any != 0;
    }
}

int main() {
    const int n = 200001;
    std::vector<int> numbers(n);
    Random random(3);
    long long total = 0;
    for (int &x : numbers) {
        x = int(random.next() % 1001);
        total += x;
    }
    DeviceArray<int> in(numbers);
    for (int threads : {32, 96, 256, 1000, 1024}) {
        const int blocks = 13;
        DeviceArray<long long> out(blocks);
        sum_blocks<<<blocks, threads, threads * sizeof(long long)>>>(in, out, n);
        MUST(cudaGetLastError());
        long long found = 0;
        for (long long part : out.read()) found += part;
        char what[40];
        snprintf(what, sizeof what, "sum with %d threads", threads);
        expect_equal(what, total, found);
    }

    const int blocks = 5, threads = 100;
    std::vector<int> counts(blocks * 3);
    for (int b = 0; b < blocks; ++b) {
        counts[b * 3 + 1] = 1;
        for (int t = 0; t < threads; ++t) {
            int value = numbers[b * threads + t];
            counts[b * 3] += value & 1;
            counts[b * 3 + 1] &= value > 0;
            counts[b * 3 + 2] |= value > 900;
        }
    }
    DeviceArray<int> found(blocks * 3);
    vote<<<blocks, threads>>>(in, found);
    MUST(cudaGetLastError());
    expect_same("barrier votes", counts, found.read());
    return verdict();
}
