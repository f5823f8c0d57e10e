"""cuda.bindings: the driver API and NVRTC as Python calls them. Knows nothing of HARP.

Compiles, links with messages, launches, and uses memory of every kind. Prints what it found; exits
1 if any of it is wrong.
"""

import ctypes
import sys

import numpy
from cuda.bindings import driver, nvrtc

SOURCE = rb"""
extern "C" __device__ int twice(int x);
extern "C" __global__ void apply(const int* in, int* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = twice(in[i]) + 1;
}
extern "C" __global__ void count(unsigned* total) { atomicAdd(total, threadIdx.x); }
__device__ int offset = 40;
extern "C" __global__ void shifted(int* out) { out[threadIdx.x] = threadIdx.x + offset; }
"""
HELPER = rb'extern "C" __device__ int twice(int x) { return 2 * x; }'
N = 5000

wrong = 0


def expect(what: str, right: object) -> None:
    global wrong
    wrong += not right
    print(f"{what}: {'ok' if right else 'WRONG'}")


def check(result: tuple) -> object:
    """The value of a call, which returns its error first."""
    error, *values = result
    if error.value != 0:
        raise SystemExit(f"a call answered {error.name}")
    return values[0] if len(values) == 1 else values


def refused(what: str, result: tuple, code: str) -> None:
    expect(f"{what}: {result[0].name}", result[0].name == code)


def compile_to_ptx(source: bytes) -> bytes:
    program = check(nvrtc.nvrtcCreateProgram(source, b"program.cu", 0, [], []))
    options = [b"--gpu-architecture=compute_80", b"--relocatable-device-code=true"]
    check(nvrtc.nvrtcCompileProgram(program, len(options), options))
    text = b" " * check(nvrtc.nvrtcGetPTXSize(program))
    check(nvrtc.nvrtcGetPTX(program, text))
    check(nvrtc.nvrtcDestroyProgram(program))
    return text


class Link:
    """A link with buffers for both logs."""

    OPTIONS = (
        driver.CUjit_option.CU_JIT_INFO_LOG_BUFFER,
        driver.CUjit_option.CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES,
        driver.CUjit_option.CU_JIT_ERROR_LOG_BUFFER,
        driver.CUjit_option.CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
    )

    def __init__(self) -> None:
        self.info, self.error = bytearray(2000), bytearray(2000)
        values = [self.info, len(self.info), self.error, len(self.error)]
        self.state = check(driver.cuLinkCreate(len(values), list(self.OPTIONS), values))

    def add(self, name: bytes, text: bytes) -> tuple:
        kind = driver.CUjitInputType.CU_JIT_INPUT_PTX
        return driver.cuLinkAddData(self.state, kind, text, len(text), name, 0, [], [])


def linked() -> driver.CUmodule:
    link = Link()
    for name, source in ((b"program", SOURCE), (b"helper", HELPER)):
        check(link.add(name, compile_to_ptx(source)))
    image, size = check(driver.cuLinkComplete(link.state))
    module = check(driver.cuModuleLoadData(image))
    expect("an image came of the link", size > 0)
    check(driver.cuLinkDestroy(link.state))
    return module


def launch(function, threads: int, *values, grid: int = 1, stream: int = 0) -> tuple:
    """Launches with parameters as ctypes values."""
    addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
    start = ctypes.addressof(addresses)
    return driver.cuLaunchKernel(function, grid, 1, 1, threads, 1, 1, 0, stream, start, 0)


