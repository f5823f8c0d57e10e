// The measuring client: a CUDA program of driver calls that times what it is told to on standard input, one
// command a line, and answers each with one line of numbers. It runs unchanged on any libcuda.so.1.
//
//     start                    first calls up to a usable context and one allocation; ms
//     first                    instead of start: from the first call until the first kernel has run; ms
//     oneway BATCH N           N batches of empty launches; ns per call of each batch, ended by a wait untimed
//     current BATCH N, version BATCH N   the same of calls that ask for next to nothing (cuCtxGetCurrent,
//                              cuDriverGetVersion)
//     launches N               N empty launches and the wait for them; launches per second
//     iteration LAUNCHES N     N times so many empty launches and the wait for them; ms of each
//     wait N                   N calls that need an answer (cuMemGetInfo); us of each
//     threads N T              T threads that make N calls each that need an answer; calls per second of all
//     synchronize N            N waits for an idle context; us of each
//     h2d BYTES N, d2h BYTES N N copies of fresh random bytes, until they are there; GB/s of each
//     saxpy ELEMENTS N, sum ELEMENTS N, matmul SIZE N   kernels of kernels.cu, the first run untimed; ms of each
//     flat KIND LIVE N         with LIVE allocations, modules, streams or events: ns of each of the calls that have to find one, in the order of bench/subjects/flat.py
//     fair MS AT               launches and waits for MS milliseconds from AT on (CLOCK_MONOTONIC, ms); how many it made
//     start_latency N          N launches, a moment apart; us from the call until the kernel runs on another thread
//     little BYTES N           N copies of so many bytes to the program; us of each
//     reach GAP BATCH N        N batches of launches with GAP us between them; us from the last call of each until its kernel runs
//     beside TURNS N           N calls that need an answer, while another thread waits for a kernel of so many turns; us of each
//     backlog_begin            what backlog needs; MiB of resident memory of this process
//     backlog LAUNCHES COPIES  so many launches of a kernel that takes longer than its launch, then copies of 64 MiB from
//                              page-locked memory; the most resident memory of this process since backlog_begin, MiB
//     launch_cpu N             CPU time of this thread for each of N launches and the wait for them; ns
//     memory                   resident memory of this process; MiB
#include "driver.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <sstream>
#include <thread>
#include <iostream>
#include <ctime>
#include <fstream>
#include <string>

