// Variables of the module: __constant__ tables, __device__ variables with and without first values, their
// addresses and sizes, and pointers between them.
#include "expect.h"

struct Setting {
    int scale;
    float offset;
};

__constant__ int table[64];
__constant__ Setting setting = {3, 0.5f};
__device__ int counter = 100;
__device__ float grid[4][8];
__device__ int *where = &counter;
__device__ const char greeting[] = "hello from the device";

__global__ void use(float *out) {
    int i = threadIdx.x;
    out[i] = table[i] * setting.scale + setting.offset;
    grid[i % 4][i / 4 % 8] = out[i];
    atomicAdd(where, i);
}

__global__ void spell(char *out) {
    if (threadIdx.x < sizeof greeting) out[threadIdx.x] = greeting[threadIdx.x];
}

int main() {
    std::vector<int> numbers(64);
    for (int i = 0; i < 64; ++i) numbers[i] = i * i - 7;
    MUST(cudaMemcpyToSymbol(table, numbers.data(), 64 * sizeof(int)));
    DeviceArray<float> out(32);
    use<<<1, 32>>>(out);
    MUST(cudaGetLastError());
    std::vector<float> wanted(32);
    for (int i = 0; i < 32; ++i) wanted[i] = numbers[i] * 3 + 0.5f;
    expect_same("constants", wanted, out.read());

    int count = 0;
    MUST(cudaMemcpyFromSymbol(&count, counter, sizeof count));
    expect_equal("counter", 100 + 31 * 32 / 2, count);

    Setting changed = {-2, 0.25f};
    MUST(cudaMemcpyToSymbol(setting, &changed, sizeof changed));
    int patch = 1000;
    MUST(cudaMemcpyToSymbol(table, &patch, sizeof patch, 5 * sizeof(int)));
    use<<<1, 32>>>(out);
    MUST(cudaGetLastError());
    numbers[5] = 1000;
    for (int i = 0; i < 32; ++i) wanted[i] = numbers[i] * -2 + 0.25f;
    expect_same("changed constants", wanted, out.read());

    float cell = 0;
    MUST(cudaMemcpyFromSymbol(&cell, grid, sizeof cell, (2 * 8 + 3) * sizeof(float)));
    expect_near("one cell of a table", wanted[14], cell, 0);

    size_t size = 0;
    MUST(cudaGetSymbolSize(&size, grid));
    expect_equal("its size", 128, size);
    void *address = nullptr;
    MUST(cudaGetSymbolAddress(&address, counter));
    int fresh = 7;
    MUST(cudaMemcpy(address, &fresh, sizeof fresh, cudaMemcpyHostToDevice));
    MUST(cudaMemcpyFromSymbol(&count, counter, sizeof count));
    expect_equal("counter through its address", 7, count);
    int *inner = nullptr;
    MUST(cudaMemcpyFromSymbol(&inner, where, sizeof inner));
    expect("the pointer variable points at it", inner == address);

    // In a stream, each copy after the one before it.
    cudaStream_t stream;
    MUST(cudaStreamCreate(&stream));
    int *pinned = nullptr;
    MUST(cudaMallocHost(&pinned, 2 * sizeof(int)));
    pinned[0] = 77;
    MUST(cudaMemcpyToSymbolAsync(counter, pinned, sizeof(int), 0, cudaMemcpyHostToDevice, stream));
    MUST(cudaMemcpyToSymbolAsync(grid, address, sizeof(int), 12, cudaMemcpyDeviceToDevice, stream));
    MUST(cudaMemcpyFromSymbolAsync(pinned + 1, grid, sizeof(int), 12, cudaMemcpyDeviceToHost, stream));
    MUST(cudaStreamSynchronize(stream));
    expect_equal("through two symbols in a stream", 77, pinned[1]);
    expect_error("beyond a symbol", cudaErrorInvalidValue, cudaMemcpyToSymbol(counter, pinned, 4, 4));
    cudaGetLastError();
    MUST(cudaFreeHost(pinned));
    MUST(cudaStreamDestroy(stream));

    DeviceArray<char> text(32);
    MUST(cudaMemset(text, 0, 32));
    spell<<<1, 32>>>(text);
    MUST(cudaGetLastError());
    printf("%s\n", text.read().data());
    expect("greeting", strcmp(text.read().data(), "hello from the device") == 0);
    expect_error("a symbol that is none", cudaErrorInvalidSymbol, cudaGetSymbolSize(&size, (const void *)&size));
    return verdict();
}