def code(module) -> None:
    apply = check(driver.cuModuleGetFunction(module, b"apply"))
    numbers, got = numpy.arange(N, dtype="i4"), numpy.zeros(N, "i4")
    source, target = (check(driver.cuMemAlloc(numbers.nbytes)) for _ in range(2))
    check(driver.cuMemcpyHtoD(source, numbers.ctypes.data, numbers.nbytes))
    pointers = [ctypes.c_void_p(int(source)), ctypes.c_void_p(int(target)), ctypes.c_int(N)]
    check(launch(apply, 128, *pointers, grid=-(-N // 128)))
    check(driver.cuMemcpyDtoH(got.ctypes.data, target, got.nbytes))
    expect("a function of another text was linked", numpy.array_equal(got, 2 * numbers + 1))

    shifted = check(driver.cuModuleGetFunction(module, b"shifted"))
    address, size = check(driver.cuModuleGetGlobal(module, b"offset"))
    value = numpy.array([1000], "i4")
    expect("size of a variable", size == 4)
    check(driver.cuMemcpyHtoD(address, value.ctypes.data, 4))
    check(launch(shifted, 32, pointers[1]))
    check(driver.cuMemcpyDtoH(got.ctypes.data, target, 128))
    expect("a variable was set", numpy.array_equal(got[:32], numpy.arange(1000, 1032)))

    blocks = check(driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(apply, 128, 0))
    expect("blocks fit on a multiprocessor", blocks >= 1)
    attribute = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_NUM_REGS
    expect("registers", 0 < check(driver.cuFuncGetAttribute(attribute, apply)) <= 255)
    for memory in (source, target):
        check(driver.cuMemFree(memory))


def refusals(module) -> None:
    invalid = "CUDA_ERROR_INVALID_VALUE"
    refused(
        "a kernel that is not there",
        driver.cuModuleGetFunction(module, b"no"),
        "CUDA_ERROR_NOT_FOUND",
    )
    count = check(driver.cuModuleGetFunction(module, b"count"))
    refused("a block too large", launch(count, 2048, ctypes.c_void_p(0)), invalid)
    refused("memory that is not there", driver.cuMemFree(0x1234), invalid)
    link = Link()
    broken = b".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k() { nonsense; }\n"
    answer = link.add(b"broken", broken)
    if answer[0].value == 0:
        answer = driver.cuLinkComplete(link.state)
        if answer[0].value == 0:
            answer = driver.cuModuleLoadData(answer[1])
            answer = driver.cuModuleGetFunction(answer[1], b"k") if answer[0].value == 0 else answer
            if answer[0].value == 0:
                answer = launch(answer[1], 1)
    refused("PTX that is none", answer, "CUDA_ERROR_INVALID_PTX")
    check(driver.cuLinkDestroy(link.state))
    link = Link()
    answer = link.add(b"no text", b"this is not PTX\0")
    expect("what is no PTX at all is refused", answer[0].value != 0)
    log = bytes(link.error).split(b"\0")[0]
    expect("the linker says why", len(log) > 0)
    check(driver.cuLinkDestroy(link.state))


def memory(module) -> None:
    count = check(driver.cuModuleGetFunction(module, b"count"))
    flags = driver.CUmemAttach_flags.CU_MEM_ATTACH_GLOBAL.value
    managed = int(check(driver.cuMemAllocManaged(64, flags)))
    words = numpy.frombuffer((ctypes.c_uint * 16).from_address(managed), "u4")
    words[:] = 5
    check(launch(count, 100, ctypes.c_void_p(managed + 4)))
    check(driver.cuCtxSynchronize())
    expect("managed memory", words.tolist() == [5, 5 + 4950] + [5] * 14)
    kind = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_IS_MANAGED
    expect("is managed", check(driver.cuPointerGetAttribute(kind, managed)))
    check(driver.cuMemFree(managed))

    mapped = int(check(driver.cuMemHostAlloc(4096, driver.CU_MEMHOSTALLOC_DEVICEMAP)))
    words = numpy.frombuffer((ctypes.c_uint * 1024).from_address(mapped), "u4")
    seen = int(check(driver.cuMemHostGetDevicePointer(mapped, 0)))
    check(launch(count, 64, ctypes.c_void_p(seen + 400)))
    check(driver.cuStreamSynchronize(0))
    expect("mapped memory", words[100] == 2016 and words.sum() == 2016)
    check(driver.cuMemsetD32(seen, 7, 1024))
    expect("a fill of host memory is over when it returns", (words == 7).all())
    check(driver.cuMemFreeHost(mapped))

    free, total = check(driver.cuMemGetInfo())
    big = check(driver.cuMemAlloc(1 << 20))
    expect(
        "memory is counted", check(driver.cuMemGetInfo())[0] <= free - (1 << 20) and free < total
    )
    refused("more memory than there is", driver.cuMemAlloc(total * 2), "CUDA_ERROR_OUT_OF_MEMORY")
    check(driver.cuMemFree(big))


def streams(module) -> None:
    count = check(driver.cuModuleGetFunction(module, b"count"))
    flags = driver.CUstream_flags.CU_STREAM_NON_BLOCKING.value
    first, second = (check(driver.cuStreamCreate(flags)) for _ in range(2))
    begin, end = (check(driver.cuEventCreate(0)) for _ in range(2))
    total = check(driver.cuMemAlloc(4))
    check(driver.cuMemsetD32Async(total, 0, 1, first))
    check(driver.cuEventRecord(begin, first))
    check(launch(count, 256, ctypes.c_void_p(int(total)), stream=int(first)))
    check(driver.cuEventRecord(end, first))
    check(driver.cuStreamWaitEvent(second, end, 0))
    check(launch(count, 256, ctypes.c_void_p(int(total)), stream=int(second)))
    check(driver.cuStreamSynchronize(second))
    got = numpy.zeros(1, "u4")
    check(driver.cuMemcpyDtoH(got.ctypes.data, total, 4))
    expect("one stream waited for another", got[0] == 2 * 32640)
    expect("an event that is over", driver.cuEventQuery(end)[0].name == "CUDA_SUCCESS")
    expect("time went by", check(driver.cuEventElapsedTime(begin, end)) >= 0)
    for event in (begin, end):
        check(driver.cuEventDestroy(event))
    for stream in (first, second):
        check(driver.cuStreamDestroy(stream))
    check(driver.cuMemFree(total))


def main() -> int:
    check(driver.cuInit(0))
    device = check(driver.cuDeviceGet(0))
    context = check(driver.cuDevicePrimaryCtxRetain(device))
    check(driver.cuCtxSetCurrent(context))
    module = linked()
    code(module)
    refusals(module)
    memory(module)
    streams(module)
    check(driver.cuModuleUnload(module))
    check(driver.cuDevicePrimaryCtxRelease(device))
    print("passed" if wrong == 0 else "FAILED")
    return 0 if wrong == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
