// The classic pipeline: chunks of one array copied in, worked on and copied out on several streams, timed by
// events; from page-locked memory, and from memory that the system may move.
#include "expect.h"

__global__ void polynomial(float *data, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        float x = data[i];
        data[i] = fmaf(fmaf(fmaf(0.5f, x, -2.0f), x, 3.0f), x, 1.0f);
    }
}

void pipeline(const char *what, float *in, float *out, int n) {
    const int chunks = 8, streams = 4, chunk = n / chunks;
    float *device;
    MUST(cudaMalloc(&device, n * sizeof(float)));
    memset(out, 0, n * sizeof(float));
    Random random(12);
    for (int i = 0; i < n; ++i) in[i] = random.unit() * 4 - 2;
    cudaStream_t stream[streams];
    cudaEvent_t begin, middle, end;
    for (cudaStream_t &each : stream) MUST(cudaStreamCreateWithFlags(&each, cudaStreamNonBlocking));
    MUST(cudaEventCreate(&begin));
    MUST(cudaEventCreate(&middle));
    MUST(cudaEventCreate(&end));
    MUST(cudaEventRecord(begin, stream[0]));
    for (int c = 0; c < chunks; ++c) {
        cudaStream_t mine = stream[c % streams];
        MUST(cudaMemcpyAsync(device + c * chunk, in + c * chunk, chunk * sizeof(float), cudaMemcpyHostToDevice, mine));
        polynomial<<<chunk / 256, 256, 0, mine>>>(device + c * chunk, chunk);
        MUST(cudaGetLastError());
        MUST(cudaMemcpyAsync(out + c * chunk, device + c * chunk, chunk * sizeof(float), cudaMemcpyDeviceToHost, mine));
    }
    for (int s = 1; s < streams; ++s) {
        cudaEvent_t joined;
        MUST(cudaEventCreateWithFlags(&joined, cudaEventDisableTiming));
        MUST(cudaEventRecord(joined, stream[s]));
        MUST(cudaStreamWaitEvent(stream[0], joined, 0));
        MUST(cudaEventDestroy(joined));
        if (s == 1) MUST(cudaEventRecord(middle, stream[0]));
    }
    MUST(cudaEventRecord(end, stream[0]));
    MUST(cudaEventSynchronize(end));
    float milliseconds = -1, first = -1, second = -1;
    MUST(cudaEventElapsedTime(&milliseconds, begin, end));
    MUST(cudaEventElapsedTime(&first, begin, middle));
    MUST(cudaEventElapsedTime(&second, middle, end));
    printf("%s\n", what);
    expect("it took some time", milliseconds > 0 && milliseconds < 120000);
    // Each difference is rounded for itself.
    expect("of which the parts make the whole", first >= 0 && second >= 0 &&
                                                    std::fabs(first + second - milliseconds) < 0.01f + milliseconds * 1e-3f);
    int wrong = 0;
    for (int i = 0; i < n; ++i) {
        float x = in[i];
        wrong += out[i] != std::fmaf(std::fmaf(std::fmaf(0.5f, x, -2.0f), x, 3.0f), x, 1.0f);
    }
    expect_equal("wrong numbers", 0, wrong);
    for (cudaStream_t each : stream) MUST(cudaStreamDestroy(each));
    MUST(cudaEventDestroy(begin));
    MUST(cudaEventDestroy(middle));
    MUST(cudaEventDestroy(end));
    MUST(cudaFree(device));
}

int main() {
    const int n = 1 << 19;
    float *in, *out;
    MUST(cudaMallocHost(&in, n * sizeof(float)));
    MUST(cudaMallocHost(&out, n * sizeof(float)));
    pipeline("page-locked", in, out, n);
    std::vector<float> pageable_in(n), pageable_out(n);
    pipeline("pageable", pageable_in.data(), pageable_out.data(), n);
    pipeline("out of page-locked into pageable", in, pageable_out.data(), n);
    MUST(cudaFreeHost(in));
    MUST(cudaFreeHost(out));
    return verdict();
}
