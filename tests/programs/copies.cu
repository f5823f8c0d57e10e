// Copies and fills of every shape, waiting and not: within the device, overlapping streams, pitched rectangles, boxes,
// unaligned ends, and a buffer that is reused the moment an asynchronous copy from pageable memory returns.
#include "expect.h"

__global__ void scale(float *data, int n, float factor) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) data[i] *= factor;
}

void rectangles() {
    const int width = 100, height = 37;
    std::vector<short> image(width * height), part(20 * 10), back(width * height);
    for (int i = 0; i < width * height; ++i) image[i] = short(i);
    short *device = nullptr;
    size_t pitch = 0;
    MUST(cudaMallocPitch(&device, &pitch, width * sizeof(short), height));
    expect("pitch holds a row", pitch >= width * sizeof(short) && pitch % 4 == 0);
    MUST(cudaMemset2D(device, pitch, 0x11, width * sizeof(short), height));
    MUST(cudaMemcpy2D(device, pitch, image.data(), width * sizeof(short), width * sizeof(short), height - 1,
                      cudaMemcpyHostToDevice));
    MUST(cudaMemcpy2D(back.data(), width * sizeof(short), device, pitch, width * sizeof(short), height,
                      cudaMemcpyDeviceToHost));
    std::vector<short> wanted = image;
    for (int x = 0; x < width; ++x) wanted[(height - 1) * width + x] = 0x1111;
    expect_same("pitched rectangle", wanted, back);
    MUST(cudaMemcpy2D(part.data(), 20 * sizeof(short), (char *)device + 5 * pitch + 7 * sizeof(short), pitch,
                      20 * sizeof(short), 10, cudaMemcpyDeviceToHost));
    std::vector<short> cut(20 * 10);
    for (int y = 0; y < 10; ++y)
        for (int x = 0; x < 20; ++x) cut[y * 20 + x] = short((y + 5) * width + x + 7);
    expect_same("a rectangle from inside it", cut, part);
    MUST(cudaFree(device));
}

void boxes() {
    cudaExtent extent = make_cudaExtent(12 * sizeof(int), 7, 5);
    cudaPitchedPtr box;
    MUST(cudaMalloc3D(&box, extent));
    std::vector<int> numbers(12 * 7 * 5), back(12 * 7 * 5);
    for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = int(i * 31);
    cudaMemcpy3DParms copy = {};
    copy.srcPtr = make_cudaPitchedPtr(numbers.data(), 12 * sizeof(int), 12, 7);
    copy.dstPtr = box;
    copy.extent = extent;
    copy.kind = cudaMemcpyHostToDevice;
    MUST(cudaMemcpy3D(&copy));
    cudaMemcpy3DParms out = {};
    out.srcPtr = box;
    out.dstPtr = make_cudaPitchedPtr(back.data(), 12 * sizeof(int), 12, 7);
    out.extent = extent;
    out.kind = cudaMemcpyDeviceToHost;
    MUST(cudaMemcpy3D(&out));
    expect_same("a box", numbers, back);
    MUST(cudaFree(box.ptr));
}

