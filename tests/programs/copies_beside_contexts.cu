// Copies to page-locked memory while another thread makes contexts and ends them: what waits for a stream finds its copies
// there. A program that hangs is killed by its alarm.
#include "other_contexts.h"

#include <atomic>
#include <thread>
#include <unistd.h>

__global__ void fill(unsigned *data, unsigned n, unsigned seed) {
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) data[i] = i * 2654435761u + seed;
}

int main() {
    alarm(60);
    const unsigned n = 5 << 18;
    unsigned *device, *pinned;
    MUST(cudaMalloc(&device, n * sizeof(unsigned)));
    MUST(cudaMallocHost(&pinned, n * sizeof(unsigned)));
    cudaStream_t stream;
    MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    std::atomic<bool> is_over{false};
    std::thread others([&] {
        while (!is_over) {
            OtherContext other;
            other.end();
        }
    });
    int there = 0;
    for (unsigned round = 0; round < 300; ++round) {
        fill<<<8, 256, 0, stream>>>(device, n, round);
        MUST(cudaMemcpyAsync(pinned, device, 64 << 10, cudaMemcpyDeviceToHost, stream));
        MUST(cudaStreamSynchronize(stream));
        there += pinned[5] == 5 * 2654435761u + round;
    }
    is_over = true;
    others.join();
    expect_equal("copied", 300, there);
    return verdict();
}
