// Work on several streams, ordered across them by events; queries, waits and elapsed times.
#include "expect.h"

__global__ void multiply_add(int *data, int n, int factor, int term) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        data[i] = data[i] * factor + term;
}

__global__ void spin(int *out, int rounds) {
    unsigned x = threadIdx.x;
    for (int i = 0; i < rounds; ++i) x = x * 1664525u + 1013904223u;
    out[threadIdx.x] = int(x & 1);
}

int main() {
    const int n = 50000;
    cudaStream_t first, second, third;
    MUST(cudaStreamCreate(&first));
    MUST(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
    int least, greatest;
    MUST(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    MUST(cudaStreamCreateWithPriority(&third, cudaStreamNonBlocking, greatest));
    expect("priorities are in order", greatest <= least);
    unsigned flags = 99;
    MUST(cudaStreamGetFlags(second, &flags));
    expect_equal("flags of the second", cudaStreamNonBlocking, flags);

    std::vector<int> ones(n, 1);
    DeviceArray<int> data(ones);
    cudaEvent_t begin, middle, end, untimed;
    MUST(cudaEventCreate(&begin));
    MUST(cudaEventCreate(&middle));
    MUST(cudaEventCreateWithFlags(&end, cudaEventBlockingSync));
    MUST(cudaEventCreateWithFlags(&untimed, cudaEventDisableTiming));
    MUST(cudaEventRecord(begin, first));
    multiply_add<<<20, 128, 0, first>>>(data, n, 3, 1); // 4
    MUST(cudaEventRecord(middle, first));
    MUST(cudaStreamWaitEvent(second, middle, 0));
    multiply_add<<<20, 128, 0, second>>>(data, n, 10, 2); // 42
    MUST(cudaEventRecord(untimed, second));
    MUST(cudaStreamWaitEvent(third, untimed, 0));
    multiply_add<<<20, 128, 0, third>>>(data, n, -1, 0); // -42
    MUST(cudaEventRecord(end, third));
    MUST(cudaEventSynchronize(end));
    expect_error("query of an event that has passed", cudaSuccess, cudaEventQuery(end));
    expect_error("query of its stream", cudaSuccess, cudaStreamQuery(third));
    float to_middle = -1, to_end = -1;
    MUST(cudaEventElapsedTime(&to_middle, begin, middle));
    MUST(cudaEventElapsedTime(&to_end, begin, end));
    expect("time runs forward", to_middle >= 0 && to_end >= to_middle && to_end < 60000);
    expect_error("time of an event without timing", cudaErrorInvalidResourceHandle,
                 cudaEventElapsedTime(&to_end, begin, untimed));
    MUST(cudaStreamSynchronize(third));
    expect_same("in order across streams", std::vector<int>(n, -42), data.read());

    // A stream that is busy answers "not ready", and is not an error that stays.
    DeviceArray<int> spun(64);
    cudaEvent_t late;
    MUST(cudaEventCreate(&late));
    spin<<<1, 64, 0, second>>>(spun, 3000000);
    MUST(cudaEventRecord(late, second));
    cudaError_t busy = cudaEventQuery(late);
    expect("busy or done", busy == cudaErrorNotReady || busy == cudaSuccess);
    while ((busy = cudaEventQuery(late)) == cudaErrorNotReady) {
    }
    expect_error("done at last", cudaSuccess, busy);
    cudaGetLastError();

    cudaEvent_t unrecorded;
    MUST(cudaEventCreate(&unrecorded));
    expect_error("query of an event never recorded", cudaSuccess, cudaEventQuery(unrecorded));
    expect_error("elapsed to an event never recorded", cudaErrorInvalidResourceHandle,
                 cudaEventElapsedTime(&to_end, begin, unrecorded));
    cudaGetLastError();

    // The legacy default stream waits for blocking streams and they wait for it.
    MUST(cudaMemset(data, 0, n * sizeof(int)));
    multiply_add<<<20, 128, 0, first>>>(data, n, 1, 5);
    multiply_add<<<20, 128>>>(data, n, 2, 0);
    multiply_add<<<20, 128, 0, first>>>(data, n, 1, -3);
    MUST(cudaDeviceSynchronize());
    expect_same("default stream in between", std::vector<int>(n, 7), data.read());

    for (cudaEvent_t event : {begin, middle, end, untimed, late, unrecorded}) MUST(cudaEventDestroy(event));
    for (cudaStream_t stream : {first, second, third}) MUST(cudaStreamDestroy(stream));
    return verdict();
}
