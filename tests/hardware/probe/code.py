"""Modules, libraries, functions and launches."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_ulonglong, c_void_p

from .driver import PTX, allocate, begin, cu, function, launch, load, section, tell, value


@section
def modules() -> None:
    begin()
    p, q, s, x = c_void_p(), c_ulonglong(), c_size_t(), c_int()
    tell("load null", cu.cuModuleLoadData(byref(p), None))
    tell("load nonsense", cu.cuModuleLoadData(byref(p), b"nonsense that is no image at all"))
    tell("load empty", cu.cuModuleLoadData(byref(p), b""))
    tell(
        "load bad PTX",
        cu.cuModuleLoadData(
            byref(p), b".version 7.0\n.target sm_50\n.address_size 64\n.entry x() { foo.bar; }\n"
        ),
    )
    tell(
        "load PTX of version 99",
        cu.cuModuleLoadData(
            byref(p), b".version 99.0\n.target sm_50\n.address_size 64\n.entry x() { ret; }\n"
        ),
    )
    tell(
        "load PTX of sm_999",
        cu.cuModuleLoadData(
            byref(p), b".version 7.0\n.target sm_999\n.address_size 64\n.entry x() { ret; }\n"
        ),
    )
    tell(
        "load PTX with an unresolved function",
        cu.cuModuleLoadData(
            byref(p),
            b".version 7.0\n.target sm_50\n.address_size 64\n.extern .func gone();\n"
            b".visible .entry x() { call gone; ret; }\n",
        ),
    )
    tell("load a cut ELF", cu.cuModuleLoadData(byref(p), b"\x7fELF\x02\x01\x01" + bytes(200)))
    tell("load file absent", cu.cuModuleLoad(byref(p), b"/nonexistent"))
    module = load()
    tell("function absent", cu.cuModuleGetFunction(byref(p), module, b"absent"))
    tell("function null name", cu.cuModuleGetFunction(byref(p), module, None))
    tell("global", cu.cuModuleGetGlobal_v2(byref(q), byref(s), module, b"counter"), value(s.value))
    tell("global absent", cu.cuModuleGetGlobal_v2(byref(q), byref(s), module, b"absent"))
    tell("global is a function", cu.cuModuleGetGlobal_v2(byref(q), byref(s), module, b"nothing"))
    f = function(module, b"store")
    for number in range(16):
        tell(
            f"function attribute {number}",
            cu.cuFuncGetAttribute(byref(x), number, f),
            value(x.value)
            if number in (0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15) and number not in (4,)
            else "",
        )
    tell("function attribute 99", cu.cuFuncGetAttribute(byref(x), 99, f))
    tell("function attribute of null", cu.cuFuncGetAttribute(byref(x), 0, None))
    tell("set read-only attribute", cu.cuFuncSetAttribute(f, 0, 4))
    tell("set shared size", cu.cuFuncSetAttribute(f, 8, 1 << 15))
    tell("set shared size too large", cu.cuFuncSetAttribute(f, 8, 1 << 30))
    tell("set carveout 101", cu.cuFuncSetAttribute(f, 9, 101))
    offset = c_size_t()
    for index in (0, 1, 2):
        tell(
            f"parameter {index}",
            cu.cuFuncGetParamInfo(f, c_size_t(index), byref(offset), byref(s)),
            value(offset.value),
            value(s.value),
        )
    library, kernel = c_void_p(), c_void_p()
    tell("library", cu.cuLibraryLoadData(byref(library), PTX, None, None, 0, None, None, 0))
    tell("kernel", cu.cuLibraryGetKernel(byref(kernel), library, b"store"))
    tell("kernel absent", cu.cuLibraryGetKernel(byref(p), library, b"absent"))
    tell("cuFuncGetAttribute of a kernel", cu.cuFuncGetAttribute(byref(x), 0, kernel))
    tell("cuFuncSetAttribute of a kernel", cu.cuFuncSetAttribute(kernel, 8, 1 << 15))
    tell(
        "cuFuncGetParamInfo of a kernel",
        cu.cuFuncGetParamInfo(kernel, c_size_t(0), byref(offset), byref(s)),
    )
    tell("cuFuncGetModule of a kernel", cu.cuFuncGetModule(byref(p), kernel))
    name = c_char_p()
    tell("cuFuncGetName of a kernel", cu.cuFuncGetName(byref(name), kernel))
    tell(
        "occupancy of a kernel",
        cu.cuOccupancyMaxActiveBlocksPerMultiprocessor(byref(x), kernel, 64, c_size_t(0)),
    )
    at = allocate()
    tell("launch of a kernel", launch(kernel, at, c_uint(1)), cu.cuCtxSynchronize())
    g, h = c_void_p(), c_void_p()
    tell(
        "function of the kernel",
        cu.cuKernelGetFunction(byref(g), kernel),
        "same" if g.value == kernel.value else "another",
    )
    tell(
        "again",
        cu.cuKernelGetFunction(byref(h), kernel),
        "same" if g.value == h.value else "another",
    )
    tell("cuKernelGetAttribute of a function", cu.cuKernelGetAttribute(byref(x), 0, g, 0))
    tell("cuKernelGetFunction of a function", cu.cuKernelGetFunction(byref(h), g))
    tell("attribute of its function", cu.cuFuncGetAttribute(byref(x), 0, g), value(x.value))
    tell("cuKernelGetAttribute device 99", cu.cuKernelGetAttribute(byref(x), 0, kernel, 99))
    tell("global of the library", cu.cuLibraryGetGlobal(byref(q), byref(s), library, b"counter"))
    tell(
        "global absent of the library",
        cu.cuLibraryGetGlobal(byref(q), byref(s), library, b"absent"),
    )
    tell("module of the library", cu.cuLibraryGetModule(byref(p), library))
    tell("unload the library", cu.cuLibraryUnload(library))
    tell("unload", cu.cuModuleUnload(module))
    info, error = ctypes.create_string_buffer(4096), ctypes.create_string_buffer(4096)
    options = (c_int * 4)(3, 4, 5, 6)
    values = (c_void_p * 4)(ctypes.addressof(info), 4096, ctypes.addressof(error), 4096)
    tell(
        "load bad PTX with logs",
        cu.cuModuleLoadDataEx(
            byref(p),
            b".version 7.0\n.target sm_50\n.address_size 64\n.entry x() { foo.bar; }\n",
            4,
            options,
            values,
        ),
        "log" if error.value else "no log",
        value((values[1] or 0) > 0),
        value((values[3] or 0) > 0),
    )
    tell("its log", repr(error.value))
    state = c_void_p()
    tell("link create", cu.cuLinkCreate_v2(0, None, None, byref(state)))
    tell(
        "link PTX",
        cu.cuLinkAddData_v2(state, 1, PTX, c_size_t(len(PTX) + 1), b"probe", 0, None, None),
    )
    tell(
        "link nonsense",
        cu.cuLinkAddData_v2(state, 1, b"nonsense\0", c_size_t(9), b"probe", 0, None, None),
    )
    tell("link add file absent", cu.cuLinkAddFile_v2(state, 1, b"/nonexistent", 0, None, None))
    cubin, size = c_void_p(), c_size_t()
    tell("link complete", cu.cuLinkComplete(state, byref(cubin), byref(size)))
    tell("link destroy", cu.cuLinkDestroy(state))


@section
def launches() -> None:
    begin()
    module = load()
    nothing, store, wide = (function(module, n) for n in (b"nothing", b"store", b"wide"))
    at = allocate()
    tell("good", launch(nothing), cu.cuCtxSynchronize())
    for what, grid, block in (
        ("no threads", (1, 1, 1), (0, 1, 1)),
        ("no blocks", (0, 1, 1), (1, 1, 1)),
        ("1025 threads", (1, 1, 1), (1025, 1, 1)),
        ("32x32x2 threads", (1, 1, 1), (32, 32, 2)),
        ("a block 65 deep", (1, 1, 1), (1, 1, 65)),
        ("a grid 65536 high", (1, 65536, 1), (1, 1, 1)),
        ("a grid of 2^31", (1 << 31, 1, 1), (1, 1, 1)),
        ("a grid of 2^31-1 x 65535", ((1 << 31) - 1, 65535, 65535), (0, 1, 1)),
    ):
        tell(what, cu.cuLaunchKernel(nothing, *grid, *block, 0, None, None, None))
    tell("more threads than maxntid", launch(wide, block=65))
    tell("shared 48 KiB + 1", launch(nothing, shared=(48 << 10) + 1))
    tell("shared 1 MiB", launch(nothing, shared=1 << 20))
    tell("null function", launch(c_void_p()))
    tell("no parameters", cu.cuLaunchKernel(store, 1, 1, 1, 1, 1, 1, 0, None, None, None))
    pointers = (c_void_p * 2)(ctypes.cast(byref(at), c_void_p), None)
    buffer = (ctypes.c_char * 12)()
    size = c_size_t(12)
    extra = (c_void_p * 5)(1, ctypes.addressof(buffer), 2, ctypes.addressof(size), 0)
    ctypes.memmove(buffer, byref(at), 8)
    tell(
        "parameters by buffer",
        cu.cuLaunchKernel(store, 1, 1, 1, 1, 1, 1, 0, None, None, extra),
        cu.cuCtxSynchronize(),
    )
    size.value = 8
    tell("buffer too short", cu.cuLaunchKernel(store, 1, 1, 1, 1, 1, 1, 0, None, None, extra))
    size.value = 12
    tell("both forms", cu.cuLaunchKernel(store, 1, 1, 1, 1, 1, 1, 0, None, pointers, extra))
    tell(
        "cooperative",
        cu.cuLaunchCooperativeKernel(nothing, 1, 1, 1, 32, 1, 1, 0, None, None),
        cu.cuCtxSynchronize(),
    )
    tell(
        "cooperative too large",
        cu.cuLaunchCooperativeKernel(nothing, 1 << 20, 1, 1, 1024, 1, 1, 0, None, None),
    )
    x = c_int()
    tell(
        "occupancy",
        cu.cuOccupancyMaxActiveBlocksPerMultiprocessor(byref(x), nothing, 1024, c_size_t(0)),
        value(x.value),
    )
    tell(
        "occupancy of 1025",
        cu.cuOccupancyMaxActiveBlocksPerMultiprocessor(byref(x), nothing, 1025, c_size_t(0)),
        value(x.value),
    )
    tell(
        "occupancy of 0",
        cu.cuOccupancyMaxActiveBlocksPerMultiprocessor(byref(x), nothing, 0, c_size_t(0)),
    )
    tell("after all", cu.cuCtxSynchronize())


PRINTING = rb"""
.version 7.0
.target sm_50
.address_size 64
.extern .func (.param .b32 status) vprintf (.param .b64 format, .param .b64 arguments);
.global .align 1 .b8 text[4] = {104, 105, 10, 0};
.visible .entry say(.param .u64 unused) {
  .reg .b64 %p; .reg .b32 %r;
  cvta.global.u64 %p, text;
  { .param .b64 format; .param .b64 arguments; .param .b32 status;
    st.param.b64 [format], %p; st.param.b64 [arguments], 0;
    call.uni (status), vprintf, (format, arguments); ld.param.b32 %r, [status]; }
  ret;
}
"""


@section
def printing() -> None:
    """A kernel that prints, asked about before anything has loaded it."""
    begin()
    library, kernel, f, x = c_void_p(), c_void_p(), c_void_p(), c_int()
    offset, size, name = c_size_t(), c_size_t(), c_char_p()
    code = cu.cuLibraryLoadData(byref(library), PRINTING, None, None, 0, None, None, 0)
    tell("library", code)
    tell("kernel", cu.cuLibraryGetKernel(byref(kernel), library, b"say"))
    tell("name", cu.cuKernelGetName(byref(name), kernel))
    for index in (0, 1):
        code = cu.cuKernelGetParamInfo(kernel, c_size_t(index), byref(offset), byref(size))
        tell(f"parameter {index}", code)
    for number in range(16):
        tell(f"attribute {number}", cu.cuKernelGetAttribute(byref(x), number, kernel, 0))
    tell("function", cu.cuKernelGetFunction(byref(f), kernel))
    at = allocate()
    tell("launch", launch(f, at), cu.cuCtxSynchronize())
