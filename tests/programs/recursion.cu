// Functions that call themselves, to a depth that differs from lane to lane, with arrays of their own.
#include "expect.h"

__host__ __device__ __noinline__ int fibonacci(int n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }

__host__ __device__ __noinline__ int ackermann(int m, int n) {
    if (m == 0) return n + 1;
    if (n == 0) return ackermann(m - 1, 1);
    return ackermann(m - 1, ackermann(m, n - 1));
}

__host__ __device__ __noinline__ void sort(int *data, int low, int high) {
    if (low >= high) return;
    int pivot = data[(low + high) / 2], i = low, j = high;
    while (i <= j) {
        while (data[i] < pivot) ++i;
        while (data[j] > pivot) --j;
        if (i <= j) {
            int swap = data[i];
            data[i++] = data[j];
            data[j--] = swap;
        }
    }
    sort(data, low, j);
    sort(data, i, high);
}

__global__ void numbers(int *fibonaccis, int *ackermanns) {
    fibonaccis[threadIdx.x] = fibonacci(threadIdx.x % 16);
    ackermanns[threadIdx.x] = ackermann(2, threadIdx.x % 8);
}

__global__ void sort_each(int *data, int n) { sort(data + threadIdx.x * n, 0, n - 1); }

int main() {
    MUST(cudaDeviceSetLimit(cudaLimitStackSize, 16384));
    std::vector<int> fibonaccis(64), ackermanns(64);
    for (int i = 0; i < 64; ++i) {
        fibonaccis[i] = fibonacci(i % 16);
        ackermanns[i] = ackermann(2, i % 8);
    }
    DeviceArray<int> f(64), a(64);
    numbers<<<1, 64>>>(f, a);
    MUST(cudaGetLastError());
    expect_same("fibonacci", fibonaccis, f.read());
    expect_same("ackermann", ackermanns, a.read());

    const int n = 50;
    std::vector<int> data(40 * n);
    Random random(6);
    for (int &x : data) x = int(random.next() % 1000);
    DeviceArray<int> sorted(data);
    for (int i = 0; i < 40; ++i) sort(data.data() + i * n, 0, n - 1);
    sort_each<<<1, 40>>>(sorted, n);
    MUST(cudaGetLastError());
    expect_same("quicksort", data, sorted.read());
    return verdict();
}
