// Relocatable device code: a kernel here calls a device function and uses variables of another file.
#include "../expect.h"
#include "shared.h"

__global__ void weigh_all(const Particle *particles, float *out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = weigh(particles[i]);
}

int main() {
    const int n = 500;
    std::vector<Particle> particles(n);
    std::vector<float> wanted(n);
    for (int i = 0; i < n; ++i) {
        particles[i] = {{float(i), float(i % 7), float(i % 3)}, float(1 + i % 4)};
        wanted[i] = (i + 2.0f * (i % 7) + 3.0f * (i % 3)) * (1 + i % 4) * 0.5f;
    }
    DeviceArray<Particle> device(particles);
    DeviceArray<float> out(n);
    weigh_all<<<5, 100>>>(device, out, n);
    MUST(cudaGetLastError());
    expect_same("across files", wanted, out.read());
    int count = 0;
    MUST(cudaMemcpyFromSymbol(&count, calls, sizeof count));
    expect_equal("calls", n, count);
    return verdict();
}
