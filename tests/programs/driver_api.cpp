// The driver API alone, with PTX written by hand: contexts, modules, both ways to pass parameters, globals,
// streams, events, and what wrong calls answer.
#include "driver.h"

static const char MODULE[] = R"(
.version 7.0
.target sm_52
.address_size 64

.global .align 4 .u32 total = 40;
.const .align 4 .b32 weights[4] = {1, 10, 100, 1000};

.visible .entry scale(.param .u64 data, .param .u32 count, .param .f32 factor)
{
    .reg .pred %p;
    .reg .b32 %r<6>;
    .reg .f32 %f<3>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd1, [data];
    ld.param.u32 %r1, [count];
    ld.param.f32 %f1, [factor];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p, %r5, %r1;
    @%p bra DONE;
    cvta.to.global.u64 %rd1, %rd1;
    mul.wide.u32 %rd2, %r5, 4;
    add.s64 %rd3, %rd1, %rd2;
    ld.global.f32 %f2, [%rd3];
    mul.rn.f32 %f2, %f2, %f1;
    st.global.f32 [%rd3], %f2;
DONE:
    ret;
}

.visible .entry mixed(.param .u8 a, .param .u64 b, .param .u16 c, .param .f64 d, .param .align 8 .b8 e[24], .param .u64 out)
{
    .reg .b32 %r<4>;
    .reg .b16 %h<3>;
    .reg .f64 %d<4>;
    .reg .b64 %rd<5>;
    ld.param.u64 %rd1, [out];
    cvta.to.global.u64 %rd1, %rd1;
    ld.param.u8 %h1, [a];
    cvt.u64.u16 %rd2, %h1;
    ld.param.u64 %rd3, [b];
    add.u64 %rd2, %rd2, %rd3;
    ld.param.u16 %h2, [c];
    cvt.u64.u16 %rd3, %h2;
    add.u64 %rd2, %rd2, %rd3;
    ld.param.u64 %rd3, [e+16];
    add.u64 %rd2, %rd2, %rd3;
    st.global.u64 [%rd1], %rd2;
    ld.param.f64 %d1, [d];
    ld.param.f64 %d2, [e];
    add.rn.f64 %d1, %d1, %d2;
    st.global.f64 [%rd1+8], %d1;
    ret;
}

.visible .entry weigh(.param .u32 digit)
{
    .reg .b32 %r<6>;
    .reg .b64 %rd<4>;
    ld.param.u32 %r1, [digit];
    mov.u32 %r2, %tid.x;
    mul.wide.u32 %rd1, %r2, 4;
    mov.u64 %rd2, weights;
    add.s64 %rd2, %rd2, %rd1;
    ld.const.u32 %r3, [%rd2];
    mul.lo.u32 %r3, %r3, %r1;
    atom.global.add.u32 %r4, [total], %r3;
    ret;
}
)";

static const char BROKEN[] = ".version 7.0\n.target sm_52\n.address_size 64\n.entry f() { this is not ptx; }\n";

