// How far events are, asked again and again: an event that something else shows to be over is over, one
// that is recorded anew is not, and one may be destroyed while it is still to come.
#include "expect.h"

__global__ void spin(int *out, int rounds) {
    unsigned x = threadIdx.x;
    for (int i = 0; i < rounds; ++i) x = x * 1664525u + 1013904223u;
    out[threadIdx.x] = int(x & 1);
}

static void look_at(void *seen) { *static_cast<volatile int *>(seen) += 1; }

int main() {
    const int rounds = 60;
    cudaStream_t first, second;
    MUST(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking));
    MUST(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
    std::vector<int> copied(32, 0);
    DeviceArray<int> out(copied);
    cudaEvent_t event, other;
    MUST(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    MUST(cudaEventCreateWithFlags(&other, cudaEventDisableTiming));
    expect_error("one that was never recorded", cudaSuccess, cudaEventQuery(event));

    int late = 0, strange = 0, calls = 0;
    auto ask = [&](cudaEvent_t which, bool over) {
        cudaError_t found = cudaEventQuery(which);
        if (over && found != cudaSuccess) ++late;
        if (found != cudaSuccess && found != cudaErrorNotReady) ++strange;
    };
    for (int round = 0; round < rounds; ++round) {
        spin<<<1, 32, 0, first>>>(out, 20000);
        MUST(cudaEventRecord(event, first));
        ask(event, false);
        switch (round % 6) {
        case 0:
            MUST(cudaStreamSynchronize(first));
            break;
        case 1: // by way of another stream
            MUST(cudaStreamWaitEvent(second, event, 0));
            MUST(cudaStreamSynchronize(second));
            break;
        case 2: // by way of a later event
            MUST(cudaEventRecord(other, first));
            MUST(cudaEventSynchronize(other));
            ask(other, true);
            break;
        case 3: // by a copy
            MUST(cudaStreamWaitEvent(second, event, 0));
            MUST(cudaMemcpyAsync(copied.data(), out, sizeof(int) * 32, cudaMemcpyDeviceToHost, second));
            MUST(cudaStreamSynchronize(second));
            break;
        case 4: // by a function of the host's, after the event
            MUST(cudaLaunchHostFunc(first, look_at, &calls));
            MUST(cudaStreamSynchronize(first));
            break;
        case 5: // by asking until it is
            while (cudaEventQuery(event) == cudaErrorNotReady) {
            }
            break;
        }
        ask(event, true);
        // Recorded anew it stands for what was queued since.
        spin<<<1, 32, 0, first>>>(out, 20000);
        MUST(cudaEventRecord(event, first));
        ask(event, false);
    }
    expect_equal("queries that were late", 0, late);
    expect_equal("queries that failed", 0, strange);
    MUST(cudaDeviceSynchronize());
    expect_equal("functions of the host's", rounds / 6, calls);

    for (int round = 0; round < rounds; ++round) {
        cudaEvent_t brief;
        MUST(cudaEventCreateWithFlags(&brief, cudaEventDisableTiming));
        spin<<<1, 32, 0, first>>>(out, 2000);
        MUST(cudaEventRecord(brief, first));
        ask(brief, false);
        MUST(cudaEventDestroy(brief));
    }
    expect_equal("queries that failed", 0, strange);
    cudaGetLastError();
    MUST(cudaDeviceSynchronize());
    return verdict();
}
