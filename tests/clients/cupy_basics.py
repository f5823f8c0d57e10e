"""CuPy's everyday operations against NumPy's. An unmodified CUDA client: it knows nothing of HARP.

Prints one line per operation with a summary of CuPy's result and whether NumPy agrees; exits 1 if
any does not. `cupy_basics.py NAME...` runs only the groups named.
"""

import sys
from collections.abc import Callable

import cupy
import numpy

INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
FLOATS = ("float16", "float32", "float64")
COMPLEX = ("complex64", "complex128")

# How far a result may be from NumPy's, in units of the type's precision.
TOLERANCE = 16
mismatches = 0


def compare(name: str, got: cupy.ndarray, wanted: object) -> None:
    """Prints and counts whether an array on the device equals the expected one."""
    global mismatches
    got = cupy.asnumpy(got)
    wanted = numpy.asarray(wanted)
    if got.dtype.kind in "fc" and got.dtype == wanted.dtype:
        room = TOLERANCE * numpy.finfo(got.dtype).eps
        right = numpy.allclose(got, wanted, rtol=room, atol=room, equal_nan=True)
    else:
        right = got.dtype == wanted.dtype and numpy.array_equal(got, wanted)
    right = right and got.shape == wanted.shape
    with numpy.errstate(all="ignore"):
        summary = ", ".join(f"{x:.6g}" for x in got.astype("c16").ravel()[:3])
    print(f"{name}: {got.dtype}{list(got.shape)} {summary} {'ok' if right else 'MISMATCH'}")
    if not right:
        mismatches += 1
        print(f"  got      {got.ravel()[:6]}\n  expected {wanted.ravel()[:6]} ({wanted.dtype})")


def both(name: str, operation: Callable) -> None:
    """Runs one operation with CuPy and with NumPy."""
    with numpy.errstate(all="ignore"):
        wanted = operation(numpy)
    try:
        got = operation(cupy)
    except Exception as error:
        global mismatches
        mismatches += 1
        print(f"{name}: {type(error).__name__}: {error} MISMATCH")
        return
    compare(name, got, wanted)


def sample(xp, dtype: str, count: int = 1000, shift: int = 0):
    """Small values of every sign that a type has, the same for both libraries."""
    numbers = (numpy.arange(shift, shift + count) * 37 % 101).astype("i8")
    if numpy.dtype(dtype).kind != "u":
        numbers = numbers - 50
    values = numbers.astype(dtype)
    if numpy.dtype(dtype).kind in "fc":
        values = values / numpy.asarray(8, dtype)
    if numpy.dtype(dtype).kind == "c":
        values = values + values[::-1] * numpy.asarray(1j, dtype)
    return xp.asarray(values)


def creation() -> None:
    both("zeros", lambda xp: xp.zeros((3, 5), "f4"))
    both("ones", lambda xp: xp.ones(1000, "i8"))
    both("full", lambda xp: xp.full((2, 3, 4), 7.5))
    both("arange", lambda xp: xp.arange(5, 5000, 7))
    both("arange of floats", lambda xp: xp.arange(0, 3, 0.125, dtype="f4"))
    both("linspace", lambda xp: xp.linspace(-1, 1, 257))
    both("eye", lambda xp: xp.eye(5, 7, 1, dtype="f2"))
    both("tri", lambda xp: xp.tri(6, dtype="i4"))
    both("meshgrid", lambda xp: xp.meshgrid(xp.arange(4), xp.arange(3))[0])
    both("copied in and out", lambda xp: xp.asarray(numpy.arange(100000, dtype="u1")))


def elementwise() -> None:
    for dtype in (*INTEGERS, *FLOATS, *COMPLEX):
        both(f"add {dtype}", lambda xp, d=dtype: sample(xp, d) + sample(xp, d, shift=3))
        both(f"multiply {dtype}", lambda xp, d=dtype: sample(xp, d) * sample(xp, d, shift=5))
    for dtype in INTEGERS:
        both(
            f"floor divide {dtype}",
            lambda xp, d=dtype: sample(xp, d) // (sample(xp, d, shift=9) | 1),
        )
        both(f"remainder {dtype}", lambda xp, d=dtype: sample(xp, d) % (sample(xp, d, shift=9) | 1))
        both(f"shift {dtype}", lambda xp, d=dtype: (sample(xp, d) & 7) << xp.asarray(3, d))
        both(f"xor {dtype}", lambda xp, d=dtype: sample(xp, d) ^ sample(xp, d, shift=1))
    for dtype in FLOATS:
        both(
            f"divide {dtype}",
            lambda xp, d=dtype: sample(xp, d) / (abs(sample(xp, d, shift=2)) + xp.asarray(1, d)),
        )
        both(f"compare {dtype}", lambda xp, d=dtype: sample(xp, d) < sample(xp, d, shift=4))
        for name in ("sqrt", "exp", "sin", "cos", "tanh", "floor", "rint", "log1p", "arctan"):
            both(
                f"{name} {dtype}",
                lambda xp, d=dtype, n=name: getattr(xp, n)(abs(sample(xp, d)) / xp.asarray(4, d)),
            )
        both(
            f"where {dtype}",
            lambda xp, d=dtype: xp.where(sample(xp, d) > 0, sample(xp, d), xp.asarray(-1, d)),
        )
    both("power", lambda xp: xp.power(sample(xp, "f8") + 10, 2.5))
    both("hypot", lambda xp: xp.hypot(sample(xp, "f4"), sample(xp, "f4", shift=6)))
    both("convert to int", lambda xp: (sample(xp, "f8") * 3.7).astype("i4"))
    both("convert to half", lambda xp: sample(xp, "f8").astype("f2"))
    both("convert to bool", lambda xp: sample(xp, "i2").astype("?"))
    both("clip", lambda xp: xp.clip(sample(xp, "i4"), -10, 20))
    both("isnan", lambda xp: xp.isnan(xp.asarray([1.0, numpy.nan, numpy.inf, -numpy.inf])))
    both("complex abs", lambda xp: abs(sample(xp, "c16")))
    both("complex exp", lambda xp: xp.exp(sample(xp, "c16") / 8))
    both("in place", lambda xp: _in_place(xp))


