// Two devices that wait for each other: events and streams across them, copies of every kind between them, calls
// about one while the other is current, and memory of the host that kernels of both use.
// Where there is only one device, says so and ends well.
// nvcc: -Xcompiler -pthread
#include "expect.h"

#include <thread>

__global__ void multiply_add(int *data, int n, int factor, int term) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        data[i] = data[i] * factor + term;
}

// Takes its time before it writes.
__global__ void late(int *data, int n, int value) {
    long long start = clock64();
    while (clock64() - start < 20000000) {
    }
    for (int i = threadIdx.x; i < n; i += blockDim.x) data[i] = value;
}

__global__ void follow(int **place, int term) { (*place)[threadIdx.x] += term; }

static std::vector<int> numbers(int n, int factor, int term) {
    std::vector<int> made(n);
    for (int i = 0; i < n; ++i) made[i] = i * factor + term;
    return made;
}

// Work goes to and fro: each device's stream waits for the other's event before it takes the numbers on.
static void ping_pong() {
    const int n = 20000, bytes = n * sizeof(int);
    int *data[2];
    cudaStream_t streams[2];
    cudaEvent_t done[2];
    for (int device = 0; device < 2; ++device) {
        MUST(cudaSetDevice(device));
        MUST(cudaMalloc(&data[device], bytes));
        MUST(cudaStreamCreateWithFlags(&streams[device], cudaStreamNonBlocking));
        MUST(cudaEventCreateWithFlags(&done[device], cudaEventDisableTiming));
    }
    std::vector<int> start = numbers(n, 1, 0), got(n);
    MUST(cudaSetDevice(0));
    MUST(cudaMemcpyAsync(data[0], start.data(), bytes, cudaMemcpyHostToDevice, streams[0]));
    int factor = 1, term = 0;
    for (int round = 0; round < 6; ++round) {
        int here = round % 2, there = 1 - here;
        MUST(cudaSetDevice(here));
        multiply_add<<<20, 128, 0, streams[here]>>>(data[here], n, 3, round);
        MUST(cudaGetLastError());
        factor *= 3;
        term = term * 3 + round;
        MUST(cudaMemcpyPeerAsync(data[there], there, data[here], here, bytes, streams[here]));
        MUST(cudaEventRecord(done[here], streams[here]));
        MUST(cudaStreamWaitEvent(streams[there], done[here], 0));
    }
    MUST(cudaMemcpyAsync(got.data(), data[0], bytes, cudaMemcpyDeviceToHost, streams[0]));
    MUST(cudaStreamSynchronize(streams[0]));
    expect_same("to and fro", numbers(n, factor, term), got);
    float time = -1;
    cudaEvent_t timed[2];
    for (int device = 0; device < 2; ++device) {
        MUST(cudaSetDevice(device));
        MUST(cudaEventCreate(&timed[device]));
        MUST(cudaEventRecord(timed[device], streams[device]));
        MUST(cudaEventSynchronize(timed[device]));
    }
    expect_error("time between events of two devices", cudaErrorInvalidResourceHandle,
                 cudaEventElapsedTime(&time, timed[0], timed[1]));
    cudaGetLastError();
    for (int device = 0; device < 2; ++device) {
        MUST(cudaEventDestroy(timed[device]));
        MUST(cudaEventDestroy(done[device]));
        MUST(cudaStreamDestroy(streams[device]));
        MUST(cudaFree(data[device]));
    }
}

