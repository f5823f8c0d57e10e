"""Calls the process's libcuda.so.1 as the tests of local mode want, and prints what comes of it.

python calls.py EXPRESSION...      each in terms of `cuda`, `proc` and the numbers of ctypes
"""

import ctypes
import os  # noqa: F401
import sys
import threading
from ctypes import c_float, c_int, c_void_p  # noqa: F401

cuda = ctypes.CDLL("libcuda.so.1")


def proc(name: str, version: int = 13000, flags: int = 0) -> tuple[int, int, int]:
    """What cuGetProcAddress answers: code, status, address."""
    function, status = c_void_p(), c_int(-1)
    code = cuda.cuGetProcAddress_v2(
        name.encode(), ctypes.byref(function), version, ctypes.c_uint64(flags), ctypes.byref(status)
    )
    return code, status.value, function.value or 0


class Found(ctypes.Structure):
    """Dl_info."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", c_void_p),
        ("name", ctypes.c_char_p),
        ("address", c_void_p),
    )


def symbol(place: int) -> str | None:
    """The name of the function of the process's libcuda.so.1 at an address."""
    found = Found()
    known = place and ctypes.CDLL(None).dladdr(c_void_p(place), ctypes.byref(found))
    name = found.name.decode() if known and found.name else None
    return name if name and address(name) == place else None


def procs(
    names: list[str], versions: list[int]
) -> list[tuple[str, int, int, int, int, str | None]]:
    """What cuGetProcAddress answers for every name, version and kind of default stream."""
    return [
        (name, version, flags, code, status, symbol(place))
        for name in names
        for version in versions
        for flags in (0, 1, 2)
        for code, status, place in [proc(name, version, flags)]
    ]


def address(name: str) -> int:
    """Where the process's libcuda.so.1 has a symbol."""
    return ctypes.cast(getattr(cuda, name), c_void_p).value or 0


def at(function: int, *arguments: object) -> int:
    """Calls a function by its address."""
    called: int = ctypes.CFUNCTYPE(c_int, *[type(a) for a in arguments])(function)(*arguments)
    return called


def version() -> tuple[int, int]:
    """What cuDriverGetVersion answers: code, version."""
    found = c_int(-1)
    return cuda.cuDriverGetVersion(ctypes.byref(found)), found.value


def libraries() -> list[str]:
    """The files that are mapped here."""
    with open("/proc/self/maps") as maps:
        return sorted({line.split()[-1] for line in maps if "/" in line})


def from_threads(count: int) -> set[tuple[int, int]]:
    """What so many threads get that all make the process's first call at once."""
    barrier, answers = threading.Barrier(count), set()

    def first() -> None:
        barrier.wait()
        answers.add(version())

    threads = [threading.Thread(target=first) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


class Shape(ctypes.Structure):
    """CUDA_ARRAY_DESCRIPTOR."""

    _fields_ = (
        ("width", ctypes.c_size_t),
        ("height", ctypes.c_size_t),
        ("format", c_int),
        ("channels", c_int),
    )


FLOAT = 32


def array(width: int, height: int) -> tuple[int, int]:
    """Makes an array of floats: code, handle."""
    made = c_void_p()
    shape = Shape(width, height, FLOAT, 1)
    return cuda.cuArrayCreate_v2(ctypes.byref(made), ctypes.byref(shape)), made.value or 0


for expression in sys.argv[1:]:
    print(eval(expression), flush=True)