def _in_place(xp):
    x = sample(xp, "f4")
    x += 1
    x *= x
    x[::3] = -1
    return x


def broadcasting() -> None:
    both("row and column", lambda xp: xp.arange(50)[:, None] * xp.arange(70)[None, :])
    both("scalar", lambda xp: sample(xp, "i4").reshape(10, 100) + 3)
    both("three axes", lambda xp: xp.arange(24.0).reshape(2, 3, 4) - xp.arange(4.0))
    both("types meet", lambda xp: xp.arange(10, dtype="i2") * xp.linspace(0, 1, 10, dtype="f4"))
    both("strides", lambda xp: xp.arange(1000)[::-7] + xp.arange(2000)[::14][:143])
    both("transposed", lambda xp: xp.arange(600.0).reshape(20, 30).T + xp.arange(20.0))
    both("concatenate", lambda xp: xp.concatenate([xp.arange(10), xp.arange(5) * 2]))
    both("stack", lambda xp: xp.stack([xp.arange(10), -xp.arange(10)], axis=1))
    both("roll", lambda xp: xp.roll(xp.arange(100), 17))
    both("take", lambda xp: xp.arange(100)[xp.asarray([5, 99, -3, 0])])
    both("mask", lambda xp: xp.arange(1000)[xp.arange(1000) % 7 == 3])


def reductions() -> None:
    for dtype in (*INTEGERS, *FLOATS, *COMPLEX):
        both(f"sum {dtype}", lambda xp, d=dtype: _exact(xp, d).sum())
    for dtype in ("int32", "float32", "float64"):
        for name in ("max", "min", "argmax", "argmin", "prod", "any", "all"):
            both(f"{name} {dtype}", lambda xp, d=dtype, n=name: getattr(sample(xp, d, 20, 3), n)())
        both(
            f"sum by columns {dtype}",
            lambda xp, d=dtype: sample(xp, d, 3000).reshape(60, 50).sum(axis=0),
        )
        both(
            f"sum by rows {dtype}",
            lambda xp, d=dtype: sample(xp, d, 3000).reshape(60, 50).sum(axis=1),
        )
        both(
            f"max of the middle {dtype}",
            lambda xp, d=dtype: sample(xp, d, 3000).reshape(10, 30, 10).max(axis=1),
        )
    both("mean", lambda xp: sample(xp, "f8").mean())
    both("standard deviation", lambda xp: sample(xp, "f8").std())
    both("a long sum", lambda xp: xp.arange(1_000_000, dtype="i8").sum())
    both("a long mean", lambda xp: (xp.arange(1_000_000, dtype="f8") / 1e6).mean())
    both("count of nonzero", lambda xp: xp.asarray(xp.count_nonzero(sample(xp, "i4") > 0)))


def _exact(xp, dtype: str):
    """Values whose sum is the same in any order."""
    return xp.asarray((numpy.arange(2000) % 3).astype(dtype))


def sorting() -> None:
    for dtype in ("int32", "float32", "float64", "uint8"):
        both(f"sort {dtype}", lambda xp, d=dtype: xp.sort(sample(xp, d, 5000)))
    both("argsort", lambda xp: xp.argsort(xp.asarray((numpy.arange(1009) * 607) % 1009)))
    both("unique", lambda xp: xp.unique(sample(xp, "i4")))
    both("cumsum", lambda xp: xp.cumsum(sample(xp, "i8", 5000)))
    both("cumprod", lambda xp: xp.cumprod(xp.full(20, 1.5)))
    both(
        "searchsorted",
        lambda xp: xp.searchsorted(xp.arange(0, 1000, 3), xp.asarray([0, 1, 500, 2000])),
    )
    both("histogram", lambda xp: xp.histogram(sample(xp, "f8"), bins=10)[0])