#include <sys/prctl.h>

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

    double first_kernel() {
        auto begin = Clock::now();
        CUdevice device;
        CUdeviceptr memory;
        int number = 1;
        MUST(cuInit(0));
        MUST(cuDeviceGet(&device, 0));
        MUST(cuDevicePrimaryCtxRetain(&context, device));
        MUST(cuCtxSetCurrent(context));
        MUST(cuMemAlloc(&memory, sizeof number));
        MUST(cuMemcpyHtoD(memory, &number, sizeof number));
        prepare_nothing();
        return seconds_since(begin) * 1e3;
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

    // ns per call of each batch.
    template <class Call> std::vector<double> batches(long batch, long count, Call call) {
        std::vector<double> found;
        for (long round = 0; round < count; ++round) {
            auto begin = Clock::now();
            for (long i = 0; i < batch; ++i) call();
            found.push_back(seconds_since(begin) / double(batch) * 1e9);
        }
        return found;
    }

    std::vector<double> current(long batch, long count) {
        return batches(batch, count, [] {
            CUcontext current;
            MUST(cuCtxGetCurrent(&current));
        });
    }

    std::vector<double> version(long batch, long count) {
        return batches(batch, count, [] {
            int version;
            MUST(cuDriverGetVersion(&version));
        });
    }

    std::vector<double> launches(long count) {
        prepare_nothing();
        auto begin = Clock::now();
        for (long i = 0; i < count; ++i) launch_nothing();
        MUST(cuCtxSynchronize());
        return {double(count) / seconds_since(begin)};
    }

    std::vector<double> iteration(long launches, long count) {
        prepare_nothing();
        std::vector<double> found;
        for (long round = 0; round < count; ++round) {
            auto begin = Clock::now();
            for (long i = 0; i < launches; ++i) launch_nothing();
            MUST(cuCtxSynchronize());
            found.push_back(seconds_since(begin) * 1e3);
        }
        return found;
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

    std::vector<double> little(size_t bytes, long count) {
        std::vector<char> host(bytes);
        CUdeviceptr device;
        MUST(cuMemAlloc(&device, bytes));
        MUST(cuMemcpyHtoD(device, host.data(), bytes));
        std::vector<double> found = each_us(count, [&] { MUST(cuMemcpyDtoH(host.data(), device, bytes)); });
        MUST(cuMemFree(device));
        return found;
    }

    std::vector<double> threads(long count, long number) {
        auto begin = Clock::now();
        std::vector<std::thread> all;
        for (long i = 0; i < number; ++i)
            all.emplace_back([&] {
                MUST(cuCtxSetCurrent(context));
                wait(count);
            });
        for (std::thread &one : all) one.join();
        return {double(count * number) / seconds_since(begin)};
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

    // As many launches as there is time for, each tenth waited for.
    std::vector<double> fair(long milliseconds, long at) {
        prepare_nothing();
        long done = 0;
        auto begin = Clock::time_point(std::chrono::milliseconds(at));
        std::this_thread::sleep_until(begin);
        while (seconds_since(begin) < double(milliseconds) / 1e3) {
            for (int i = 0; i < 10; ++i) launch_nothing();
            MUST(cuCtxSynchronize());
            done += 10;
        }
        return {double(done)};
    }

    // Memory of the host that devices reach by themselves; it is never freed.
    static void *page_locked(size_t bytes) {
        void *memory, *allocate;
        CUdriverProcAddressQueryResult found_it;
        MUST(cuGetProcAddress("cuMemAllocHost", &allocate, 12000, 0, &found_it));
        if (reinterpret_cast<CUresult (*)(void **, size_t)>(allocate)(&memory, bytes) != CUDA_SUCCESS) exit(1);
        return memory;
    }

    // The kernel stores %globaltimer, the soft GPU's wall clock, where this thread looks for it: it does not wait in the
    // driver, which would have it run the kernel by itself.
    std::vector<double> start_latency(long count) {
        CUfunction stamp = kernel("stamp");
        void *memory = page_locked(8);
        auto *stamped = static_cast<volatile long long *>(memory);
        void *arguments[] = {&memory};
        std::vector<double> found;
        for (long i = 0; i < count + 1; ++i) {
            *stamped = 0;
            auto pause = Clock::now();
            while (seconds_since(pause) < 5e-6) {}
            timespec now;
            clock_gettime(CLOCK_REALTIME, &now);
            MUST(cuLaunchKernel(stamp, 1, 1, 1, 1, 1, 1, 0, nullptr, arguments, nullptr));
            while (*stamped == 0) {}
            long long called = now.tv_sec * 1000000000ll + now.tv_nsec;
            if (i > 0) found.push_back(double(*stamped - called) / 1e3);
        }
        MUST(cuCtxSynchronize());
        return found;
    }

    // Each kernel stores the soft GPU's wall clock in memory of the device, so that nothing but the launch goes to it. The
    // program sleeps between them: of two cores both ends need one.
    std::vector<double> reach(long gap, long batch, long count) {
        prctl(PR_SET_TIMERSLACK, 1);
        prepare_nothing();
        CUfunction stamp = kernel("stamp");
        CUdeviceptr stamps;
        std::vector<long long> called, ran(count);
        MUST(cuMemAlloc(&stamps, count * sizeof(long long)));
        for (long i = 0; i < count; ++i) {
            std::this_thread::sleep_for(std::chrono::microseconds(gap));
            for (long other = 1; other < batch; ++other) launch_nothing();
            CUdeviceptr one = stamps + i * sizeof(long long);
            void *arguments[] = {&one};
            timespec now;
            clock_gettime(CLOCK_REALTIME, &now);
            MUST(cuLaunchKernel(stamp, 1, 1, 1, 1, 1, 1, 0, nullptr, arguments, nullptr));
            called.push_back(now.tv_sec * 1000000000ll + now.tv_nsec);
        }
        // Waiting would send what is still here.
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        MUST(cuMemcpyDtoH(ran.data(), stamps, count * sizeof(long long)));
        MUST(cuMemFree(stamps));
        std::vector<double> found;
        // The first launch of a kernel waits.
        for (long i = 1; i < count; ++i) found.push_back(double(ran[i] - called[i]) / 1e3);
        return found;
    }

    void launch_slow(unsigned turns, CUstream stream) {
        static CUdeviceptr out = 0;
        static CUfunction slow = kernel("slow");
        if (!out) MUST(cuMemAlloc(&out, sizeof(unsigned)));
        void *arguments[] = {&out, &turns};
        MUST(cuLaunchKernel(slow, 1, 1, 1, 1, 1, 1, 0, stream, arguments, nullptr));
    }

    std::vector<double> beside(unsigned turns, long count) {
        CUstream stream;
        MUST(cuStreamCreate(&stream, 1));
        launch_slow(1, stream);
        MUST(cuStreamSynchronize(stream));
        std::atomic<bool> over{false};
        launch_slow(turns, stream);
        std::thread other([&] {
            MUST(cuCtxSetCurrent(context));
            MUST(cuStreamSynchronize(stream));
            over = true;
        });
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        std::vector<double> found = wait(count);
        require(!over, "beside: the kernel was over too soon");
        other.join();
        MUST(cuStreamDestroy(stream));
        return found;
    }

    static constexpr size_t piece = 64 << 20;
    CUdeviceptr target = 0;
    unsigned long long *source = nullptr;

    double backlog_begin() {
        MUST(cuMemAlloc(&target, piece));
        source = static_cast<unsigned long long *>(page_locked(piece));
        for (size_t i = 0; i < piece / 8; ++i) source[i] = random += 0x9E3779B97F4A7C15;
        launch_slow(1, nullptr);
        MUST(cuMemcpyHtoDAsync(target, source, piece, nullptr));
        MUST(cuCtxSynchronize());
        std::ofstream("/proc/self/clear_refs") << 5;
        return memory("VmRSS:");
    }

    double backlog(long launches, long copies) {
        for (long i = 0; i < launches; ++i) launch_slow(500, nullptr);
        for (long i = 0; i < copies; ++i) {
            source[i] += 1;
            MUST(cuMemcpyHtoDAsync(target, source, piece, nullptr));
        }
        MUST(cuCtxSynchronize());
        return memory("VmHWM:");
    }

    double launch_cpu(long count) {
        prepare_nothing();
        auto spent = [] {
            timespec now;
            clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
            return double(now.tv_sec) * 1e9 + double(now.tv_nsec);
        };
        double before = spent();
        launches(count);
        return (spent() - before) / double(count);
    }

    // Has so many live objects of a kind, and times the calls that have to find one among them or go by them all.
    std::vector<double> flat(const std::string &kind, size_t live, long count) {
        prepare_nothing();
        if (kind == "allocations") {
            static std::vector<CUdeviceptr> all;
            grow(all, live, [](CUdeviceptr *one) { MUST(cuMemAlloc(one, 256)); }, [](CUdeviceptr one) { MUST(cuMemFree(one)); });
            CUfunction take = kernel("take");
            char bytes[64] = {};
            return {
                each(count, [&](size_t) {
                    CUdeviceptr one;
                    MUST(cuMemAlloc(&one, 256));
                    MUST(cuMemFree(one));
                }),
                each(count, [&](size_t i) {
                    void *arguments[] = {&all[i % live]};
                    MUST(cuLaunchKernel(take, 1, 1, 1, 1, 1, 1, 0, nullptr, arguments, nullptr));
                }),
                each(count, [&](size_t i) { MUST(cuMemcpyHtoD(all[i % live], bytes, sizeof bytes)); }),
                each(count, [&](size_t i) { MUST(cuMemsetD8(all[i % live], 1, 64)); }),
                each(count, [&](size_t i) {
                    CUdeviceptr base;
                    size_t size;
                    MUST(cuMemGetAddressRange(&base, &size, all[i % live] + 8));
                }),
                each(count, [&](size_t) { MUST(cuCtxSynchronize()); }),
            };
        }
        if (kind == "modules") {
            static std::vector<CUmodule> all;
            auto load = [&](CUmodule *one) { MUST(cuModuleLoadData(one, small)); };
            auto unload = [](CUmodule one) { MUST(cuModuleUnload(one)); };
            auto function_of = [&](size_t i) {
                CUfunction function;
                MUST(cuModuleGetFunction(&function, all[i % live], "nothing"));
                return function;
            };
            grow(all, live, load, unload);
            return {
                each(count, [&](size_t) {
                    CUmodule one;
                    load(&one);
                    unload(one);
                }),
                each(count, [&](size_t i) { function_of(i); }),
                each(count, [&](size_t i) {
                    MUST(cuLaunchKernel(function_of(i), 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr));
                }),
                each(count, [&](size_t) { launch_nothing(); }),
                each(count, [&](size_t) { MUST(cuCtxSynchronize()); }),
            };
        }
        if (kind == "streams") {
            static std::vector<CUstream> all;
            auto make = [](CUstream *one) { MUST(cuStreamCreate(one, 0)); };
            auto end = [](CUstream one) { MUST(cuStreamDestroy(one)); };
            grow(all, live, make, end);
            return {
                each(count, [&](size_t) {
                    CUstream one;
                    make(&one);
                    end(one);
                }),
                each(count, [&](size_t i) {
                    MUST(cuLaunchKernel(nothing, 1, 1, 1, 1, 1, 1, 0, all[i % live], nullptr, nullptr));
                }),
                each(count, [&](size_t) { launch_nothing(); }),
                each(count, [&](size_t i) { MUST(cuStreamSynchronize(all[i % live])); }),
                each(count, [&](size_t) { MUST(cuCtxSynchronize()); }),
            };
        }
        static std::vector<CUevent> all;
        auto make = [](CUevent *one) { MUST(cuEventCreate(one, CU_EVENT_DISABLE_TIMING)); };
        auto end = [](CUevent one) { MUST(cuEventDestroy(one)); };
        grow(all, live, make, end);
        return {
            each(count, [&](size_t) {
                CUevent one;
                make(&one);
                end(one);
            }),
            each(count, [&](size_t i) { MUST(cuEventRecord(all[i % live], nullptr)); }),
            each(count, [&](size_t) { launch_nothing(); }),
            each(count, [&](size_t i) { MUST(cuEventSynchronize(all[i % live])); }),
            each(count, [&](size_t) { MUST(cuCtxSynchronize()); }),
        };
    }

    static constexpr const char *small = ".version 7.0\n.target sm_75\n.address_size 64\n.visible .entry nothing() { ret; }\n";

    // Makes or ends objects until there are so many.
    template <class Object, class Make, class End> static void grow(std::vector<Object> &all, size_t live, Make make, End end) {
        for (; all.size() > live; all.pop_back()) end(all.back());
        while (all.size() < live) {
            Object one;
            make(&one);
            all.push_back(one);
        }
        MUST(cuCtxSynchronize());
    }

    // So many objects the calls go to in turn, far apart among all: what more of them cost are misses of the processor's
    // caches, not the search for them.
    static constexpr size_t touched = 8;

    // Nanoseconds of one call of many, until all is done: the best of 64 times.
    template <class Call> static double each(long count, Call call) {
        double best = 0;
        for (int time = 0; time < 64; ++time) {
            MUST(cuCtxSynchronize());
            auto begin = Clock::now();
            for (long i = 0; i < count; ++i) call(size_t(i) % touched * 7919);
            MUST(cuCtxSynchronize());
            double taken = seconds_since(begin) / double(count) * 1e9;
            best = time == 0 ? taken : std::min(best, taken);
        }
        return best;
    }

    static double memory(const char *which) {
        std::ifstream status("/proc/self/status");
        for (std::string line; std::getline(status, line);)
            if (line.rfind(which, 0) == 0) return std::stod(line.substr(strlen(which))) / 1024;
        return NAN;
    }

    std::vector<double> execute(const std::string &command, const std::string &kind, long first, long second, long third) {
        if (command == "flat") return flat(kind, size_t(first), second);
        if (command == "start") return {start()};
        if (command == "first") return {first_kernel()};
        if (command == "oneway") return oneway(first, second);
        if (command == "current") return current(first, second);
        if (command == "version") return version(first, second);
        if (command == "launches") return launches(first);
        if (command == "iteration") return iteration(first, second);
        if (command == "wait") return wait(first);
        if (command == "little") return little(size_t(first), second);
        if (command == "reach") return reach(first, second, third);
        if (command == "beside") return beside(unsigned(first), second);
        if (command == "backlog_begin") return {backlog_begin()};
        if (command == "launch_cpu") return {launch_cpu(first)};
        if (command == "backlog") return {backlog(first, second)};
        if (command == "threads") return threads(first, second);
        if (command == "synchronize") return synchronize(first);
        if (command == "h2d") return copies(size_t(first), second, true);
        if (command == "d2h") return copies(size_t(first), second, false);
        if (command == "saxpy") return saxpy(unsigned(first), second);
        if (command == "sum") return sum(unsigned(first), second);
        if (command == "matmul") return matmul(unsigned(first), second);
        if (command == "fair") return fair(first, second);
        if (command == "start_latency") return start_latency(first);
        if (command == "memory") return {memory("VmRSS:")};
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
        std::string command, kind;
        long first = 0, second = 0, third = 0;
        words >> command;
        if (command == "flat") words >> kind;
        words >> first >> second >> third;
        for (double value : client.execute(command, kind, first, second, third)) printf("%.9g ", value);
        printf("\n");
        fflush(stdout);
    }
    return 0;
}
