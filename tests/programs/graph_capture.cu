// Work captured from streams into a graph and launched again and again: copies, fills, kernels and host functions,
// in one stream and across two. Where a driver has no graphs it says so; the output is the same either way.
#include "expect.h"

#include <atomic>

__global__ void advance(int *data, int n, int step) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) data[i] = data[i] * 3 + step;
}

__global__ void sum_up(const int *data, int n, int *total) {
    int mine = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) mine += data[i];
    atomicAdd(total, mine);
}

void CUDART_CB count(void *counter) { ++*static_cast<std::atomic<int> *>(counter); }

// A driver that has no graphs: the call is refused, and the stream works as before.
bool is_refused(cudaError_t error, cudaStream_t stream, int *data, int n) {
    if (error != cudaErrorNotSupported && error != cudaErrorCallRequiresNewerDriver) return false;
    if (cudaGetLastError() != error) return false;
    cudaStreamCaptureStatus status;
    MUST(cudaStreamIsCapturing(stream, &status));
    advance<<<4, 256, 0, stream>>>(data, n, 7);
    int last = 0;
    MUST(cudaMemcpyAsync(&last, data + n - 1, sizeof(int), cudaMemcpyDeviceToHost, stream));
    MUST(cudaStreamSynchronize(stream));
    return status == cudaStreamCaptureStatusNone && last == 7;
}

// `stream` captures.
bool works(cudaStream_t stream, int *data, int n) {
    cudaStream_t side;
    MUST(cudaStreamCreateWithFlags(&side, cudaStreamNonBlocking));
    DeviceArray<int> total(1);
    std::atomic<int> counter{0};
    int *pinned = nullptr;
    MUST(cudaMallocHost(&pinned, sizeof(int)));
    cudaEvent_t fork, join;
    MUST(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
    MUST(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
    MUST(cudaMemsetAsync(total, 0, sizeof(int), stream));
    advance<<<4, 256, 0, stream>>>(data, n, 1);
    MUST(cudaEventRecord(fork, stream));
    MUST(cudaStreamWaitEvent(side, fork, 0));
    advance<<<4, 256, 0, side>>>(data, n, 2);
    MUST(cudaEventRecord(join, side));
    MUST(cudaLaunchHostFunc(stream, count, &counter));
    MUST(cudaStreamWaitEvent(stream, join, 0));
    sum_up<<<1, 256, 0, stream>>>(data, n, total);
    MUST(cudaMemcpyAsync(pinned, total, sizeof(int), cudaMemcpyDeviceToHost, stream));
    cudaStreamCaptureStatus status;
    MUST(cudaStreamIsCapturing(side, &status));
    bool fine = status == cudaStreamCaptureStatusActive;
    cudaGraph_t graph;
    MUST(cudaStreamEndCapture(stream, &graph));
    size_t nodes = 0;
    MUST(cudaGraphGetNodes(graph, nullptr, &nodes));
    fine = fine && nodes == 6 && counter == 0;
    cudaGraphExec_t executable;
    MUST(cudaGraphInstantiate(&executable, graph, 0));
    MUST(cudaGraphDestroy(graph));
    int value = 0;
    for (int round = 0; round < 5; ++round) {
        MUST(cudaGraphLaunch(executable, stream));
        MUST(cudaStreamSynchronize(stream));
        value = (value * 3 + 1) * 3 + 2;
        fine = fine && *pinned == n * value;
    }
    fine = fine && counter == 5;
    MUST(cudaGraphExecDestroy(executable));
    MUST(cudaEventDestroy(fork));
    MUST(cudaEventDestroy(join));
    MUST(cudaFreeHost(pinned));
    MUST(cudaStreamDestroy(side));
    return fine;
}

int main() {
    const int n = 1000;
    cudaStream_t stream;
    MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    int *data = nullptr;
    MUST(cudaMalloc(&data, n * sizeof(int)));
    MUST(cudaMemset(data, 0, n * sizeof(int)));
    MUST(cudaDeviceSynchronize());
    cudaError_t begun = cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed);
    expect("graphs work, or are refused by name",
           begun == cudaSuccess ? works(stream, data, n) : is_refused(begun, stream, data, n));
    MUST(cudaFree(data));
    MUST(cudaStreamDestroy(stream));
    return verdict();
}
