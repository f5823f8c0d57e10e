// Votes, ballots, matches and reductions within a warp, with whole, partial and parted warps.
// nvcc: -arch=sm_80
#include "expect.h"

__global__ void votes(const int *in, unsigned *out) {
    int lane = threadIdx.x % 32;
    int value = in[threadIdx.x];
    unsigned *r = out + threadIdx.x * 8;
    r[0] = __ballot_sync(0xffffffffu, value > 50);
    r[1] = __all_sync(0xffffffffu, value >= 0);
    r[2] = __any_sync(0xffffffffu, value == 99);
    r[3] = __match_any_sync(0xffffffffu, value % 4);
    r[4] = __reduce_add_sync(0xffffffffu, value);
    r[5] = unsigned(__reduce_max_sync(0xffffffffu, value - 50));
    if (lane % 2) {
        r[6] = __ballot_sync(0xaaaaaaaau, value % 3 == 0);
        r[7] = __activemask();
    } else {
        r[6] = __reduce_xor_sync(0x55555555u, unsigned(value));
        r[7] = __activemask();
    }
    __syncwarp();
}

int main() {
    const int n = 96;
    std::vector<int> in(n);
    Random random(10);
    for (int &x : in) x = int(random.next() % 100);
    in[5] = 99;
    std::vector<unsigned> wanted(n * 8);
    for (int warp = 0; warp < n; warp += 32) {
        unsigned ballot = 0, any = 0, sum = 0, odd = 0, even = 0;
        int top = -1000;
        for (int lane = 0; lane < 32; ++lane) {
            int value = in[warp + lane];
            ballot |= unsigned(value > 50) << lane;
            any |= value == 99;
            sum += value;
            top = value - 50 > top ? value - 50 : top;
            if (lane % 2) odd |= unsigned(value % 3 == 0) << lane;
            else even ^= unsigned(value);
        }
        for (int lane = 0; lane < 32; ++lane) {
            unsigned *r = &wanted[(warp + lane) * 8];
            r[0] = ballot;
            r[1] = 1;
            r[2] = any;
            for (int other = 0; other < 32; ++other)
                r[3] |= unsigned(in[warp + other] % 4 == in[warp + lane] % 4) << other;
            r[4] = sum;
            r[5] = unsigned(top);
            r[6] = lane % 2 ? odd : even;
            r[7] = lane % 2 ? 0xaaaaaaaau : 0x55555555u;
        }
    }
    DeviceArray<int> source(in);
    DeviceArray<unsigned> out(n * 8);
    votes<<<1, n>>>(source, out);
    MUST(cudaGetLastError());
    expect_same("votes", wanted, out.read());
    return verdict();
}
