"""cuda.core's objects: linker, kernels' attributes, buffers, memory resources, streams that wait.

Knows nothing of HARP. Prints what it found; exits 1 if any of it is wrong.
"""

import ctypes
import sys

import numpy
from cuda.core import (
    Device,
    DeviceMemoryResource,
    LaunchConfig,
    LegacyPinnedMemoryResource,
    Linker,
    LinkerOptions,
    ObjectCode,
    Program,
    ProgramOptions,
    launch,
)

MAIN = r"""
extern "C" __device__ float weight(int);
extern "C" __global__ void weigh(float* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = weight(i) + out[i];
}
template <typename T> __global__ void fill(T* out, T value) { out[threadIdx.x] = value; }
"""
PART = r'extern "C" __device__ float weight(int i) { return 0.5f * i; }'
N = 1000

wrong = 0


def expect(what: str, right: object) -> None:
    global wrong
    wrong += not right
    print(f"{what}: {'ok' if right else 'WRONG'}")


def floats(buffer) -> numpy.ndarray:
    """The memory behind a buffer that the host reaches."""
    count = buffer.size // 4
    return numpy.frombuffer((ctypes.c_float * count).from_address(int(buffer.handle)), "f4")


def compiled(device: Device, source: str, names: tuple = ()) -> ObjectCode:
    options = ProgramOptions(std="c++17", arch=f"sm_{device.arch}", relocatable_device_code=True)
    return Program(source, code_type="c++", options=options).compile("ptx", name_expressions=names)


def main() -> int:
    device = Device()
    device.set_current()
    stream, other = device.create_stream(), device.create_stream()
    properties = device.properties
    expect("warps of 32", properties.warp_size == 32)
    expect("host memory can be mapped", properties.can_map_host_memory)
    expect("managed memory", properties.managed_memory)

    options = LinkerOptions(arch=f"sm_{device.arch}", max_register_count=64)
    linker = Linker(compiled(device, MAIN), compiled(device, PART), options=options)
    kernel = linker.link("cubin").get_kernel("weigh")
    print(f"the linker said: {linker.get_error_log()!r}")
    expect("registers within the limit", 0 < kernel.attributes.num_regs <= 64)
    expect("two parameters", kernel.num_arguments == 2)
    expect("their sizes", [info.size for info in kernel.arguments_info] == [8, 4])
    blocks = kernel.occupancy.max_active_blocks_per_multiprocessor(128, 0)
    expect("blocks fit on a multiprocessor", blocks >= 1)

    pinned = LegacyPinnedMemoryResource()
    host, back = (pinned.allocate(4 * N) for _ in range(2))
    expect("pinned memory is the host's and the device's", host.is_host_accessible)
    floats(host)[:] = numpy.arange(N)
    memory = DeviceMemoryResource(device)
    buffer = memory.allocate(4 * N, stream=stream)
    host.copy_to(buffer, stream=stream)
    config = LaunchConfig(grid=-(-N // 128), block=128)
    launch(stream, config, kernel, buffer, numpy.int32(N))
    other.wait(stream)
    buffer.copy_to(back, stream=other)
    other.sync()
    expect("through two streams", numpy.array_equal(floats(back), 1.5 * numpy.arange(N)))

    launch(stream, config, kernel, host, numpy.int32(N))
    stream.sync()
    expect("a kernel on pinned memory", numpy.array_equal(floats(host), 1.5 * numpy.arange(N)))

    code = compiled(device, MAIN + PART, ("fill<int>", "fill<float>"))
    launch(
        stream,
        LaunchConfig(grid=1, block=64),
        code.get_kernel("fill<float>"),
        buffer,
        numpy.float32(2.5),
    )
    buffer.copy_to(back, stream=stream)
    event = stream.record()
    event.sync()
    expect("the event is over", event.is_done)
    expect("a template of float", (floats(back)[:64] == 2.5).all())
    try:
        launch(stream, LaunchConfig(grid=1, block=4096), kernel, buffer, numpy.int32(N))
        expect("a block too large is refused", False)
    except Exception as error:
        expect(f"a block too large is refused ({type(error).__name__})", True)
    for closed in (buffer, host, back):
        closed.close(stream)
    device.sync()
    print("passed" if wrong == 0 else "FAILED")
    return 0 if wrong == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
