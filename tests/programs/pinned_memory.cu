// Page-locked host memory: allocated, registered, copied from and to without waiting, and what the runtime
// says about pointers of every kind.
#include "expect.h"

__global__ void square(int *data, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) data[i] *= data[i];
}

const char *kind(const void *pointer) {
    cudaPointerAttributes attributes;
    MUST(cudaPointerGetAttributes(&attributes, pointer));
    switch (attributes.type) {
    case cudaMemoryTypeUnregistered: return "unregistered";
    case cudaMemoryTypeHost: return "host";
    case cudaMemoryTypeDevice: return "device";
    default: return "other";
    }
}

int main() {
    const int n = 1 << 18;
    int *pinned = nullptr, *other = nullptr;
    MUST(cudaMallocHost(&pinned, n * sizeof(int)));
    MUST(cudaHostAlloc(&other, n * sizeof(int), cudaHostAllocPortable));
    for (int i = 0; i < n; ++i) pinned[i] = i % 1000;
    int *device = nullptr;
    MUST(cudaMalloc(&device, n * sizeof(int)));
    cudaStream_t stream;
    MUST(cudaStreamCreate(&stream));
    MUST(cudaMemcpyAsync(device, pinned, n * sizeof(int), cudaMemcpyHostToDevice, stream));
    square<<<n / 256, 256, 0, stream>>>(device, n);
    MUST(cudaGetLastError());
    MUST(cudaMemcpyAsync(other, device, n * sizeof(int), cudaMemcpyDeviceToHost, stream));
    MUST(cudaStreamSynchronize(stream));
    int wrong = 0;
    for (int i = 0; i < n; ++i) wrong += other[i] != (i % 1000) * (i % 1000);
    expect_equal("wrong numbers", 0, wrong);

    std::vector<int> pageable(n);
    printf("kinds: %s %s %s %s\n", kind(pinned), kind(other + 5), kind(device + 100), kind(pageable.data()));
    expect("kinds are right", !strcmp(kind(pinned), "host") && !strcmp(kind(other + 5), "host") &&
                                  !strcmp(kind(device + 100), "device") && !strcmp(kind(pageable.data()), "unregistered"));
    unsigned flags = 0;
    MUST(cudaHostGetFlags(&flags, other));
    // All of it is mapped where devices share addresses with the host. That it was asked to be portable is not told by
    // every driver: there all of it is that too.
    expect("allocated memory is mapped", flags & cudaHostAllocMapped);

    void *page = nullptr;
    if (posix_memalign(&page, 4096, 65536) != 0) return 2;
    MUST(cudaHostRegister(page, 65536, cudaHostRegisterDefault));
    printf("registered: %s\n", kind(page));
    expect_error("registered twice", cudaErrorHostMemoryAlreadyRegistered,
                 cudaHostRegister(page, 65536, cudaHostRegisterDefault));
    cudaGetLastError();
    memset(page, 3, 65536);
    MUST(cudaMemcpyAsync(device, page, 65536, cudaMemcpyHostToDevice, stream));
    MUST(cudaMemsetAsync(device + 16, 0, 4, stream));
    MUST(cudaMemcpyAsync(page, device, 65536, cudaMemcpyDeviceToHost, stream));
    MUST(cudaStreamSynchronize(stream));
    expect_equal("a word before", 0x03030303, ((int *)page)[15]);
    expect_equal("the word set to zero", 0, ((int *)page)[16]);
    MUST(cudaHostUnregister(page));
    expect_error("unregistered twice", cudaErrorHostMemoryNotRegistered, cudaHostUnregister(page));
    cudaGetLastError();
    free(page);

    MUST(cudaFree(device));
    MUST(cudaFreeHost(pinned));
    MUST(cudaFreeHost(other));
    MUST(cudaStreamDestroy(stream));
    return verdict();
}
