// Copies to page-locked memory return before their stream gets there. What tells that the stream has passed one comes
// after the bytes are there: a wait, an event that is asked, a host function behind it in another stream, a copy from
// the same memory, its end. The gate is a host function, so a copy that waited for its stream would never return.
#include "expect.h"

#include <atomic>
#include <thread>

__global__ void fill(unsigned *data, unsigned n, unsigned seed) {
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) data[i] = i * 2654435761u + seed;
}

__global__ void move(unsigned *to, const unsigned *from, unsigned n) {
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) to[i] = from[i];
}

__global__ void fault() { *reinterpret_cast<volatile int *>(16) = 1; }

static unsigned wrong(const unsigned *data, unsigned n, unsigned seed) {
    unsigned count = 0;
    for (unsigned i = 0; i < n; ++i) count += data[i] != i * 2654435761u + seed;
    return count;
}

static std::atomic<bool> open_gate{false};

static void CUDART_CB gate(void *) {
    while (!open_gate.load()) std::this_thread::yield();
}

struct Check {
    const unsigned *data;
    unsigned n, seed, wrong;
};

static void CUDART_CB check(void *argument) {
    auto *what = static_cast<Check *>(argument);
    what->wrong = wrong(what->data, what->n, what->seed);
}

int main() {
    const unsigned n = 5 << 18;  // 5 MiB: several pieces
    const size_t bytes = n * sizeof(unsigned);
    unsigned *device, *again, *pinned, *second;
    MUST(cudaMalloc(&device, bytes));
    MUST(cudaMalloc(&again, bytes));
    MUST(cudaMallocHost(&pinned, bytes));
    MUST(cudaHostAlloc(&second, bytes, cudaHostAllocPortable));
    cudaStream_t first_stream, second_stream;
    MUST(cudaStreamCreateWithFlags(&first_stream, cudaStreamNonBlocking));
    MUST(cudaStreamCreateWithFlags(&second_stream, cudaStreamNonBlocking));
    cudaEvent_t event;
    MUST(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    memset(pinned, 0, bytes);

    // A kernel's first launch loads it, for which drivers may wait for what is behind a gate.
    fill<<<8, 256>>>(device, n, 0);
    MUST(cudaDeviceSynchronize());

    // Behind a closed gate; the other stream goes on.
    MUST(cudaLaunchHostFunc(first_stream, gate, nullptr));
    fill<<<8, 256, 0, first_stream>>>(device, n, 1);
    MUST(cudaMemcpyAsync(pinned, device, bytes, cudaMemcpyDeviceToHost, first_stream));
    MUST(cudaEventRecord(event, first_stream));
    fill<<<8, 256, 0, second_stream>>>(again, n, 2);
    MUST(cudaStreamSynchronize(second_stream));
    expect_equal("bytes before the gate opens", 0, int(pinned[7]));
    expect_error("the event before the gate opens", cudaErrorNotReady, cudaEventQuery(event));
    Check behind{pinned, n, 1, 99};
    MUST(cudaStreamWaitEvent(second_stream, event, 0));
    MUST(cudaLaunchHostFunc(second_stream, check, &behind));
    open_gate = true;
    MUST(cudaStreamSynchronize(second_stream));
    expect_equal("wrong where a function behind the event looks", 0, int(behind.wrong));
    expect_equal("wrong after another stream's wait", 0, int(wrong(pinned, n, 1)));

    // An event that is asked again and again.
    for (unsigned round = 0; round < 20; ++round) {
        fill<<<8, 256, 0, first_stream>>>(device, n, round);
        MUST(cudaMemcpyAsync(pinned, device, bytes, cudaMemcpyDeviceToHost, first_stream));
        MUST(cudaEventRecord(event, first_stream));
        cudaError_t status;
        while ((status = cudaEventQuery(event)) == cudaErrorNotReady) std::this_thread::yield();
        MUST(status);
        expect_equal("wrong when the event has come", 0, int(wrong(pinned, n, round)));
    }

    // There and back without a wait between.
    fill<<<8, 256, 0, first_stream>>>(device, n, 5);
    MUST(cudaMemcpyAsync(second, device, bytes, cudaMemcpyDeviceToHost, first_stream));
    MUST(cudaMemcpyAsync(again, second, bytes, cudaMemcpyHostToDevice, first_stream));
    MUST(cudaMemcpyAsync(pinned, again, bytes, cudaMemcpyDeviceToHost, first_stream));
    MUST(cudaStreamSynchronize(first_stream));
    expect_equal("wrong there and back", 0, int(wrong(pinned, n, 5)));

    // More at a time than anybody keeps room for: small ones, then much.
    fill<<<8, 256, 0, first_stream>>>(device, n, 6);
    memset(pinned, 0, bytes);
    for (unsigned i = 0; i < 500; ++i)
        MUST(cudaMemcpyAsync(pinned + i, device + i, sizeof(unsigned), cudaMemcpyDeviceToHost, first_stream));
    MUST(cudaDeviceSynchronize());
    expect_equal("wrong among small ones", 0, int(wrong(pinned, 500, 6)));
    unsigned *much, *large;
    const unsigned m = 10 << 20;
    MUST(cudaMalloc(&large, m * sizeof(unsigned)));
    MUST(cudaMallocHost(&much, m * sizeof(unsigned)));
    fill<<<8, 256, 0, second_stream>>>(large, m, 7);
    MUST(cudaMemcpyAsync(much, large, m * sizeof(unsigned), cudaMemcpyDeviceToHost, second_stream));
    MUST(cudaStreamSynchronize(second_stream));
    expect_equal("wrong of much", 0, int(wrong(much, m, 7)));

    // The memory's end, and registered memory's, come after what lands there.
    fill<<<8, 256, 0, second_stream>>>(large, m, 8);
    MUST(cudaMemcpyAsync(much, large, 4 << 20, cudaMemcpyDeviceToHost, second_stream));
    MUST(cudaFreeHost(much));
    void *page = nullptr;
    if (posix_memalign(&page, 4096, bytes) != 0) return 2;
    MUST(cudaHostRegister(page, bytes, cudaHostRegisterDefault));
    fill<<<8, 256, 0, second_stream>>>(device, n, 9);
    MUST(cudaMemcpyAsync(page, device, bytes, cudaMemcpyDeviceToHost, second_stream));
    MUST(cudaStreamSynchronize(second_stream));
    MUST(cudaHostUnregister(page));
    expect_equal("wrong in registered memory", 0, int(wrong(static_cast<unsigned *>(page), n, 9)));
    free(page);
    // A kernel that reads the memory itself comes after what lands there.
    unsigned *seen;
    fill<<<8, 256, 0, first_stream>>>(device, n, 10);
    MUST(cudaMemcpyAsync(second, device, bytes, cudaMemcpyDeviceToHost, first_stream));
    MUST(cudaHostGetDevicePointer(&seen, second, 0));
    move<<<8, 256, 0, first_stream>>>(again, seen, n);
    MUST(cudaMemcpyAsync(pinned, again, bytes, cudaMemcpyDeviceToHost, first_stream));
    MUST(cudaStreamSynchronize(first_stream));
    expect_equal("wrong where a kernel has read it", 0, int(wrong(pinned, n, 10)));

    MUST(cudaMemcpyAsync(pinned, device, bytes, cudaMemcpyDeviceToHost, first_stream));
    MUST(cudaDeviceReset());

    // A device that has failed sends nothing, and nobody waits for that: neither more copies nor the memory's end.
    MUST(cudaMalloc(&device, bytes));
    MUST(cudaMallocHost(&pinned, bytes));
    fault<<<1, 1>>>();
    for (int i = 0; i < 10; ++i) (void)cudaMemcpyAsync(pinned, device, bytes, cudaMemcpyDeviceToHost, 0);
    expect_error("after the fault", cudaErrorIllegalAddress, cudaDeviceSynchronize());
    (void)cudaFreeHost(pinned);
    return verdict();
}
