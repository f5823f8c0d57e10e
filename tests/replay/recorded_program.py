"""A program that is recorded: driver calls by ctypes, of which the test knows every one.

python recorded_program.py PART     a function below; exits 0 if what it computed is right
"""

import contextlib
import ctypes
import os
import signal
import struct
import subprocess
import sys
import time
from ctypes import byref, c_int, c_uint64, c_void_p

COUNT = 1000
"""Numbers in each array."""

FEW = 64
"""Numbers in each array of `timed_add`."""

MANY = 500
"""Calls that nobody waits for."""

FILLS = 40_000
"""More of them than a server times without telling."""

VECTOR_ADD_CALLS = [
    "cuDevicePrimaryCtxRetain",
    "harp_set_current",
    "cuMemcpyHtoD_v2",
    "cuMemcpyHtoD_v2",
    "harp_blob_append",
    "cuModuleLoadData",
    "harp_describe",
    "cuModuleGetFunction",
    "cuLaunchKernel",
    "cuCtxSynchronize",
    "cuMemcpyDtoH_v2",
    "cuCtxSynchronize",
    "harp_thread_ended",
]
"""What the part `vector_add` sends to its server."""

ADD = b"""
.version 7.0
.target sm_70
.address_size 64
.visible .entry add(.param .u64 a, .param .u64 b, .param .u64 c, .param .u32 n) {
  .reg .pred %p;
  .reg .u32 %r<6>;
  .reg .u64 %d<8>;
  .reg .f32 %f<4>;
  ld.param.u64 %d1, [a];
  ld.param.u64 %d2, [b];
  ld.param.u64 %d3, [c];
  ld.param.u32 %r1, [n];
  mov.u32 %r2, %ctaid.x;
  mov.u32 %r3, %ntid.x;
  mov.u32 %r4, %tid.x;
  mad.lo.u32 %r5, %r2, %r3, %r4;
  setp.ge.u32 %p, %r5, %r1;
  @%p bra done;
  mul.wide.u32 %d4, %r5, 4;
  add.u64 %d5, %d1, %d4;
  add.u64 %d6, %d2, %d4;
  add.u64 %d7, %d3, %d4;
  ld.global.f32 %f1, [%d5];
  ld.global.f32 %f2, [%d6];
  add.f32 %f3, %f1, %f2;
  st.global.f32 [%d7], %f3;
done:
  ret;
}
"""


def must(code: int) -> None:
    if code:
        sys.exit(f"a call returned {code}")


def begin(bytes_each: int = 4 * COUNT, arrays: int = 1) -> list[c_uint64]:
    """A context, and device memory."""
    context = c_void_p()
    must(cuda.cuInit(0))
    must(cuda.cuDevicePrimaryCtxRetain(byref(context), 0))
    must(cuda.cuCtxSetCurrent(context))
    memory = [c_uint64() for _ in range(arrays)]
    for each in memory:
        must(cuda.cuMemAlloc_v2(byref(each), ctypes.c_size_t(bytes_each)))
    return memory


def vector_add() -> None:
    add_vectors(COUNT)


def timed_add() -> None:
    """The same with fewer numbers, and with events before and after the kernel."""
    add_vectors(FEW, are_timed=True)


def add_vectors(count: int, are_timed: bool = False) -> None:
    a, b, c = begin(4 * count, arrays=3)
    events = [c_void_p() for _ in range(2 * are_timed)]
    for event in events:
        must(cuda.cuEventCreate(byref(event), 0))
    for memory, factor in ((a, 1.0), (b, 0.5)):
        numbers = struct.pack(f"{count}f", *(factor * i for i in range(count)))
        must(cuda.cuMemcpyHtoD_v2(memory, numbers, ctypes.c_size_t(len(numbers))))
    module, function = c_void_p(), c_void_p()
    must(cuda.cuModuleLoadData(byref(module), ADD))
    must(cuda.cuModuleGetFunction(byref(function), module, b"add"))
    values = [a, b, c, c_int(count)]
    pointers = (c_void_p * 4)(*(ctypes.addressof(value) for value in values))
    for event in events[:1]:
        must(cuda.cuEventRecord(event, None))
    must(cuda.cuLaunchKernel(function, 4, 1, 1, 256, 1, 1, 0, None, pointers, None))
    for event in events[1:]:
        must(cuda.cuEventRecord(event, None))
    must(cuda.cuCtxSynchronize())
    found = ctypes.create_string_buffer(4 * count)
    must(cuda.cuMemcpyDtoH_v2(found, c, ctypes.c_size_t(4 * count)))
    if struct.unpack(f"{count}f", found.raw) != tuple(1.5 * i for i in range(count)):
        sys.exit("wrong sums")
    if events:
        must(cuda.cuEventElapsedTime_v2(byref(ctypes.c_float()), *events))
    for event in events:
        must(cuda.cuEventDestroy_v2(event))
    for memory in (a, b, c):
        must(cuda.cuMemFree_v2(memory))


