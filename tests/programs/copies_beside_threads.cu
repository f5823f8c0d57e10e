// A thread's copies wait for its own stream, and keep no other thread from its work: not even from what the stream waits
// for. A program that hangs there is killed by its alarm.
#include "expect.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <unistd.h>

// Until the host has set the flag.
__global__ void wait_for(volatile int *flag) {
    while (*flag == 0) {
    }
}

__global__ void add(int *data, int n, int term) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) data[i] += term;
}

int main() {
    alarm(60);
    const int n = 3 << 20;  // 12 MiB
    int *target, *flag;
    MUST(cudaMalloc(&target, n * sizeof(int)));
    MUST(cudaMalloc(&flag, sizeof(int)));
    MUST(cudaMemset(flag, 0, sizeof(int)));
    cudaStream_t busy, free;
    MUST(cudaStreamCreateWithFlags(&busy, cudaStreamNonBlocking));
    MUST(cudaStreamCreateWithFlags(&free, cudaStreamNonBlocking));
    // A kernel's first launch loads it, for which drivers may wait for others.
    add<<<1, 32, 0, busy>>>(target, 1, 0);
    MUST(cudaDeviceSynchronize());

    std::vector<int> numbers(n), found(n);
    for (int i = 0; i < n; ++i) numbers[i] = 3 * i;
    std::atomic<bool> started{false};
    std::thread other([&] {
        // Known to the driver before the copies are.
        MUST(cudaStreamQuery(free));
        started = true;
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        int one = 1;
        MUST(cudaMemcpyAsync(flag, &one, sizeof one, cudaMemcpyHostToDevice, free));
        MUST(cudaStreamSynchronize(free));
    });
    while (!started) std::this_thread::yield();
    wait_for<<<1, 1, 0, busy>>>(flag);
    MUST(cudaGetLastError());
    // In one piece, and in some of a size that is less than anybody cuts a copy into.
    const int large = n / 2, small = 100000;
    MUST(cudaMemcpyAsync(target, numbers.data(), large * sizeof(int), cudaMemcpyHostToDevice, busy));
    for (int at = large; at < n; at += small) {
        const int count = at + small < n ? small : n - at;
        MUST(cudaMemcpyAsync(target + at, numbers.data() + at, count * sizeof(int), cudaMemcpyHostToDevice, busy));
    }
    add<<<8, 256, 0, busy>>>(target, n, 1);
    MUST(cudaMemcpyAsync(found.data(), target, n * sizeof(int), cudaMemcpyDeviceToHost, busy));
    MUST(cudaStreamSynchronize(busy));
    other.join();
    for (int &number : numbers) ++number;
    expect_same("copied behind a kernel that waited for another thread", numbers, found);
    return verdict();
}
