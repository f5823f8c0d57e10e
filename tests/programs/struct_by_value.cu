// A kernel whose parameters are a 300-byte struct by value between a char and a double, and one that takes
// almost all of the 4096 bytes of parameters there are.
#include "expect.h"

struct Record {
    char tag;
    short level;
    int counts[40];
    double weight;
    float coefficients[28];
    unsigned char flags[12];
};
static_assert(sizeof(Record) >= 296 && sizeof(Record) <= 304, "about 300 bytes");

struct __attribute__((packed)) Bytes300 {
    unsigned char value[300];
};
static_assert(sizeof(Bytes300) == 300, "exactly 300 bytes");

struct Large {
    int value[1000];
};

__global__ void unpack(char before, Record record, double after, double *out) {
    double total = 0;
    for (int i = 0; i < 40; ++i) total += record.counts[i];
    out[0] = total;
    total = 0;
    for (int i = 0; i < 28; ++i) total += record.coefficients[i];
    out[1] = total;
    total = 0;
    for (int i = 0; i < 12; ++i) total += record.flags[i];
    out[2] = total;
    out[3] = record.tag + record.level + record.weight;
    out[4] = before + after;
}

__global__ void copy_bytes(Bytes300 bytes, unsigned char *out) {
    if (threadIdx.x < 300) out[threadIdx.x] = bytes.value[threadIdx.x];
}

__global__ void pick(Large large, const int *index, int *out) { out[threadIdx.x] = large.value[index[threadIdx.x]]; }

int main() {
    Record record = {};
    record.tag = 7;
    record.level = -300;
    record.weight = 0.125;
    for (int i = 0; i < 40; ++i) record.counts[i] = i * i;
    for (int i = 0; i < 28; ++i) record.coefficients[i] = 0.5f * i;
    for (int i = 0; i < 12; ++i) record.flags[i] = (unsigned char)(255 - i);
    DeviceArray<double> out(5);
    unpack<<<1, 1>>>('A', record, 1e10, out);
    memset(&record, 0xff, sizeof record); // The launch took its own copy.
    MUST(cudaGetLastError());
    std::vector<double> got = out.read();
    expect_near("counts", 20540, got[0], 0);
    expect_near("coefficients", 189, got[1], 0);
    expect_near("flags", 2994, got[2], 0);
    expect_near("tag, level and weight", -292.875, got[3], 0);
    expect_near("parameters around it", 10000000065.0, got[4], 0);

    Bytes300 bytes;
    std::vector<unsigned char> wanted(300);
    for (int i = 0; i < 300; ++i) wanted[i] = bytes.value[i] = (unsigned char)(i * 7 + 3);
    DeviceArray<unsigned char> copied(300);
    copy_bytes<<<1, 320>>>(bytes, copied);
    MUST(cudaGetLastError());
    expect_same("300 bytes", wanted, copied.read());

    Large large;
    for (int i = 0; i < 1000; ++i) large.value[i] = 3 * i + 1;
    std::vector<int> index = {0, 999, 500, 1, 998, 37, 250, 750}, picked;
    for (int i : index) picked.push_back(3 * i + 1);
    DeviceArray<int> picked_out(8);
    pick<<<1, 8>>>(large, DeviceArray<int>(index), picked_out);
    MUST(cudaGetLastError());
    expect_same("indexed parameters", picked, picked_out.read());
    return verdict();
}
