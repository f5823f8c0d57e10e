// Memory that the host and kernels share: page-locked memory as kernels see it, the program's own memory
// once it is registered, managed memory. Kernels and host take turns, and each finds what the other wrote.
#include "expect.h"

__global__ void add(int *data, int n, int amount) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) data[i] += amount;
}

__global__ void copy(const int *from, int *to, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) to[i] = from[i];
}

const int N = 100000;
const int BLOCKS = (N + 255) / 256;

int wrong(const int *data, int amount) {
    int count = 0;
    for (int i = 0; i < N; ++i) count += data[i] != i + amount;
    return count;
}

void fill(int *data) {
    for (int i = 0; i < N; ++i) data[i] = i;
}

// Host and device in turns, then both side by side without waiting in between.
void take_turns(const char *name, int *host, int *device) {
    printf("%s\n", name);
    fill(host);
    add<<<BLOCKS, 256>>>(device, N, 5);
    MUST(cudaDeviceSynchronize());
    expect_equal("wrong after a kernel", 0, wrong(host, 5));
    host[7] = 1000;
    host[N - 1] = 2000;
    add<<<BLOCKS, 256>>>(device, N, 1);
    MUST(cudaStreamSynchronize(0));
    expect_equal("what the host wrote, and a kernel after it", 1001, host[7]);
    expect_equal("the same at the end", 2001, host[N - 1]);
    host[7] = 7 + 6;
    host[N - 1] = N - 1 + 6;
    expect_equal("wrong in all", 0, wrong(host, 6));

    cudaEvent_t done;
    MUST(cudaEventCreate(&done));
    add<<<1, 1>>>(device, 1, 100);
    host[1] = -1; // beside what the kernel may be writing
    add<<<1, 1>>>(device, 1, 100);
    MUST(cudaEventRecord(done));
    MUST(cudaEventSynchronize(done));
    expect_equal("the device's word", 206, host[0]);
    expect_equal("the host's word beside it", -1, host[1]);
    MUST(cudaEventDestroy(done));

    DeviceArray<int> away(N);
    fill(host);
    add<<<BLOCKS, 256>>>(device, N, 3);
    copy<<<BLOCKS, 256>>>(device, away, N);
    std::vector<int> got = away.read();
    expect_equal("wrong on the device", 0, wrong(got.data(), 3));
    add<<<BLOCKS, 256>>>(device, N, 1);
    MUST(cudaMemcpy(away, host, N * sizeof(int), cudaMemcpyDefault));
    got = away.read();
    expect_equal("wrong after a copy that waits for the kernel", 0, wrong(got.data(), 4));
    MUST(cudaMemset(device, 0, 16));
    MUST(cudaDeviceSynchronize());
    expect_equal("set to zero", 0, host[3]);
    expect_equal("not set", 8, host[4]);

    // Copies that wait, of whatever, have waited for the kernel.
    add<<<BLOCKS, 256>>>(device, N, 1);
    MUST(cudaMemcpy(got.data(), away, 64, cudaMemcpyDefault));
    expect_equal("after a copy of something else", 9, host[4]);
    add<<<BLOCKS, 256>>>(device, N, 1);
    MUST(cudaMemcpy2D(got.data(), 64, away, 128, 32, 4, cudaMemcpyDeviceToHost));
    expect_equal("after rows of something else", 10, host[4]);
    add<<<BLOCKS, 256>>>(device, N, 1);
    MUST(cudaMemcpy2D(away, 16, host, 32, 8, 100, cudaMemcpyDefault));
    expect_equal("rows of it after a kernel", 99 * 8 + 7, away.read()[99 * 4]);
}

void CUDART_CB look(void *data) {
    int *host = static_cast<int *>(data);
    host[1] = host[0] + 1;
}

int main() {
    cudaDeviceProp device;
    MUST(cudaGetDeviceProperties(&device, 0));
    expect("host memory can be mapped", device.canMapHostMemory);
    expect("there is managed memory", device.managedMemory);

    int *mapped = nullptr, *seen = nullptr;
    MUST(cudaHostAlloc(&mapped, N * sizeof(int), cudaHostAllocMapped));
    MUST(cudaHostGetDevicePointer(&seen, mapped, 0));
    expect("at the same address", seen == mapped);
    take_turns("mapped", mapped, seen);
    MUST(cudaHostGetDevicePointer(&seen, mapped + 10, 0));
    expect("an address within", seen == mapped + 10);

    int *plain = nullptr;
    MUST(cudaMallocHost(&plain, N * sizeof(int)));
    take_turns("page-locked, without a word about mapping", plain, plain);

    std::vector<int> own(N + 100);
    int *start = own.data() + 3;
    MUST(cudaHostRegister(start, N * sizeof(int), cudaHostRegisterMapped));
    MUST(cudaHostGetDevicePointer(&seen, start, 0));
    take_turns("registered", start, seen);
    expect("what lies around it is left alone", own[2] == 0 && own[N + 3] == 0);
    MUST(cudaHostUnregister(start));
    expect_error("no address any more", cudaErrorInvalidValue, cudaHostGetDevicePointer(&seen, start, 0));
    cudaGetLastError();

    int *managed = nullptr;
    MUST(cudaMallocManaged(&managed, N * sizeof(int)));
    take_turns("managed", managed, managed);
    cudaPointerAttributes attributes;
    MUST(cudaPointerGetAttributes(&attributes, managed + 1));
    expect("is managed", attributes.type == cudaMemoryTypeManaged);
    expect("one address", attributes.devicePointer == managed + 1 && attributes.hostPointer == managed + 1);

    // A host function sees what kernels before it wrote, kernels after it see what it wrote.
    cudaStream_t stream;
    MUST(cudaStreamCreate(&stream));
    MUST(cudaStreamAttachMemAsync(stream, managed, 0, cudaMemAttachSingle));
    managed[0] = 40;
    add<<<1, 1, 0, stream>>>(managed, 1, 1);
    MUST(cudaLaunchHostFunc(stream, look, managed));
    add<<<1, 1, 0, stream>>>(managed + 1, 1, 100);
    MUST(cudaStreamSynchronize(stream));
    expect_equal("through a kernel, a host function and a kernel", 142, managed[1]);
    MUST(cudaStreamDestroy(stream));

    expect_error("freed in the middle", cudaErrorInvalidValue, cudaFree(managed + 1));
    cudaGetLastError();
    MUST(cudaFree(managed));
    MUST(cudaFreeHost(plain));
    MUST(cudaFreeHost(mapped));
    int *none = nullptr;
    expect_error("attached to something else", cudaErrorInvalidValue, cudaMallocManaged(&none, 4, 0x40));
    cudaGetLastError();
    return verdict();
}
