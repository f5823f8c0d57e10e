"""Copies bytes that come of a seed to a device, several times, and checks that they are there.

    uploading_program.py SEED BYTES [TIMES] [--wait]

Each copy goes to memory of its own. With `--wait` it says so after each, and waits for a line.
Standard library only.
"""

import ctypes
import random
import sys

seed, size = int(sys.argv[1]), int(sys.argv[2])
numbers = [int(word) for word in sys.argv[3:] if word.isdigit()]
times = numbers[0] if numbers else 1
cuda = ctypes.CDLL("libcuda.so.1")


def call(name: str, *arguments: object) -> None:
    status = getattr(cuda, name)(*arguments)
    if status != 0:
        sys.exit(f"{name} returned {status}")


call("cuInit", 0)
context = ctypes.c_void_p()
call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
call("cuCtxSetCurrent", context)
sent = random.Random(seed).randbytes(size)
places = []
for _ in range(times):
    memory = ctypes.c_uint64()
    call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(size))
    source = ctypes.create_string_buffer(sent, size)
    call("cuMemcpyHtoD_v2", memory, source, ctypes.c_size_t(size))
    # Nothing may depend on what the program does to its memory afterwards.
    ctypes.memset(source, 0xEE, size)
    places.append(memory)
    if "--wait" in sys.argv:
        print("there", flush=True)
        sys.stdin.readline()
for memory in places:
    received = ctypes.create_string_buffer(size)
    call("cuMemcpyDtoH_v2", received, memory, ctypes.c_size_t(size))
    if received.raw != sent:
        sys.exit("other bytes came back")
