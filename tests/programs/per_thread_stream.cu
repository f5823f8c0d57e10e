// Built with a default stream per thread: four host threads launch and copy on theirs at once, and each sees
// its own results.
// nvcc: --default-stream per-thread -Xcompiler -pthread
#include "expect.h"

#include <thread>

__global__ void step(int *data, int n, int factor) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        data[i] = data[i] * factor + 1;
}

bool work(int seed, int n) {
    std::vector<int> data(n), got(n);
    for (int i = 0; i < n; ++i) data[i] = i + seed;
    int *device = nullptr;
    MUST(cudaMalloc(&device, n * sizeof(int)));
    MUST(cudaMemcpyAsync(device, data.data(), n * sizeof(int), cudaMemcpyHostToDevice));
    for (int round = 0; round < 20; ++round) {
        step<<<4, 64>>>(device, n, seed + 2);
        MUST(cudaGetLastError());
    }
    MUST(cudaMemcpyAsync(got.data(), device, n * sizeof(int), cudaMemcpyDeviceToHost));
    MUST(cudaStreamSynchronize(0));
    MUST(cudaFree(device));
    for (int i = 0; i < n; ++i) {
        unsigned value = unsigned(data[i]);
        for (int round = 0; round < 20; ++round) value = value * unsigned(seed + 2) + 1;
        if (int(value) != got[i]) return false;
    }
    return true;
}

int main() {
    bool right[4] = {};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) threads.emplace_back([&, t] { right[t] = work(t, 2000 + 100 * t); });
    for (std::thread &thread : threads) thread.join();
    for (bool each : right) expect("a thread's results", each);
    expect_error("per-thread stream by name", cudaSuccess, cudaStreamQuery(cudaStreamPerThread));
    expect_error("legacy stream by name", cudaSuccess, cudaStreamSynchronize(cudaStreamLegacy));
    MUST(cudaDeviceSynchronize());
    return verdict();
}
