"""CuPy on two devices: checks against NumPy and prints what it finds."""

from __future__ import annotations

import cupy
import numpy

ROWS, COLUMNS = 300, 400

KERNEL = r"""
extern "C" __global__ void scale(float *data, float by, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) data[i] = data[i] * by + 1.0f;
}
"""


def matrices() -> tuple[numpy.ndarray, numpy.ndarray]:
    random = numpy.random.default_rng(7)
    shape = (ROWS, COLUMNS)
    return random.random(shape, numpy.float32), random.random(shape, numpy.float32)


def show(what: str, got: cupy.ndarray, expected: numpy.ndarray) -> None:
    """Prints where an array is and what its sum is, once it has been found right."""
    numpy.testing.assert_allclose(got.get(), expected, rtol=1e-5)
    print(f"{what}: device {got.device.id}, sum {float(expected.sum()):.3f}")


def main() -> None:
    assert cupy.cuda.runtime.getDeviceCount() == 2
    one, two = matrices()
    with cupy.cuda.Device(0):
        left = cupy.asarray(one)
        half = cupy.sqrt(left) + 1
    with cupy.cuda.Device(1):
        right = cupy.asarray(two)
        other = cupy.exp(right)
    show("square roots", half, numpy.sqrt(one) + 1)
    show("exponentials", other, numpy.exp(two))

    with cupy.cuda.Device(1):
        moved = cupy.asarray(half)
        total = moved * other
    assert (half.device.id, moved.device.id) == (0, 1)
    show("a copy between devices, used there", total, (numpy.sqrt(one) + 1) * numpy.exp(two))
    with cupy.cuda.Device(0):
        back = cupy.empty_like(half)
        back[...] = cupy.asarray(total)
    show("and back", back, (numpy.sqrt(one) + 1) * numpy.exp(two))

    scale = cupy.RawKernel(KERNEL, "scale")
    for number, start in enumerate((one, two)):
        with cupy.cuda.Device(number):
            data = cupy.asarray(start)
            grid = (data.size + 127) // 128
            scale((grid,), (128,), (data, numpy.float32(2 + number), numpy.int32(data.size)))
            show("one kernel on both", data, start * numpy.float32(2 + number) + 1)

    with cupy.cuda.Device(0), cupy.cuda.Stream(non_blocking=True) as stream:
        ahead = cupy.asarray(one) * 3
        event = stream.record()
    with cupy.cuda.Device(1), cupy.cuda.Stream(non_blocking=True) as stream:
        stream.wait_event(event)
        behind = cupy.asarray(ahead) + 1
        stream.synchronize()
    show("a stream that waits for the other device's event", behind, one * 3 + 1)
    for number in range(2):
        with cupy.cuda.Device(number):
            reaches = cupy.cuda.runtime.deviceCanAccessPeer(number, 1 - number)
            print(f"device {number} reaches the other: {bool(reaches)}")
            cupy.get_default_memory_pool().free_all_blocks()


if __name__ == "__main__":
    main()
