"""Takes device memory in every way, under the limit that the first argument says, and prints "ok".

Bytes are multiples of 2 MiB, which every way can allocate exactly.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from ctypes import byref, c_int, c_size_t, c_uint64, c_void_p

OUT_OF_MEMORY = 2
MIB = 1 << 20
LIMIT = int(sys.argv[1])
HALF = LIMIT // 2

cuda = ctypes.CDLL("libcuda.so.1")


def must(code: int) -> None:
    assert code == 0, code


def info() -> tuple[int, int]:
    free, total = c_size_t(), c_size_t()
    must(cuda.cuMemGetInfo_v2(byref(free), byref(total)))
    return free.value, total.value


def left() -> int:
    return info()[0]


def limits(take: Callable[[int], object], give: Callable[[object], None]) -> None:
    """One way to take memory: up to the limit, no further, and again after it was given back."""
    before = left()
    assert before == LIMIT, before
    held = take(HALF)
    assert isinstance(held, int), held
    assert left() == LIMIT - HALF
    assert take(HALF + 2 * MIB) == (OUT_OF_MEMORY,)
    assert left() == LIMIT - HALF, "what was refused is not charged"
    rest = take(HALF)
    assert isinstance(rest, int), rest
    assert take(2 * MIB) == (OUT_OF_MEMORY,)
    give(held)
    give(rest)
    assert left() == LIMIT, left()


def taking(allocate: Callable[[object, int], int]) -> Callable[[int], object]:
    """The address or handle, or (code,) where there is none."""

    def take(size: int) -> object:
        made = c_uint64()
        code = allocate(byref(made), size)
        return made.value if code == 0 else (code,)

    return take


class Location(ctypes.Structure):
    _fields_ = (("type", c_int), ("id", c_int))


class AllocationProperties(ctypes.Structure):
    _fields_ = (
        ("type", c_int),
        ("handle_types", c_int),
        ("location", Location),
        ("metadata", c_void_p),
        ("flags", ctypes.c_ubyte * 8),
    )


class PoolProperties(ctypes.Structure):
    _fields_ = (
        ("type", c_int),
        ("handle_types", c_int),
        ("location", Location),
        ("attributes", c_void_p),
        ("most", c_size_t),
        ("reserved", ctypes.c_ubyte * 56),
    )


PINNED, ON_DEVICE = 1, 1
must(cuda.cuInit(0))
context, total = c_void_p(), c_size_t()
must(cuda.cuDeviceTotalMem_v2(byref(total), 0))
assert total.value == LIMIT
must(cuda.cuDevicePrimaryCtxRetain(byref(context), 0))
must(cuda.cuCtxSetCurrent(context))
assert info() == (LIMIT, LIMIT)


def address(free: Callable[[c_uint64], int]) -> Callable[[object], None]:
    def give(held: object) -> None:
        assert isinstance(held, int)
        must(free(c_uint64(held)))

    return give


# Linear memory, managed memory, rows with a pitch.
free = address(cuda.cuMemFree_v2)
limits(taking(lambda made, size: cuda.cuMemAlloc_v2(made, c_size_t(size))), free)
limits(taking(lambda made, size: cuda.cuMemAllocManaged(made, c_size_t(size), 1)), free)
pitch = c_size_t()


def rows(made: object, size: int) -> int:
    code: int = cuda.cuMemAllocPitch_v2(
        made, byref(pitch), c_size_t(4096), c_size_t(size // 4096), 4
    )
    assert code != 0 or pitch.value == 4096
    return code


limits(taking(rows), free)

# From pools, the default one and another; by the plain entry and by that of a thread's stream.
free_later = address(lambda held: cuda.cuMemFreeAsync(held, None))
limits(taking(lambda made, size: cuda.cuMemAllocAsync(made, c_size_t(size), None)), free_later)
limits(taking(lambda made, size: cuda.cuMemAllocAsync_ptsz(made, c_size_t(size), None)), free_later)
pool = c_void_p()
must(
    cuda.cuMemPoolCreate(
        byref(pool), byref(PoolProperties(type=PINNED, location=Location(ON_DEVICE, 0)))
    )
)
limits(
    taking(lambda made, size: cuda.cuMemAllocFromPoolAsync(made, c_size_t(size), pool, None)),
    free_later,
)
must(cuda.cuStreamSynchronize(None))

# Physical memory lives while it has a handle or is mapped.
properties = AllocationProperties(type=PINNED, location=Location(ON_DEVICE, 0))
create = taking(
    lambda made, size: cuda.cuMemCreate(made, c_size_t(size), byref(properties), c_uint64(0))
)
limits(create, address(cuda.cuMemRelease))
handle, place = create(HALF), c_uint64()
assert isinstance(handle, int)
must(cuda.cuMemAddressReserve(byref(place), c_size_t(HALF), c_size_t(0), c_uint64(0), c_uint64(0)))
must(cuda.cuMemMap(place, c_size_t(HALF), c_size_t(0), c_uint64(handle), c_uint64(0)))
must(cuda.cuMemRelease(c_uint64(handle)))
assert left() == LIMIT - HALF, "it is mapped still"
must(cuda.cuMemUnmap(place, c_size_t(HALF)))
assert left() == LIMIT
must(cuda.cuMemAddressFree(place, c_size_t(HALF)))

# What the driver refuses is not charged; what is not held is not given back.
assert cuda.cuMemAlloc_v2(byref(c_uint64()), c_size_t(0)) != 0
assert cuda.cuMemFree_v2(c_uint64(12345)) != 0
assert left() == LIMIT

# Memory ends with its context: one of the program's own, and the device's.
allocate = taking(lambda made, size: cuda.cuMemAlloc_v2(made, c_size_t(size)))
own = c_void_p()
must(cuda.cuCtxCreate_v2(byref(own), 0, 0))
assert isinstance(allocate(HALF), int)
assert left() == LIMIT - HALF
must(cuda.cuCtxDestroy_v2(own))
assert left() == LIMIT
assert isinstance(allocate(HALF), int)
must(cuda.cuDevicePrimaryCtxRelease_v2(0))
must(cuda.cuDevicePrimaryCtxRetain(byref(context), 0))
must(cuda.cuCtxSetCurrent(context))
assert left() == LIMIT
assert isinstance(allocate(HALF), int)
must(cuda.cuDevicePrimaryCtxReset_v2(0))
must(cuda.cuDevicePrimaryCtxRetain(byref(context), 0))
must(cuda.cuCtxSetCurrent(context))
assert left() == LIMIT

# A child gets the driver's own answers.
child = os.fork()
if child == 0:
    codes = (cuda.cuMemAlloc_v2(byref(place), c_size_t(LIMIT * 2)), cuda.cuMemFree_v2(place))
    os._exit(0 if codes == (3, 3) else 1)
assert os.waitpid(child, 0)[1] == 0
print("ok")
