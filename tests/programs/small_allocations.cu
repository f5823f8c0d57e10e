// Many small pieces of device memory at once: none reaches into another, each can be freed by itself, and
// what is left is as much as before.
//
//     small_allocations [COUNT]
#include "expect.h"

#include <cstdlib>

struct Piece {
    unsigned char *data;
    size_t size;
};

__device__ unsigned char mark(size_t piece, unsigned round) { return (unsigned char)(piece * 31 + round * 7 + 1); }

__global__ void write(const Piece *pieces, size_t count, unsigned round) {
    size_t p = blockIdx.x * size_t(blockDim.x) + threadIdx.x;
    if (p >= count) return;
    for (size_t i = 0; i < pieces[p].size; ++i) pieces[p].data[i] = mark(p, round);
}

// Bytes that are not what was written, of all pieces.
__global__ void check(const Piece *pieces, size_t count, unsigned round, unsigned long long *wrong) {
    size_t p = blockIdx.x * size_t(blockDim.x) + threadIdx.x;
    if (p >= count) return;
    unsigned long long bad = 0;
    for (size_t i = 0; i < pieces[p].size; ++i) bad += pieces[p].data[i] != mark(p, round);
    if (bad) atomicAdd(wrong, bad);
}

static size_t size_of(size_t piece) { return 1 + piece * 7919 % 3000; }

int main(int argc, char **argv) {
    const size_t count = argc > 1 ? strtoul(argv[1], nullptr, 10) : 6000;
    size_t free_before, free_now, total;
    MUST(cudaMemGetInfo(&free_before, &total));
    std::vector<Piece> pieces(count);
    for (size_t p = 0; p < count; ++p) {
        pieces[p].size = size_of(p);
        MUST(cudaMalloc(&pieces[p].data, pieces[p].size));
    }
    Piece *on_device;
    unsigned long long *wrong, found = 0;
    MUST(cudaMalloc(&on_device, count * sizeof(Piece)));
    MUST(cudaMalloc(&wrong, sizeof(*wrong)));
    MUST(cudaMemset(wrong, 0, sizeof(*wrong)));
    const unsigned blocks = unsigned((count + 127) / 128);
    for (unsigned round = 0; round < 3; ++round) {
        MUST(cudaMemcpy(on_device, pieces.data(), count * sizeof(Piece), cudaMemcpyHostToDevice));
        write<<<blocks, 128>>>(on_device, count, round);
        check<<<blocks, 128>>>(on_device, count, round, wrong);
        MUST(cudaGetLastError());
        MUST(cudaMemcpy(&found, wrong, sizeof(found), cudaMemcpyDeviceToHost));
        expect("every piece holds what was written to it", found == 0);
        // Some go and come again, of another size.
        for (size_t p = round; p < count; p += 3) MUST(cudaFree(pieces[p].data));
        for (size_t p = round; p < count; p += 3) {
            pieces[p].size = size_of(p + round + 1);
            MUST(cudaMalloc(&pieces[p].data, pieces[p].size));
        }
    }
    for (const Piece &piece : pieces) MUST(cudaFree(piece.data));
    expect_error("freed twice", cudaErrorInvalidValue, cudaFree(pieces[count / 2].data));
    cudaGetLastError();

    // Of neighbours that were not allocated in stream order, one is freed in it.
    unsigned char *first, *second;
    std::vector<unsigned char> bytes(1000);
    MUST(cudaMalloc(&first, 1000));
    MUST(cudaMalloc(&second, 1000));
    MUST(cudaMemset(second, 7, 1000));
    MUST(cudaFreeAsync(first, nullptr));
    MUST(cudaDeviceSynchronize());
    MUST(cudaMemcpy(bytes.data(), second, 1000, cudaMemcpyDeviceToHost));
    expect("what lies beside memory that was freed in a stream stays", bytes == std::vector<unsigned char>(1000, 7));
    expect_error("freed twice, once in a stream", cudaErrorInvalidValue, cudaFree(first));
    cudaGetLastError();
    MUST(cudaFree(second));

    MUST(cudaMemGetInfo(&free_now, &total));
    expect("as much as before is free", free_now + (4 << 20) >= free_before);
    MUST(cudaFree(on_device));
    MUST(cudaFree(wrong));
    return verdict();
}
