"""A CUDA driver program in a few calls: prints each call with its code, one per line.

python driver_program.py once    # a device, a context, memory there and back
python driver_program.py loop    # the same, then synchronises until a call fails
python driver_program.py nothing # loads the library and calls nothing
"""

import ctypes
import sys
import time

SUCCESS = 0
BYTES = 4096

cuda = ctypes.CDLL("libcuda.so.1")


def call(name: str, *arguments: object) -> int:
    code: int = getattr(cuda, name)(*arguments)
    print(name, code, flush=True)
    if code != SUCCESS:
        sys.exit(3)
    return code


def main(mode: str) -> None:
    if mode == "nothing":
        return
    device, context, memory = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint64()
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call("cuCtxSetCurrent", context)
    call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(BYTES))
    sent = bytes(range(256)) * (BYTES // 256)
    call("cuMemcpyHtoD_v2", memory, sent, ctypes.c_size_t(BYTES))
    received = ctypes.create_string_buffer(BYTES)
    call("cuMemcpyDtoH_v2", received, memory, ctypes.c_size_t(BYTES))
    assert received.raw == sent
    while mode == "loop":
        call("cuCtxSynchronize")
        time.sleep(0.05)
    call("cuMemFree_v2", memory)


if __name__ == "__main__":
    main(sys.argv[1])
