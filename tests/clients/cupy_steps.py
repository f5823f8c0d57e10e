"""Twenty-one CuPy operations, again and again. An unmodified CUDA client: it knows nothing of HARP.

    cupy_steps.py ROUNDS

Each round works on other numbers and fetches what it has computed once, at its end. Prints the sum
of each round, and exits 1 if NumPy finds another.
"""

import sys
from types import ModuleType

import cupy
import numpy

COUNT = 2000

TWICE = cupy.RawKernel(
    r"""extern "C" __global__ void twice(long long* values, int count) {
        int i = blockIdx.x * blockDim.x + threadIdx.x;
        if (i < count) values[i] *= 2;
    }""",
    "twice",
)
SQUARED_DISTANCE = cupy.ElementwiseKernel("int64 x, int64 y", "int64 z", "z = (x - y) * (x - y)")
LARGEST_REMAINDER = cupy.ReductionKernel("int64 x", "int64 y", "x % 97", "max(a, b)", "y = a", "0")


def round_of(xp: ModuleType, number: int) -> int:
    """One round with CuPy or NumPy: all of it in whole numbers, so that both find the same."""
    on_device = xp is cupy
    values = xp.asarray(numpy.arange(COUNT, dtype="i8") * 37 % 101)  # 1: a copy to the device
    values = values + number  # 2
    table = values.reshape(40, 50)
    row = xp.arange(50)  # 3
    table = table * row  # 4: broadcast
    turned = xp.ascontiguousarray(table.T)  # 5
    chosen = xp.where(turned % 2 == 0, turned, -turned)  # 6, 7, 8, 9
    picked = chosen[xp.asarray([3, 1, 2])]  # 10, 11
    joined = xp.concatenate([picked.ravel(), values])  # 12
    running = xp.cumsum(joined)  # 13
    ordered = xp.sort(joined)  # 14
    clipped = xp.clip(ordered, -100, 1000)  # 15
    doubled = clipped.copy()  # 16
    if on_device:
        TWICE((doubled.size // 128 + 1,), (128,), (doubled, doubled.size))  # 17
        distance = SQUARED_DISTANCE(doubled, ordered)  # 18
        remainder = LARGEST_REMAINDER(distance)  # 19
    else:
        doubled *= 2
        distance = (doubled - ordered) ** 2
        remainder = (distance % 97).max()
    largest = running.max()  # 20
    return int(
        (distance.sum() + largest + remainder).get()
        if on_device
        # 21
        else distance.sum() + largest + remainder
    )


def main() -> int:
    wrong = 0
    for number in range(int(sys.argv[1])):
        got, wanted = round_of(cupy, number), round_of(numpy, number)
        print(f"round {number}: {got}")
        wrong += got != wanted
    print(f"{wrong} wrong" if wrong else "passed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
