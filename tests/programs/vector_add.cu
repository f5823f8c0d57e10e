// c = a + b over a length that fills no whole number of blocks, and once more in place.
#include "expect.h"

__global__ void add(const float *a, const float *b, float *c, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) c[i] = a[i] + b[i];
}

int main() {
    const int n = 100003;
    std::vector<float> a(n), b(n), sum(n), twice(n);
    Random random(1);
    for (int i = 0; i < n; ++i) {
        a[i] = random.unit();
        b[i] = random.unit() * 1000.0f;
        sum[i] = a[i] + b[i];
        twice[i] = sum[i] + sum[i];
    }
    DeviceArray<float> da(a), db(b), dc(n);
    add<<<(n + 255) / 256, 256>>>(da, db, dc, n);
    MUST(cudaGetLastError());
    MUST(cudaDeviceSynchronize());
    expect_same("sum", sum, dc.read());
    add<<<(n + 127) / 128, 128>>>(dc, dc, dc, n);
    MUST(cudaGetLastError());
    expect_same("twice the sum, in place", twice, dc.read());
    return verdict();
}
