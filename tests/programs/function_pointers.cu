// Calls through pointers to device functions: from a table, handed over by the host, different per lane, and
// virtual ones.
#include "expect.h"

typedef float (*Operation)(float, float);

__device__ float add(float a, float b) { return a + b; }
__device__ float subtract(float a, float b) { return a - b; }
__device__ float multiply(float a, float b) { return a * b; }
__device__ Operation table[] = {add, subtract, multiply};
__device__ Operation chosen = multiply;

struct Shape {
    __device__ virtual float area() const = 0;
    __device__ virtual ~Shape() {}
};
struct Square : Shape {
    float side;
    __device__ explicit Square(float s) : side(s) {}
    __device__ float area() const override { return side * side; }
};
struct Bar : Shape {
    float length, width;
    __device__ Bar(float l, float w) : length(l), width(w) {}
    __device__ float area() const override { return length * width; }
};

__global__ void by_table(const int *which, float *out) {
    int i = threadIdx.x;
    out[i] = table[which[i]](i, 3.0f);
}

__global__ void by_argument(Operation operation, float *out) { out[threadIdx.x] = operation(threadIdx.x, 0.5f); }

__global__ void by_class(float *out) {
    int i = threadIdx.x;
    Square square(i + 1.0f);
    Bar bar(i + 1.0f, 10.0f);
    const Shape *shape = i % 2 ? static_cast<const Shape *>(&square) : &bar;
    out[i] = shape->area();
}

int main() {
    std::vector<int> which(64);
    std::vector<float> wanted(64);
    for (int i = 0; i < 64; ++i) {
        which[i] = i * 7 % 3;
        wanted[i] = which[i] == 0 ? i + 3.0f : which[i] == 1 ? i - 3.0f : i * 3.0f;
    }
    DeviceArray<int> choice(which);
    DeviceArray<float> out(64);
    by_table<<<1, 64>>>(choice, out);
    MUST(cudaGetLastError());
    expect_same("from a table, per lane", wanted, out.read());

    Operation operation;
    MUST(cudaMemcpyFromSymbol(&operation, chosen, sizeof operation));
    by_argument<<<1, 64>>>(operation, out);
    MUST(cudaGetLastError());
    for (int i = 0; i < 64; ++i) wanted[i] = i * 0.5f;
    expect_same("handed over by the host", wanted, out.read());

    by_class<<<1, 64>>>(out);
    MUST(cudaGetLastError());
    for (int i = 0; i < 64; ++i) wanted[i] = i % 2 ? (i + 1.0f) * (i + 1.0f) : (i + 1.0f) * 10.0f;
    expect_same("virtual", wanted, out.read());
    return verdict();
}
