"""numba-cuda's everyday kernels against NumPy. An unmodified CUDA client: it knows nothing of HARP.

Prints one line per kernel and whether NumPy agrees; exits 1 if any does not.
"""

import math
import sys

import numpy
from numba import cuda, float32, int32

mismatches = 0


def compare(name: str, got: numpy.ndarray, wanted: numpy.ndarray, tolerance: float = 0.0) -> None:
    """Prints and counts whether a result equals the expected one."""
    global mismatches
    right = got.shape == wanted.shape and numpy.allclose(
        got, wanted, rtol=tolerance, atol=tolerance
    )
    summary = f"{got.dtype}{list(got.shape)} {got.ravel()[:3].tolist()}"
    print(f"{name}: {summary} {'ok' if right else 'MISMATCH'}")
    if not right:
        mismatches += 1
        print(f"  expected {wanted.ravel()[:3].tolist()}")


@cuda.jit
def add(a, b, out):
    i = cuda.grid(1)
    if i < out.size:
        out[i] = a[i] + b[i]


@cuda.jit
def multiply_tiles(a, b, out):
    tile_a = cuda.shared.array((16, 16), float32)
    tile_b = cuda.shared.array((16, 16), float32)
    x, y = cuda.grid(2)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    total = float32(0)
    for start in range(0, a.shape[1], 16):
        tile_a[tx, ty] = a[x, start + ty]
        tile_b[tx, ty] = b[start + tx, y]
        cuda.syncthreads()
        for k in range(16):
            total += tile_a[tx, k] * tile_b[k, ty]
        cuda.syncthreads()
    out[x, y] = total


@cuda.jit
def histogram(values, bins):
    i = cuda.grid(1)
    if i < values.size:
        cuda.atomic.add(bins, values[i], 1)


@cuda.jit
def warp_sums(values, out):
    value = values[cuda.grid(1)]
    step = 16
    while step > 0:
        value += cuda.shfl_down_sync(0xFFFFFFFF, value, step)
        step //= 2
    if cuda.laneid == 0:
        out[cuda.grid(1) // 32] = value


@cuda.jit(device=True)
def smooth(x):
    return math.exp(-x * x) * math.cos(3 * x) + math.sqrt(x + 1)


@cuda.jit
def apply(values, out):
    for i in range(cuda.grid(1), values.size, cuda.gridsize(1)):
        out[i] = smooth(values[i])


@cuda.jit
def local_sort(data):
    mine = cuda.local.array(8, int32)
    row = cuda.grid(1)
    for i in range(8):
        mine[i] = data[row, i]
    for i in range(1, 8):
        value, j = mine[i], i - 1
        while j >= 0 and mine[j] > value:
            mine[j + 1] = mine[j]
            j -= 1
        mine[j + 1] = value
    for i in range(8):
        data[row, i] = mine[i]


def main() -> int:
    a, b = numpy.arange(1000, dtype="f4"), numpy.linspace(0, 5, 1000, dtype="f4")
    out = numpy.zeros(1000, "f4")
    add[8, 128](a, b, out)
    compare("vector add", out, a + b)

    device_a, device_out = cuda.to_device(a), cuda.device_array(1000, "f4")
    stream = cuda.stream()
    add[8, 128, stream](device_a, device_a, device_out)
    stream.synchronize()
    compare("on device arrays and a stream", device_out.copy_to_host(), a + a)

    rng = numpy.random.default_rng(1)
    left, right = (rng.integers(-8, 9, (48, 48)).astype("f4") for _ in range(2))
    product = numpy.zeros((48, 48), "f4")
    multiply_tiles[(3, 3), (16, 16)](left, right, product)
    compare("tiled matrix product", product, left @ right)

    values, bins = rng.integers(0, 50, 5000), numpy.zeros(50, "i8")
    histogram[20, 256](values, bins)
    compare("histogram with atomics", bins, numpy.bincount(values, minlength=50))

    numbers, sums = rng.integers(0, 1000, 256).astype("i4"), numpy.zeros(8, "i4")
    warp_sums[2, 128](numbers, sums)
    compare("sums by shuffles", sums, numbers.reshape(8, 32).sum(axis=1))

    x, smoothed = numpy.linspace(0, 4, 2000), numpy.zeros(2000)
    apply[4, 64](x, smoothed)
    compare(
        "device function", smoothed, numpy.exp(-x * x) * numpy.cos(3 * x) + numpy.sqrt(x + 1), 1e-13
    )

    rows = rng.integers(0, 100, (64, 8)).astype("i4")
    wanted = numpy.sort(rows, axis=1)
    local_sort[1, 64](rows)
    compare("local arrays", rows, wanted)

    print("passed" if mismatches == 0 else f"FAILED: {mismatches} mismatches")
    return 1 if mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
