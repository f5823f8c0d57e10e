// A scan over many blocks in three launches, and a transpose through padded tiles.
#include "expect.h"

const int BLOCK = 256;

__global__ void scan_blocks(int *data, int *sums, int n) {
    __shared__ int buffer[2][BLOCK];
    int i = blockIdx.x * BLOCK + threadIdx.x, now = 0;
    buffer[0][threadIdx.x] = i < n ? data[i] : 0;
    __syncthreads();
    for (int step = 1; step < BLOCK; step *= 2) {
        int value = buffer[now][threadIdx.x];
        if (int(threadIdx.x) >= step) value += buffer[now][threadIdx.x - step];
        now ^= 1;
        buffer[now][threadIdx.x] = value;
        __syncthreads();
    }
    if (i < n) data[i] = buffer[now][threadIdx.x];
    if (threadIdx.x == BLOCK - 1 && sums) sums[blockIdx.x] = buffer[now][threadIdx.x];
}

__global__ void add_sums(int *data, const int *sums, int n) {
    int i = (blockIdx.x + 1) * BLOCK + threadIdx.x;
    if (i < n) data[i] += sums[blockIdx.x];
}

__global__ void transpose(const double *in, double *out, int width, int height) {
    __shared__ double tile[32][33];
    int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 32 + threadIdx.y;
    for (int row = 0; row < 32; row += 8)
        if (x < width && y + row < height) tile[threadIdx.y + row][threadIdx.x] = in[(y + row) * width + x];
    __syncthreads();
    x = blockIdx.y * 32 + threadIdx.x;
    y = blockIdx.x * 32 + threadIdx.y;
    for (int row = 0; row < 32; row += 8)
        if (x < height && y + row < width) out[(y + row) * height + x] = tile[threadIdx.x][threadIdx.y + row];
}

int main() {
    const int n = 50021, blocks = (n + BLOCK - 1) / BLOCK;
    std::vector<int> numbers(n), scanned(n);
    Random random(11);
    int running = 0;
    for (int i = 0; i < n; ++i) {
        numbers[i] = int(random.next() % 100) - 30;
        scanned[i] = running += numbers[i];
    }
    DeviceArray<int> data(numbers), sums(blocks);
    scan_blocks<<<blocks, BLOCK>>>(data, sums, n);
    scan_blocks<<<1, BLOCK>>>(sums, nullptr, blocks);
    add_sums<<<blocks - 1, BLOCK>>>(data, sums, n);
    MUST(cudaGetLastError());
    expect_same("scan", scanned, data.read());

    const int width = 150, height = 77;
    std::vector<double> matrix(width * height), turned(width * height);
    for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x) turned[x * height + y] = matrix[y * width + x] = y * 1000.5 + x;
    DeviceArray<double> in(matrix), out(width * height);
    transpose<<<dim3((width + 31) / 32, (height + 31) / 32), dim3(32, 8)>>>(in, out, width, height);
    MUST(cudaGetLastError());
    expect_same("transpose", turned, out.read());
    return verdict();
}
