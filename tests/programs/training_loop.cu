// A training loop as frameworks make it: batches come from page-locked memory on a stream of their own,
// device and page-locked memory is kept and given out again, events say when that may be, the loss is
// looked at every few steps.
//
//     training_loop [STEPS [EVERY]]
#include "expect.h"

#include <deque>
#include <map>

static const int BATCH = 32, FEATURES = 16;

__global__ void predict(const float *w, const float *x, float *prediction) {
    int b = blockIdx.x * blockDim.x + threadIdx.x;
    if (b >= BATCH) return;
    float sum = 0;
    for (int f = 0; f < FEATURES; ++f) sum += w[f] * x[b * FEATURES + f];
    prediction[b] = sum;
}

__global__ void subtract(float *out, const float *a, const float *b, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = a[i] - b[i];
}

__global__ void mean_square(float *out, const float *difference) {
    float sum = 0;
    for (int b = 0; b < BATCH; ++b) sum += difference[b] * difference[b];
    *out = sum / BATCH;
}

__global__ void backward(float *gradient, const float *difference, const float *x) {
    int f = threadIdx.x;
    float sum = 0;
    for (int b = 0; b < BATCH; ++b) sum += difference[b] * x[b * FEATURES + f];
    gradient[f] = 2 * sum / BATCH;
}

// All parameters in one launch: their addresses are passed by value.
struct Parameters {
    float *weights[4], *gradients[4];
    int sizes[4], count;
};

__global__ void descend(Parameters all, float rate) {
    for (int p = 0; p < all.count; ++p)
        for (int i = threadIdx.x; i < all.sizes[p]; i += blockDim.x)
            all.weights[p][i] -= rate * all.gradients[p][i];
}

// Gives memory out again once what it was used for is over: at once on the stream that used it, on
// other streams and for the host when an event says so.
template <class Allocate> class Cache {
  public:
    explicit Cache(Allocate allocate) : allocate(allocate) {}

    void *take(size_t bytes) {
        while (!used.empty()) {
            cudaError_t done = cudaEventQuery(used.front().event);
            if (done == cudaErrorNotReady) break;
            MUST(done);
            events.push_back(used.front().event);
            idle[used.front().bytes].push_back(used.front().memory);
            used.pop_front();
        }
        cudaGetLastError(); // "not ready" is no error of anybody's
        std::vector<void *> &same = idle[bytes];
        if (same.empty()) return allocate(bytes);
        void *memory = same.back();
        same.pop_back();
        return memory;
    }

    void give_back(void *memory, size_t bytes) { idle[bytes].push_back(memory); }

    void give_back_after(cudaStream_t stream, void *memory, size_t bytes) {
        cudaEvent_t event;
        if (events.empty()) {
            MUST(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
        } else {
            event = events.back();
            events.pop_back();
        }
        MUST(cudaEventRecord(event, stream));
        used.push_back({event, memory, bytes});
    }

  private:
    struct Used {
        cudaEvent_t event;
        void *memory;
        size_t bytes;
    };
    Allocate allocate;
    std::map<size_t, std::vector<void *>> idle;
    std::deque<Used> used;
    std::vector<cudaEvent_t> events;
};

static void *on_device(size_t bytes) {
    void *memory;
    MUST(cudaMalloc(&memory, bytes));
    return memory;
}

static void *page_locked(size_t bytes) {
    void *memory;
    MUST(cudaHostAlloc(&memory, bytes, cudaHostAllocDefault));
    return memory;
}

static float noise(unsigned &state) {
    state = state * 1664525u + 1013904223u;
    return float(state >> 8) / float(1 << 24) - 0.5f;
}

// What a framework asks before a launch.
template <class Kernel> static int blocks_for(Kernel kernel, int n, int threads) {
    int device, most;
    MUST(cudaGetDevice(&device));
    MUST(cudaDeviceGetAttribute(&most, cudaDevAttrMultiProcessorCount, device));
    int resident;
    MUST(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, threads, 0));
    cudaFuncAttributes attributes;
    MUST(cudaFuncGetAttributes(&attributes, kernel));
    int wanted = (n + threads - 1) / threads;
    return wanted < most * resident ? wanted : most * resident;
}

