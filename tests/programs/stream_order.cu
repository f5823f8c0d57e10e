// Streams that are held up by a function of the program: what queries answer before and after, that another stream
// goes on meanwhile, and the order of functions, kernels and events across streams.
#include "expect.h"

#include <atomic>
#include <chrono>
#include <mutex>
#include <string>
#include <thread>

__global__ void add(int *data, int term) { data[threadIdx.x] = data[threadIdx.x] * 2 + term; }

std::atomic<bool> released{false};

void CUDART_CB hold(void *) {
    while (!released) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

std::mutex log_mutex;
std::string order;

void note(char letter) {
    std::lock_guard<std::mutex> guard(log_mutex);
    order += letter;
}

void CUDART_CB note_letter(void *letter) { note(*static_cast<const char *>(letter)); }

void CUDART_CB note_status(cudaStream_t, cudaError_t status, void *letter) {
    note(status == cudaSuccess ? *static_cast<const char *>(letter) : '!');
}

int main() {
    DeviceArray<int> held(std::vector<int>(32, 1)), free_one(std::vector<int>(32, 1));
    cudaStream_t first, second;
    for (cudaStream_t *stream : {&first, &second}) MUST(cudaStreamCreateWithFlags(stream, cudaStreamNonBlocking));
    cudaEvent_t before, after, other;
    for (cudaEvent_t *event : {&before, &after, &other}) MUST(cudaEventCreate(event));

    // A kernel is loaded at its first launch, which may wait for the whole context: not while a stream is held up.
    add<<<1, 32, 0, second>>>(free_one, -1);
    MUST(cudaStreamSynchronize(second));

    expect_error("an idle stream", cudaSuccess, cudaStreamQuery(first));
    MUST(cudaEventRecord(before, first));
    MUST(cudaEventSynchronize(before));
    MUST(cudaLaunchHostFunc(first, hold, nullptr));
    add<<<1, 32, 0, first>>>(held, 5);
    MUST(cudaGetLastError());
    MUST(cudaEventRecord(after, first));
    expect_error("a stream that is held up", cudaErrorNotReady, cudaStreamQuery(first));
    expect_error("an event behind it", cudaErrorNotReady, cudaEventQuery(after));
    float milliseconds = 0;
    expect_error("the time until then", cudaErrorNotReady, cudaEventElapsedTime(&milliseconds, before, after));
    add<<<1, 32, 0, second>>>(free_one, 7);
    cudaGetLastError();
    MUST(cudaEventRecord(other, second));
    MUST(cudaStreamSynchronize(second));
    expect_error("another stream", cudaSuccess, cudaStreamQuery(second));
    expect_error("its event", cudaSuccess, cudaEventQuery(other));
    expect_error("still held up", cudaErrorNotReady, cudaStreamQuery(first));
    cudaGetLastError();
    released = true;
    MUST(cudaStreamSynchronize(first));
    expect_error("let go", cudaSuccess, cudaStreamQuery(first));
    expect_error("the event behind it", cudaSuccess, cudaEventQuery(after));
    MUST(cudaEventElapsedTime(&milliseconds, before, after));
    expect("time has passed", milliseconds > 0 && milliseconds < 120000);
    expect_equal("the held kernel ran", 7, held.read()[31]);
    expect_equal("the other one too", 9, free_one.read()[0]);

    // Second waits for the middle of first, and first for the end of second.
    static const char letters[] = "abcdef";
    MUST(cudaLaunchHostFunc(first, note_letter, (void *)&letters[0]));
    MUST(cudaStreamAddCallback(first, note_status, (void *)&letters[1], 0));
    MUST(cudaEventRecord(other, first));
    MUST(cudaStreamWaitEvent(second, other, 0));
    MUST(cudaLaunchHostFunc(second, note_letter, (void *)&letters[2]));
    add<<<1, 32, 0, second>>>(held, 1);
    MUST(cudaStreamAddCallback(second, note_status, (void *)&letters[3], 0));
    MUST(cudaEventRecord(after, second));
    MUST(cudaStreamWaitEvent(first, after, 0));
    add<<<1, 32, 0, first>>>(held, 2);
    MUST(cudaLaunchHostFunc(first, note_letter, (void *)&letters[4]));
    MUST(cudaStreamAddCallback(first, note_status, (void *)&letters[5], 0));
    MUST(cudaDeviceSynchronize());
    printf("%s\n", order.c_str());
    expect("in order", order == letters);
    expect_equal("kernels in order", (7 * 2 + 1) * 2 + 2, held.read()[3]);

    for (cudaEvent_t event : {before, after, other}) MUST(cudaEventDestroy(event));
    for (cudaStream_t stream : {first, second}) MUST(cudaStreamDestroy(stream));
    return verdict();
}
