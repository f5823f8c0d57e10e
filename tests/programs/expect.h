// What every program here shares: calls that must succeed, calls that must fail in one named way, and
// numbers that must be right. A program prints what it found and ends non-zero when any of it was wrong,
// so its output and exit code can be compared between a device at hand and the same device in the pool.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

inline int &wrong_count() {
    static int count = 0;
    return count;
}

// Ends the program unless the call succeeded.
#define MUST(call)                                                                                 \
    do {                                                                                           \
        cudaError_t must_error = (call);                                                           \
        if (must_error != cudaSuccess) {                                                           \
            printf("%s:%d: %s failed with %s (%s)\n", __FILE_NAME__, __LINE__, #call,              \
                   cudaGetErrorName(must_error), cudaGetErrorString(must_error));                  \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

// Prints the error that `what` gave and counts it as wrong unless it is the expected one.
inline void expect_error(const char *what, cudaError_t wanted, cudaError_t got) {
    printf("%s: %s\n", what, cudaGetErrorName(got));
    if (got != wanted) {
        printf("  WRONG: expected %s\n", cudaGetErrorName(wanted));
        ++wrong_count();
    }
}

inline void expect(const char *what, bool holds) {
    printf("%s: %s\n", what, holds ? "yes" : "NO");
    if (!holds) ++wrong_count();
}

inline void expect_equal(const char *what, long long wanted, long long got) {
    printf("%s: %lld\n", what, got);
    if (got != wanted) {
        printf("  WRONG: expected %lld\n", wanted);
        ++wrong_count();
    }
}

// Equal within `tolerance`, relative to the expected value where that is larger than one.
inline void expect_near(const char *what, double wanted, double got, double tolerance) {
    printf("%s: %.9g\n", what, got);
    double scale = std::fabs(wanted) > 1.0 ? std::fabs(wanted) : 1.0;
    if (!(std::fabs(got - wanted) <= tolerance * scale)) {
        printf("  WRONG: expected %.9g\n", wanted);
        ++wrong_count();
    }
}

// Compares whole arrays bit by bit and names the first difference.
template <class T>
void expect_same(const char *what, const std::vector<T> &wanted, const std::vector<T> &got) {
    size_t different = 0, first = 0;
    for (size_t i = wanted.size(); i-- > 0;) {
        if (std::memcmp(&wanted[i], &got[i], sizeof(T)) != 0) {
            ++different;
            first = i;
        }
    }
    printf("%s: %zu of %zu right\n", what, wanted.size() - different, wanted.size());
    if (different != 0) {
        printf("  WRONG: first at index %zu: %.9g, expected %.9g\n", first, double(got[first]),
               double(wanted[first]));
        ++wrong_count();
    }
}

// Small random numbers that are the same on every machine and in every run.
struct Random {
    uint32_t state;
    explicit Random(uint32_t seed) : state(seed) {}
    uint32_t next() {
        state = state * 1664525u + 1013904223u;
        return state >> 8;
    }
    float unit() { return next() / 16777216.0f; }
};

// A device array that is filled from, and read back into, a vector.
template <class T> struct DeviceArray {
    T *data = nullptr;
    size_t count;
    explicit DeviceArray(size_t n) : count(n) { MUST(cudaMalloc(&data, n * sizeof(T))); }
    explicit DeviceArray(const std::vector<T> &from) : DeviceArray(from.size()) {
        MUST(cudaMemcpy(data, from.data(), count * sizeof(T), cudaMemcpyHostToDevice));
    }
    DeviceArray(const DeviceArray &) = delete;
    ~DeviceArray() { MUST(cudaFree(data)); }
    std::vector<T> read() const {
        std::vector<T> out(count);
        MUST(cudaMemcpy(out.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost));
        return out;
    }
    operator T *() const { return data; }
};

inline int verdict() {
    if (wrong_count() == 0) printf("passed\n");
    else printf("FAILED: %d wrong\n", wrong_count());
    return wrong_count() == 0 ? 0 : 1;
}
