// Cooperative groups: a barrier over the whole grid between the steps of a computation, and groups inside a
// warp and a block.
#include "expect.h"

#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>

namespace groups = cooperative_groups;

// Each round every element becomes the sum of its two neighbours on the ring, mod a prime.
__global__ void ring(unsigned *a, unsigned *b, int n, int rounds) {
    groups::grid_group grid = groups::this_grid();
    for (int round = 0; round < rounds; ++round) {
        for (int i = int(grid.thread_rank()); i < n; i += int(grid.size()))
            b[i] = (a[(i + 1) % n] + a[(i + n - 1) % n]) % 65521u;
        grid.sync();
        unsigned *swap = a;
        a = b;
        b = swap;
    }
}

__global__ void tiles(int *out) {
    groups::thread_block block = groups::this_thread_block();
    groups::thread_block_tile<8> tile = groups::tiled_partition<8>(block);
    int sum = groups::reduce(tile, int(block.thread_rank()), groups::plus<int>());
    block.sync();
    out[block.thread_rank()] = sum * 10 + int(tile.thread_rank());
    if (block.thread_rank() % 3 == 0) {
        groups::coalesced_group together = groups::coalesced_threads();
        out[64 + block.thread_rank()] = int(together.size()) * 100 + int(together.thread_rank());
    }
}

int main() {
    int cooperative = 0;
    MUST(cudaDeviceGetAttribute(&cooperative, cudaDevAttrCooperativeLaunch, 0));
    expect_equal("cooperative launches", 1, cooperative);
    int n = 1000, rounds = 20;
    std::vector<unsigned> ones(n), next(n);
    for (int i = 0; i < n; ++i) ones[i] = unsigned(i * i + 1);
    DeviceArray<unsigned> a(ones), b(n);
    unsigned *pa = a, *pb = b;
    void *arguments[] = {&pa, &pb, &n, &rounds};
    MUST(cudaLaunchCooperativeKernel(ring, dim3(4), dim3(64), arguments, 0, nullptr));
    for (int round = 0; round < rounds; ++round) {
        for (int i = 0; i < n; ++i) next[i] = (ones[(i + 1) % n] + ones[(i + n - 1) % n]) % 65521u;
        std::swap(ones, next);
    }
    expect_same("ring", ones, a.read());
    expect_error("a grid too large to be resident", cudaErrorCooperativeLaunchTooLarge,
                 cudaLaunchCooperativeKernel(ring, dim3(1 << 20), dim3(1024), arguments, 0, nullptr));
    cudaGetLastError();

    std::vector<int> wanted(128);
    for (int i = 0; i < 64; ++i) {
        int first = i / 8 * 8;
        wanted[i] = (first * 8 + 28) * 10 + i % 8;
        int before = 0;
        for (int j = i / 32 * 32; j < i; ++j) before += j % 3 == 0;
        // Of each warp, 11 threads take the branch together.
        if (i % 3 == 0) wanted[64 + i] = 11 * 100 + before;
    }
    DeviceArray<int> out(128);
    MUST(cudaMemset(out, 0, 128 * sizeof(int)));
    tiles<<<1, 64>>>(out);
    MUST(cudaGetLastError());
    expect_same("tiles and coalesced threads", wanted, out.read());
    return verdict();
}
