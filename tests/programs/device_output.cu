// Text of kernels where it is easily lost or out of place. What to do is an argument; the text is looked at by
// whoever runs this program.
#include "expect.h"

#include <string>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

__global__ void lines(int first, int count) {
    for (int i = 0; i < count; ++i) printf("line %6d of text that a kernel prints\n", first + i);
}

__global__ void blocks(float *sum) {
    if (threadIdx.x == 0) printf("block %d adds to %.9g\n", blockIdx.x, *sum);
    atomicAdd(sum, 1.0f / float(blockIdx.x * blockDim.x + threadIdx.x + 1));
}

void print_and_wait(int first, int count) {
    lines<<<1, 1>>>(first, count);
    MUST(cudaGetLastError());
    MUST(cudaDeviceSynchronize());
}

// More than the buffer holds: some of it is lost, and the program goes on.
int overflow() {
    MUST(cudaDeviceSetLimit(cudaLimitPrintfFifoSize, 1 << 16));
    print_and_wait(0, 20000);
    return 0;
}

// Much text, all of which the buffer holds.
int large() {
    print_and_wait(0, 8000);
    print_and_wait(8000, 8000);
    return 0;
}

// A program that ends without waiting does not see the text of its last kernel.
int unsynchronized() {
    print_and_wait(0, 2);
    lines<<<1, 1>>>(2, 1);
    while (cudaStreamQuery(0) == cudaErrorNotReady) usleep(1000);
    return 0;
}

// Text is in the C library's buffer when the program leaves without emptying it, or is doubled with the process.
int unflushed(bool with_fork) {
    printf("the program before\n");
    print_and_wait(0, 2);
    printf("the program after\n");
    if (!with_fork) _exit(0);
    pid_t child = fork();
    printf("%s\n", child == 0 ? "the child" : "the parent");
    if (child == 0) exit(0);
    int status = -1;
    return waitpid(child, &status, 0) == child ? status : 1;
}

int closed(bool by_name) {
    if (by_name) fclose(stdout);
    else close(1);
    print_and_wait(0, 2000);
    fprintf(stderr, "still here\n");
    return 0;
}

// A thread that holds the stream while it waits, and one that cannot print meanwhile.
int locked() {
    print_and_wait(0, 1);
    flockfile(stdout);
    std::thread other([] { print_and_wait(1, 3); });
    usleep(50000);
    print_and_wait(4, 3);
    funlockfile(stdout);
    other.join();
    return 0;
}

// Several blocks at once, in two streams: every order is right unless the device says which.
int order() {
    float *sums = nullptr, found[2] = {};
    MUST(cudaMalloc(&sums, sizeof found));
    MUST(cudaMemset(sums, 0, sizeof found));
    MUST(cudaDeviceSynchronize());
    cudaStream_t streams[2];
    for (cudaStream_t &stream : streams) MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (int round = 0; round < 6; ++round) {
        blocks<<<24, 96, 0, streams[round % 2]>>>(sums + round % 2);
        MUST(cudaGetLastError());
    }
    MUST(cudaDeviceSynchronize());
    MUST(cudaMemcpy(found, sums, sizeof found, cudaMemcpyDeviceToHost));
    printf("%.9g %.9g\n", found[0], found[1]);
    return 0;
}

int main(int count, char **arguments) {
    std::string what = count > 1 ? arguments[1] : "";
    if (what == "overflow") return overflow();
    if (what == "large") return large();
    if (what == "unsynchronized") return unsynchronized();
    if (what == "unflushed") return unflushed(false);
    if (what == "forked") return unflushed(true);
    if (what == "closed") return closed(false);
    if (what == "closed-stream") return closed(true);
    if (what == "locked") return locked();
    if (what == "order") return order();
    print_and_wait(0, 3);
    return 0;
}