// The same without waiting, from page-locked memory, one stream after the other by an event.
void shapes_in_streams() {
    const int width = 60, height = 20, depth = 4, n = width * height * depth;
    int *from, *to;
    MUST(cudaMallocHost(&from, n * sizeof(int)));
    MUST(cudaMallocHost(&to, n * sizeof(int)));
    for (int i = 0; i < n; ++i) from[i] = i * 17, to[i] = -1;
    cudaStream_t first, second;
    cudaEvent_t filled;
    MUST(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking));
    MUST(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
    MUST(cudaEventCreateWithFlags(&filled, cudaEventDisableTiming));
    cudaPitchedPtr box, other;
    cudaExtent extent = make_cudaExtent(width * sizeof(int), height, depth);
    MUST(cudaMalloc3D(&box, extent));
    MUST(cudaMalloc3D(&other, extent));
    MUST(cudaMemset3DAsync(other, 0x22, extent, first));
    cudaMemcpy3DParms copy = {};
    copy.srcPtr = make_cudaPitchedPtr(from, width * sizeof(int), width, height);
    copy.dstPtr = box;
    copy.extent = extent;
    copy.kind = cudaMemcpyHostToDevice;
    MUST(cudaMemcpy3DAsync(&copy, first));
    // A smaller box from inside, on the device.
    cudaMemcpy3DParms inner = {};
    inner.srcPtr = box;
    inner.srcPos = make_cudaPos(10 * sizeof(int), 5, 1);
    inner.dstPtr = other;
    inner.dstPos = make_cudaPos(3 * sizeof(int), 2, 0);
    inner.extent = make_cudaExtent(20 * sizeof(int), 10, 2);
    inner.kind = cudaMemcpyDeviceToDevice;
    MUST(cudaMemcpy3DAsync(&inner, first));
    MUST(cudaMemset2DAsync((char *)other.ptr + 15 * other.pitch, other.pitch, 0, 8, 5, first));
    MUST(cudaEventRecord(filled, first));
    MUST(cudaStreamWaitEvent(second, filled, 0));
    for (int z = 0; z < depth; ++z)
        MUST(cudaMemcpy2DAsync(to + z * width * height, width * sizeof(int),
                               (char *)other.ptr + z * height * other.pitch, other.pitch, width * sizeof(int), height,
                               cudaMemcpyDeviceToHost, second));
    MUST(cudaStreamSynchronize(second));
    std::vector<int> wanted(n, 0x22222222), got(to, to + n);
    for (int z = 0; z < 2; ++z)
        for (int y = 0; y < 10; ++y)
            for (int x = 0; x < 20; ++x)
                wanted[(z * height + y + 2) * width + x + 3] = from[((z + 1) * height + y + 5) * width + x + 10];
    for (int y = 15; y < 20; ++y) wanted[y * width] = wanted[y * width + 1] = 0;
    expect_same("boxes and rectangles in streams", wanted, got);
    MUST(cudaFree(box.ptr));
    MUST(cudaFree(other.ptr));
    MUST(cudaEventDestroy(filled));
    for (cudaStream_t stream : {first, second}) MUST(cudaStreamDestroy(stream));
    MUST(cudaFreeHost(from));
    MUST(cudaFreeHost(to));
}

int main() {
    const int n = 300000;
    std::vector<float> numbers(n), back(n), doubled(n);
    for (int i = 0; i < n; ++i) {
        numbers[i] = float(i);
        doubled[i] = numbers[i] * 2;
    }
    DeviceArray<float> a(n), b(n);
    cudaStream_t stream;
    MUST(cudaStreamCreate(&stream));
    MUST(cudaMemcpyAsync(a, numbers.data(), n * sizeof(float), cudaMemcpyHostToDevice, stream));
    memset(numbers.data(), 0xff, n * sizeof(float)); // Pageable memory: the copy took it before it returned.
    scale<<<(n + 255) / 256, 256, 0, stream>>>(a, n, 2.0f);
    MUST(cudaMemcpyAsync(b, a, n * sizeof(float), cudaMemcpyDeviceToDevice, stream));
    MUST(cudaMemcpyAsync(back.data(), b, n * sizeof(float), cudaMemcpyDeviceToHost, stream));
    MUST(cudaStreamSynchronize(stream));
    expect_same("there and back", doubled, back);
    MUST(cudaMemcpy(back.data(), a, n * sizeof(float), cudaMemcpyDefault));
    expect_same("by the addresses alone", doubled, back);

    std::vector<unsigned char> bytes(1000), seen(1000);
    for (int i = 0; i < 1000; ++i) bytes[i] = (unsigned char)(i * 13);
    DeviceArray<unsigned char> small(1003);
    MUST(cudaMemcpy(small + 3, bytes.data(), 1000, cudaMemcpyHostToDevice));
    MUST(cudaMemset(small + 10, 0xAB, 17));
    MUST(cudaMemcpy(seen.data(), small + 3, 1000, cudaMemcpyDeviceToHost));
    for (int i = 7; i < 24; ++i) bytes[i] = 0xAB;
    expect_same("unaligned bytes", bytes, seen);
    MUST(cudaMemcpy(nullptr, nullptr, 0, cudaMemcpyHostToDevice));
    rectangles();
    boxes();
    shapes_in_streams();
    MUST(cudaStreamDestroy(stream));
    return verdict();
}
