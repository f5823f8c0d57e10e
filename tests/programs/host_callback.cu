// Host functions in stream order: each sees what was copied before it, and what it writes is there for the
// copy after it.
#include "expect.h"

#include <atomic>
#include <thread>

__global__ void add(int *data, int term) { data[threadIdx.x] += term; }

struct Step {
    int *host;
    int seen;
    std::thread::id thread;
    std::atomic<int> *order;
    int position;
};

void CUDART_CB look_and_change(void *argument) {
    Step *step = static_cast<Step *>(argument);
    step->seen = step->host[3];
    step->host[3] = 1000 + step->seen;
    step->thread = std::this_thread::get_id();
    step->position = step->order->fetch_add(1);
}

void CUDART_CB old_style(cudaStream_t, cudaError_t status, void *argument) {
    *static_cast<int *>(argument) = status == cudaSuccess ? 77 : -1;
}

int main() {
    int *host = nullptr, *device = nullptr;
    MUST(cudaMallocHost(&host, 32 * sizeof(int)));
    MUST(cudaMalloc(&device, 32 * sizeof(int)));
    for (int i = 0; i < 32; ++i) host[i] = i;
    cudaStream_t stream;
    MUST(cudaStreamCreate(&stream));
    std::atomic<int> order{0};
    Step first = {host, 0, {}, &order, -1}, second = {host, 0, {}, &order, -1};
    MUST(cudaMemcpyAsync(device, host, 32 * sizeof(int), cudaMemcpyHostToDevice, stream));
    add<<<1, 32, 0, stream>>>(device, 10);
    MUST(cudaMemcpyAsync(host, device, 32 * sizeof(int), cudaMemcpyDeviceToHost, stream));
    MUST(cudaLaunchHostFunc(stream, look_and_change, &first));
    MUST(cudaMemcpyAsync(device, host, 32 * sizeof(int), cudaMemcpyHostToDevice, stream));
    add<<<1, 32, 0, stream>>>(device, 1);
    MUST(cudaMemcpyAsync(host, device, 32 * sizeof(int), cudaMemcpyDeviceToHost, stream));
    MUST(cudaLaunchHostFunc(stream, look_and_change, &second));
    int old = 0;
    MUST(cudaStreamAddCallback(stream, old_style, &old, 0));
    MUST(cudaStreamSynchronize(stream));
    expect_equal("first function saw", 13, first.seen);
    expect_equal("second function saw", 1014, second.seen);
    expect_equal("then it was", 2014, host[3]);
    expect_equal("a neighbour", 15, host[4]);
    expect("not on the program's thread", first.thread != std::this_thread::get_id());
    expect("in order", first.position == 0 && second.position == 1);
    expect_equal("old-style callback", 77, old);

    std::atomic<int> many{0};
    for (int i = 0; i < 200; ++i)
        MUST(cudaLaunchHostFunc(stream, [](void *count) { ++*static_cast<std::atomic<int> *>(count); }, &many));
    MUST(cudaStreamSynchronize(stream));
    expect_equal("two hundred functions", 200, many.load());
    MUST(cudaStreamDestroy(stream));
    MUST(cudaFreeHost(host));
    MUST(cudaFree(device));
    return verdict();
}
