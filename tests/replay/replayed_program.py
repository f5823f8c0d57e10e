"""A program to be replayed: kernels of which the test can change one.

python replayed_program.py three FACTOR     three kernels, each with an array of its own
python replayed_program.py chain COUNT      COUNT launches that build upon each other, then one more
python replayed_program.py pointers COUNT   a kernel that reads COUNT arrays by a table of them
python replayed_program.py linked           a kernel that follows what kernels have linked
python replayed_program.py managed          the same in memory that the program and kernels share
python replayed_program.py killed           a launch, and an end in the middle of things
python replayed_program.py cubin            an upload of what looks like machine code for sm_90
"""

import ctypes
import os
import signal
import struct
import sys
from ctypes import byref, c_uint32, c_uint64, c_void_p

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

FOLLOWERS = """
.visible .entry link(.param .u64 from, .param .u64 to) {
  .reg .u64 %d<4>;
  ld.param.u64 %d1, [from];
  ld.param.u64 %d2, [to];
  st.global.u64 [%d1], %d2;
  ret;
}
.visible .entry follow(.param .u64 to, .param .u64 table, .param .u32 hops) {
  .reg .u32 %r<6>;
  .reg .u64 %d<8>;
  .reg .pred %p;
  ld.param.u64 %d1, [to];
  ld.param.u64 %d2, [table];
  ld.param.u32 %r1, [hops];
  mov.u32 %r2, %tid.x;
  // A thread each has its place in the table, which is followed so often.
  mul.wide.u32 %d3, %r2, 8;
  add.u64 %d4, %d2, %d3;
again:
  ld.global.u64 %d4, [%d4];
  sub.u32 %r1, %r1, 1;
  setp.gt.u32 %p, %r1, 0;
  @%p bra again;
  ld.global.u32 %r3, [%d4+8];
  mad.lo.u32 %r4, %r3, 3, 1;
  mul.wide.u32 %d5, %r2, 4;
  add.u64 %d6, %d1, %d5;
  st.global.u32 [%d6], %r4;
  ret;
}
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
        put(memory, struct.pack(f"{COUNT}I", *numbers))
    return memory


def module(*kernels: tuple[str, int, int]) -> c_void_p:
    texts = [KERNEL.format(name=name, factor=factor, addend=add) for name, factor, add in kernels]
    return load(*texts)


def load(*texts: str) -> c_void_p:
    loaded = c_void_p()
    must(cuda.cuModuleLoadData(byref(loaded), "".join([HEAD, *texts]).encode()))
    return loaded


def followers() -> tuple[c_void_p, c_void_p]:
    loaded = load(FOLLOWERS)
    return function(loaded, "link"), function(loaded, "follow")


def function(of: c_void_p, name: str) -> c_void_p:
    found = c_void_p()
    must(cuda.cuModuleGetFunction(byref(found), of, name.encode()))
    return found


def launch(
    kernel: c_void_p, to: c_uint64, source: c_uint64, *more: c_uint32, threads: int = COUNT
) -> None:
    values = (to, source, *more)
    pointers = (c_void_p * len(values))(*map(ctypes.addressof, values))
    must(cuda.cuLaunchKernel(kernel, 1, 1, 1, threads, 1, 1, 0, None, pointers, None))


def put(memory: c_uint64, packed: bytes) -> None:
    must(cuda.cuMemcpyHtoD_v2(memory, packed, ctypes.c_size_t(len(packed))))


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


def pointers(count: int) -> None:
    """A table of addresses, as those of batches are; what nobody needs lies in between."""
    begin()
    _, follow = followers()
    table, result = array(), array()
    arrays = []
    for i in range(count):
        arrays.append(array(range(7 * i, 7 * i + COUNT)))
        array(range(COUNT))
    put(table, struct.pack(f"{count}Q", *(one.value for one in arrays)))
    launch(follow, result, table, c_uint32(1), threads=count)
    # A thread finds its array, and in that the third number.
    if fetch(result)[:count] != tuple(3 * (7 * i + 2) + 1 for i in range(count)):
        sys.exit("wrong numbers")


def linked() -> None:
    """A chain of three, of which the program has told no kernel as a whole."""
    begin()
    link, follow = followers()
    first, second, third, result = array(), array(), array(range(100, 100 + COUNT)), array()
    array(range(COUNT))
    launch(link, second, third, threads=1)
    launch(link, first, second, threads=1)
    launch(follow, result, first, c_uint32(2), threads=1)
    if fetch(result)[0] != 3 * 102 + 1:
        sys.exit("wrong numbers")


def managed() -> None:
    """Memory that both sides write has addresses of the device's own, and takes the result."""
    begin()
    step, (_, follow) = function(module(("step", 2, 5)), "step"), followers()
    source, apart = array(range(COUNT)), array(range(9, 9 + COUNT))
    shared = c_uint64()
    must(cuda.cuMemAllocManaged(byref(shared), ctypes.c_size_t(8 * COUNT), 1))
    numbers = (c_uint32 * (2 * COUNT)).from_address(shared.value)
    launch(step, source, source)
    ctypes.memmove(numbers, struct.pack("2Q", source.value, apart.value), 16)
    result = c_uint64(shared.value + 4 * COUNT)
    launch(follow, result, shared, c_uint32(1), threads=2)
    must(cuda.cuCtxSynchronize())
    if tuple(numbers[COUNT : COUNT + 2]) != (3 * (2 * 2 + 5) + 1, 3 * 11 + 1):
        sys.exit("wrong numbers")
    numbers[COUNT] = 1
    launch(step, result, result)
    must(cuda.cuCtxSynchronize())
    if tuple(numbers[COUNT : COUNT + 2]) != (2 * 1 + 5, 2 * 34 + 5):
        sys.exit("wrong numbers")


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
