// A matrix product through 16x16 tiles of shared memory, in float and in double, for sizes that do not
// divide by the tile.
#include "expect.h"

template <class T, int TILE>
__global__ void multiply(const T *a, const T *b, T *c, int rows, int inner, int columns) {
    __shared__ T tile_a[TILE][TILE];
    __shared__ T tile_b[TILE][TILE];
    int row = blockIdx.y * TILE + threadIdx.y;
    int column = blockIdx.x * TILE + threadIdx.x;
    T total = 0;
    for (int start = 0; start < inner; start += TILE) {
        int ka = start + threadIdx.x, kb = start + threadIdx.y;
        tile_a[threadIdx.y][threadIdx.x] = row < rows && ka < inner ? a[row * inner + ka] : T(0);
        tile_b[threadIdx.y][threadIdx.x] = kb < inner && column < columns ? b[kb * columns + column] : T(0);
        __syncthreads();
        for (int k = 0; k < TILE; ++k) total += tile_a[threadIdx.y][k] * tile_b[k][threadIdx.x];
        __syncthreads();
    }
    if (row < rows && column < columns) c[row * columns + column] = total;
}

template <class T> void check(const char *what, int rows, int inner, int columns) {
    std::vector<T> a(rows * inner), b(inner * columns), product(rows * columns);
    Random random(2);
    // Small whole numbers: every order of summing them gives the same exact result.
    for (T &x : a) x = T(int(random.next() % 17) - 8);
    for (T &x : b) x = T(int(random.next() % 17) - 8);
    for (int i = 0; i < rows; ++i)
        for (int k = 0; k < inner; ++k)
            for (int j = 0; j < columns; ++j) product[i * columns + j] += a[i * inner + k] * b[k * columns + j];
    DeviceArray<T> da(a), db(b), dc(rows * columns);
    dim3 grid((columns + 15) / 16, (rows + 15) / 16), block(16, 16);
    multiply<T, 16><<<grid, block>>>(da, db, dc, rows, inner, columns);
    MUST(cudaGetLastError());
    expect_same(what, product, dc.read());
}

int main() {
    check<float>("float 64x64x64", 64, 64, 64);
    check<float>("float 100x37x71", 100, 37, 71);
    check<double>("double 33x129x50", 33, 129, 50);
    return verdict();
}
