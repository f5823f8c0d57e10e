// Four host threads, each on a stream of its own, share one device, one module and one table of results. Then one waits
// for a long kernel, and another one's calls are answered meanwhile.
// nvcc: -Xcompiler -pthread
#include "expect.h"

#include <atomic>
#include <thread>

__device__ int total;

__global__ void sum_squares(const int *in, int n, int *out) {
    int mine = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) mine += in[i] * in[i];
    for (int lane = 16; lane > 0; lane /= 2) mine += __shfl_down_sync(0xffffffffu, mine, lane);
    if (threadIdx.x % 32 == 0) {
        atomicAdd(out, mine);
        atomicAdd(&total, mine);
    }
}

__global__ void last(unsigned long long nanoseconds) {
    unsigned long long begun, now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(begun));
    do asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    while (now - begun < nanoseconds);
}

// A call that had to be woken by the clock would take 200 ms.
void answered_beside_a_wait() {
    cudaStream_t stream;
    MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    last<<<1, 1, 0, stream>>>(1);
    MUST(cudaStreamSynchronize(stream));
    last<<<1, 1, 0, stream>>>(1000000000);
    MUST(cudaGetLastError());
    std::atomic<bool> waits{false}, over{false};
    std::thread waiter([&] {
        waits = true;
        MUST(cudaStreamSynchronize(stream));
        over = true;
    });
    while (!waits) std::this_thread::yield();
    for (int i = 0; i < 12; ++i) {
        size_t free, total;
        MUST(cudaMemGetInfo(&free, &total));
    }
    expect("the kernel still runs", !over);
    waiter.join();
    MUST(cudaStreamDestroy(stream));
}

int main() {
    const int rounds = 25, n = 1000, threads = 4;
    DeviceArray<int> sums(std::vector<int>(threads * rounds, 0));
    std::vector<std::thread> workers;
    std::vector<int> wanted(threads * rounds);
    for (int t = 0; t < threads; ++t)
        workers.emplace_back([&, t] {
            MUST(cudaSetDevice(0));
            cudaStream_t stream;
            MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
            int *host, *device;
            MUST(cudaMallocHost(&host, n * sizeof(int)));
            MUST(cudaMalloc(&device, n * sizeof(int)));
            for (int round = 0; round < rounds; ++round) {
                int cell = t * rounds + round;
                for (int i = 0; i < n; ++i) {
                    host[i] = (i + cell) % 10;
                    wanted[cell] += host[i] * host[i];
                }
                MUST(cudaMemcpyAsync(device, host, n * sizeof(int), cudaMemcpyHostToDevice, stream));
                sum_squares<<<1, 128, 0, stream>>>(device, n, sums + cell);
                MUST(cudaGetLastError());
                MUST(cudaStreamSynchronize(stream));
            }
            MUST(cudaFree(device));
            MUST(cudaFreeHost(host));
            MUST(cudaStreamDestroy(stream));
        });
    for (std::thread &worker : workers) worker.join();
    expect_same("sums", wanted, sums.read());
    int all = 0, found = 0;
    for (int each : wanted) all += each;
    MUST(cudaMemcpyFromSymbol(&found, total, sizeof found));
    expect_equal("total", all, found);
    answered_beside_a_wait();
    return verdict();
}
