"""A program to be replayed: kernels of which the test can change one.

python replayed_program.py three FACTOR     three kernels, each with an array of its own
python replayed_program.py chain COUNT      COUNT launches that build upon each other, then one more
python replayed_program.py killed           a launch, and an end in the middle of things
python replayed_program.py cubin            an upload of what looks like machine code for sm_90
"""

import ctypes
import os
import signal
import struct
import sys
from ctypes import byref, c_uint64, c_void_p

COUNT = 256
"""Numbers in each array."""

KERNEL = """
.visible .entry {name}(.param .u64 to, .param .u64 from) {{
  .reg .u32 %r<6>;
  .reg .u64 %d<6>;
  ld.param.u64 %d1, [to];
  ld.param.u64 %d2, [from];
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %d3, %r1, 4;
  add.u64 %d4, %d1, %d3;
  add.u64 %d5, %d2, %d3;
  ld.global.u32 %r2, [%d5];
  mad.lo.u32 %r3, %r2, {factor}, {addend};
  st.global.u32 [%d4], %r3;
  ret;
}}
"""

HEAD = """.version 7.0
.target sm_70
.address_size 64
"""


def must(code: int) -> None:
    if code:
        sys.exit(f"a call returned {code}")


def begin() -> None:
    context = c_void_p()
    must(cuda.cuInit(0))
    must(cuda.cuDevicePrimaryCtxRetain(byref(context), 0))
    must(cuda.cuCtxSetCurrent(context))


def array(numbers: range | None = None, size: int = 4 * COUNT) -> c_uint64:
    memory = c_uint64()
    must(cuda.cuMemAlloc_v2(byref(memory), ctypes.c_size_t(size)))
    if numbers is not None:
        packed = struct.pack(f"{COUNT}I", *numbers)
        must(cuda.cuMemcpyHtoD_v2(memory, packed, ctypes.c_size_t(len(packed))))
    return memory


def module(*kernels: tuple[str, int, int]) -> c_void_p:
    texts = [KERNEL.format(name=name, factor=factor, addend=add) for name, factor, add in kernels]
    loaded = c_void_p()
    must(cuda.cuModuleLoadData(byref(loaded), "".join([HEAD, *texts]).encode()))
    return loaded


def function(of: c_void_p, name: str) -> c_void_p:
    found = c_void_p()
    must(cuda.cuModuleGetFunction(byref(found), of, name.encode()))
    return found


def launch(kernel: c_void_p, to: c_uint64, source: c_uint64) -> None:
    pointers = (c_void_p * 2)(ctypes.addressof(to), ctypes.addressof(source))
    must(cuda.cuLaunchKernel(kernel, 1, 1, 1, COUNT, 1, 1, 0, None, pointers, None))


def fetch(memory: c_uint64) -> tuple[int, ...]:
    found = ctypes.create_string_buffer(4 * COUNT)
    must(cuda.cuMemcpyDtoH_v2(found, memory, ctypes.c_size_t(4 * COUNT)))
    return struct.unpack(f"{COUNT}I", found.raw)


def three(factor: int) -> None:
    """All are launched, then all are fetched: who made what is not told by the order."""
    begin()
    source = array(range(COUNT))
    # Too large for what a session has from the beginning: the server is asked for them.
    arrays = [array(size=8 << 20) for _ in range(3)]
    code = module(("first", 2, 1), ("second", factor, 0), ("third", 5, 7))
    for to, name in zip(arrays, ("first", "second", "third"), strict=True):
        launch(function(code, name), to, source)
    for memory, (by, plus) in zip(arrays, ((2, 1), (factor, 0), (5, 7)), strict=True):
        if fetch(memory) != tuple(by * i + plus for i in range(COUNT)):
            sys.exit("wrong numbers")


def chain(count: int) -> None:
    begin()
    state, weights, result = array(range(COUNT)), array(range(7, 7 + COUNT)), array()
    other = [array(range(i, i + COUNT)) for i in range(4)]
    code = module(("step", 3, 1), ("aside", 1, 9))
    target = module(("target", 11, 5))
    step, aside, last = function(code, "step"), function(code, "aside"), function(target, "target")
    for i in range(count):
        launch(step, state, state) if i % 2 == 0 else launch(aside, other[i // 2 % 4], weights)
    launch(last, result, state)
    launch(step, weights, weights)
    steps = (count + 1) // 2
    expected = []
    for number in range(COUNT):
        for _ in range(steps):
            number = (3 * number + 1) % (1 << 32)
        expected.append((11 * number + 5) % (1 << 32))
    if fetch(result) != tuple(expected):
        sys.exit("wrong numbers")
    fetch(weights)


def killed() -> None:
    begin()
    state = array(range(COUNT))
    launch(function(module(("first", 2, 1)), "first"), state, state)
    fetch(state)
    launch(function(module(("second", 2, 1)), "second"), state, state)
    os.kill(os.getpid(), signal.SIGKILL)


def cubin() -> None:
    begin()
    head = bytearray(b"\x7fELF".ljust(4 * COUNT, b"\0"))
    head[48] = 90
    must(cuda.cuMemcpyHtoD_v2(array(), bytes(head), ctypes.c_size_t(len(head))))


if __name__ == "__main__":
    cuda = ctypes.CDLL("libcuda.so.1")
    part, *numbers = sys.argv[1:]
    globals()[part](*map(int, numbers))
