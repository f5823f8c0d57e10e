// The mathematics library in float and double against the host's, within the errors CUDA documents, and the
// roundings that must be exact.
#include "expect.h"

enum { FUNCTIONS = 20 };
const char *const names[FUNCTIONS] = {"sin",  "cos",  "tan",   "exp",   "log",  "log2", "sqrt", "rsqrt", "pow",  "atan2",
                                      "tanh", "sinh", "asin",  "erf",   "cbrt", "fmod", "hypot", "lgamma", "expm1", "floor"};

template <class T> __host__ __device__ T reciprocal_root(T x) { return T(1) / sqrt(x); }
#ifdef __CUDA_ARCH__
#define ROOT(x) rsqrt(x)
#else
#define ROOT(x) reciprocal_root(x)
#endif

template <class T> __host__ __device__ void every(T x, T *out) {
    out[0] = sin(x);
    out[1] = cos(x * T(30));
    out[2] = tan(x);
    out[3] = exp(x);
    out[4] = log(x);
    out[5] = log2(x + T(1));
    out[6] = sqrt(x);
    out[7] = ROOT(x);
    out[8] = pow(x, T(1.75));
    out[9] = atan2(x - T(2), x);
    out[10] = tanh(x - T(2));
    out[11] = sinh(x);
    out[12] = asin(x / T(8));
    out[13] = erf(x - T(2));
    out[14] = cbrt(x);
    out[15] = fmod(x * T(100), T(3.5));
    out[16] = hypot(x, T(4));
    out[17] = lgamma(x + T(0.5));
    out[18] = expm1(x * T(0.01));
    out[19] = floor(x * T(10));
}

template <class T> __global__ void compute(const T *in, T *out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) every(in[i], out + i * FUNCTIONS);
}

// Additions, products, quotients, roots and fused products are rounded exactly on every device.
template <class T> __host__ __device__ void exact(T a, T b, T *out) {
    out[0] = a / b;
    out[1] = sqrt(a);
    out[2] = fma(a, b, -a);
    out[3] = T(1) / b;
    out[4] = trunc(a * T(7));
    out[5] = rint(b * T(3));
}

template <class T> __global__ void compute_exact(const T *in, T *out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) exact(in[i], in[(i + 1) % n], out + i * 6);
}

template <class T> void check(const char *type, double tolerance) {
    const int n = 1000;
    std::vector<T> in(n), wanted(n * FUNCTIONS), exactly(n * 6);
    for (int i = 0; i < n; ++i) in[i] = T(0.004) * T(i) + T(0.011);
    for (int i = 0; i < n; ++i) {
        every(in[i], &wanted[i * FUNCTIONS]);
        exact(in[i], in[(i + 1) % n], &exactly[i * 6]);
    }
    DeviceArray<T> source(in), out(n * FUNCTIONS), exact_out(n * 6);
    compute<T><<<(n + 127) / 128, 128>>>(source, out, n);
    MUST(cudaGetLastError());
    std::vector<T> got = out.read();
    for (int f = 0; f < FUNCTIONS; ++f) {
        int far = 0;
        double worst = 0;
        for (int i = 0; i < n; ++i) {
            double w = wanted[i * FUNCTIONS + f], g = got[i * FUNCTIONS + f];
            double error = std::fabs(g - w) / (std::fabs(w) > 1 ? std::fabs(w) : 1);
            // tan and sin near their zeros, floor and fmod at a step: an absolute bound is the fair one.
            if (!(error <= tolerance)) ++far;
            if (!(error <= worst)) worst = error;
        }
        char what[48];
        snprintf(what, sizeof what, "%s %s out of bounds", type, names[f]);
        expect_equal(what, 0, far);
        if (far) printf("  worst error %.3g\n", worst);
    }
    compute_exact<T><<<(n + 127) / 128, 128>>>(source, exact_out, n);
    MUST(cudaGetLastError());
    expect_same(type, exactly, exact_out.read());
}

int main() {
    check<float>("float", 4e-6);
    check<double>("double", 4e-14);
    return verdict();
}
