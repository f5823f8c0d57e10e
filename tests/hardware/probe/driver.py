"""A libcuda by ctypes, and how answers are written down."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import byref, c_char_p, c_size_t, c_ulonglong, c_void_p

PTX = rb"""
.version 7.0
.target sm_50
.address_size 64
.global .u32 counter = 7;
.visible .entry nothing() { ret; }
.visible .entry store(.param .u64 at, .param .u32 what) {
  .reg .u64 %p; .reg .u32 %w;
  ld.param.u64 %p, [at]; ld.param.u32 %w, [what];
  st.global.u32 [%p], %w; ret;
}
.visible .entry load_misaligned(.param .u64 at) {
  .reg .u64 %p; .reg .u32 %w;
  ld.param.u64 %p, [at]; add.u64 %p, %p, 1;
  ld.global.u32 %w, [%p]; add.u64 %p, %p, 3; st.global.u32 [%p], %w; ret;
}
.visible .entry trapping() { trap; ret; }
.visible .entry stop_here() { brkpt; ret; }
.visible .entry spin(.param .u64 cycles) {
  .reg .u64 %a, %b, %c; .reg .pred %q;
  ld.param.u64 %c, [cycles]; mov.u64 %a, %clock64;
again:
  mov.u64 %b, %clock64; sub.u64 %b, %b, %a; setp.lt.u64 %q, %b, %c; @%q bra again;
  ret;
}
.visible .entry wide() .maxntid 64, 1, 1 { ret; }
"""


class Driver:
    """A libcuda by name of call."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libcuda.so.1")

    def __getattr__(self, name: str) -> Callable[..., int]:
        return getattr(self.library, name)


cu = Driver()
SECTIONS: dict[str, Callable[[], None]] = {}
_current = "?"


def section(act: Callable[[], None]) -> Callable[[], None]:
    """Marks a function as a section of questions, to be run in a process of its own."""
    SECTIONS[act.__name__] = act
    return act


def enter(name: str) -> None:
    """Runs one section here."""
    global _current
    _current = name
    SECTIONS[name]()


def name_of(code: int) -> str:
    text = c_char_p()
    if cu.cuGetErrorName(code, byref(text)) != 0 or not text.value:
        return f"code {code}"
    return text.value.decode().removeprefix("CUDA_ERROR_")


def tell(question: str, *answers: object) -> None:
    said = " ".join(name_of(a) if type(a) is int else str(a) for a in answers)
    print(f"{_current}: {question}: {said}", flush=True)


def value(x: int) -> str:
    """A number that is no code."""
    return f"={x}"


def begin() -> c_void_p:
    """The first device's primary context, current."""
    cu.cuInit(0)
    context = c_void_p()
    code = cu.cuDevicePrimaryCtxRetain(byref(context), 0)
    if code != 0:
        raise SystemExit(f"cuDevicePrimaryCtxRetain: {name_of(code)}")
    cu.cuCtxSetCurrent(context)
    return context


def load(text: bytes = PTX) -> c_void_p:
    module = c_void_p()
    code = cu.cuModuleLoadData(byref(module), text)
    if code != 0:
        raise SystemExit(f"cuModuleLoadData: {name_of(code)}")
    return module


def function(module: c_void_p, name: bytes) -> c_void_p:
    found = c_void_p()
    code = cu.cuModuleGetFunction(byref(found), module, name)
    if code != 0:
        raise SystemExit(f"cuModuleGetFunction: {name_of(code)}")
    return found


def allocate(size: int = 1024) -> c_ulonglong:
    at = c_ulonglong()
    code = cu.cuMemAlloc_v2(byref(at), c_size_t(size))
    if code != 0:
        raise SystemExit(f"cuMemAlloc: {name_of(code)}")
    return at


def launch(
    f: c_void_p,
    *arguments: object,
    grid: int = 1,
    block: int = 1,
    shared: int = 0,
    stream: object = None,
) -> int:
    pointers = (c_void_p * max(1, len(arguments)))(
        *[ctypes.cast(byref(a), c_void_p) for a in arguments]
    )
    return cu.cuLaunchKernel(
        f, grid, 1, 1, block, 1, 1, shared, stream, pointers if arguments else None, None
    )
