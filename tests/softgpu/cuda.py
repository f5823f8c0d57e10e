"""The driver API of the library in HARP_TEST_LIBCUDA, for scripts run in a process of their own."""

from __future__ import annotations

import ctypes
import os

driver = ctypes.CDLL(os.environ["HARP_TEST_LIBCUDA"])

NOT_INITIALIZED, DEINITIALIZED = 3, 4
ILLEGAL_ADDRESS, CONTEXT_IS_DESTROYED, NOT_SUPPORTED = 700, 709, 801
NO_BINARY_FOR_GPU, INVALID_CONTEXT, INVALID_PTX, NOT_READY = 209, 201, 218, 600

HEADER = ".version 7.0\n.target sm_52\n.address_size 64\n"
STORE = """
.visible .entry store(.param .u64 to, .param .u32 value) {
    .reg .b64 %a; .reg .b32 %v;
    ld.param.u64 %a, [to]; ld.param.u32 %v, [value]; st.global.u32 [%a], %v; ret;
}"""
FOREVER = ".visible .entry forever() { L: bra L; }"


def must(code: int) -> None:
    assert code == 0, code


def start() -> ctypes.c_void_p:
    """Initialises and makes the primary context of device 0 current."""
    context = ctypes.c_void_p()
    must(driver.cuInit(0))
    must(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
    must(driver.cuCtxSetCurrent(context))
    return context


def load(*texts: str) -> tuple[int, ctypes.c_void_p]:
    """Loads PTX: the code and the module."""
    module = ctypes.c_void_p()
    image = (HEADER + "".join(texts)).encode()
    return driver.cuModuleLoadData(ctypes.byref(module), image), module


def function(name: str, *texts: str) -> ctypes.c_void_p:
    """A kernel of a freshly loaded module."""
    code, module = load(*texts)
    must(code)
    found = ctypes.c_void_p()
    must(driver.cuModuleGetFunction(ctypes.byref(found), module, name.encode()))
    return found


def launch(kernel: ctypes.c_void_p, *arguments: ctypes.c_uint64 | ctypes.c_uint32) -> int:
    """Launches one thread on the legacy stream."""
    pointers = (ctypes.c_void_p * max(1, len(arguments)))()
    for index, argument in enumerate(arguments):
        pointers[index] = ctypes.cast(ctypes.byref(argument), ctypes.c_void_p)
    code: int = driver.cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, None, pointers, None)
    return code


def store(address: int, value: int) -> int:
    """Launches a kernel that stores a word."""
    kernel = function("store", STORE)
    return launch(kernel, ctypes.c_uint64(address), ctypes.c_uint32(value))


def allocate(size: int) -> int:
    address = ctypes.c_uint64()
    must(driver.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size)))
    return address.value


def word_at(address: int) -> int:
    word = ctypes.c_uint32()
    must(driver.cuMemcpyDtoH_v2(ctypes.byref(word), ctypes.c_uint64(address), ctypes.c_size_t(4)))
    return word.value