// With device 0 current, everything is done to memory of device 1.
static void from_the_other_side() {
    const int n = 3000, bytes = n * sizeof(int);
    int *far, *near;
    MUST(cudaSetDevice(1));
    MUST(cudaMalloc(&far, bytes));
    MUST(cudaSetDevice(0));
    MUST(cudaMalloc(&near, bytes));
    cudaStream_t stream;
    MUST(cudaStreamCreate(&stream));
    std::vector<int> sent = numbers(n, 7, 1), got(n);
    MUST(cudaMemcpy(far, sent.data(), bytes, cudaMemcpyHostToDevice));
    MUST(cudaMemcpy(near, far, bytes, cudaMemcpyDeviceToDevice));
    MUST(cudaMemcpy(got.data(), near, bytes, cudaMemcpyDeviceToHost));
    expect_same("a copy to the current device", sent, got);
    MUST(cudaMemset(far, 0, bytes / 2));
    MUST(cudaMemcpy(got.data(), far, bytes, cudaMemcpyDefault));
    std::vector<int> half = sent;
    std::fill(half.begin(), half.begin() + n / 2, 0);
    expect_same("a fill on the other device", half, got);

    multiply_add<<<4, 128, 0, stream>>>(near, n, 1, 5);
    MUST(cudaMemcpyAsync(far, near, bytes, cudaMemcpyDefault, stream));
    MUST(cudaMemcpyAsync(got.data(), far, bytes, cudaMemcpyDefault, stream));
    MUST(cudaStreamSynchronize(stream));
    expect_same("after a kernel of the current device", numbers(n, 7, 6), got);

    // 30 rows of 40 numbers out of rows of 100.
    MUST(cudaMemset(near, 0, bytes));
    MUST(cudaMemcpy2D(near, 400, far, 400, 160, 30, cudaMemcpyDefault));
    MUST(cudaMemcpy(got.data(), near, bytes, cudaMemcpyDeviceToHost));
    std::vector<int> rows(n);
    for (int i = 0; i < n; ++i) rows[i] = i % 100 < 40 ? i * 7 + 6 : 0;
    expect_same("rows between devices", rows, got);
    cudaMemcpy3DParms box = {};
    box.srcPtr = make_cudaPitchedPtr(far, 400, 100, 10);
    box.dstPtr = make_cudaPitchedPtr(near, 400, 100, 10);
    box.extent = make_cudaExtent(160, 5, 3);
    box.kind = cudaMemcpyDefault;
    MUST(cudaMemset(near, 0, bytes));
    MUST(cudaMemcpy3D(&box));
    MUST(cudaMemcpy(got.data(), near, bytes, cudaMemcpyDeviceToHost));
    for (int i = 0; i < n; ++i) rows[i] = i % 100 < 40 && i / 100 % 10 < 5 ? i * 7 + 6 : 0;
    expect_same("a box between devices", rows, got);

    // Within the other device.
    int *further;
    cudaStream_t busy;
    MUST(cudaSetDevice(1));
    MUST(cudaMalloc(&further, bytes));
    MUST(cudaStreamCreateWithFlags(&busy, cudaStreamNonBlocking));
    MUST(cudaMemset(further, 0, bytes));
    MUST(cudaDeviceSynchronize());
    MUST(cudaSetDevice(0));
    MUST(cudaMemcpyPeer(further, 1, far, 1, bytes / 2));
    MUST(cudaMemcpy(further + n / 2, far + n / 2, bytes / 4, cudaMemcpyDeviceToDevice));
    MUST(cudaMemcpyPeerAsync(further + n / 4 * 3, 1, far + n / 4 * 3, 1, bytes / 4, stream));
    MUST(cudaStreamSynchronize(stream));
    MUST(cudaMemcpy(got.data(), further, bytes, cudaMemcpyDefault));
    expect_same("copies within the other device", numbers(n, 7, 6), got);
    MUST(cudaMemset(further, 0, bytes));
    MUST(cudaMemcpy2D(further, 400, far, 400, 160, 30, cudaMemcpyDefault));
    MUST(cudaMemcpy(got.data(), further, bytes, cudaMemcpyDefault));
    for (int i = 0; i < n; ++i) rows[i] = i % 100 < 40 ? i * 7 + 6 : 0;
    expect_same("rows within the other device", rows, got);

    // Rows between devices come after all work of both, too.
    MUST(cudaSetDevice(1));
    late<<<1, 128, 0, busy>>>(far, n, 11);
    MUST(cudaGetLastError());
    MUST(cudaSetDevice(0));
    MUST(cudaMemcpy2D(near, 400, far, 400, 160, 30, cudaMemcpyDefault));
    MUST(cudaMemcpy(got.data(), near, bytes, cudaMemcpyDeviceToHost));
    expect_equal("rows after work of the other device", 11, got[39]);
    MUST(cudaFree(further));
    MUST(cudaStreamDestroy(busy));

    // What is allocated in the order of a stream is the memory of that stream's device.
    int *pooled;
    cudaPointerAttributes of_pooled;
    MUST(cudaSetDevice(1));
    MUST(cudaMallocAsync(&pooled, bytes, stream));
    MUST(cudaMemsetAsync(pooled, 1, bytes, stream));
    MUST(cudaMemcpyAsync(pooled, sent.data(), bytes / 2, cudaMemcpyHostToDevice, stream));
    MUST(cudaStreamSynchronize(stream));
    MUST(cudaPointerGetAttributes(&of_pooled, pooled));
    expect_equal("the device of a stream's memory", 0, of_pooled.device);
    MUST(cudaSetDevice(0));
    multiply_add<<<4, 128, 0, stream>>>(pooled, n, 1, 4);
    MUST(cudaMemcpyAsync(got.data(), pooled, bytes, cudaMemcpyDeviceToHost, stream));
    MUST(cudaFreeAsync(pooled, stream));
    MUST(cudaStreamSynchronize(stream));
    std::vector<int> filled(n, 0x01010105);
    std::vector<int> half_of_it = numbers(n / 2, 7, 5);
    std::copy(half_of_it.begin(), half_of_it.end(), filled.begin());
    expect_same("a stream's memory", filled, got);

    cudaPointerAttributes attributes;
    MUST(cudaPointerGetAttributes(&attributes, far));
    expect_equal("the device of the far memory", 1, attributes.device);
    MUST(cudaFree(far));
    MUST(cudaFree(near));
    MUST(cudaStreamDestroy(stream));
}

