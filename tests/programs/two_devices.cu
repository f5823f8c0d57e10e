// Work on two devices from one thread, copies between them, and what belongs to one refused on the other.
// Where there is only one device, says so and ends well.
#include "expect.h"

__global__ void add(int *data, int term) { data[threadIdx.x] += term; }

// Takes its time before it writes.
__global__ void late(int *data, int value) {
    long long start = clock64();
    while (clock64() - start < 20000000) {
    }
    data[threadIdx.x] = value;
}

__device__ int mark = 1;

int main() {
    int count = 0;
    MUST(cudaGetDeviceCount(&count));
    if (count < 2) {
        printf("only one device\n");
        return 0;
    }
    int *data[2];
    cudaStream_t streams[2];
    std::vector<int> numbers(64), got(64);
    for (int i = 0; i < 64; ++i) numbers[i] = i;
    for (int device = 0; device < 2; ++device) {
        MUST(cudaSetDevice(device));
        MUST(cudaMalloc(&data[device], 64 * sizeof(int)));
        MUST(cudaStreamCreate(&streams[device]));
        MUST(cudaMemcpy(data[device], numbers.data(), 64 * sizeof(int), cudaMemcpyHostToDevice));
        int value = 10 + device;
        MUST(cudaMemcpyToSymbol(mark, &value, sizeof value));
        add<<<1, 64, 0, streams[device]>>>(data[device], 100 * (device + 1));
        MUST(cudaGetLastError());
    }
    for (int device = 0; device < 2; ++device) {
        MUST(cudaSetDevice(device));
        int value = 0, current = -1;
        MUST(cudaGetDevice(&current));
        MUST(cudaMemcpyFromSymbol(&value, mark, sizeof value));
        expect_equal("the variable of this device", 10 + device, value);
        MUST(cudaStreamSynchronize(streams[device]));
        MUST(cudaMemcpy(got.data(), data[device], 64 * sizeof(int), cudaMemcpyDeviceToHost));
        expect_equal("an element", 33 + 100 * (device + 1), got[33]);
        cudaPointerAttributes attributes;
        MUST(cudaPointerGetAttributes(&attributes, data[device]));
        expect_equal("where it lives", device, attributes.device);
        expect_equal("current device", device, current);
    }
    MUST(cudaMemcpyPeer(data[1], 1, data[0], 0, 64 * sizeof(int)));
    MUST(cudaMemcpy(got.data(), data[1], 64 * sizeof(int), cudaMemcpyDeviceToHost));
    expect_equal("after a copy between devices", 163, got[63]);
    // A copy between devices comes after all work of both, whichever of them is current.
    MUST(cudaSetDevice(0));
    late<<<1, 64, 0, streams[0]>>>(data[0], 4711);
    MUST(cudaGetLastError());
    MUST(cudaSetDevice(1));
    MUST(cudaMemcpyPeer(data[1], 1, data[0], 0, 64 * sizeof(int)));
    MUST(cudaMemcpy(got.data(), data[1], 64 * sizeof(int), cudaMemcpyDeviceToHost));
    expect_equal("after a copy that waited", 4711, got[63]);
    MUST(cudaMemcpy(data[0], data[1], 32 * sizeof(int), cudaMemcpyDefault));

    MUST(cudaSetDevice(0));
    add<<<1, 64, 0, streams[1]>>>(data[0], 1);
    expect_error("a launch on the other device's stream", cudaErrorInvalidResourceHandle, cudaGetLastError());
    cudaEvent_t event;
    MUST(cudaEventCreate(&event));
    expect_error("an event on the other device's stream", cudaErrorInvalidResourceHandle,
                 cudaEventRecord(event, streams[1]));
    cudaGetLastError();
    MUST(cudaEventRecord(event, streams[0]));
    MUST(cudaStreamWaitEvent(streams[1], event, 0));
    MUST(cudaEventDestroy(event));
    // Copies go by their stream: large ones to and from the other device, while its stream is busy.
    const size_t large = 5 << 20;
    std::vector<int> sent(large), found(large);
    for (size_t i = 0; i < large; ++i) sent[i] = int(i * 7);
    int *other;
    MUST(cudaSetDevice(1));
    MUST(cudaMalloc(&other, large * sizeof(int)));
    late<<<1, 64, 0, streams[1]>>>(data[1], 1);
    MUST(cudaGetLastError());
    MUST(cudaSetDevice(0));
    MUST(cudaMemcpyAsync(other, sent.data(), large * sizeof(int), cudaMemcpyHostToDevice, streams[1]));
    MUST(cudaSetDevice(1));
    late<<<1, 64, 0, streams[1]>>>(data[1], 2);
    MUST(cudaGetLastError());
    MUST(cudaSetDevice(0));
    MUST(cudaMemcpyAsync(found.data(), other, large * sizeof(int), cudaMemcpyDeviceToHost, streams[1]));
    MUST(cudaStreamSynchronize(streams[1]));
    expect_same("there and back on the other device's stream", sent, found);
    MUST(cudaFree(other));

    for (int device = 0; device < 2; ++device) {
        MUST(cudaSetDevice(device));
        MUST(cudaStreamDestroy(streams[device]));
        MUST(cudaFree(data[device]));
    }
    return verdict();
}
