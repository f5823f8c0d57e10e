"""Streams, events and capture."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_float, c_int, c_size_t, c_uint, c_ulonglong, c_void_p

from .driver import allocate, begin, cu, function, launch, load, section, tell, value


@section
def streams() -> None:
    begin()
    module = load()
    spin = function(module, b"spin")
    p, event, other, late = c_void_p(), c_void_p(), c_void_p(), c_void_p()
    n, ms = c_uint(), c_float()
    tell("create flags 2", cu.cuStreamCreate(byref(p), 2))
    tell("create", cu.cuStreamCreate(byref(p), 1))
    tell("flags", cu.cuStreamGetFlags(p, byref(n)), value(n.value))
    tell("flags of null", cu.cuStreamGetFlags(None, byref(n)), value(n.value))
    least, greatest, x = c_int(), c_int(), c_int()
    tell(
        "priorities",
        cu.cuCtxGetStreamPriorityRange(byref(least), byref(greatest)),
        value(least.value),
        value(greatest.value),
    )
    tell("create priority -99", cu.cuStreamCreateWithPriority(byref(other), 1, -99))
    tell("its priority", cu.cuStreamGetPriority(other, byref(x)), value(x.value))
    tell("event flags 99", cu.cuEventCreate(byref(event), 99))
    tell("event flags 4 (interprocess without no-timing)", cu.cuEventCreate(byref(event), 4))
    cu.cuEventCreate(byref(event), 0)
    tell("query unrecorded", cu.cuEventQuery(event))
    tell("synchronize unrecorded", cu.cuEventSynchronize(event))
    tell("elapsed unrecorded", cu.cuEventElapsedTime(byref(ms), event, event))
    tell("wait for unrecorded", cu.cuStreamWaitEvent(p, event, 0))
    tell("wait flags 99", cu.cuStreamWaitEvent(p, event, 99))
    cu.cuEventCreate(byref(late), 2)
    launch(spin, c_ulonglong(300_000_000), stream=p)
    tell("query busy stream", cu.cuStreamQuery(p))
    cu.cuEventRecord(event, p)
    cu.cuEventRecord(late, p)
    tell("query busy event", cu.cuEventQuery(event))
    tell("elapsed of busy events", cu.cuEventElapsedTime(byref(ms), event, event))
    tell("elapsed without timing", cu.cuEventElapsedTime(byref(ms), late, event))
    tell("null stream is idle", cu.cuStreamQuery(None))
    tell("destroy a busy stream", cu.cuStreamDestroy_v2(p))
    tell("destroy a busy event", cu.cuEventDestroy_v2(event))
    tell("synchronize", cu.cuCtxSynchronize())
    tell("destroy null stream", cu.cuStreamDestroy_v2(None))
    tell("destroy legacy stream", cu.cuStreamDestroy_v2(c_void_p(1)))
    tell("destroy null event", cu.cuEventDestroy_v2(None))
    tell("query event null", cu.cuEventQuery(None))
    tell("record null event", cu.cuEventRecord(None, None))
    tell("add callback flags 1", cu.cuStreamAddCallback(None, c_void_p(1), None, 1))
    tell("host function null", cu.cuLaunchHostFunc(None, None, None))
    tell("attach", cu.cuStreamAttachMemAsync(None, c_ulonglong(0), c_size_t(0), 1))
    ids = c_ulonglong()
    tell("id of null stream", cu.cuStreamGetId(None, byref(ids)), value(ids.value))
    tell("id of legacy stream", cu.cuStreamGetId(c_void_p(1), byref(ids)), value(ids.value))
    tell("id of per-thread stream", cu.cuStreamGetId(c_void_p(2), byref(ids)), value(ids.value))


@section
def capture() -> None:
    begin()
    module = load()
    nothing = function(module, b"nothing")
    p, graph, run, x = c_void_p(), c_void_p(), c_void_p(), c_int()
    host = ctypes.create_string_buffer(64)
    at = allocate()
    cu.cuStreamCreate(byref(p), 1)
    tell("capturing null stream", cu.cuStreamIsCapturing(None, byref(x)), value(x.value))
    tell("begin on null stream", cu.cuStreamBeginCapture_v2(None, 0))
    tell("begin", cu.cuStreamBeginCapture_v2(p, 0))
    tell("begin twice", cu.cuStreamBeginCapture_v2(p, 0))
    tell("capturing", cu.cuStreamIsCapturing(p, byref(x)), value(x.value))
    tell("launch", launch(nothing, stream=p))
    tell("copy", cu.cuMemcpyHtoDAsync_v2(at, host, c_size_t(4), p))
    tell("alloc while capturing", cu.cuMemAlloc_v2(byref(c_ulonglong()), c_size_t(4)))
    tell("capturing still", cu.cuStreamIsCapturing(p, byref(x)), value(x.value))
    tell("stream synchronize", cu.cuStreamSynchronize(p))
    tell("query", cu.cuStreamQuery(p))
    tell("capturing broken", cu.cuStreamIsCapturing(p, byref(x)), value(x.value))
    tell("end", cu.cuStreamEndCapture(p, byref(graph)))
    tell("begin again", cu.cuStreamBeginCapture_v2(p, 0))
    tell("launch", launch(nothing, stream=p))
    tell("end", cu.cuStreamEndCapture(p, byref(graph)))
    count = c_size_t()
    tell("nodes", cu.cuGraphGetNodes(graph, None, byref(count)), value(count.value))
    tell("instantiate", cu.cuGraphInstantiateWithFlags(byref(run), graph, c_ulonglong(0)))
    tell("launch graph", cu.cuGraphLaunch(run, p), cu.cuStreamSynchronize(p))
    tell("end without begin", cu.cuStreamEndCapture(p, byref(graph)))