static void parameters(CUmodule module) {
    CUfunction scale, mixed;
    MUST(cuModuleGetFunction(&scale, module, "scale"));
    MUST(cuModuleGetFunction(&mixed, module, "mixed"));
    CUfunction again;
    MUST(cuModuleGetFunction(&again, module, "scale"));
    expect("who asks again gets the same function", again == scale && mixed != scale);
    CUfunctionLoadingState state = CU_FUNCTION_LOADING_STATE_UNLOADED;
    MUST(cuFuncLoad(mixed));
    MUST(cuFuncIsLoaded(&state, mixed));
    expect("a function that was loaded is", state == CU_FUNCTION_LOADING_STATE_LOADED);
    const unsigned n = 1000;
    std::vector<float> numbers(n), got(n);
    for (unsigned i = 0; i < n; ++i) numbers[i] = float(i);
    CUdeviceptr data;
    MUST(cuMemAlloc(&data, n * sizeof(float)));
    MUST(cuMemcpyHtoD(data, numbers.data(), n * sizeof(float)));
    unsigned count = n;
    float factor = 2.0f;
    void *pointers[] = {&data, &count, &factor};
    MUST(cuLaunchKernel(scale, 8, 1, 1, 128, 1, 1, 0, nullptr, pointers, nullptr));
    count = 0, factor = 0; // Parameters are taken when the call is made.
    struct {
        CUdeviceptr data;
        unsigned count;
        float factor;
    } packed = {data, n, 1.5f};
    size_t size = sizeof packed;
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &packed, CU_LAUNCH_PARAM_BUFFER_SIZE, &size, CU_LAUNCH_PARAM_END};
    MUST(cuLaunchKernel(scale, 8, 1, 1, 128, 1, 1, 0, nullptr, nullptr, extra));
    MUST(cuMemcpyDtoH(got.data(), data, n * sizeof(float)));
    int wrong = 0;
    for (unsigned i = 0; i < n; ++i) wrong += got[i] != 3.0f * i;
    expect_equal("wrong after pointers and a buffer", 0, wrong);

    unsigned char a = 200;
    unsigned long long b = 1ull << 40;
    unsigned short c = 50000;
    double d = 0.5;
    struct {
        double x;
        long long unused, y;
    } e = {0.25, -1, 7};
    void *many[] = {&a, &b, &c, &d, &e, &data};
    MUST(cuLaunchKernel(mixed, 1, 1, 1, 1, 1, 1, 0, nullptr, many, nullptr));
    struct {
        unsigned long long whole;
        double real;
    } out;
    MUST(cuMemcpyDtoH(&out, data, sizeof out));
    expect_equal("parameters of many sizes", (1ll << 40) + 200 + 50000 + 7, (long long)out.whole);
    expect_equal("and real ones, in quarters", 3, (long long)(out.real * 4));

    expect_result("both ways at once", CUDA_ERROR_INVALID_VALUE,
                  driver.cuLaunchKernel(scale, 1, 1, 1, 1, 1, 1, 0, nullptr, many, extra));
    expect_result("no way at all", CUDA_ERROR_INVALID_VALUE,
                  driver.cuLaunchKernel(scale, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr));
    expect_result("too many threads", CUDA_ERROR_INVALID_VALUE,
                  driver.cuLaunchKernel(scale, 1, 1, 1, 1025, 1, 1, 0, nullptr, pointers, nullptr));
    expect_result("no blocks", CUDA_ERROR_INVALID_VALUE,
                  driver.cuLaunchKernel(scale, 0, 1, 1, 1, 1, 1, 0, nullptr, pointers, nullptr));
    int threads = 0;
    MUST(cuFuncGetAttribute(&threads, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, scale));
    expect_equal("threads a block may have", 1024, threads);
    MUST(cuMemFree(data));
}

static void globals(CUmodule module) {
    CUfunction weigh;
    CUdeviceptr total;
    size_t size = 0;
    MUST(cuModuleGetFunction(&weigh, module, "weigh"));
    MUST(cuModuleGetGlobal(&total, &size, module, "total"));
    expect_equal("size of a global", 4, (long long)size);
    unsigned value = 0, digit = 7;
    MUST(cuMemcpyDtoH(&value, total, 4));
    expect_equal("its first value", 40, value);
    void *pointers[] = {&digit};
    MUST(cuLaunchKernel(weigh, 1, 1, 1, 4, 1, 1, 0, nullptr, pointers, nullptr));
    MUST(cuMemcpyDtoH(&value, total, 4));
    expect_equal("after a launch", 7817, value);
    expect_result("a global that is none", CUDA_ERROR_NOT_FOUND, driver.cuModuleGetGlobal(&total, &size, module, "nobody"));
}

