// The measuring client: a CUDA program of driver calls that times what it is told to on standard input, one
// command a line, and answers each with one line of numbers. It runs unchanged on any libcuda.so.1.
//
//     start                    first calls up to a usable context and one allocation; ms
//     oneway BATCH N           N batches of empty launches; ns per call of each batch, ended by a wait untimed
//     launches N               N empty launches and the wait for them; launches per second
//     wait N                   N calls that need an answer (cuMemGetInfo); us of each
//     synchronize N            N waits for an idle context; us of each
//     h2d BYTES N, d2h BYTES N N copies of fresh random bytes, until they are there; GB/s of each
//     saxpy ELEMENTS N, sum ELEMENTS N, matmul SIZE N   kernels of kernels.cu, the first run untimed; ms of each
//     memory                   resident memory of this process; MiB
#include "driver.h"

#include <chrono>
#include <cmath>
#include <sstream>
#include <iostream>
#include <fstream>
#include <string>

using Clock = std::chrono::steady_clock;

static double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

struct Client {
    std::string image;
    CUcontext context = nullptr;
    CUmodule module = nullptr;
    CUfunction nothing = nullptr;
    unsigned long long random = 0x9E3779B97F4A7C15;

    double start() {
        auto begin = Clock::now();
        CUdevice device;
        CUdeviceptr memory;
        MUST(cuInit(0));
        MUST(cuDeviceGet(&device, 0));
        MUST(cuDevicePrimaryCtxRetain(&context, device));
        MUST(cuCtxSetCurrent(context));
        MUST(cuMemAlloc(&memory, 1 << 20));
        double taken = seconds_since(begin);
        MUST(cuMemFree(memory));
        return taken * 1e3;
    }

    CUfunction kernel(const char *name) {
        if (!module) MUST(cuModuleLoadData(&module, image.c_str()));
        CUfunction function;
        MUST(cuModuleGetFunction(&function, module, name));
        return function;
    }

    void launch_nothing() {
        MUST(cuLaunchKernel(nothing, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr));
    }

    void prepare_nothing() {
        if (nothing) return;
        nothing = kernel("nothing");
        launch_nothing();
        MUST(cuCtxSynchronize());
    }

    std::vector<double> oneway(long batch, long count) {
        prepare_nothing();
        std::vector<double> found;
        for (long round = 0; round < count; ++round) {
            auto begin = Clock::now();
            for (long i = 0; i < batch; ++i) launch_nothing();
            found.push_back(seconds_since(begin) / double(batch) * 1e9);
            MUST(cuCtxSynchronize());
        }
        return found;
    }

    std::vector<double> launches(long count) {
        prepare_nothing();
        auto begin = Clock::now();
        for (long i = 0; i < count; ++i) launch_nothing();
        MUST(cuCtxSynchronize());
        return {double(count) / seconds_since(begin)};
    }

    template <class Call> std::vector<double> each_us(long count, Call call) {
        std::vector<double> found;
        for (long i = 0; i < count; ++i) {
            auto begin = Clock::now();
            call();
            found.push_back(seconds_since(begin) * 1e6);
        }
        return found;
    }

    std::vector<double> wait(long count) {
        return each_us(count, [] {
            size_t free, total;
            MUST(cuMemGetInfo(&free, &total));
        });
    }

    std::vector<double> synchronize(long count) {
        return each_us(count, [] { MUST(cuCtxSynchronize()); });
    }

