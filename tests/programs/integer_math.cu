// Integer arithmetic in every width: division with its corner cases, high products, shifts beyond the width,
// bit counting and permuting, saturation, and 128-bit sums through carries.
#include "expect.h"

#include <climits>

__host__ __device__ unsigned reverse_bits(unsigned x) {
    unsigned y = 0;
    for (int i = 0; i < 32; ++i) y |= ((x >> i) & 1u) << (31 - i);
    return y;
}

enum { RESULTS = 24 };

__global__ void compute(const int *in, long long *out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int a = in[i], b = in[(i + 1) % n];
    unsigned ua = unsigned(a), ub = unsigned(b);
    long long wa = (long long)a * 4294967311ll, wb = (long long)b << 20 | 1;
    long long *r = out + i * RESULTS;
    r[0] = a / (b | 1);
    r[1] = a % (b | 1);
    r[2] = ua / (ub | 1);
    r[3] = ua % (ub | 1);
    r[4] = wa / wb;
    r[5] = wa % wb;
    r[6] = (long long)((unsigned long long)wa / (unsigned long long)wb);
    r[7] = __mulhi(a, b);
    r[8] = __umulhi(ua, ub);
    r[9] = __mul64hi(wa, wb);
    r[10] = __clz(a);
    r[11] = __popc(ua);
    r[12] = __brev(ua);
    r[13] = __ffs(a);
    r[14] = __clzll(wa);
    r[15] = __popcll(wa);
    r[16] = __byte_perm(ua, ub, 0x5140);
    r[17] = __funnelshift_l(ua, ub, 13);
    r[18] = __sad(a, b, 7u);
    r[19] = a >> (b & 31);
    r[20] = min(a, b) * 3ll + max(ua, ub);
    r[21] = (short)(a * b) + (signed char)(a + b) + (unsigned char)(a - b);
    __int128 big = (__int128)wa * wb + wa;
    r[22] = (long long)(big >> 64);
    r[23] = (long long)big;
}

void expected(int a, int b, long long *r) {
    unsigned ua = unsigned(a), ub = unsigned(b);
    long long wa = (long long)a * 4294967311ll, wb = (long long)b << 20 | 1;
    r[0] = (long long)a / (b | 1) == 2147483648ll ? INT_MIN : a / (b | 1);
    r[1] = (b | 1) == -1 ? 0 : a % (b | 1);
    r[2] = ua / (ub | 1);
    r[3] = ua % (ub | 1);
    r[4] = wa / wb;
    r[5] = wa % wb;
    r[6] = (long long)((unsigned long long)wa / (unsigned long long)wb);
    r[7] = int(((long long)a * b) >> 32);
    r[8] = ((unsigned long long)ua * ub) >> 32;
    r[9] = (long long)(((__int128)wa * wb) >> 64);
    r[10] = a == 0 ? 32 : __builtin_clz(a);
    r[11] = __builtin_popcount(ua);
    r[12] = reverse_bits(ua);
    r[13] = __builtin_ffs(a);
    r[14] = wa == 0 ? 64 : __builtin_clzll(wa);
    r[15] = __builtin_popcountll(wa);
    r[16] = (ua & 0xff) | (ub & 0xff) << 8 | ((ua >> 8) & 0xff) << 16 | ((ub >> 8) & 0xff) << 24;
    r[17] = unsigned((((unsigned long long)ub << 32 | ua) << 13) >> 32);
    r[18] = unsigned((a > b ? ua - ub : ub - ua) + 7u);
    r[19] = a >> (b & 31);
    r[20] = (a < b ? a : b) * 3ll + (ua > ub ? ua : ub);
    r[21] = (short)(ua * ub) + (signed char)(ua + ub) + (unsigned char)(ua - ub);
    __int128 big = (__int128)wa * wb + wa;
    r[22] = (long long)(big >> 64);
    r[23] = (long long)big;
}

int main() {
    std::vector<int> in = {0, 1, -1, 2, -2, INT_MAX, INT_MIN, 255, 256, -256, 65535, -65536, 0x12345678, 7, -7, 100};
    Random random(8);
    while (in.size() < 500) in.push_back(int(random.next() << 8 ^ random.next()) >> (random.next() % 28));
    const int n = int(in.size());
    std::vector<long long> wanted(n * RESULTS);
    for (int i = 0; i < n; ++i) expected(in[i], in[(i + 1) % n], &wanted[i * RESULTS]);
    DeviceArray<int> source(in);
    DeviceArray<long long> out(n * RESULTS);
    compute<<<(n + 95) / 96, 96>>>(source, out, n);
    MUST(cudaGetLastError());
    std::vector<long long> got = out.read();
    for (int k = 0; k < RESULTS; ++k) {
        std::vector<long long> one(n), other(n);
        for (int i = 0; i < n; ++i) {
            one[i] = wanted[i * RESULTS + k];
            other[i] = got[i * RESULTS + k];
        }
        char what[24];
        snprintf(what, sizeof what, "result %d", k);
        expect_same(what, one, other);
    }
    return verdict();
}
