// Events and streams that come and go leave nothing behind in the program.
//
//     come_and_go [COUNT]
#include "expect.h"

#include <algorithm>

// Memory of this process that is resident.
static long resident_bytes() {
    long pages = 0, resident = 0;
    if (FILE *file = fopen("/proc/self/statm", "r")) {
        if (fscanf(file, "%ld %ld", &pages, &resident) != 2) resident = 0;
        fclose(file);
    }
    return resident * 4096;
}

static void come_and_go(long count) {
    for (long i = 0; i < count; ++i) {
        cudaEvent_t event;
        MUST(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
        MUST(cudaEventRecord(event, nullptr));
        MUST(cudaEventDestroy(event));
        if (i % 4 != 0) continue;
        cudaStream_t stream;
        MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
        MUST(cudaStreamDestroy(stream));
    }
    MUST(cudaDeviceSynchronize());
}

int main(int argc, char **argv) {
    const long count = argc > 1 ? strtol(argv[1], nullptr, 10) : 400;
    MUST(cudaFree(nullptr));
    come_and_go(count / 4);
    long before = resident_bytes();
    come_and_go(count);
    // The streams' device still does what it is told.
    DeviceArray<int> data(std::vector<int>(1000, 3));
    MUST(cudaMemset(data, 0, 500 * sizeof(int)));
    std::vector<int> half(1000, 3);
    std::fill(half.begin(), half.begin() + 500, 0);
    expect_same("data", half, data.read());
    // Calls that are under way take some MiB.
    expect("memory stays as it was", resident_bytes() - before < 16 << 20);
    return verdict();
}
