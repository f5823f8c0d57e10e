"""cuda.core and cuda.bindings: compile, launch, streams, events, memory. Knows nothing of HARP.

Prints what it found; exits 1 if any number is wrong.
"""

import sys

import numpy
from cuda.bindings import driver
from cuda.core import Device, LaunchConfig, Program, ProgramOptions, launch

SOURCE = r"""
extern "C" __global__ void scale(const float* in, float* out, float factor, size_t n) {
    size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x;
    if (i < n) out[i] = in[i] * factor;
}
"""


def check(result: tuple) -> object:
    """The value of a call of the bindings, which return the error first."""
    error, *values = result
    if error != driver.CUresult.CUDA_SUCCESS:
        raise SystemExit(f"a driver call answered {error.name}")
    return values[0] if len(values) == 1 else values


def main() -> int:
    device = Device()
    device.set_current()
    stream = device.create_stream()
    print(f"compute capability {device.compute_capability.major}.{device.compute_capability.minor}")
    options = ProgramOptions(std="c++17", arch=f"sm_{device.arch}")
    kernel = Program(SOURCE, code_type="c++", options=options).compile("ptx").get_kernel("scale")

    n = 10000
    numbers = numpy.arange(n, dtype="f4")
    source, target = (device.allocate(numbers.nbytes, stream=stream) for _ in range(2))
    check(
        driver.cuMemcpyHtoDAsync(
            int(source.handle), numbers.ctypes.data, numbers.nbytes, int(stream.handle)
        )
    )
    begin = stream.record(options={"timing_enabled": True})
    launch(
        stream,
        LaunchConfig(grid=40, block=256),
        kernel,
        source,
        target,
        numpy.float32(2.5),
        numpy.uint64(n),
    )
    end = stream.record(options={"timing_enabled": True})
    got = numpy.zeros_like(numbers)
    check(
        driver.cuMemcpyDtoHAsync(
            got.ctypes.data, int(target.handle), numbers.nbytes, int(stream.handle)
        )
    )
    stream.sync()
    right = numpy.array_equal(got, numbers * numpy.float32(2.5))
    print(f"scaled: {got[:3].tolist()} ... {got[-1]} {'ok' if right else 'MISMATCH'}")
    print(f"time went by: {'ok' if end - begin >= 0 else 'MISMATCH'}")

    attributes = check(
        driver.cuKernelGetAttribute(
            driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK,
            driver.CUkernel(int(kernel.handle)),
            device.device_id,
        )
    )
    print(f"threads a block may have: {attributes}")
    free, total = check(driver.cuMemGetInfo())
    print(f"memory: {'ok' if 0 < free <= total else 'MISMATCH'}")
    (error,) = driver.cuMemFree(0x1234)
    print(f"free of nonsense: {error.name}")
    source.close(stream)
    target.close(stream)
    device.sync()
    right = right and error == driver.CUresult.CUDA_ERROR_INVALID_VALUE
    print("passed" if right else "FAILED")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
