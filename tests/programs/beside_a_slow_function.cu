// Copies to page-locked memory in one stream while a host function of another has not returned, which may be waiting for
// just those bytes; and host functions that read what was copied before them. A program that hangs is killed by its alarm.
#include "expect.h"
#include "other_contexts.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <unistd.h>

static std::atomic<bool> running{false}, may_return{false};

static void CUDART_CB slow(void *) {
    running = true;
    while (!may_return) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    running = may_return = false;
}

static void CUDART_CB nap(void *) { std::this_thread::sleep_for(std::chrono::milliseconds(20)); }

static std::vector<unsigned> seen;

static void CUDART_CB look(void *pinned) {
    auto data = static_cast<unsigned *>(pinned);
    seen.assign(data, data + seen.size());
}

__global__ void fill(unsigned *data, unsigned n, unsigned seed) {
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) data[i] = i + seed;
}

__global__ void last(unsigned *out, unsigned turns) {
    unsigned x = 1;
    for (unsigned i = 0; i < turns; ++i) x = x * 1664525 + 1013904223;
    out[0] = x & 1;
}

static std::vector<unsigned> numbers(unsigned n, unsigned seed) {
    std::vector<unsigned> found(n);
    for (unsigned i = 0; i < n; ++i) found[i] = i + seed;
    return found;
}

static void beside() {
    const unsigned n = 1 << 20;
    unsigned *device, *pinned;
    MUST(cudaMalloc(&device, n * sizeof(unsigned)));
    MUST(cudaMallocHost(&pinned, n * sizeof(unsigned)));
    cudaStream_t one, other;
    MUST(cudaStreamCreateWithFlags(&one, cudaStreamNonBlocking));
    MUST(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    cudaEvent_t copied;
    MUST(cudaEventCreateWithFlags(&copied, cudaEventDisableTiming));
    unsigned seed = 0;

    for (unsigned count : {4u, 16u << 10, n}) {
        const size_t bytes = count * sizeof(unsigned);
        // The function has begun when the copy is asked for.
        MUST(cudaLaunchHostFunc(one, slow, nullptr));
        while (!running) std::this_thread::yield();
        fill<<<8, 256, 0, other>>>(device, count, ++seed);
        MUST(cudaMemcpyAsync(pinned, device, bytes, cudaMemcpyDeviceToHost, other));
        MUST(cudaStreamSynchronize(other));
        expect_same("copied beside a function", numbers(count, seed), std::vector<unsigned>(pinned, pinned + count));
        // What comes behind the copy comes too.
        fill<<<8, 256, 0, other>>>(device, count, ++seed);
        MUST(cudaMemcpyAsync(pinned, device, bytes, cudaMemcpyDeviceToHost, other));
        fill<<<8, 256, 0, other>>>(device, count, 0);
        MUST(cudaEventRecord(copied, other));
        MUST(cudaEventSynchronize(copied));
        expect_same("copied before an event", numbers(count, seed), std::vector<unsigned>(pinned, pinned + count));
        may_return = true;
        MUST(cudaStreamSynchronize(one));

        // The copy is on its way when the function begins.
        last<<<1, 1, 0, other>>>(device, 4 << 20);
        fill<<<8, 256, 0, other>>>(device, count, ++seed);
        MUST(cudaMemcpyAsync(pinned, device, bytes, cudaMemcpyDeviceToHost, other));
        MUST(cudaLaunchHostFunc(one, slow, nullptr));
        MUST(cudaStreamSynchronize(other));
        expect_same("asked for before a function", numbers(count, seed), std::vector<unsigned>(pinned, pinned + count));
        may_return = true;
        MUST(cudaStreamSynchronize(one));

        // A context begins while a copy waits for a function. Another one's end is later than both.
        fill<<<8, 256, 0, one>>>(device, count, ++seed);
        MUST(cudaLaunchHostFunc(one, slow, nullptr));
        MUST(cudaMemcpyAsync(pinned, device, bytes, cudaMemcpyDeviceToHost, one));
        OtherContext begun;
        begun.leave();
        may_return = true;
        MUST(cudaStreamSynchronize(one));
        expect_same("copied beside a context's beginning", numbers(count, seed), std::vector<unsigned>(pinned, pinned + count));
        MUST(cudaLaunchHostFunc(one, nap, nullptr));
        MUST(cudaMemcpyAsync(pinned, device, bytes, cudaMemcpyDeviceToHost, one));
        begun.end();
        MUST(cudaStreamSynchronize(one));

        // A function behind the copy, in its stream and in one that waits for it.
        for (cudaStream_t stream : {other, one}) {
            seen.assign(count, 0);
            last<<<1, 1, 0, other>>>(device, 1 << 20);
            fill<<<8, 256, 0, other>>>(device, count, ++seed);
            MUST(cudaMemcpyAsync(pinned, device, bytes, cudaMemcpyDeviceToHost, other));
            MUST(cudaEventRecord(copied, other));
            MUST(cudaStreamWaitEvent(stream, copied, 0));
            MUST(cudaLaunchHostFunc(stream, look, pinned));
            MUST(cudaStreamSynchronize(stream));
            expect_same("seen by a function", numbers(count, seed), seen);
        }
    }
}

// More copies behind a function than buffers for them are kept at other times.
static void many() {
    const unsigned small = 600, large = 40, piece = 256 << 10;
    unsigned *device, *pinned, *pieces;
    MUST(cudaMalloc(&device, piece * sizeof(unsigned)));
    MUST(cudaMallocHost(&pinned, small * sizeof(unsigned)));
    MUST(cudaMallocHost(&pieces, large * piece * sizeof(unsigned)));
    fill<<<8, 256>>>(device, piece, 7);
    MUST(cudaDeviceSynchronize());
    cudaStream_t stream;
    MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (unsigned round = 0; round < 2; ++round) {
        memset(pinned, 0, small * sizeof(unsigned));
        memset(pieces, 0, large * piece * sizeof(unsigned));
        MUST(cudaLaunchHostFunc(stream, slow, nullptr));
        for (unsigned i = 0; i < small; ++i)
            MUST(cudaMemcpyAsync(pinned + i, device + i, sizeof(unsigned), cudaMemcpyDeviceToHost, stream));
        for (unsigned i = 0; i < large; ++i)
            MUST(cudaMemcpyAsync(pieces + i * piece, device, piece * sizeof(unsigned), cudaMemcpyDeviceToHost, stream));
        may_return = true;
        MUST(cudaStreamSynchronize(stream));
        expect_same("many copies behind a function", numbers(small, 7), std::vector<unsigned>(pinned, pinned + small));
        for (unsigned i = 0; i < large; ++i) {
            const unsigned *at = pieces + i * piece;
            expect_same("large copies behind a function", numbers(piece, 7), std::vector<unsigned>(at, at + piece));
        }
    }
    MUST(cudaFree(device));
    MUST(cudaFreeHost(pinned));
    MUST(cudaFreeHost(pieces));
}

int main() {
    alarm(60);
    beside();
    many();
    // The memory that a context had locked in its pages is not locked any more when it has ended.
    MUST(cudaDeviceReset());
    beside();
    return verdict();
}
