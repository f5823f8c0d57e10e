// Arithmetic, comparisons and conversions in half and bfloat16, one and two at a time.
// nvcc: -arch=sm_80
#include "expect.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

__global__ void halves(const float *in, float *out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    __half a = __float2half(in[i]), b = __float2half(in[(i + 1) % n]);
    out[i * 6] = __half2float(__hadd(a, b));
    out[i * 6 + 1] = __half2float(__hmul(a, b));
    out[i * 6 + 2] = __half2float(__hfma(a, b, a));
    out[i * 6 + 3] = __hlt(a, b) ? 1.0f : 0.0f;
    out[i * 6 + 4] = __half2float(__hmax(a, b));
    out[i * 6 + 5] = __half2float(__hneg(__hsub(a, b)));
}

__global__ void pairs(const __half2 *a, const __half2 *b, __half2 *out) {
    int i = threadIdx.x;
    out[i] = __hfma2(a[i], b[i], __half2half2(__low2half(a[i])));
}

__global__ void brains(const float *in, float *out, int n) {
    int i = threadIdx.x;
    if (i >= n) return;
    __nv_bfloat16 a = __float2bfloat16(in[i]), b = __float2bfloat16(in[(i + 1) % n]);
    out[i * 2] = __bfloat162float(__hadd(a, b));
    out[i * 2 + 1] = __bfloat162float(__hmul(a, b));
}

__global__ void convert(const __half *in, int *out) {
    int i = threadIdx.x;
    out[i * 4] = __half2int_rn(in[i]);
    out[i * 4 + 1] = __half2int_rz(in[i]);
    out[i * 4 + 2] = __half2int_rd(in[i]);
    out[i * 4 + 3] = __half_as_ushort(__int2half_rn(out[i * 4] * 3));
}

int main() {
    // Values whose sums and products fit the format, so that every result here is exact.
    const int n = 256;
    std::vector<float> in(n), wanted(n * 6);
    Random random(7);
    for (float &x : in) x = (int(random.next() % 63) - 31) * 0.25f;
    for (int i = 0; i < n; ++i) {
        float a = in[i], b = in[(i + 1) % n];
        wanted[i * 6] = a + b;
        wanted[i * 6 + 1] = a * b;
        wanted[i * 6 + 2] = a * b + a;
        wanted[i * 6 + 3] = a < b;
        wanted[i * 6 + 4] = a > b ? a : b;
        wanted[i * 6 + 5] = -(a - b);
        // Zeros compare as equal here whatever their sign.
        for (int k = 0; k < 6; ++k) wanted[i * 6 + k] += 0.0f;
    }
    DeviceArray<float> source(in), out(n * 6);
    halves<<<2, 128>>>(source, out, n);
    MUST(cudaGetLastError());
    std::vector<float> got = out.read();
    for (float &x : got) x += 0.0f;
    expect_same("half", wanted, got);

    std::vector<__half2> a(64), b(64);
    std::vector<float> low(64), high(64), low_got(64), high_got(64);
    for (int i = 0; i < 64; ++i) {
        a[i] = __floats2half2_rn(in[i], in[i + 64]);
        b[i] = __floats2half2_rn(in[i + 128], 2.0f);
        low[i] = in[i] * in[i + 128] + in[i] + 0.0f;
        high[i] = in[i + 64] * 2.0f + in[i] + 0.0f;
    }
    DeviceArray<__half2> da(a), db(b), sums(64);
    pairs<<<1, 64>>>(da, db, sums);
    MUST(cudaGetLastError());
    std::vector<__half2> both = sums.read();
    for (int i = 0; i < 64; ++i) {
        low_got[i] = __low2float(both[i]) + 0.0f;
        high_got[i] = __high2float(both[i]) + 0.0f;
    }
    expect_same("pairs, low", low, low_got);
    expect_same("pairs, high", high, high_got);

    std::vector<float> brain_wanted(128), brain_got;
    for (int i = 0; i < 64; ++i) {
        float x = in[i], y = in[(i + 1) % 64];
        brain_wanted[i * 2] = __bfloat162float(__float2bfloat16(x + y)) + 0.0f;
        brain_wanted[i * 2 + 1] = __bfloat162float(__float2bfloat16(x * y)) + 0.0f;
    }
    DeviceArray<float> brain_out(128);
    brains<<<1, 64>>>(source, brain_out, 64);
    MUST(cudaGetLastError());
    brain_got = brain_out.read();
    for (float &x : brain_got) x += 0.0f;
    expect_same("bfloat16", brain_wanted, brain_got);

    std::vector<__half> numbers(32);
    std::vector<int> converted(128);
    for (int i = 0; i < 32; ++i) {
        float x = (i - 16) * 0.75f;
        numbers[i] = __float2half(x);
        converted[i * 4] = int(std::nearbyint(x));
        converted[i * 4 + 1] = int(std::trunc(x));
        converted[i * 4 + 2] = int(std::floor(x));
        converted[i * 4 + 3] = __half_as_ushort(__float2half(float(converted[i * 4] * 3)));
    }
    DeviceArray<__half> halves_in(numbers);
    DeviceArray<int> converted_out(128);
    convert<<<1, 32>>>(halves_in, converted_out);
    MUST(cudaGetLastError());
    expect_same("conversions", converted, converted_out.read());
    return verdict();
}
