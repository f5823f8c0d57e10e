"""Copies there and back between bytes that nothing may change; for a server that lies.

Status 0: all went well; 3: a call failed; 4: wrong numbers, which a server can always send; 9: some
bytes were written where none were asked for.

"""

import ctypes
import sys

ROUNDS = 120
GUARD = 1 << 16
LARGEST = 1 << 17

cuda = ctypes.CDLL("libcuda.so.1")
host = (ctypes.c_char * (2 * GUARD + LARGEST))()
fill = b"\xa5" * len(host)


def must(code: int) -> None:
    if code != 0:
        check(0, 0)
        print("failed with", code)
        sys.exit(3)


def check(start: int, length: int) -> None:
    """All bytes outside of the destination are as they were."""
    seen = bytes(host)
    before, after = seen[:start], seen[start + length :]
    if before.count(b"\xa5") != len(before) or after.count(b"\xa5") != len(after):
        print("bytes outside of the destination were written")
        sys.exit(9)
    host[:] = fill


host[:] = fill
context, memory = ctypes.c_void_p(), ctypes.c_uint64()
must(cuda.cuInit(0))
must(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
must(cuda.cuCtxSetCurrent(context))
must(cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(LARGEST)))
sent = bytes(range(256)) * (LARGEST // 256)
wrong = False
for number in range(ROUNDS):
    length = (number * 7919) % LARGEST + 1
    must(cuda.cuMemcpyHtoD_v2(memory, sent, ctypes.c_size_t(length)))
    there = ctypes.addressof(host) + GUARD
    code = cuda.cuMemcpyDtoH_v2(ctypes.c_void_p(there), memory, ctypes.c_size_t(length))
    wrong |= code == 0 and bytes(host[GUARD : GUARD + length]) != sent[:length]
    check(GUARD, length)
    must(code)
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    must(cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)))
    event = ctypes.c_void_p()
    must(cuda.cuEventCreate(ctypes.byref(event), 0))
    must(cuda.cuEventRecord(event, None))
    must(cuda.cuEventSynchronize(event))
    must(cuda.cuEventDestroy_v2(event))
sys.exit(4 if wrong else 0)
