// Takes device memory until there is no more, gives it back, and takes it again. What is left is as much as
// before.
#include "expect.h"

__global__ void fill(unsigned *data, size_t n) {
    for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < n; i += size_t(gridDim.x) * blockDim.x)
        data[i] = unsigned(i * 2654435761u);
}

int main() {
    size_t free_before, total, free_now;
    MUST(cudaMemGetInfo(&free_before, &total));
    expect("some is free", free_before > 0 && free_before <= total);
    void *impossible = nullptr;
    expect_error("more than the device has", cudaErrorMemoryAllocation, cudaMalloc(&impossible, total + (1 << 20)));
    expect_error("  kept", cudaErrorMemoryAllocation, cudaGetLastError());
    expect_error("a size of nonsense", cudaErrorMemoryAllocation, cudaMalloc(&impossible, size_t(1) << 60));
    cudaGetLastError();

    std::vector<void *> blocks;
    const size_t size = total / 16;
    cudaError_t error;
    void *block = nullptr;
    while ((error = cudaMalloc(&block, size)) == cudaSuccess && blocks.size() < 64) blocks.push_back(block);
    expect_error("at the end", cudaErrorMemoryAllocation, error);
    cudaGetLastError();
    expect("most of it was given", blocks.size() >= 10 && blocks.size() <= 16);
    MUST(cudaMemGetInfo(&free_now, &total));
    expect("little is free now", free_now < 2 * size);

    MUST(cudaFree(blocks.back()));
    blocks.pop_back();
    const size_t n = 1 << 20;
    unsigned *data = nullptr;
    MUST(cudaMalloc(&data, n * sizeof(unsigned)));
    fill<<<16, 256>>>(data, n);
    MUST(cudaGetLastError());
    std::vector<unsigned> wanted(n), got(n);
    for (size_t i = 0; i < n; ++i) wanted[i] = unsigned(i * 2654435761u);
    MUST(cudaMemcpy(got.data(), data, n * sizeof(unsigned), cudaMemcpyDeviceToHost));
    expect_same("after a free it works again", wanted, got);
    MUST(cudaFree(data));
    for (void *each : blocks) MUST(cudaFree(each));
    MUST(cudaMemGetInfo(&free_now, &total));
    expect("as much as before is free", free_now + (64 << 20) >= free_before);
    MUST(cudaMalloc(&block, total / 2));
    MUST(cudaFree(block));
    return verdict();
}