static void streams(CUmodule module) {
    CUfunction scale;
    MUST(cuModuleGetFunction(&scale, module, "scale"));
    CUstream stream;
    CUevent begin, end;
    MUST(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    MUST(cuEventCreate(&begin, CU_EVENT_DEFAULT));
    MUST(cuEventCreate(&end, CU_EVENT_DEFAULT));
    unsigned n = 4096;
    std::vector<float> ones(n, 1.0f), got(n);
    CUdeviceptr data;
    MUST(cuMemAlloc(&data, n * sizeof(float)));
    float factor = 2.0f;
    void *pointers[] = {&data, &n, &factor};
    MUST(cuEventRecord(begin, stream));
    MUST(cuMemcpyHtoDAsync(data, ones.data(), n * sizeof(float), stream));
    for (int i = 0; i < 10; ++i) MUST(cuLaunchKernel(scale, 16, 1, 1, 256, 1, 1, 0, stream, pointers, nullptr));
    MUST(cuMemcpyDtoHAsync(got.data(), data, n * sizeof(float), stream));
    MUST(cuEventRecord(end, stream));
    MUST(cuEventSynchronize(end));
    MUST(cuStreamSynchronize(stream));
    float milliseconds = -1;
    MUST(cuEventElapsedTime(&milliseconds, begin, end));
    expect("time went by", milliseconds >= 0);
    int wrong = 0;
    for (float x : got) wrong += x != 1024.0f;
    expect_equal("wrong after ten launches", 0, wrong);
    MUST(cuMemsetD32(data, 0x3f800000, n));
    MUST(cuMemsetD8(data + 4, 0, 4));
    MUST(cuMemcpyDtoH(got.data(), data, 12));
    expect("filled", got[0] == 1.0f && got[1] == 0.0f && got[2] == 1.0f);
    CUdeviceptr base;
    size_t size;
    MUST(cuMemGetAddressRange(&base, &size, data + 100));
    expect("the allocation around an address", base == data && size == n * sizeof(float));
    MUST(cuMemFree(data));
    MUST(cuEventDestroy(begin));
    MUST(cuEventDestroy(end));
    MUST(cuStreamDestroy(stream));
}

static void boxes() {
    std::vector<char> rows(256, 1), got(256);
    CUdeviceptr data;
    MUST(cuMemAlloc(&data, 256));
    CUDA_MEMCPY3D box = {};
    box.srcMemoryType = CU_MEMORYTYPE_HOST, box.srcHost = rows.data();
    box.dstMemoryType = CU_MEMORYTYPE_DEVICE, box.dstDevice = data;
    box.WidthInBytes = 32, box.Height = 2, box.Depth = 2;
    box.srcPitch = 32, box.srcHeight = 2, box.dstPitch = 64, box.dstHeight = 2;
    MUST(cuMemcpy3D(&box));
    MUST(cuMemcpyDtoH(got.data(), data, 224));
    expect("a box", got[31] == 1 && got[64] == 1 && got[192] == 1);
    box.srcPitch = 16;
    expect_result("rows that overlap", CUDA_ERROR_INVALID_VALUE, driver.cuMemcpy3D(&box));
    box.srcPitch = 32, box.srcHeight = 1;
    expect_result("slices that overlap", CUDA_ERROR_INVALID_VALUE, driver.cuMemcpy3D(&box));
    box.srcHeight = 2, box.srcY = 1;
    expect_result("slices that overlap from their second row", CUDA_ERROR_INVALID_VALUE, driver.cuMemcpy3D(&box));
    box.srcY = 0, box.Depth = ~size_t(0) / 32;
    expect_result("a box beyond all addresses", CUDA_ERROR_INVALID_VALUE, driver.cuMemcpy3D(&box));
    CUDA_MEMCPY2D plane = {};
    plane.srcMemoryType = CU_MEMORYTYPE_HOST, plane.srcHost = rows.data(), plane.srcPitch = 16;
    plane.dstMemoryType = CU_MEMORYTYPE_DEVICE, plane.dstDevice = data;
    plane.WidthInBytes = 32, plane.Height = 2;
    expect_result("rows of a plane that overlap", CUDA_ERROR_INVALID_VALUE, driver.cuMemcpy2D(&plane));
    MUST(cuMemFree(data));
}

static void link_with_driver() {
    CUlinkState link;
    MUST(cuLinkCreate(0, nullptr, nullptr, &link));
    MUST(cuLinkAddData(link, CU_JIT_INPUT_PTX, (void *)MODULE, sizeof MODULE, "module", 0, nullptr, nullptr));
    void *image = nullptr;
    size_t size = 0;
    MUST(cuLinkComplete(link, &image, &size));
    CUmodule module;
    MUST(cuModuleLoadData(&module, image));
    MUST(cuLinkDestroy(link));
    CUfunction function;
    MUST(cuModuleGetFunction(&function, module, "scale"));
    MUST(cuModuleUnload(module));
    printf("linked\n");
}

static size_t free_memory(CUdevice device) {
    CUcontext context;
    size_t free = 0, total = 0;
    MUST(cuDevicePrimaryCtxRetain(&context, device));
    MUST(cuCtxPushCurrent(context));
    MUST(cuMemGetInfo(&free, &total));
    MUST(cuCtxPopCurrent(&context));
    MUST(cuDevicePrimaryCtxRelease(device));
    return free;
}

static void retains_and_a_reset(CUdevice device) {
    const size_t bytes = 64 << 20;
    CUcontext context;
    CUdeviceptr pointer;
    unsigned flags = 0;
    int active = -1;
    size_t before = free_memory(device);
    MUST(cuDevicePrimaryCtxRetain(&context, device));
    MUST(cuDevicePrimaryCtxReset(device));
    MUST(cuDevicePrimaryCtxRetain(&context, device));
    MUST(cuCtxPushCurrent(context));
    MUST(cuMemAlloc(&pointer, bytes));
    MUST(cuCtxPopCurrent(&context));
    MUST(cuDevicePrimaryCtxRelease(device));
    MUST(cuDevicePrimaryCtxRelease(device));
    MUST(cuDevicePrimaryCtxGetState(device, &flags, &active));
    expect_equal("active after as many releases", 0, active);
    expect("its memory is free again", free_memory(device) + bytes / 2 > before);
}

int main() {
    expect_result("before init", CUDA_ERROR_NOT_INITIALIZED, driver.cuDeviceGetCount(nullptr));
    expect_result("init with a flag", CUDA_ERROR_INVALID_VALUE, driver.cuInit(1));
    MUST(cuInit(0));
    int count = 0;
    MUST(cuDeviceGetCount(&count));
    expect("there is a device", count > 0);
    CUdevice device;
    expect_result("a device beyond", CUDA_ERROR_INVALID_DEVICE, driver.cuDeviceGet(&device, count));
    MUST(cuDeviceGet(&device, 0));
    CUcontext context, current = nullptr;
    CUdeviceptr pointer;
    expect_result("memory without a context", CUDA_ERROR_INVALID_CONTEXT, driver.cuMemAlloc(&pointer, 16));
    unsigned flags = 0;
    int active = -1;
    MUST(cuDevicePrimaryCtxGetState(device, &flags, &active));
    expect_equal("primary context active", 0, active);
    MUST(cuDevicePrimaryCtxRetain(&context, device));
    MUST(cuCtxPushCurrent(context));
    MUST(cuCtxGetCurrent(&current));
    expect("it is current", current == context);

    CUmodule module;
    expect_result("text that is not PTX", CUDA_ERROR_INVALID_PTX, driver.cuModuleLoadData(&module, BROKEN));
    expect_result("bytes that are nothing", CUDA_ERROR_INVALID_IMAGE, driver.cuModuleLoadData(&module, "nothing of the kind"));
    MUST(cuModuleLoadData(&module, MODULE));
    CUfunction function;
    expect_result("a function that is none", CUDA_ERROR_NOT_FOUND, driver.cuModuleGetFunction(&function, module, "nobody"));
    parameters(module);
    globals(module);
    streams(module);
    boxes();
    MUST(cuModuleUnload(module));
    link_with_driver();

    void *address = nullptr;
    CUdriverProcAddressQueryResult found;
    MUST(cuGetProcAddress("cuMemAlloc", &address, 3020, CU_GET_PROC_ADDRESS_DEFAULT, &found));
    expect("a function by its name", address != nullptr && found == CU_GET_PROC_ADDRESS_SUCCESS);
    expect_result("free of nonsense", CUDA_ERROR_INVALID_VALUE, driver.cuMemFree(0x1234));
    MUST(cuCtxPopCurrent(&current));
    expect("popped", current == context);
    expect_result("pop of nothing", CUDA_ERROR_INVALID_CONTEXT, driver.cuCtxPopCurrent(&current));
    MUST(cuDevicePrimaryCtxRelease(device));
    MUST(cuDevicePrimaryCtxGetState(device, &flags, &active));
    expect_equal("active after its release", 0, active);
    retains_and_a_reset(device);
    return verdict();
}
