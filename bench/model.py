"""A program that loads a model: copies the tensors of a weight file, which is mapped, to a device.

    model.py FILE

Prints the seconds from the first copy until all are there. Standard library only. The sizes are
those of a transformer's: large matrices, their smaller neighbours, and vectors.
"""

import ctypes
import mmap
import sys
import time
from itertools import cycle

KIB, MIB = 1 << 10, 1 << 20
SIZES = (64 * MIB, 16 * MIB, 16 * MIB, 44 * MIB + 12 * KIB, 4 * MIB, 300 * KIB, 16 * KIB)

cuda = ctypes.CDLL("libcuda.so.1")


def call(name: str, *arguments: object) -> None:
    status = getattr(cuda, name)(*arguments)
    if status != 0:
        sys.exit(f"{name} returned {status}")


def main() -> None:
    call("cuInit", 0)
    context = ctypes.c_void_p()
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
    call("cuCtxSetCurrent", context)
    with open(sys.argv[1], "rb") as file:
        weights = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    start = ctypes.addressof(ctypes.c_char.from_buffer(weights))
    memory = ctypes.c_uint64()
    call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(len(weights)))
    at = 0
    begun = time.perf_counter()
    for size in cycle(SIZES):
        size = min(size, len(weights) - at)
        if size == 0:
            break
        target, source = memory.value + at, ctypes.c_void_p(start + at)
        call("cuMemcpyHtoD_v2", ctypes.c_uint64(target), source, ctypes.c_size_t(size))
        at += size
    call("cuCtxSynchronize")
    print(time.perf_counter() - begun, flush=True)


main()