    // Fresh bytes each time, as quickly as the baseline makes its own (xorshift).
    void fill(std::vector<unsigned long long> &words) {
        for (unsigned long long &word : words) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            word = random;
        }
    }

    std::vector<double> copies(size_t bytes, long count, bool to_device) {
        std::vector<unsigned long long> host(bytes / 8), back(bytes / 8);
        CUdeviceptr device;
        MUST(cuMemAlloc(&device, bytes));
        std::vector<double> found;
        // The first touches the memory of both sides for the first time.
        for (long i = 0; i < count + 1; ++i) {
            if (to_device || i == 0) fill(host);
            auto begin = Clock::now();
            if (to_device || i == 0) {
                MUST(cuMemcpyHtoD(device, host.data(), bytes));
                // The copy may return before the bytes are there; the baseline waits for them too.
                MUST(cuCtxSynchronize());
            }
            if (!to_device) {
                begin = Clock::now();
                MUST(cuMemcpyDtoH(back.data(), device, bytes));
            }
            if (i > 0) found.push_back(double(bytes) / seconds_since(begin) / 1e9);
        }
        MUST(cuMemcpyDtoH(back.data(), device, bytes));
        if (host != back) {
            printf("copies differ\n");
            exit(1);
        }
        MUST(cuMemFree(device));
        return found;
    }

    // Runs a kernel over arrays of floats and times each run but the first.
    std::vector<double> timed(CUfunction function, unsigned blocks, unsigned block_x, unsigned block_y, void **arguments, long count) {
        std::vector<double> found;
        for (long i = 0; i < count + 1; ++i) {
            auto begin = Clock::now();
            MUST(cuLaunchKernel(function, blocks, block_y > 1 ? blocks : 1, 1, block_x, block_y, 1, 0, nullptr, arguments, nullptr));
            MUST(cuCtxSynchronize());
            if (i > 0) found.push_back(seconds_since(begin) * 1e3);
        }
        return found;
    }

    CUdeviceptr upload(const std::vector<float> &values) {
        CUdeviceptr device;
        MUST(cuMemAlloc(&device, values.size() * sizeof(float)));
        MUST(cuMemcpyHtoD(device, values.data(), values.size() * sizeof(float)));
        return device;
    }

    void require(bool right, const char *what) {
        if (right) return;
        printf("wrong result of %s\n", what);
        exit(1);
    }

    std::vector<double> saxpy(unsigned n, long count) {
        std::vector<float> x(n), y(n), got(n);
        for (unsigned i = 0; i < n; ++i) x[i] = float(i % 1000), y[i] = float(i % 7);
        CUdeviceptr device_x = upload(x), device_y = upload(y), out = upload(got);
        float a = 2.0f;
        void *arguments[] = {&out, &device_x, &device_y, &a, &n};
        std::vector<double> found = timed(kernel("saxpy"), (n + 255) / 256, 256, 1, arguments, count);
        MUST(cuMemcpyDtoH(got.data(), out, n * sizeof(float)));
        for (unsigned i = 0; i < n; ++i) require(got[i] == a * x[i] + y[i], "saxpy");
        for (CUdeviceptr each : {device_x, device_y, out}) MUST(cuMemFree(each));
        return found;
    }

    std::vector<double> sum(unsigned n, long count) {
        std::vector<float> values(n, 0.5f), total(1);
        CUdeviceptr in = upload(values), out = upload(total);
        void *arguments[] = {&out, &in, &n};
        std::vector<double> found = timed(kernel("sum"), 256, 256, 1, arguments, count);
        MUST(cuMemcpyDtoH(total.data(), out, sizeof(float)));
        require(total[0] == 0.5f * float(n) * float(count + 1), "sum");
        for (CUdeviceptr each : {in, out}) MUST(cuMemFree(each));
        return found;
    }

    std::vector<double> matmul(unsigned n, long count) {
        std::vector<float> a(n * n), b(n * n), got(n * n);
        for (unsigned i = 0; i < n * n; ++i) a[i] = float(i % 5), b[i] = float(i % 3);
        CUdeviceptr device_a = upload(a), device_b = upload(b), out = upload(got);
        void *arguments[] = {&out, &device_a, &device_b, &n};
        std::vector<double> found = timed(kernel("matmul"), n / 16, 16, 16, arguments, count);
        MUST(cuMemcpyDtoH(got.data(), out, n * n * sizeof(float)));
        for (unsigned i = 0; i < n * n; i += n * n / 37) {
            float wanted = 0;
            for (unsigned k = 0; k < n; ++k) wanted += a[i / n * n + k] * b[k * n + i % n];
            require(got[i] == wanted, "matmul");
        }
        for (CUdeviceptr each : {device_a, device_b, out}) MUST(cuMemFree(each));
        return found;
    }

    static double memory() {
        std::ifstream status("/proc/self/status");
        for (std::string line; std::getline(status, line);)
            if (line.rfind("VmRSS:", 0) == 0) return std::stod(line.substr(6)) / 1024;
        return NAN;
    }

    std::vector<double> execute(const std::string &command, long first, long second) {
        if (command == "start") return {start()};
        if (command == "oneway") return oneway(first, second);
        if (command == "launches") return launches(first);
        if (command == "wait") return wait(first);
        if (command == "synchronize") return synchronize(first);
        if (command == "h2d") return copies(size_t(first), second, true);
        if (command == "d2h") return copies(size_t(first), second, false);
        if (command == "saxpy") return saxpy(unsigned(first), second);
        if (command == "sum") return sum(unsigned(first), second);
        if (command == "matmul") return matmul(unsigned(first), second);
        if (command == "memory") return {memory()};
        printf("no command %s\n", command.c_str());
        exit(2);
    }
};

int main(int count, char **arguments) {
    if (count != 2) {
        fprintf(stderr, "usage: client KERNELS.ptx < commands\n");
        return 2;
    }
    Client client;
    std::ifstream image(arguments[1]);
    client.image.assign(std::istreambuf_iterator<char>(image), {});
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream words(line);
        std::string command;
        long first = 0, second = 0;
        words >> command >> first >> second;
        for (double value : client.execute(command, first, second)) printf("%.9g ", value);
        printf("\n");
        fflush(stdout);
    }
    return 0;
}
