"""Queues work for a slow device without ever waiting, and says now and then how much it has queued.

python queues_for_ever.py kernels|fills|uploads
"""

from __future__ import annotations

import ctypes
import sys

PTX = b"""
.version 7.0
.target sm_70
.address_size 64
.visible .entry slow(.param .u32 times)
{
    .reg .b32 %left;
    .reg .pred %more;
    ld.param.u32 %left, [times];
again:
    sub.u32 %left, %left, 1;
    setp.ne.u32 %more, %left, 0;
    @%more bra again;
    ret;
}
\0"""
STEPS = 200_000
"""Of each kernel: some milliseconds of the soft GPU."""

UPLOAD = 32 << 10
FILL = 64 << 20
CALLS = 1_000_000
"""More than the device can do while anybody looks."""

driver = ctypes.CDLL("libcuda.so.1")


def must(name: str, *arguments: object) -> None:
    code = getattr(driver, name)(*arguments)
    if code != 0:
        raise RuntimeError(f"{name} failed with {code}")


def made(name: str, kind: type, *arguments: object):
    """What a call stores at its first argument."""
    value = kind()
    must(name, ctypes.byref(value), *arguments)
    return value


must("cuInit", 0)
must("cuCtxSetCurrent", made("cuDevicePrimaryCtxRetain", ctypes.c_void_p, 0))
module = made("cuModuleLoadData", ctypes.c_void_p, PTX)
function = made("cuModuleGetFunction", ctypes.c_void_p, module, b"slow")
memory = made("cuMemAlloc_v2", ctypes.c_uint64, ctypes.c_size_t(FILL))
stream = made("cuStreamCreate", ctypes.c_void_p, 1)
steps = ctypes.c_uint32(STEPS)
parameters = (ctypes.c_void_p * 1)(ctypes.cast(ctypes.byref(steps), ctypes.c_void_p))
payload = ctypes.create_string_buffer(UPLOAD)


def launch() -> None:
    must("cuLaunchKernel", function, 1, 1, 1, 1, 1, 1, 0, stream, parameters, None)


def fill() -> None:
    must("cuMemsetD8Async", memory, ctypes.c_ubyte(1), ctypes.c_size_t(FILL), stream)


def upload() -> None:
    must("cuMemcpyHtoDAsync_v2", memory, payload, ctypes.c_size_t(UPLOAD), stream)


queue_one = {"kernels": launch, "fills": fill, "uploads": upload}[sys.argv[1]]
launch()
must("cuStreamSynchronize", stream)
for number in range(1, CALLS + 1):
    if queue_one is upload and number % 4 == 1:
        launch()
    queue_one()
    if number % 1000 == 0:
        print(number, flush=True)
