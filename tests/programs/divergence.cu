// Threads of one warp that part: nested branches, loops of different lengths, early returns, breaks and
// continues, switches, and a lock that one lane of the warp holds while the others want it.
#include "expect.h"

__host__ __device__ unsigned collatz(unsigned n) {
    unsigned steps = 0;
    while (n != 1) {
        n = n % 2 ? 3 * n + 1 : n / 2;
        ++steps;
    }
    return steps;
}

__host__ __device__ int mixed(int i) {
    int value = 0;
    for (int k = 0; k < i % 13; ++k) {
        if (k == 7) break;
        if ((k + i) % 3 == 0) continue;
        switch ((i + k) % 6) {
        case 0: value += 1; break;
        case 1: value *= 2; // falls through
        case 2: value += 3; break;
        case 4:
            for (int j = 0; j < (i & 3); ++j) value += j * k;
            break;
        default: value ^= i;
        }
        if (value > 500) return -value;
    }
    return i % 5 == 0 ? value : value + i;
}

__global__ void paths(unsigned *lengths, int *values, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    lengths[i] = collatz(i + 1);
    values[i] = mixed(i);
}

// Each thread takes the lock in turn. On independent thread scheduling this ends whichever lane gets it first.
__global__ void locked(int *lock, int *counter) {
    bool done = false;
    while (!done) {
        if (atomicCAS(lock, 0, 1) == 0) {
            *(volatile int *)counter += 1;
            __threadfence();
            atomicExch(lock, 0);
            done = true;
        }
    }
}

// Lanes leave one by one; those left still exchange with each other.
__global__ void leaving(int *out) {
    int lane = threadIdx.x;
    int total = 0;
    for (int round = 0; round < 32; ++round) {
        if (lane < round) break;
        unsigned left = 0xffffffffu << round;
        total += __shfl_sync(left, lane * lane, 31);
    }
    out[lane] = total;
}

__global__ void barrier_after_parting(int *out) {
    __shared__ int values[96];
    if (threadIdx.x % 2) values[threadIdx.x] = threadIdx.x * 3;
    else
        for (int i = 0; i <= int(threadIdx.x); ++i) values[threadIdx.x] = i;
    __syncthreads();
    out[threadIdx.x] = values[95 - threadIdx.x];
}

int main() {
    const int n = 5000;
    std::vector<unsigned> lengths(n);
    std::vector<int> values(n);
    for (int i = 0; i < n; ++i) {
        lengths[i] = collatz(i + 1);
        values[i] = mixed(i);
    }
    DeviceArray<unsigned> device_lengths(n);
    DeviceArray<int> device_values(n);
    paths<<<(n + 191) / 192, 192>>>(device_lengths, device_values, n);
    MUST(cudaGetLastError());
    expect_same("loop lengths", lengths, device_lengths.read());
    expect_same("nested paths", values, device_values.read());

    DeviceArray<int> lock(std::vector<int>{0, 0});
    locked<<<3, 96>>>(lock, lock + 1);
    MUST(cudaGetLastError());
    expect_equal("taken under the lock", 288, lock.read()[1]);

    std::vector<int> wanted(32);
    for (int lane = 0; lane < 32; ++lane) wanted[lane] = 961 * (lane + 1);
    DeviceArray<int> out(96);
    leaving<<<1, 32>>>(out);
    MUST(cudaGetLastError());
    std::vector<int> got = out.read();
    got.resize(32);
    expect_same("leaving one by one", wanted, got);

    wanted.resize(96);
    for (int i = 0; i < 96; ++i) wanted[i] = (95 - i) % 2 ? (95 - i) * 3 : 95 - i;
    barrier_after_parting<<<1, 96>>>(out);
    MUST(cudaGetLastError());
    expect_same("a barrier after parting", wanted, out.read());
    return verdict();
}
