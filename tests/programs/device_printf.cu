// Text that kernels print, in the order of the launches, one thread at a time so that the order is fixed.
#include "expect.h"

__global__ void say(int round, const char *, float x) {
    printf("round %d: %5.2f %s %c %%\n", round, x, round % 2 ? "odd" : "even", 'a' + round);
    printf("  %lld %u %x %08.3e\n", -5000000000ll * round, 4000000000u, 0xBEEF + round, double(x) * 1e10);
}

int main() {
    for (int round = 0; round < 4; ++round) say<<<1, 1>>>(round, nullptr, round * 1.25f);
    MUST(cudaGetLastError());
    MUST(cudaDeviceSynchronize());
    fflush(stdout);
    return verdict();
}
