// Memory allocated and freed in stream order, from the device's pool and from one of the program's own.
#include "expect.h"

__global__ void fill(int *data, int value, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) data[i] = value + i;
}

int main() {
    int supported = 0;
    MUST(cudaDeviceGetAttribute(&supported, cudaDevAttrMemoryPoolsSupported, 0));
    if (!supported) {
        printf("no memory pools\n");
        return 0;
    }
    cudaStream_t stream;
    MUST(cudaStreamCreate(&stream));
    const int n = 10000;
    std::vector<int> got(n), wanted(n);
    for (int round = 0; round < 5; ++round) {
        int *data = nullptr, *other = nullptr;
        MUST(cudaMallocAsync(&data, n * sizeof(int), stream));
        MUST(cudaMallocAsync(&other, 2 * n * sizeof(int), stream));
        fill<<<1, 256, 0, stream>>>(data, round * 7, n);
        MUST(cudaGetLastError());
        MUST(cudaMemcpyAsync(other, data, n * sizeof(int), cudaMemcpyDeviceToDevice, stream));
        MUST(cudaFreeAsync(data, stream));
        MUST(cudaMemcpyAsync(got.data(), other, n * sizeof(int), cudaMemcpyDeviceToHost, stream));
        MUST(cudaFreeAsync(other, stream));
        MUST(cudaStreamSynchronize(stream));
        for (int i = 0; i < n; ++i) wanted[i] = round * 7 + i;
        expect_same("a round", wanted, got);
    }
    cudaMemPool_t pool;
    cudaMemPoolProps properties = {};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = 0;
    MUST(cudaMemPoolCreate(&pool, &properties));
    uint64_t keep = ~uint64_t(0), read_back = 0;
    MUST(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep));
    MUST(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &read_back));
    expect("the threshold is kept", read_back == keep);
    int *data = nullptr;
    MUST(cudaMallocFromPoolAsync(&data, n * sizeof(int), pool, stream));
    fill<<<1, 64, 0, stream>>>(data, -5, n);
    MUST(cudaMemcpyAsync(got.data(), data, n * sizeof(int), cudaMemcpyDeviceToHost, stream));
    MUST(cudaFreeAsync(data, stream));
    MUST(cudaStreamSynchronize(stream));
    for (int i = 0; i < n; ++i) wanted[i] = i - 5;
    expect_same("from its own pool", wanted, got);
    MUST(cudaMemPoolTrimTo(pool, 0));
    MUST(cudaMemPoolDestroy(pool));
    MUST(cudaStreamDestroy(stream));
    return verdict();
}
