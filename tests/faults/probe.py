"""A program that meets a fault: makes calls until one fails, and says what it got.

python probe.py driver|runtime once|loop|ENTRY [THEN...]

`once` uses a device a little, `loop` goes on until a call fails. An ENTRY is a kernel of `KERNELS`
that is launched and waited for. Prints one line per call that failed, `NAME CODE`, and ends with
status 3 if the program cannot go on. Nothing that a fault does may end it in another way.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time

HEADER = ".version 7.5\n.target sm_75\n.address_size 64\n"
KERNELS = {
    "illegal": ".reg .b64 %a; mov.u64 %a, 0x123450; st.global.u32 [%a], 1;",
    "misaligned": ".reg .b64 %a; ld.param.u64 %a, [p]; st.global.u32 [%a+2], 1;",
    "trap": "trap;",
    "good": ".reg .b64 %a; ld.param.u64 %a, [p]; st.global.u32 [%a], 7;",
}
ASSERT = """
.extern .func __assertfail(
    .param .b64 m, .param .b64 f, .param .b32 l, .param .b64 n, .param .b64 c);
.global .align 1 .b8 text[6] = {119, 114, 111, 110, 103, 0};
.visible .entry assertion(.param .u64 p) {
    .reg .b64 %a;
    mov.u64 %a, text; cvta.global.u64 %a, %a;
    { .param .b64 m; .param .b64 f; .param .b32 l; .param .b64 n; .param .b64 c;
      st.param.b64 [m], %a; st.param.b64 [f], %a; st.param.b32 [l], 7; st.param.b64 [n], %a;
      st.param.b64 [c], 1;
      call.uni __assertfail, (m, f, l, n, c); }
    ret;
}
"""
RECURSE = """
.func (.param .b32 r) deeper(.param .b32 n) {
    .local .align 16 .b8 big[4096]; .reg .b32 %r<4>; .reg .b64 %a;
    ld.param.b32 %r1, [n]; mov.u64 %a, big; st.local.u32 [%a], %r1; add.u32 %r1, %r1, 1;
    { .param .b32 x; .param .b32 y; st.param.b32 [x], %r1;
      call.uni (y), deeper, (x); ld.param.b32 %r2, [y]; }
    ld.local.u32 %r3, [%a]; add.u32 %r2, %r2, %r3; st.param.b32 [r], %r2; ret;
}
.visible .entry overflow(.param .u64 p) {
    .reg .b32 %r;
    { .param .b32 x; .param .b32 y; st.param.b32 [x], 0; call.uni (y), deeper, (x);
      ld.param.b32 %r, [y]; }
    ret;
}
"""


def text() -> bytes:
    """All kernels, as PTX."""
    entries = [
        f".visible .entry {name}(.param .u64 p) {{ {body} ret; }}\n"
        for name, body in KERNELS.items()
    ]
    return (HEADER + ASSERT + RECURSE + "".join(entries)).encode()


def say(name: str, code: int) -> int:
    if code != 0:
        print(name, code, flush=True)
    return code


class Driver:
    """The driver API."""

    def __init__(self) -> None:
        self.cuda = ctypes.CDLL("libcuda.so.1")
        self.memory = ctypes.c_uint64()

    def call(self, name: str, *arguments: object) -> int:
        return say(name, getattr(self.cuda, name)(*arguments))

    def must(self, name: str, *arguments: object) -> None:
        if self.call(name, *arguments) != 0:
            sys.exit(3)

    def start(self) -> None:
        self.must("cuInit", 0)
        context, module = ctypes.c_void_p(), ctypes.c_void_p()
        self.must("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        self.must("cuCtxSetCurrent", context)
        self.must("cuModuleLoadData", ctypes.byref(module), text())
        self.module = module
        self.must("cuMemAlloc_v2", ctypes.byref(self.memory), ctypes.c_size_t(4096))

    def wait(self) -> int:
        return self.call("cuCtxSynchronize")

    def launch(self, name: str) -> int:
        kernel = ctypes.c_void_p()
        found = self.call("cuModuleGetFunction", ctypes.byref(kernel), self.module, name.encode())
        if found != 0:
            return found
        arguments = (ctypes.c_void_p * 1)(ctypes.cast(ctypes.byref(self.memory), ctypes.c_void_p))
        return self.call("cuLaunchKernel", kernel, 1, 1, 1, 1, 1, 1, 0, None, arguments, None)

    def allocate(self) -> int:
        return self.call("cuMemAlloc_v2", ctypes.byref(ctypes.c_uint64()), ctypes.c_size_t(64))

    def reset(self) -> None:
        self.must("cuDevicePrimaryCtxReset_v2", 0)
        self.start()


class Runtime:
    """The runtime API, whose kernels are those of a library that nvcc did not see."""

    def __init__(self) -> None:
        self.cuda = ctypes.CDLL(os.environ["CUDART"])
        self.memory = ctypes.c_void_p()

    def call(self, name: str, *arguments: object) -> int:
        return say(name, getattr(self.cuda, name)(*arguments))

    def start(self) -> None:
        count = ctypes.c_int()
        if self.call("cudaGetDeviceCount", ctypes.byref(count)) != 0:
            sys.exit(3)
        self.library = ctypes.c_void_p()
        nothing = [None, None, 0, None, None, 0]
        loaded = self.call("cudaLibraryLoadData", ctypes.byref(self.library), text(), *nothing)
        if loaded or self.call("cudaMalloc", ctypes.byref(self.memory), ctypes.c_size_t(4096)):
            sys.exit(3)

    def wait(self) -> int:
        return self.call("cudaDeviceSynchronize")

    def launch(self, name: str) -> int:
        kernel = ctypes.c_void_p()
        found = self.call("cudaLibraryGetKernel", ctypes.byref(kernel), self.library, name.encode())
        if found != 0:
            return found
        arguments = (ctypes.c_void_p * 1)(ctypes.cast(ctypes.byref(self.memory), ctypes.c_void_p))
        one = Dim(1, 1, 1)
        return self.call("cudaLaunchKernel", kernel, one, one, arguments, ctypes.c_size_t(0), None)

    def allocate(self) -> int:
        return self.call("cudaMalloc", ctypes.byref(ctypes.c_void_p()), ctypes.c_size_t(64))

    def reset(self) -> None:
        if self.call("cudaDeviceReset") != 0:
            sys.exit(3)
        self.start()


class Dim(ctypes.Structure):
    _fields_ = [("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint)]


def main(api: str, *steps: str) -> None:
    program = Driver() if api == "driver" else Runtime()
    program.start()
    for step in steps:
        if step == "once":
            program.launch("good")
            program.wait()
        elif step == "loop":
            print("working", flush=True)
            while program.wait() == 0:
                time.sleep(0.02)
            program.allocate()
            sys.exit(3)
        elif step == "allocate":
            program.allocate()
        elif step == "reset":
            program.reset()
        else:
            program.launch(step)
            program.wait()
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
