// What the runtime says of each device. The numbers belong to the device; that they hang together is checked.
#include "expect.h"

__global__ void nothing() {}

int main() {
    int count = 0, runtime = 0, driver = 0;
    MUST(cudaGetDeviceCount(&count));
    MUST(cudaRuntimeGetVersion(&runtime));
    MUST(cudaDriverGetVersion(&driver));
    printf("devices %d, driver %d\n", count, driver);
    expect("the driver serves this runtime", driver / 1000 >= runtime / 1000);
    for (int device = 0; device < count; ++device) {
        cudaDeviceProp p;
        MUST(cudaGetDeviceProperties(&p, device));
        printf("%d: %s, compute capability %d.%d, %zu bytes\n", device, p.name, p.major, p.minor, p.totalGlobalMem);
        printf("   uuid ");
        for (unsigned char byte : p.uuid.bytes) printf("%02x", byte);
        char bus[32];
        MUST(cudaDeviceGetPCIBusId(bus, sizeof bus, device));
        printf(", bus %s\n", bus);
        int found = -1;
        MUST(cudaDeviceGetByPCIBusId(&found, bus));
        expect_equal("   found by its bus", device, found);
        printf("   %d multiprocessors, warps of %d, %d threads a block, %d a multiprocessor\n", p.multiProcessorCount,
               p.warpSize, p.maxThreadsPerBlock, p.maxThreadsPerMultiProcessor);
        printf("   block %d x %d x %d, grid %d x %d x %d\n", p.maxThreadsDim[0], p.maxThreadsDim[1], p.maxThreadsDim[2],
               p.maxGridSize[0], p.maxGridSize[1], p.maxGridSize[2]);
        printf("   shared %zu (%zu on request), constants %zu, registers %d, level 2 cache %d\n", p.sharedMemPerBlock,
               p.sharedMemPerBlockOptin, p.totalConstMem, p.regsPerBlock, p.l2CacheSize);
        printf("   unified addresses %d, managed %d, mapped host memory %d, cooperative %d, pools %d\n",
               p.unifiedAddressing, p.managedMemory, p.canMapHostMemory, p.cooperativeLaunch, p.memoryPoolsSupported);
        expect("   has a name", p.name[0] != 0);
        expect("   warps are 32 wide", p.warpSize == 32);
        expect("   a block of 1024 fits", p.maxThreadsPerBlock == 1024);
        expect("   48 KiB shared at least", p.sharedMemPerBlock >= 49152 && p.sharedMemPerBlockOptin >= p.sharedMemPerBlock);
        int value = 0;
        MUST(cudaDeviceGetAttribute(&value, cudaDevAttrComputeCapabilityMajor, device));
        expect_equal("   attribute and property agree", p.major, value);
        MUST(cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, device));
        expect_equal("   and here", p.multiProcessorCount, value);
    }
    int blocks = 0, threads = 0, grid = 0;
    MUST(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, nothing, 256, 0));
    MUST(cudaOccupancyMaxPotentialBlockSize(&grid, &threads, nothing, 0, 0));
    printf("occupancy: %d blocks of 256; suggested %d x %d\n", blocks, grid, threads);
    expect("occupancy makes sense", blocks >= 1 && threads >= 32 && threads <= 1024 && grid >= 1);
    size_t limit = 0;
    MUST(cudaDeviceGetLimit(&limit, cudaLimitStackSize));
    expect("there is a stack", limit >= 512);
    MUST(cudaDeviceSetLimit(cudaLimitStackSize, 4096));
    MUST(cudaDeviceGetLimit(&limit, cudaLimitStackSize));
    expect("that can be set", limit >= 4096);
    return verdict();
}