// Memory of the host that kernels of both devices change, one after the other.
static void shared_with_both() {
    int *managed, *mapped, *registered, *seen_registered, **place[2];
    MUST(cudaSetDevice(0));
    MUST(cudaMallocManaged(&managed, 64 * sizeof(int)));
    MUST(cudaHostAlloc(&mapped, 64 * sizeof(int), cudaHostAllocMapped | cudaHostAllocPortable));
    std::vector<int> own(64);
    registered = own.data();
    MUST(cudaHostRegister(registered, 64 * sizeof(int), cudaHostRegisterMapped | cudaHostRegisterPortable));
    MUST(cudaHostGetDevicePointer(&seen_registered, registered, 0));
    for (int i = 0; i < 64; ++i) managed[i] = mapped[i] = registered[i] = i;
    for (int device = 0; device < 2; ++device) {
        MUST(cudaSetDevice(device));
        multiply_add<<<1, 64>>>(managed, 64, 2, device);
        int *seen;
        MUST(cudaHostGetDevicePointer(&seen, mapped, 0));
        multiply_add<<<1, 64>>>(seen, 64, 3, device);
        multiply_add<<<1, 64>>>(seen_registered, 64, 5, device);
        MUST(cudaGetLastError());
        MUST(cudaDeviceSynchronize());
    }
    expect_same("managed memory", numbers(64, 4, 1), std::vector<int>(managed, managed + 64));
    expect_same("mapped memory", numbers(64, 9, 1), std::vector<int>(mapped, mapped + 64));
    expect_same("registered memory", numbers(64, 25, 1), own);
    // A pointer to it that only the device's memory holds.
    for (int device = 0; device < 2; ++device) {
        MUST(cudaSetDevice(device));
        MUST(cudaMalloc(&place[device], sizeof(int *)));
        MUST(cudaMemcpy(place[device], &managed, sizeof managed, cudaMemcpyHostToDevice));
        follow<<<1, 64>>>(place[device], 10 * (device + 1));
        MUST(cudaDeviceSynchronize());
        MUST(cudaFree(place[device]));
    }
    expect_same("managed memory behind a pointer", numbers(64, 4, 31), std::vector<int>(managed, managed + 64));
    MUST(cudaFree(managed));
    MUST(cudaFreeHost(mapped));
    MUST(cudaHostUnregister(registered));
}

// A thread for each device, and host functions in the streams of both.
static void at_once() {
    std::vector<std::thread> threads;
    std::vector<int> sums[2];
    for (int device = 0; device < 2; ++device)
        threads.emplace_back([device, &sums] {
            MUST(cudaSetDevice(device));
            cudaStream_t stream;
            MUST(cudaStreamCreate(&stream));
            DeviceArray<int> data(std::vector<int>(500, device));
            int heard = 0;
            for (int round = 0; round < 20; ++round) {
                multiply_add<<<4, 128, 0, stream>>>(data, 500, 1, round);
                MUST(cudaGetLastError());
                MUST(cudaLaunchHostFunc(stream, [](void *at) { ++*static_cast<int *>(at); }, &heard));
            }
            MUST(cudaStreamSynchronize(stream));
            sums[device] = data.read();
            sums[device].push_back(heard);
            MUST(cudaStreamDestroy(stream));
        });
    for (std::thread &thread : threads) thread.join();
    for (int device = 0; device < 2; ++device) {
        std::vector<int> wanted(500, device + 190);
        wanted.push_back(20);
        expect_same("a thread of its own", wanted, sums[device]);
    }
}

