"""Threads that each make a context, use a module's variable and memory of the host in it, end it.

Some free what they have before, others leave it to the context's end. Prints how many rounds found
their numbers right.
"""

from __future__ import annotations

import ctypes
import random
import threading
from collections.abc import Callable

THREADS = 6
ROUNDS = 40
PTX = b"""
.version 7.0
.target sm_70
.address_size 64
.visible .global .u32 mark;
.visible .entry add_one(.param .u64 place)
{
    .reg .b64 %at;
    .reg .b32 %value;
    ld.param.u64 %at, [place];
    ld.global.u32 %value, [%at];
    add.u32 %value, %value, 1;
    st.global.u32 [%at], %value;
    ret;
}
\0"""
NON_BLOCKING = 1
ATTACH_GLOBAL = 1
PORTABLE_AND_MAPPED = 3

driver = ctypes.CDLL("libcuda.so.1")
right: list[bool] = []


def must(name: str, *arguments: object) -> None:
    code = getattr(driver, name)(*arguments)
    if code != 0:
        raise RuntimeError(f"{name} failed with {code}")


def made(name: str, kind: Callable[[], ctypes.c_void_p | ctypes.c_uint64], *arguments: object):
    """What a call stores at its first argument."""
    value = kind()
    must(name, ctypes.byref(value), *arguments)
    return value


def add_one(
    function: ctypes.c_void_p, place: ctypes.c_void_p | ctypes.c_uint64, stream: ctypes.c_void_p
) -> None:
    parameters = (ctypes.c_void_p * 1)(ctypes.cast(ctypes.byref(place), ctypes.c_void_p))
    must("cuLaunchKernel", function, 1, 1, 1, 1, 1, 1, 0, stream, parameters, None)


def use_context(chance: random.Random) -> None:
    context = made("cuCtxCreate_v2", ctypes.c_void_p, 0, chance.randrange(2))
    module = made("cuModuleLoadData", ctypes.c_void_p, PTX)
    function = made("cuModuleGetFunction", ctypes.c_void_p, module, b"add_one")
    mark = made("cuModuleGetGlobal_v2", ctypes.c_uint64, None, module, b"mark")
    must("cuMemsetD32_v2", mark, 9, 1)
    must("cuCtxSynchronize")
    managed = made("cuMemAllocManaged", ctypes.c_uint64, ctypes.c_size_t(8192), ATTACH_GLOBAL)
    mapped = made("cuMemHostAlloc", ctypes.c_void_p, ctypes.c_size_t(4096), PORTABLE_AND_MAPPED)
    seen = [ctypes.c_uint32.from_address(place) for place in (managed.value, mapped.value)]
    seen[0].value, seen[1].value = 5, 3
    stream = made("cuStreamCreate", ctypes.c_void_p, NON_BLOCKING)
    for place in (managed, mapped, mark):
        add_one(function, place, stream)
    must("cuStreamSynchronize", stream)
    got = ctypes.c_uint32()
    must("cuMemcpyDtoH_v2", ctypes.byref(got), mark, ctypes.c_size_t(4))
    right.append((seen[0].value, seen[1].value, got.value) == (6, 4, 10))
    if chance.random() < 0.5:
        must("cuMemFree_v2", managed)
    if chance.random() < 0.5:
        must("cuModuleUnload", module)
    if chance.random() < 0.5:
        must("cuMemFreeHost", mapped)
    must("cuCtxDestroy_v2", context)


def rounds(number: int) -> None:
    for count in range(ROUNDS):
        chance = random.Random(number * ROUNDS + count)
        if count % 2:
            use_context(chance)
        else:
            thread = threading.Thread(target=use_context, args=(chance,))
            thread.start()
            thread.join()


must("cuInit", 0)
threads = [threading.Thread(target=rounds, args=(number,)) for number in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(f"{sum(right)} of {THREADS * ROUNDS}")