RAW = r"""
extern "C" __global__ void saxpy(float a, const float* x, const float* y, float* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = a * x[i] + y[i];
}
template <typename T> __global__ void block_sums(const T* in, T* out) {
    extern __shared__ char raw[];
    T* part = (T*)raw;
    part[threadIdx.x] = in[blockIdx.x * blockDim.x + threadIdx.x];
    __syncthreads();
    for (int step = blockDim.x / 2; step > 0; step /= 2) {
        if (threadIdx.x < step) part[threadIdx.x] += part[threadIdx.x + step];
        __syncthreads();
    }
    if (threadIdx.x == 0) out[blockIdx.x] = part[0];
}
__constant__ int offsets[4];
extern "C" __global__ void shifted(int* out) {
    out[threadIdx.x] = threadIdx.x * 10 + offsets[threadIdx.x % 4];
}
"""


def kernels() -> None:
    module = cupy.RawModule(
        code=RAW, options=("-std=c++17",), name_expressions=["block_sums<double>"]
    )
    x, y = numpy.arange(3000, dtype="f4"), numpy.linspace(0, 1, 3000, dtype="f4")
    out = cupy.zeros(3000, "f4")
    module.get_function("saxpy")(
        (12,), (256,), (numpy.float32(0.5), cupy.asarray(x), cupy.asarray(y), out, 3000)
    )
    compare("RawModule: saxpy", out, numpy.float32(0.5) * x + y)
    sums = cupy.zeros(8, "f8")
    numbers = numpy.arange(8 * 128, dtype="f8")
    block_sums = module.get_function("block_sums<double>")
    block_sums((8,), (128,), (cupy.asarray(numbers), sums), shared_mem=128 * 8)
    compare("RawModule: a template with shared memory", sums, numbers.reshape(8, 128).sum(axis=1))
    offsets = cupy.ndarray(4, "i4", module.get_global("offsets"))
    offsets[...] = cupy.asarray([1, -1, 2, -2], "i4")
    out = cupy.zeros(64, "i4")
    module.get_function("shifted")((1,), (64,), (out,))
    compare(
        "RawModule: constants",
        out,
        (numpy.arange(64) * 10 + numpy.tile([1, -1, 2, -2], 16)).astype("i4"),
    )

    square = cupy.RawKernel(
        'extern "C" __global__ void square(const long long* in, long long* out) {'
        " out[threadIdx.x] = in[threadIdx.x] * in[threadIdx.x]; }",
        "square",
    )
    numbers, out = numpy.arange(100) * 100_000, cupy.zeros(100, "i8")
    square((1,), (100,), (cupy.asarray(numbers), out))
    compare("RawKernel", out, numbers * numbers)

    difference = cupy.ElementwiseKernel(
        "T x, T y", "T z", "z = (x - y) * (x - y)", "squared_difference"
    )
    compare(
        "ElementwiseKernel",
        difference(sample(cupy, "f8"), sample(cupy, "f8", shift=7)),
        (sample(numpy, "f8") - sample(numpy, "f8", shift=7)) ** 2,
    )
    norm = cupy.ReductionKernel("T x", "T y", "x * x", "a + b", "y = sqrt(a)", "0", "euclidean")
    compare(
        "ReductionKernel", norm(cupy.arange(100.0)), numpy.sqrt((numpy.arange(100.0) ** 2).sum())
    )

    @cupy.fuse()
    def fused(x, y):
        return cupy.sqrt(x * x + y * y) + 1

    compare(
        "fuse",
        fused(cupy.arange(50.0), cupy.arange(50.0) * 2),
        numpy.hypot(numpy.arange(50.0), numpy.arange(50.0) * 2) + 1,
    )


def streams() -> None:
    stream, event = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Event()
    with stream:
        x = cupy.arange(10000) * 3
        event.record()
    other = cupy.cuda.Stream(non_blocking=True)
    other.wait_event(event)
    with other:
        y = x + 1
    other.synchronize()
    compare("across streams", y, numpy.arange(10000) * 3 + 1)
    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    begin.record()
    cupy.arange(1000).sum()
    end.record()
    end.synchronize()
    print(f"time went by: {'ok' if cupy.cuda.get_elapsed_time(begin, end) >= 0 else 'MISMATCH'}")
    pinned = cupy.cuda.alloc_pinned_memory(8000)
    host = numpy.frombuffer(pinned, "f8", 1000)
    host[:] = numpy.arange(1000)
    device = cupy.empty(1000)
    device.set(host, stream=stream)
    stream.synchronize()
    compare("from pinned memory", device, numpy.arange(1000.0))
    pool = cupy.get_default_memory_pool()
    del x, y, device
    pool.free_all_blocks()
    print(f"memory is given back: {'ok' if pool.total_bytes() < 1 << 20 else 'MISMATCH'}")


GROUPS = {
    group.__name__: group
    for group in (creation, elementwise, broadcasting, reductions, sorting, kernels, streams)
}


def main() -> int:
    for name in sys.argv[1:] or GROUPS:
        print(f"== {name}")
        GROUPS[name]()
    print("passed" if mismatches == 0 else f"FAILED: {mismatches} mismatches")
    return 1 if mismatches else 0


if __name__ == "__main__":
    sys.exit(main())
