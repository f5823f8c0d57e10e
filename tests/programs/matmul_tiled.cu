// A matrix product through 16x16 tiles of shared memory, for sizes that do not divide by the tile: in float, in
// double, in half with sums in float, and in half throughout, two numbers at a time.
// nvcc: -arch=sm_80
#include "expect.h"

#include <cuda_fp16.h>

__device__ float wide(__half x) { return __half2float(x); }
template <class T> __device__ T wide(T x) { return x; }

template <class T, class Sum, int TILE>
__global__ void multiply(const T *a, const T *b, Sum *c, int rows, int inner, int columns) {
    __shared__ T tile_a[TILE][TILE];
    __shared__ T tile_b[TILE][TILE];
    int row = blockIdx.y * TILE + threadIdx.y;
    int column = blockIdx.x * TILE + threadIdx.x;
    Sum total = 0;
    for (int start = 0; start < inner; start += TILE) {
        int ka = start + threadIdx.x, kb = start + threadIdx.y;
        tile_a[threadIdx.y][threadIdx.x] = row < rows && ka < inner ? a[row * inner + ka] : T(0);
        tile_b[threadIdx.y][threadIdx.x] = kb < inner && column < columns ? b[kb * columns + column] : T(0);
        __syncthreads();
        for (int k = 0; k < TILE; ++k) total += wide(tile_a[threadIdx.y][k]) * wide(tile_b[k][threadIdx.x]);
        __syncthreads();
    }
    if (row < rows && column < columns) c[row * columns + column] = total;
}

// Columns in pairs: each thread works on two of them with one instruction.
__global__ void multiply_pairs(const __half *a, const __half2 *b, __half2 *c, int rows, int inner, int pairs) {
    __shared__ __half tile_a[16][17];
    __shared__ __half2 tile_b[16][16];
    int row = blockIdx.y * 16 + threadIdx.y, pair = blockIdx.x * 16 + threadIdx.x;
    __half2 total = __float2half2_rn(0.0f);
    for (int start = 0; start < inner; start += 16) {
        int ka = start + threadIdx.x, kb = start + threadIdx.y;
        tile_a[threadIdx.y][threadIdx.x] = row < rows && ka < inner ? a[row * inner + ka] : __float2half(0.0f);
        tile_b[threadIdx.y][threadIdx.x] = kb < inner && pair < pairs ? b[kb * pairs + pair] : __float2half2_rn(0.0f);
        __syncthreads();
        for (int k = 0; k < 16; ++k)
            total = __hfma2(__half2half2(tile_a[threadIdx.y][k]), tile_b[k][threadIdx.x], total);
        __syncthreads();
    }
    if (row < rows && pair < pairs) c[row * pairs + pair] = total;
}

template <class T> struct SumOf { typedef T type; };
template <> struct SumOf<__half> { typedef float type; };

template <class T> void check(const char *what, int rows, int inner, int columns) {
    typedef typename SumOf<T>::type Sum;
    std::vector<T> a(rows * inner), b(inner * columns);
    std::vector<Sum> product(rows * columns);
    Random random(2);
    // Small whole numbers: every order of summing them gives the same exact result.
    for (T &x : a) x = T(int(random.next() % 17) - 8);
    for (T &x : b) x = T(int(random.next() % 17) - 8);
    for (int i = 0; i < rows; ++i)
        for (int k = 0; k < inner; ++k)
            for (int j = 0; j < columns; ++j) product[i * columns + j] += Sum(a[i * inner + k]) * Sum(b[k * columns + j]);
    DeviceArray<T> da(a), db(b);
    DeviceArray<Sum> dc(rows * columns);
    dim3 grid((columns + 15) / 16, (rows + 15) / 16), block(16, 16);
    multiply<T, Sum, 16><<<grid, block>>>(da, db, dc, rows, inner, columns);
    MUST(cudaGetLastError());
    expect_same(what, product, dc.read());
}

void check_pairs(const char *what, int rows, int inner, int columns) {
    std::vector<__half> a(rows * inner), b(inner * columns), product(rows * columns);
    Random random(3);
    // Sums stay below 2048 in size, where halves hold every whole number.
    for (__half &x : a) x = __float2half(float(int(random.next() % 5) - 2));
    for (__half &x : b) x = __float2half(float(int(random.next() % 7) - 3));
    for (int i = 0; i < rows; ++i)
        for (int j = 0; j < columns; ++j) {
            float total = 0;
            for (int k = 0; k < inner; ++k) total += __half2float(a[i * inner + k]) * __half2float(b[k * columns + j]);
            product[i * columns + j] = __float2half(total + 0.0f);
        }
    DeviceArray<__half> da(a), db(b), dc(rows * columns);
    dim3 grid((columns / 2 + 15) / 16, (rows + 15) / 16), block(16, 16);
    multiply_pairs<<<grid, block>>>(da, (const __half2 *)db.data, (__half2 *)dc.data, rows, inner, columns / 2);
    MUST(cudaGetLastError());
    std::vector<__half> got = dc.read();
    std::vector<float> wanted_numbers(got.size()), numbers(got.size());
    for (size_t i = 0; i < got.size(); ++i) {
        wanted_numbers[i] = __half2float(product[i]) + 0.0f;
        numbers[i] = __half2float(got[i]) + 0.0f;
    }
    expect_same(what, wanted_numbers, numbers);
}

int main() {
    check<float>("float 64x64x64", 64, 64, 64);
    check<float>("float 100x37x71", 100, 37, 71);
    check<double>("double 33x129x50", 33, 129, 50);
    check<double>("double 48x16x80", 48, 16, 80);
    check<__half>("half, summed in float 40x70x33", 40, 70, 33);
    check_pairs("half in pairs 37x50x44", 37, 50, 44);
    return verdict();
}
