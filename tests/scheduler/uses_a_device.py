"""A CUDA program that uses its first device until stdin closes, or a call fails.

Prints `using N` (how many devices it sees), then `ended` or `failed CODE`.
"""

import ctypes
import select
import sys


def main() -> int:
    cuda = ctypes.CDLL("libcuda.so.1")
    device, context, count = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_int()
    for call in (
        lambda: cuda.cuInit(0),
        lambda: cuda.cuDeviceGetCount(ctypes.byref(count)),
        lambda: cuda.cuDeviceGet(ctypes.byref(device), 0),
        lambda: cuda.cuCtxCreate_v2(ctypes.byref(context), 0, device),
    ):
        if status := call():
            print(f"failed {status}", flush=True)
            return 3
    print(f"using {count.value}", flush=True)
    while not select.select([sys.stdin], [], [], 0.05)[0]:
        if status := cuda.cuCtxSynchronize():
            print(f"failed {status}", flush=True)
            return 3
    print("ended", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
