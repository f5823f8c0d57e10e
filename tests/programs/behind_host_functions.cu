// Calls behind a host function that is still to return: the copies and the end of a device for which a driver waits. A
// program that hangs there is killed by its alarm.
#include "expect.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <unistd.h>

static std::atomic<int> returned{0};

static void CUDART_CB nap(void *) {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
    ++returned;
}

__global__ void fill(unsigned *data, unsigned n, unsigned seed) {
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) data[i] = i + seed;
}

static std::vector<unsigned> numbers(unsigned n, unsigned seed) {
    std::vector<unsigned> found(n);
    for (unsigned i = 0; i < n; ++i) found[i] = i + seed;
    return found;
}

int main() {
    alarm(60);
    const unsigned n = 6 << 20;  // 24 MiB: more than anybody keeps room for
    const size_t bytes = n * sizeof(unsigned);
    unsigned *device, *pinned;
    MUST(cudaMalloc(&device, bytes));
    MUST(cudaMallocHost(&pinned, bytes));
    cudaStream_t blocking, apart;
    MUST(cudaStreamCreate(&blocking));
    MUST(cudaStreamCreateWithFlags(&apart, cudaStreamNonBlocking));
    fill<<<8, 256, 0, apart>>>(device, n, 0);
    MUST(cudaDeviceSynchronize());

    // The legacy stream, in which copies without one are, comes after the others.
    for (unsigned count : {4u, 16u << 10, 1u << 20}) {
        std::vector<unsigned> data = numbers(count, count), found(count);
        MUST(cudaLaunchHostFunc(blocking, nap, nullptr));
        MUST(cudaMemcpy(device, data.data(), count * sizeof(unsigned), cudaMemcpyHostToDevice));
        // Once more the same, which may travel as its name.
        MUST(cudaMemcpy(device + (2 << 20), data.data(), count * sizeof(unsigned), cudaMemcpyHostToDevice));
        MUST(cudaMemcpy(found.data(), device + (2 << 20), count * sizeof(unsigned), cudaMemcpyDeviceToHost));
        expect_same("copied behind a function", data, found);
        found.assign(count, 0);
        MUST(cudaLaunchHostFunc(apart, nap, nullptr));
        MUST(cudaMemcpyAsync(device + 1, data.data(), count * sizeof(unsigned), cudaMemcpyHostToDevice, apart));
        MUST(cudaMemcpyAsync(found.data(), device + 1, count * sizeof(unsigned), cudaMemcpyDeviceToHost, apart));
        MUST(cudaStreamSynchronize(apart));
        expect_same("copied in a stream behind a function", data, found);
    }

    // Rows, each way.
    const size_t rows = 4096, width = 24, pitch = 64;
    std::vector<unsigned> box = numbers(rows * width / 4, 7), back(box.size());
    for (cudaStream_t stream : {blocking, apart}) {
        MUST(cudaLaunchHostFunc(stream, nap, nullptr));
        MUST(cudaMemcpy2DAsync(device, pitch, box.data(), width, width, rows, cudaMemcpyHostToDevice, stream));
        MUST(cudaLaunchHostFunc(stream, nap, nullptr));
        MUST(cudaMemcpy2DAsync(back.data(), width, device, pitch, width, rows, cudaMemcpyDeviceToHost, stream));
        MUST(cudaStreamSynchronize(stream));
        expect_same("rows behind functions", box, back);
        back.assign(back.size(), 0);
    }
    MUST(cudaLaunchHostFunc(blocking, nap, nullptr));
    MUST(cudaMemcpy2D(device, pitch, box.data(), width, width, rows, cudaMemcpyHostToDevice));
    MUST(cudaLaunchHostFunc(blocking, nap, nullptr));
    MUST(cudaMemcpy2D(back.data(), width, device, pitch, width, rows, cudaMemcpyDeviceToHost));
    expect_same("rows in no stream behind functions", box, back);

    // To page-locked memory, of which more comes than fits on the way.
    MUST(cudaLaunchHostFunc(apart, nap, nullptr));
    fill<<<8, 256, 0, apart>>>(device, n, 3);
    MUST(cudaMemcpyAsync(pinned, device, bytes, cudaMemcpyDeviceToHost, apart));
    MUST(cudaStreamSynchronize(apart));
    expect_same("to page-locked memory behind a function", numbers(n, 3), std::vector<unsigned>(pinned, pinned + n));

    // The device's end.
    int before = returned;
    MUST(cudaLaunchHostFunc(blocking, nap, nullptr));
    MUST(cudaLaunchHostFunc(apart, nap, nullptr));
    MUST(cudaDeviceReset());
    expect_equal("functions that returned before the device's end", 2, returned - before);
    return verdict();
}