// Threads that each have memory of their own for kernels of both devices, and none of the others'.
static void shared_by_threads() {
    const int rounds = 100;
    std::vector<int> right(6);
    std::vector<std::thread> threads;
    for (int number = 0; number < 6; ++number)
        threads.emplace_back([number, &right] {
            for (int round = 0; round < rounds; ++round) {
                int first = (number + round) % 2, *seen, *managed;
                std::vector<int> own(64, round);
                MUST(cudaSetDevice(first));
                MUST(cudaHostRegister(own.data(), 256, cudaHostRegisterMapped | cudaHostRegisterPortable));
                MUST(cudaHostGetDevicePointer(&seen, own.data(), 0));
                MUST(cudaMallocManaged(&managed, 4096));
                for (int device : {first, 1 - first}) {
                    MUST(cudaSetDevice(device));
                    multiply_add<<<1, 64>>>(seen, 64, 1, 1);
                    multiply_add<<<1, 64>>>(managed, 64, 0, 1);
                    MUST(cudaDeviceSynchronize());
                }
                MUST(cudaFree(managed));
                MUST(cudaHostUnregister(own.data()));
                right[number] += own == std::vector<int>(64, round + 2);
            }
        });
    for (std::thread &thread : threads) thread.join();
    expect_same("rounds of threads with memory of their own", std::vector<int>(6, rounds), right);
}

int main() {
    int count = 0, current = -1;
    MUST(cudaGetDeviceCount(&count));
    if (count < 2) {
        printf("only one device\n");
        return 0;
    }
    ping_pong();
    from_the_other_side();
    shared_with_both();
    at_once();
    shared_by_threads();
    cudaUUID_t uuids[2];
    int domains[2], buses[2];
    for (int device = 0; device < 2; ++device) {
        cudaDeviceProp properties;
        MUST(cudaGetDeviceProperties(&properties, device));
        uuids[device] = properties.uuid;
        domains[device] = properties.pciDomainID;
        buses[device] = properties.pciBusID;
        char text[32];
        MUST(cudaDeviceGetPCIBusId(text, sizeof text, device));
        MUST(cudaDeviceGetByPCIBusId(&current, text));
        expect_equal("the device at its bus", device, current);
    }
    expect("two devices have two identities", std::memcmp(&uuids[0], &uuids[1], sizeof uuids[0]) != 0);
    expect("and two places", domains[0] != domains[1] || buses[0] != buses[1]);
    expect_error("no such device", cudaErrorInvalidDevice, cudaSetDevice(2));
    cudaGetLastError();
    // Host memory of device 0 that device 1 uses first, and again after its reset.
    int *kept;
    MUST(cudaSetDevice(0));
    MUST(cudaHostAlloc(&kept, 8 * sizeof(int), cudaHostAllocMapped | cudaHostAllocPortable));
    std::fill(kept, kept + 8, 1);
    MUST(cudaSetDevice(1));
    multiply_add<<<1, 8>>>(kept, 8, 2, 1);
    MUST(cudaDeviceSynchronize());
    MUST(cudaDeviceReset());
    for (int device = 0; device < 2; ++device) {
        MUST(cudaSetDevice(device));
        multiply_add<<<1, 8>>>(kept, 8, 2, 1);
        MUST(cudaDeviceSynchronize());
    }
    expect_same("host memory after the other's reset", std::vector<int>(8, 15), std::vector<int>(kept, kept + 8));
    MUST(cudaFreeHost(kept));
    MUST(cudaSetDevice(0));
    DeviceArray<int> left(std::vector<int>(8, 4));
    multiply_add<<<1, 8>>>(left, 8, 5, 1);
    expect_same("one device after the other's reset", std::vector<int>(8, 21), left.read());
    return verdict();
}
