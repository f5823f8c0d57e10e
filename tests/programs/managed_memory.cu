// Managed memory, one address for both sides: where the device says that it has it, it works; where not, asking for it
// is refused with the code that says so. The output is the same either way.
#include "expect.h"

__global__ void scale(float *data, int n, float factor) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) data[i] *= factor;
}

bool is_refused() {
    float *data = nullptr;
    cudaError_t error = cudaMallocManaged(&data, 4096);
    return error == cudaErrorNotSupported && cudaGetLastError() == error && data == nullptr;
}

bool works() {
    const int n = 5000;
    float *data = nullptr;
    MUST(cudaMallocManaged(&data, n * sizeof(float)));
    for (int i = 0; i < n; ++i) data[i] = float(i);
    scale<<<1, 256>>>(data, n, 2.0f);
    MUST(cudaDeviceSynchronize());
    int wrong = 0;
    for (int i = 0; i < n; ++i) wrong += data[i] != 2.0f * i;
    MUST(cudaFree(data));
    return wrong == 0;
}

int main() {
    int managed = -1, concurrent = -1, pageable = -1;
    MUST(cudaDeviceGetAttribute(&managed, cudaDevAttrManagedMemory, 0));
    MUST(cudaDeviceGetAttribute(&concurrent, cudaDevAttrConcurrentManagedAccess, 0));
    MUST(cudaDeviceGetAttribute(&pageable, cudaDevAttrPageableMemoryAccess, 0));
    cudaDeviceProp properties;
    MUST(cudaGetDeviceProperties(&properties, 0));
    expect("the properties say the same", properties.managedMemory == managed &&
                                              properties.concurrentManagedAccess == concurrent &&
                                              properties.pageableMemoryAccess == pageable);
    expect("nothing builds on what is not there", managed || (!concurrent && !pageable));
    expect("it works, or is refused by name", managed ? works() : is_refused());
    DeviceArray<float> own(std::vector<float>(64, 1.5f));
    scale<<<1, 32>>>(own, 64, 2.0f);
    MUST(cudaGetLastError());
    expect_near("the device's own memory works", 3, own.read()[63], 0);
    return verdict();
}