def two_devices() -> None:
    for device in range(2):
        context, memory = c_void_p(), c_uint64()
        must(cuda.cuInit(0))
        must(cuda.cuDevicePrimaryCtxRetain(byref(context), device))
        must(cuda.cuCtxSetCurrent(context))
        must(cuda.cuMemAlloc_v2(byref(memory), ctypes.c_size_t(4 * COUNT)))
        must(cuda.cuMemsetD32_v2(memory, device, ctypes.c_size_t(COUNT)))


def fills() -> None:
    (memory,) = begin()
    for value in range(FILLS):
        must(cuda.cuMemsetD32Async(memory, value, ctypes.c_size_t(1), None))
    must(cuda.cuCtxSynchronize())


def killed() -> None:
    (memory,) = begin()
    for value in range(MANY):
        must(cuda.cuMemsetD32Async(memory, value, ctypes.c_size_t(COUNT), None))
    os.kill(os.getpid(), signal.SIGKILL)


def crashes() -> None:
    (memory,) = begin()
    must(cuda.cuMemsetD8_v2(memory, 1, ctypes.c_size_t(COUNT)))
    cuda.cuMemcpyHtoD_v2(memory, c_void_p(8), ctypes.c_size_t(COUNT))  # there is nothing


def forks() -> None:
    """One child is forked before the first call and begins for itself, another after it."""
    go, ready = os.pipe()
    early = os.fork()
    if early == 0:
        os.read(go, 1)
        (memory,) = begin()
        must(cuda.cuMemsetD16_v2(memory, 1, ctypes.c_size_t(COUNT)))
        return
    (memory,) = begin()
    os.write(ready, b"!")
    must(os.waitpid(early, 0)[1])
    late = os.fork()
    if late == 0:
        refused = cuda.cuMemsetD16_v2(memory, 1, ctypes.c_size_t(COUNT))
        os._exit(0 if refused == 3 else 1)
    must(os.waitpid(late, 0)[1])
    must(cuda.cuMemsetD8_v2(memory, 1, ctypes.c_size_t(COUNT)))


def starts_others() -> None:
    begin()
    for _ in range(2):
        must(subprocess.run([sys.executable, __file__, "vector_add"]).returncode)


def uploads() -> None:
    """16 MiB in all, in pieces that are sent from where they lie and in one that is not."""
    (memory,) = begin(1 << 20)
    for number in range(16):
        must(cuda.cuMemcpyHtoD_v2(memory, bytes([number]) * (1 << 20), ctypes.c_size_t(1 << 20)))
    must(cuda.cuMemcpyHtoD_v2(memory, bytes(1000), ctypes.c_size_t(1000)))
    must(cuda.cuCtxSynchronize())
    print("passed")


def outlives_its_recorder() -> None:
    """Uploads more than the ring holds while the recorder stands still, then goes on with it."""
    (memory,) = begin(1 << 20)
    recorder = recorder_of_this_run()

    def upload(times: int) -> None:
        for number in range(times):
            piece = bytes([number]) * (1 << 20)
            must(cuda.cuMemcpyHtoD_v2(memory, piece, ctypes.c_size_t(len(piece))))

    os.kill(recorder, signal.SIGSTOP)
    upload(48)
    os.kill(recorder, signal.SIGCONT)
    for _ in range(10):
        time.sleep(0.3)
        upload(1)


def recorder_of_this_run() -> int:
    """The process that listens at this one's socket."""
    mark = os.environ["HARP_TRACE_SOCKET"].encode()
    for process in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{process}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
            if words[1:2] == [b"record"] and mark in words:
                return int(process)
    sys.exit("there is no recorder")


if __name__ == "__main__":
    cuda = ctypes.CDLL("libcuda.so.1")
    globals()[sys.argv[1]]()
