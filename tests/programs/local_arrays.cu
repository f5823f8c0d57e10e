// Arrays of each thread's own, indexed by computed numbers, passed by address, and mixed with addresses in
// other kinds of memory.
#include "expect.h"

__device__ __noinline__ long long sum(const int *values, int count) {
    long long total = 0;
    for (int i = 0; i < count; ++i) total += values[i];
    return total;
}

__global__ void sieve(int *counts, const int *limits) {
    bool composite[256];
    int limit = limits[threadIdx.x];
    for (int i = 0; i < limit; ++i) composite[i] = false;
    int primes = 0;
    for (int i = 2; i < limit; ++i) {
        if (composite[i]) continue;
        ++primes;
        for (int j = i * i; j < limit; j += i) composite[j] = true;
    }
    counts[threadIdx.x] = primes;
}

__global__ void any_space(const int *global, long long *out, int selector) {
    __shared__ int shared[16];
    int local[16];
    int i = threadIdx.x;
    if (i < 16) shared[i] = i * 100;
    for (int k = 0; k < 16; ++k) local[k] = i * k;
    __syncthreads();
    // The same loads read another memory in every third lane.
    const int *source = (i + selector) % 3 == 0 ? global : (i + selector) % 3 == 1 ? shared : local;
    out[i] = sum(source, 16);
}

__global__ void shuffle_bytes(unsigned char *out, unsigned seed) {
    unsigned char deck[64];
    for (int i = 0; i < 64; ++i) deck[i] = (unsigned char)i;
    unsigned state = seed + threadIdx.x;
    for (int i = 63; i > 0; --i) {
        state = state * 1664525u + 1013904223u;
        int j = int((state >> 8) % (i + 1));
        unsigned char swap = deck[i];
        deck[i] = deck[j];
        deck[j] = swap;
    }
    for (int i = 0; i < 64; ++i) out[threadIdx.x * 64 + i] = deck[i];
}

int main() {
    std::vector<int> limits(100), counts(100), sixteen(16);
    for (int t = 0; t < 100; ++t) {
        limits[t] = 2 + t * 254 / 99;
        for (int i = 2; i < limits[t]; ++i) {
            bool prime = true;
            for (int j = 2; j * j <= i; ++j) prime &= i % j != 0;
            counts[t] += prime;
        }
    }
    DeviceArray<int> device_limits(limits), primes(100);
    sieve<<<1, 100>>>(primes, device_limits);
    MUST(cudaGetLastError());
    expect_same("primes", counts, primes.read());

    for (int i = 0; i < 16; ++i) sixteen[i] = i + 1000;
    DeviceArray<int> global(sixteen);
    DeviceArray<long long> sums(64);
    for (int selector = 0; selector < 3; ++selector) {
        any_space<<<1, 64>>>(global, sums, selector);
        MUST(cudaGetLastError());
        std::vector<long long> wanted(64);
        for (int i = 0; i < 64; ++i) {
            int kind = (i + selector) % 3;
            wanted[i] = kind == 0 ? 16120 : kind == 1 ? 12000 : i * 120;
        }
        expect_same("sums from any memory", wanted, sums.read());
    }

    std::vector<unsigned char> decks(32 * 64);
    for (unsigned t = 0; t < 32; ++t) {
        unsigned char *deck = &decks[t * 64];
        for (int i = 0; i < 64; ++i) deck[i] = (unsigned char)i;
        unsigned state = 9 + t;
        for (int i = 63; i > 0; --i) {
            state = state * 1664525u + 1013904223u;
            std::swap(deck[i], deck[(state >> 8) % (i + 1)]);
        }
    }
    DeviceArray<unsigned char> out(32 * 64);
    shuffle_bytes<<<1, 32>>>(out, 9);
    MUST(cudaGetLastError());
    expect_same("shuffled bytes", decks, out.read());
    return verdict();
}
