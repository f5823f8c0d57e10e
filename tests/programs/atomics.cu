// Every atomic operation in 32 and 64 bits, in global and shared memory, and float sums by compare-and-swap.
#include "expect.h"

typedef unsigned long long wide;

__global__ void narrow_operations(unsigned *g) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(&g[0], i);
    atomicSub(&g[1], 1u);
    atomicMin(&g[2], 1000u - i % 700);
    atomicMax((int *)&g[3], int(i % 800) - 400);
    atomicAnd(&g[4], ~(1u << (i % 7)));
    atomicOr(&g[5], 1u << (i % 32));
    atomicXor(&g[6], i);
    atomicInc(&g[7], 99u);
    atomicDec(&g[8], 49u);
}

__global__ void wide_operations(wide *g) {
    wide i = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(&g[0], i << 32);
    atomicMin((long long *)&g[1], (long long)(i % 500) - 5000000000ll);
    atomicMax(&g[2], i * 10000000000ull);
    atomicAnd(&g[3], ~(1ull << (32 + i % 9)));
    atomicOr(&g[4], 1ull << (i % 64));
    atomicXor(&g[5], i * 0x100000001ull);
}

__global__ void unique_tickets(int *next, int *seen) {
    int ticket = atomicAdd(next, 1);
    seen[ticket] += 1;
}

__device__ float add_by_swap(float *address, float value) {
    unsigned *word = (unsigned *)address, old = *word, assumed;
    do {
        assumed = old;
        old = atomicCAS(word, assumed, __float_as_uint(__uint_as_float(assumed) + value));
    } while (old != assumed);
    return __uint_as_float(old);
}

__global__ void real_sums(float *single, double *twice) {
    __shared__ float block_sum;
    if (threadIdx.x == 0) block_sum = 0;
    __syncthreads();
    atomicAdd(&block_sum, 1.0f);
    __syncthreads();
    if (threadIdx.x == 0) atomicAdd(&single[0], block_sum);
    add_by_swap(&single[1], 0.5f);
    atomicAdd(&twice[0], 0.25);
}

__global__ void exchange(wide *cell, wide *got) {
    int i = threadIdx.x;
    got[i] = atomicExch(cell, wide(i) + 1);
}

int main() {
    const int blocks = 10, threads = 128, n = blocks * threads;
    DeviceArray<unsigned> narrow(std::vector<unsigned>{0, 5000, 0xffffffffu, unsigned(-100000), 0xffffffffu, 0, 0, 0, 0});
    narrow_operations<<<blocks, threads>>>(narrow);
    MUST(cudaGetLastError());
    unsigned x = 0;
    for (int i = 0; i < n; ++i) x ^= i;
    expect_same("32 bits", std::vector<unsigned>{unsigned(n) * (n - 1) / 2, 5000u - n, 301, 399, ~0x7fu, 0xffffffffu, x,
                                                 n % 100, (50 - n % 50) % 50},
                narrow.read());

    DeviceArray<wide> big(std::vector<wide>{0, 0, 0, ~0ull, 0, 0});
    wide_operations<<<blocks, threads>>>(big);
    MUST(cudaGetLastError());
    expect_same("64 bits", std::vector<wide>{wide(n) * (n - 1) / 2 << 32, wide(-5000000000ll), wide(n - 1) * 10000000000ull,
                                             ~(0x1ffull << 32), ~0ull, x * 0x100000001ull},
                big.read());

    DeviceArray<int> next(std::vector<int>{0}), seen(std::vector<int>(n, 0));
    unique_tickets<<<blocks, threads>>>(next, seen);
    MUST(cudaGetLastError());
    expect_same("each ticket once", std::vector<int>(n, 1), seen.read());

    DeviceArray<float> single(std::vector<float>{0, 0});
    DeviceArray<double> twice(std::vector<double>{0});
    real_sums<<<blocks, threads>>>(single, twice);
    MUST(cudaGetLastError());
    expect_near("float sum", n, single.read()[0], 0);
    expect_near("float sum by compare-and-swap", n * 0.5, single.read()[1], 0);
    expect_near("double sum", n * 0.25, twice.read()[0], 0);

    DeviceArray<wide> cell(std::vector<wide>{0}), got(64);
    exchange<<<1, 64>>>(cell, got);
    MUST(cudaGetLastError());
    wide all = cell.read()[0];
    for (wide value : got.read()) all += value;
    expect_equal("nothing lost in exchanges", 64 * 65 / 2, all);
    return verdict();
}
