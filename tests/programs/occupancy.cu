// What the runtime says about functions and how many of their blocks fit: numbers differ between devices, what must
// hold between them does not.
#include "expect.h"

__global__ void plain(float *out) { out[threadIdx.x] = threadIdx.x; }

__global__ void shared(float *out) {
    __shared__ float tile[1024];
    tile[threadIdx.x] = threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = tile[1023 - threadIdx.x];
}

__global__ void __launch_bounds__(64) small(float *out) { out[threadIdx.x] = 1; }

__global__ void dynamic(float *out) {
    extern __shared__ float tile[];
    tile[threadIdx.x] = threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

int main() {
    cudaDeviceProp device;
    MUST(cudaGetDeviceProperties(&device, 0));
    cudaFuncAttributes attributes;
    MUST(cudaFuncGetAttributes(&attributes, plain));
    expect("a plain function", attributes.maxThreadsPerBlock == 1024 && attributes.sharedSizeBytes == 0 &&
                                   attributes.numRegs > 0 && attributes.ptxVersion >= 50 &&
                                   attributes.binaryVersion >= attributes.ptxVersion);
    MUST(cudaFuncGetAttributes(&attributes, shared));
    expect_equal("its shared memory", 4096, attributes.sharedSizeBytes);
    MUST(cudaFuncGetAttributes(&attributes, small));
    expect("the bound of its author", attributes.maxThreadsPerBlock >= 64);

    int blocks = 0, more = 0;
    MUST(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, plain, 256, 0));
    expect("some blocks fit", blocks >= 1 && blocks * 256 <= device.maxThreadsPerMultiProcessor);
    MUST(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&more, plain, 128, 0));
    expect("at least as many smaller ones", more >= blocks);
    MUST(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&more, dynamic, 32, device.sharedMemPerBlock));
    expect("few with much shared memory", more >= 1 && more <= int(device.sharedMemPerMultiprocessor / device.sharedMemPerBlock));

    int grid = 0, block = 0;
    MUST(cudaOccupancyMaxPotentialBlockSize(&grid, &block, plain, 0, 0));
    expect("a block size", block >= 32 && block <= 1024 && block % 32 == 0 && grid >= device.multiProcessorCount);
    MUST(cudaOccupancyMaxPotentialBlockSize(&grid, &block, small, 0, 0));
    expect("no more than the author allows", block >= 32 && block <= 64);
    MUST(cudaOccupancyMaxPotentialBlockSizeVariableSMem(&grid, &block, dynamic,
                                                        [](int threads) { return size_t(threads) * sizeof(float); }));
    expect("with memory for each thread", block >= 32 && block <= 1024 && grid >= 1);
    size_t room = 0;
    MUST(cudaOccupancyAvailableDynamicSMemPerBlock(&room, dynamic, 1, 128));
    expect("room for dynamic shared memory", room >= 16384 && room <= device.sharedMemPerMultiprocessor);

    MUST(cudaFuncSetAttribute(dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize, int(device.sharedMemPerBlockOptin)));
    MUST(cudaFuncGetAttributes(&attributes, dynamic));
    expect("it may have all", attributes.maxDynamicSharedSizeBytes == int(device.sharedMemPerBlockOptin));
    expect_error("but not more", cudaErrorInvalidValue,
                 cudaFuncSetAttribute(dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      int(device.sharedMemPerBlockOptin) + 1));
    cudaGetLastError();
    DeviceArray<float> out(256);
    dynamic<<<1, 256, device.sharedMemPerBlockOptin>>>(out);
    MUST(cudaGetLastError());
    expect_near("with all of it", 255, out.read()[0], 0);
    shared<<<1, 1024>>>(DeviceArray<float>(1024));
    MUST(cudaDeviceSynchronize());

    // Which of its two errors comes for what is no function is the runtime's choice.
    cudaError_t refused = cudaFuncGetAttributes(&attributes, (const void *)&verdict);
    expect("no function", refused == cudaErrorInvalidDeviceFunction || refused == cudaErrorInvalidResourceHandle);
    expect_error("kept", refused, cudaGetLastError());
    return verdict();
}
