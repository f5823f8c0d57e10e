"""A CuPy program, as anyone would write it: it runs on whatever CUDA device there is.

python cupy_demo.py                # on a machine with a GPU
harp-run -- python cupy_demo.py    # on any machine, on a device of the pool
"""

import sys
import time

import cupy as cp
import numpy as np

JULIA = cp.RawKernel(
    r"""
    extern "C" __global__ void julia(int* steps, int width, int height, float cx, float cy) {
        int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
        if (x >= width || y >= height) return;
        float a = 3.0f * x / width - 1.5f, b = 2.0f * y / height - 1.0f;
        int n = 0;
        while (n < 100 && a * a + b * b < 4.0f) {
            float t = __fadd_rn(__fsub_rn(__fmul_rn(a, a), __fmul_rn(b, b)), cx);
            b = __fadd_rn(__fmul_rn(__fmul_rn(2.0f, a), b), cy);
            a = t;
            n++;
        }
        steps[y * width + x] = n;
    }
    """,
    "julia",
)

WIDTH, HEIGHT = 72, 20
C = (np.float32(-0.75), np.float32(0.11))


def julia_on_device():
    steps = cp.zeros((HEIGHT, WIDTH), cp.int32)
    JULIA((WIDTH // 8, HEIGHT // 4), (8, 4), (steps, WIDTH, HEIGHT, *C))
    return steps


def julia_in_numpy():
    three, two = np.float32(3), np.float32(2)
    a = (
        three * np.arange(WIDTH, dtype="f4")[None, :] / np.float32(WIDTH)
        - np.float32(1.5)
        + np.zeros((HEIGHT, 1), "f4")
    )
    b = (
        two * np.arange(HEIGHT, dtype="f4")[:, None] / np.float32(HEIGHT)
        - np.float32(1)
        + np.zeros((1, WIDTH), "f4")
    )
    steps = np.zeros((HEIGHT, WIDTH), "i4")
    for _ in range(100):
        inside = a * a + b * b < 4
        a, b = np.where(inside, a * a - b * b + C[0], a), np.where(inside, two * a * b + C[1], b)
        steps += inside
    return steps


def rolling_mean(xp):
    total = xp.cumsum(xp.sin(xp.arange(100_000) * 0.01))
    return (total[100:] - total[:-100]) / 100


OPERATIONS = {
    "a million numbers, summed": lambda xp: xp.arange(1_000_000, dtype="i8").sum(),
    "sqrt(x² + y²), float32": lambda xp: xp.hypot(
        xp.linspace(0, 1, 200_000, dtype="f4"), xp.linspace(1, 2, 200_000, dtype="f4")
    ),
    "exp(-x²)·cos(3x), float64": lambda xp: (
        xp.exp(-(xp.linspace(-3, 3, 100_000) ** 2)) * xp.cos(3 * xp.linspace(-3, 3, 100_000))
    ),
    "multiplication table (broadcast)": lambda xp: (
        xp.arange(1, 301)[:, None] * xp.arange(1, 301)[None, :]
    ),
    "mean of each column": lambda xp: xp.linspace(0, 1, 200_000).reshape(400, 500).mean(axis=0),
    "half precision, 1 + x/8": lambda xp: 1 + xp.arange(1000, dtype="f2") / 8,
    "complex: |exp(ix)|": lambda xp: abs(xp.exp(1j * xp.linspace(0, 6, 20_000))),
    "multiples of 7, by mask": lambda xp: xp.arange(50_000)[xp.arange(50_000) % 7 == 0],
    "rolling mean (scan)": rolling_mean,
    "sorted": lambda xp: xp.sort((xp.arange(20_011) * 7919) % 20_011),
}


def summary(array) -> str:
    flat = array.ravel()
    return f"{flat[0]:.5g}" if flat.size == 1 else f"{flat[0]:.4g} … {flat[-1]:.4g}"


def main() -> int:
    device = cp.cuda.Device()
    properties = cp.cuda.runtime.getDeviceProperties(device.id)
    major, minor = device.compute_capability[:-1], device.compute_capability[-1]
    memory = device.mem_info[1] / 2**30
    runtime, driver = cp.cuda.runtime.runtimeGetVersion(), cp.cuda.runtime.driverGetVersion()
    name = properties["name"].decode()
    print(f"device  {name}, compute capability {major}.{minor}, {memory:.1f} GiB")
    print(f"CuPy    {cp.__version__}, CUDA runtime {runtime}, driver {driver}\n")
    print(f"{'operation':34} {'result':>22}   NumPy     first   again")
    wrong = 0
    for name, operation in {**OPERATIONS, "Julia set (RawKernel)": None}.items():
        on_device = julia_on_device if operation is None else lambda op=operation: op(cp)
        times = []
        for _ in range(2):
            start = time.perf_counter()
            result = on_device()
            cp.cuda.Device().synchronize()
            times.append((time.perf_counter() - start) * 1e3)
        got = cp.asnumpy(result)
        wanted = np.asarray(julia_in_numpy() if operation is None else operation(np))
        close = 2e-3 if got.dtype == np.float16 else 1e-5 if got.dtype == np.float32 else 1e-10
        right = (
            got.shape == wanted.shape
            and got.dtype == wanted.dtype
            and np.allclose(got, wanted, rtol=close, atol=close)
        )
        wrong += not right
        verdict = "ok" if right else "MISMATCH"
        print(f"{name:34} {summary(got):>22}   {verdict:8}{times[0]:7.0f} {times[1]:7.1f} ms")
    print()
    for row in cp.asnumpy(julia_on_device())[::2]:
        print("  " + "".join(" .:-=+*%@#"[min(n * 10 // 101, 9)] for n in row))
    print(
        f"\n{'all results agree with NumPy' if not wrong else f'{wrong} results differ from NumPy'}"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
