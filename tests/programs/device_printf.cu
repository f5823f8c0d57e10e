// Text that kernels print: conversions, results, what shows it, and its place among the program's own output.
// The program empties its own buffer before it waits, so that the order does not depend on who buffers.
#include "expect.h"

__device__ int results[3];
__device__ const char where[] = "the device";

__global__ void say(int round, float x) {
    printf("round %d: %5.2f %s %c %%\n", round, x, round % 2 ? "odd" : "even", 'a' + round);
    printf("  %lld %u %x %08.3e\n", -5000000000ll * round, 4000000000u, 0xBEEF + round, double(x) * 1e10);
}

__global__ void every_conversion() {
    printf("|%5d|%-5d|%05d|%+d|% d|%o|%#x|%X|%i|\n", 42, 42, 42, 42, 42, 42, 42, 48879, -1);
    printf("|%hd|%ld|%lld|%u|%lu|%llu|\n", short(-3), -4L, -5ll, 6u, 7ul, 8ull);
    printf("|%f|%.3f|%10.2f|%-10.1f|%e|%.2E|%g|%G|\n", 1.5, 2.0 / 3, 3.14159, 2.5, 12345.678, 0.00012, 1e-7, 1e20);
    printf("|%s|%8s|%-8s|%.3s|%c|%%|\n", "text", "right", "left", "cut short", 'c');
}

__global__ void lanes() { printf("lane %2d of %s\n", threadIdx.x, where); }

__global__ void pieces(int n) {
    printf("[%d", n);
    printf(":%s", "no end");
    printf("]");
}

__global__ void count() {
    results[0] = printf("nothing to count\n");
    results[1] = printf("%d and %s\n", 7, "text");
    results[2] = printf("%d %d %d %f\n", 1, 2, 3, 4.0);
}

template <class Wait> void shown_by(const char *what, int round, Wait wait) {
    say<<<1, 1>>>(round, round * 1.25f);
    MUST(cudaGetLastError());
    printf("before %s\n", what);
    fflush(stdout);
    wait();
    printf("after %s\n", what);
}

void CUDART_CB called(cudaStream_t, cudaError_t, void *) {
    printf("called\n");
    fflush(stdout);
}

int main() {
    size_t size = 0, smaller = 0;
    MUST(cudaDeviceGetLimit(&size, cudaLimitPrintfFifoSize));
    expect("a buffer of a megabyte or more", size >= 1 << 20);
    MUST(cudaDeviceSetLimit(cudaLimitPrintfFifoSize, 1 << 18));
    MUST(cudaDeviceGetLimit(&smaller, cudaLimitPrintfFifoSize));
    expect("it takes another size", smaller >= 1 << 18 && smaller < size);

    for (int round = 0; round < 4; ++round) say<<<1, 1>>>(round, round * 1.25f);
    MUST(cudaGetLastError());
    fflush(stdout);
    MUST(cudaDeviceSynchronize());
    every_conversion<<<1, 1>>>();
    lanes<<<1, 32>>>();
    for (int n = 0; n < 3; ++n) pieces<<<1, 1>>>(n);
    fflush(stdout);
    MUST(cudaDeviceSynchronize());
    printf(" and the program goes on in the same line\n");
    count<<<1, 1>>>();
    fflush(stdout);
    MUST(cudaDeviceSynchronize());
    int found[3] = {};
    MUST(cudaMemcpyFromSymbol(found, results, sizeof found));
    expect("printf counts arguments", found[0] == 0 && found[1] == 2 && found[2] == 4);

    cudaEvent_t event;
    MUST(cudaEventCreate(&event));
    shown_by("cudaStreamSynchronize", 1, [] { MUST(cudaStreamSynchronize(0)); });
    shown_by("cudaEventSynchronize", 2, [&] {
        MUST(cudaEventRecord(event));
        MUST(cudaEventSynchronize(event));
    });
    shown_by("cudaMemcpy", 3, [&] { MUST(cudaMemcpyFromSymbol(found, results, sizeof found)); });
    shown_by("a callback", 4, [] {
        MUST(cudaStreamAddCallback(0, called, nullptr, 0));
        MUST(cudaStreamSynchronize(0));
    });
    shown_by("cudaDeviceReset", 5, [] { MUST(cudaDeviceReset()); });
    MUST(cudaDeviceGetLimit(&smaller, cudaLimitPrintfFifoSize));
    expect("the buffer has its first size again", smaller == size);
    return verdict();
}
