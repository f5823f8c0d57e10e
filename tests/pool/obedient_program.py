"""A CUDA driver program that does what the lines on its standard input say; it answers each.

devices        how many there are, and the PCI bus of each
use D          writes to memory of device D and reads it back: the code of what failed, or 0
copy D E       from device D to device E, and reads it there: the same
kernel D       runs a kernel on device D, and reads what it wrote
retain D       makes the device's primary context, if need be: the code
fork           a child's code for `use 0`
"""

import ctypes
import os
import sys

BYTES = 1 << 16
PTX = b"""
.version 7.5
.target sm_75
.address_size 64
.visible .entry fill(.param .u64 p) {
    .reg .b64 %a; .reg .b32 %t;
    ld.param.u64 %a, [p]; mov.u32 %t, %tid.x; mad.wide.u32 %a, %t, 4, %a;
    mad.lo.u32 %t, %t, 3, 1; st.global.u32 [%a], %t;
    ret;
}
"""


class CallError(Exception):
    """A call that did not succeed."""


class Program:
    def __init__(self) -> None:
        self.cuda = ctypes.CDLL("libcuda.so.1")
        self.contexts: dict[int, ctypes.c_void_p] = {}
        self.memories: dict[int, ctypes.c_uint64] = {}
        self.functions: dict[int, ctypes.c_void_p] = {}

    def call(self, name: str, *arguments: object) -> None:
        if code := getattr(self.cuda, name)(*arguments):
            raise CallError(code)

    def enter(self, device: int) -> ctypes.c_uint64:
        """Makes the device's context current; returns memory there."""
        if device not in self.contexts:
            context, memory = ctypes.c_void_p(), ctypes.c_uint64()
            self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
            self.call("cuCtxSetCurrent", context)
            self.call("cuMemAlloc_v2", ctypes.byref(memory), ctypes.c_size_t(BYTES))
            self.contexts[device], self.memories[device] = context, memory
        self.call("cuCtxSetCurrent", self.contexts[device])
        return self.memories[device]

    def read(self, memory: ctypes.c_uint64) -> bytes:
        received = ctypes.create_string_buffer(BYTES)
        self.call("cuMemcpyDtoH_v2", received, memory, ctypes.c_size_t(BYTES))
        return received.raw

    def write(self, device: int) -> bytes:
        sent = os.urandom(BYTES)
        self.call("cuMemcpyHtoD_v2", self.enter(device), sent, ctypes.c_size_t(BYTES))
        return sent

    def devices(self) -> str:
        count, text = ctypes.c_int(), ctypes.create_string_buffer(32)
        self.call("cuDeviceGetCount", ctypes.byref(count))
        buses = []
        for device in range(count.value):
            self.call("cuDeviceGetPCIBusId", text, 32, device)
            buses.append(text.value.decode())
        return " ".join([str(count.value), *buses])

    def retain(self, device: int) -> None:
        context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)

    def use(self, device: int) -> None:
        sent = self.write(device)
        assert self.read(self.enter(device)) == sent

    def copy(self, source: int, destination: int) -> None:
        sent = self.write(source)
        to, origin = self.enter(destination), self.enter(source)
        contexts = self.contexts[destination], self.contexts[source]
        self.call("cuMemcpyPeer", to, contexts[0], origin, contexts[1], ctypes.c_size_t(BYTES))
        self.enter(destination)
        assert self.read(to) == sent

    def kernel(self, device: int) -> None:
        memory = self.enter(device)
        if device not in self.functions:
            module, function = ctypes.c_void_p(), ctypes.c_void_p()
            self.call("cuModuleLoadData", ctypes.byref(module), PTX)
            self.call("cuModuleGetFunction", ctypes.byref(function), module, b"fill")
            self.functions[device] = function
        parameters = (ctypes.c_void_p * 1)(ctypes.addressof(memory))
        shape = (1, 1, 1, 64, 1, 1, 0, None)
        self.call("cuLaunchKernel", self.functions[device], *shape, parameters, None)
        assert self.read(memory)[:256] == b"".join(
            (3 * thread + 1).to_bytes(4, "little") for thread in range(64)
        )

    def fork(self) -> str:
        child = os.fork()
        if child == 0:
            os._exit(answer(self, ["use", "0"]) == "3" and 17)
        return str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def answer(program: Program, words: list[str]) -> str:
    try:
        return getattr(program, words[0])(*map(int, words[1:])) or "0"
    except CallError as failed:
        return str(failed)


def main() -> None:
    program = Program()
    print("init", program.cuda.cuInit(0), flush=True)
    for line in sys.stdin:
        print(answer(program, line.split()), flush=True)


if __name__ == "__main__":
    main()