int main(int count, char **arguments) {
    const int steps = count > 1 ? atoi(arguments[1]) : 9, every = count > 2 ? atoi(arguments[2]) : 4;
    const float rate = 0.5f;
    // What one stream has used may be given out at once for that stream only.
    Cache device(on_device), batches(on_device);
    Cache host(page_locked);
    cudaStream_t work, copies;
    MUST(cudaStreamCreateWithFlags(&work, cudaStreamNonBlocking));
    MUST(cudaStreamCreateWithFlags(&copies, cudaStreamNonBlocking));
    const size_t x_bytes = BATCH * FEATURES * sizeof(float), y_bytes = BATCH * sizeof(float);
    const size_t w_bytes = FEATURES * sizeof(float);
    // As many batches as can be under way: how many that are depends on the device's speed.
    for (size_t bytes : {x_bytes, y_bytes})
        for (int i = 0; i <= every; ++i) batches.give_back(on_device(bytes), bytes);
    float *w = static_cast<float *>(device.take(w_bytes));
    MUST(cudaMemsetAsync(w, 0, w_bytes, work));
    std::vector<double> expected_w(FEATURES, 0);
    unsigned state = 7;

    for (int step = 0; step < steps; ++step) {
        // The next batch, of which the host part is made while the device works.
        float *batch = static_cast<float *>(host.take(x_bytes + y_bytes));
        float *target = batch + BATCH * FEATURES;
        for (int b = 0; b < BATCH; ++b) {
            target[b] = 0;
            for (int f = 0; f < FEATURES; ++f) {
                batch[b * FEATURES + f] = noise(state);
                target[b] += batch[b * FEATURES + f] * float(f - 5);
            }
        }
        // The same step in double precision.
        double loss = 0;
        std::vector<double> gradient(FEATURES, 0);
        for (int b = 0; b < BATCH; ++b) {
            double difference = -target[b];
            for (int f = 0; f < FEATURES; ++f) difference += expected_w[f] * batch[b * FEATURES + f];
            loss += difference * difference / BATCH;
            for (int f = 0; f < FEATURES; ++f)
                gradient[f] += 2 * difference * batch[b * FEATURES + f] / BATCH;
        }
        for (int f = 0; f < FEATURES; ++f) expected_w[f] -= rate * gradient[f];

        float *x = static_cast<float *>(batches.take(x_bytes));
        float *y = static_cast<float *>(batches.take(y_bytes));
        MUST(cudaMemcpyAsync(x, batch, x_bytes, cudaMemcpyHostToDevice, copies));
        MUST(cudaMemcpyAsync(y, target, y_bytes, cudaMemcpyHostToDevice, copies));
        host.give_back_after(copies, batch, x_bytes + y_bytes);
        cudaEvent_t copied;
        MUST(cudaEventCreateWithFlags(&copied, cudaEventDisableTiming));
        MUST(cudaEventRecord(copied, copies));
        MUST(cudaStreamWaitEvent(work, copied, 0));
        MUST(cudaEventDestroy(copied));

        cudaStreamCaptureStatus capturing;
        MUST(cudaStreamIsCapturing(work, &capturing));
        float *prediction = static_cast<float *>(device.take(y_bytes));
        float *difference = static_cast<float *>(device.take(y_bytes));
        predict<<<blocks_for(predict, BATCH, 32), 32, 0, work>>>(w, x, prediction);
        MUST(cudaGetLastError());
        subtract<<<blocks_for(subtract, BATCH, 32), 32, 0, work>>>(difference, prediction, y, BATCH);
        MUST(cudaGetLastError());
        float *lost = static_cast<float *>(device.take(sizeof(float)));
        mean_square<<<1, 1, 0, work>>>(lost, difference);
        float *slope = static_cast<float *>(device.take(w_bytes));
        backward<<<1, FEATURES, 0, work>>>(slope, difference, x);
        Parameters all = {{w}, {slope}, {FEATURES}, 1};
        descend<<<1, FEATURES, 0, work>>>(all, rate);
        MUST(cudaPeekAtLastError());
        // The batch was filled on another stream than it was used on.
        batches.give_back_after(work, x, x_bytes);
        batches.give_back_after(work, y, y_bytes);
        device.give_back(prediction, y_bytes);
        device.give_back(difference, y_bytes);
        device.give_back(slope, w_bytes);

        if (step % every == every - 1) {
            float *seen = static_cast<float *>(host.take(sizeof(float)));
            MUST(cudaMemcpyAsync(seen, lost, sizeof(float), cudaMemcpyDeviceToHost, work));
            MUST(cudaStreamSynchronize(work));
            if (std::fabs(*seen - loss) > 1e-4 * (1 + loss)) {
                printf("step %d: loss %g, expected %g\n", step, double(*seen), loss);
                ++wrong_count();
            }
            host.give_back(seen, sizeof(float));
        }
        device.give_back(lost, sizeof(float));
    }
    MUST(cudaDeviceSynchronize());
    std::vector<float> got(FEATURES);
    MUST(cudaMemcpy(got.data(), w, w_bytes, cudaMemcpyDeviceToHost));
    bool right = true;
    for (int f = 0; f < FEATURES; ++f) right = right && std::fabs(got[f] - expected_w[f]) < 1e-3;
    expect("the weights are those of the same steps in double precision", right);
    return verdict();
}
