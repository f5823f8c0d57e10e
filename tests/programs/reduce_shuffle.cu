// Sums, scans and broadcasts between the lanes of a warp by shuffles, with whole and partial warps, and in
// 32- and 64-bit types.
#include "expect.h"

template <class T> __device__ T warp_sum(T value) {
    for (int step = 16; step > 0; step /= 2) value += __shfl_down_sync(0xffffffffu, value, step);
    return value;
}

template <class T> __global__ void sum(const T *in, T *out, int n) {
    T mine = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) mine += in[i];
    mine = warp_sum(mine);
    __shared__ T partial[32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (lane == 0) partial[warp] = mine;
    __syncthreads();
    if (warp == 0) {
        mine = lane < blockDim.x / 32 ? partial[lane] : T(0);
        mine = warp_sum(mine);
        if (lane == 0) atomicAdd(out, mine);
    }
}

__global__ void inclusive_scan(int *data) {
    int lane = threadIdx.x % 32;
    int value = data[threadIdx.x];
    for (int step = 1; step < 32; step *= 2) {
        int other = __shfl_up_sync(0xffffffffu, value, step);
        if (lane >= step) value += other;
    }
    data[threadIdx.x] = value;
}

// Eight lanes form a group of their own; one half of the warp takes another path than the other.
__global__ void segments(int *out) {
    int lane = threadIdx.x;
    int from_first = __shfl_sync(0xffffffffu, lane * 10, 0, 8);
    int mirrored = __shfl_xor_sync(0xffffffffu, lane, 7);
    int half;
    if (lane < 16) half = __shfl_sync(0x0000ffffu, lane + 100, 15);
    else half = __shfl_sync(0xffff0000u, lane + 200, 16);
    out[lane * 3] = from_first;
    out[lane * 3 + 1] = mirrored;
    out[lane * 3 + 2] = half;
}

int main() {
    const int n = 123457;
    Random random(4);
    std::vector<unsigned long long> wide(n);
    std::vector<int> narrow(n);
    std::vector<float> real(n);
    unsigned long long wide_sum = 0;
    int narrow_sum = 0;
    float real_sum = 0;
    for (int i = 0; i < n; ++i) {
        wide_sum += wide[i] = random.next() * 65537ull;
        narrow_sum += narrow[i] = int(random.next() % 2001) - 1000;
        real_sum += real[i] = float(random.next() % 64);
    }
    DeviceArray<unsigned long long> wide_out(std::vector<unsigned long long>{0});
    DeviceArray<int> narrow_out(std::vector<int>{0});
    DeviceArray<float> real_out(std::vector<float>{0});
    sum<<<20, 256>>>(DeviceArray<unsigned long long>(wide).data, wide_out.data, n);
    MUST(cudaGetLastError());
    sum<<<20, 192>>>(DeviceArray<int>(narrow).data, narrow_out.data, n);
    MUST(cudaGetLastError());
    sum<<<3, 1024>>>(DeviceArray<float>(real).data, real_out.data, n);
    MUST(cudaGetLastError());
    expect_equal("64-bit sum", wide_sum, wide_out.read()[0]);
    expect_equal("32-bit sum", narrow_sum, narrow_out.read()[0]);
    expect_near("float sum", real_sum, real_out.read()[0], 0);

    std::vector<int> data(64), scanned(64);
    for (int i = 0; i < 64; ++i) {
        data[i] = i * i;
        scanned[i] = data[i] + (i % 32 ? scanned[i - 1] : 0);
    }
    DeviceArray<int> scan(data);
    inclusive_scan<<<1, 64>>>(scan);
    MUST(cudaGetLastError());
    expect_same("scan in a warp", scanned, scan.read());

    std::vector<int> wanted;
    for (int lane = 0; lane < 32; ++lane) {
        wanted.push_back(lane / 8 * 80);
        wanted.push_back(lane ^ 7);
        wanted.push_back(lane < 16 ? 115 : 216);
    }
    DeviceArray<int> out(96);
    segments<<<1, 32>>>(out);
    MUST(cudaGetLastError());
    expect_same("segments and halves", wanted, out.read());
    return verdict();
}
