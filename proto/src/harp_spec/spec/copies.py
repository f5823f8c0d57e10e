"""Copies and memsets.

Bytes that leave the program are captured before the call returns, so host-to-device copies need no
reply: the client knows the allocation's bounds. Large copies travel in pieces.
"""

from harp_spec.codecs import BYTES, COPY_STREAM, DEVICE_POINTER, PAYLOAD, STREAM, U32, U64
from harp_spec.spec.session import HALF_NAME
from harp_spec.spec.vocabulary import DATA, ONE_WAY, REPLY, VALUE, Area, Custom, Device, Pitch, Use
from harp_spec.spec.vocabulary import STREAM as ON_STREAM

COPIES = Area("copies", 0x0500)

SPAN_ERRORS = ("INVALID_VALUE", "INVALID_CONTEXT", "INVALID_HANDLE")
HOST_MEMORY = Custom("reads or writes the program's memory and checks bounds")
BETWEEN_SERVERS = Custom("between two servers the bytes go through the program")
CLASSIFIES = "each pointer may be the host's or a device's"

COPIES.wire(
    "cuMemcpyHtoD_v2",
    0x0501,
    ONE_WAY,
    {"dst": DEVICE_POINTER, "stream": COPY_STREAM, "data": PAYLOAD},
    client=HOST_MEMORY,
    server=Custom("the payload must outlive an asynchronous copy"),
    predicts=SPAN_ERRORS,
    record="blob",
)
COPIES.wire(
    "harp_copy_cached",
    0x0509,
    ONE_WAY,
    {"dst": DEVICE_POINTER, "stream": COPY_STREAM, "piece": U32, "proof": HALF_NAME},
    client=Custom("in place of cuMemcpyHtoD_v2 where the server has fetched the very bytes"),
    server=Custom("the bytes are those that harp_cache_fetch has read"),
    record="blob",
)
COPIES.via("cuMemcpyHtoDAsync_v2", ONE_WAY, "cuMemcpyHtoD_v2", "harp_copy_cached")
COPIES.wire(
    "cuMemcpyDtoH_v2",
    0x0502,
    REPLY,
    {"src": DEVICE_POINTER, "bytes": U64, "stream": COPY_STREAM},
    {"data": BYTES},
    client=HOST_MEMORY,
    server=Custom("waits for the stream, not on the executor"),
    waits=True,
    record="blob",
    because=DATA,
)
# To page-locked memory nobody waits for the bytes, which are sent in the order of the stream:
# what tells a program afterwards that the copy is over comes behind them.
COPIES.wire(
    "cuMemcpyDtoHAsync_v2",
    0x050A,
    REPLY,
    {"src": DEVICE_POINTER, "bytes": U64, "stream": STREAM},
    {"data": BYTES},
    client=HOST_MEMORY,
    server=Custom("the stream itself sends the bytes"),
    record="blob",
    because=DATA,
)
COPIES.call(
    "cuMemcpyDtoDAsync_v2",
    0x0503,
    ONE_WAY,
    {
        "dstDevice": Device(writes="ByteCount"),
        "srcDevice": Device(reads="ByteCount"),
        "ByteCount": VALUE,
        "hStream": ON_STREAM,
    },
    client=BETWEEN_SERVERS,
    needs_context=False,
    predicts=SPAN_ERRORS,
)
COPIES.on_default_stream("cuMemcpyDtoD_v2", "cuMemcpyDtoDAsync_v2", BETWEEN_SERVERS)
COPIES.call(
    "cuMemcpyPeerAsync",
    0x0504,
    ONE_WAY,
    {
        "dstDevice": Device(writes="ByteCount"),
        "dstContext": Use("Context"),
        "srcDevice": Device(reads="ByteCount"),
        "srcContext": Use("Context"),
        "ByteCount": VALUE,
        "hStream": ON_STREAM,
    },
    client=BETWEEN_SERVERS,
    needs_context=False,
    predicts=SPAN_ERRORS,
)
# Its own call: unlike the one with a stream it is ordered with all work of both contexts.
COPIES.call(
    "cuMemcpyPeer",
    0x0508,
    ONE_WAY,
    {
        "dstDevice": Device(writes="ByteCount"),
        "dstContext": Use("Context"),
        "srcDevice": Device(reads="ByteCount"),
        "srcContext": Use("Context"),
        "ByteCount": VALUE,
    },
    client=BETWEEN_SERVERS,
    predicts=SPAN_ERRORS,
)
for copy in ("cuMemcpy", "cuMemcpyAsync"):
    COPIES.via(
        copy,
        REPLY,
        "cuMemcpyHtoD_v2",
        "cuMemcpyDtoH_v2",
        "cuMemcpyDtoDAsync_v2",
        reason=CLASSIFIES,
    )

#: A box: rows of `width` bytes, `height` rows a slice, `depth` slices. A payload is packed.
EXTENT = {"width": U64, "height": U64, "depth": U64, "stream": COPY_STREAM}
COPIES.wire(
    "harp_copy_box_to_device",
    0x0505,
    ONE_WAY,
    {
        "dst": DEVICE_POINTER,
        "dst_pitch": U64,
        "dst_slice_pitch": U64,
        **EXTENT,
        "data": PAYLOAD,
    },
    client=HOST_MEMORY,
    server=Custom("2D and 3D copies from linear host memory"),
    record="blob",
)
COPIES.wire(
    "harp_copy_box_to_host",
    0x0506,
    REPLY,
    {"src": DEVICE_POINTER, "src_pitch": U64, "src_slice_pitch": U64, **EXTENT},
    {"data": BYTES},
    client=HOST_MEMORY,
    server=Custom("2D and 3D copies to linear host memory"),
    waits=True,
    record="blob",
    because=DATA,
)
COPIES.wire(
    "harp_copy_box_on_device",
    0x0507,
    ONE_WAY,
    {
        "dst": DEVICE_POINTER,
        "dst_pitch": U64,
        "dst_slice_pitch": U64,
        "src": DEVICE_POINTER,
        "src_pitch": U64,
        "src_slice_pitch": U64,
        "width": U64,
        "height": U64,
        "depth": U64,
        "stream": STREAM,
    },
    client=Custom("checks the bounds of both boxes"),
    server=Custom("2D and 3D copies between linear memory"),
)
for copy in (
    "cuMemcpy2D_v2",
    "cuMemcpy2DUnaligned_v2",
    "cuMemcpy2DAsync_v2",
    "cuMemcpy3D_v2",
    "cuMemcpy3DAsync_v2",
):
    COPIES.via(
        copy,
        REPLY,
        "harp_copy_box_to_device",
        "harp_copy_box_to_host",
        "harp_copy_box_on_device",
        reason=CLASSIFIES,
    )

MEMSET_IDS = range(0x0510, 0x0516)
for id, (bits, value) in zip(
    MEMSET_IDS[:3], (("8", "uc"), ("16", "us"), ("32", "ui")), strict=True
):
    COPIES.call(
        f"cuMemsetD{bits}Async",
        id,
        ONE_WAY,
        {
            "dstDevice": Device(writes=f"N * {int(bits) // 8}", aligned=int(bits) // 8),
            value: VALUE,
            "N": VALUE,
            "hStream": ON_STREAM,
        },
        needs_context=False,
        predicts=SPAN_ERRORS,
    )
    COPIES.via(f"cuMemsetD{bits}_v2", ONE_WAY, f"cuMemsetD{bits}Async")
for id, (bits, value) in zip(
    MEMSET_IDS[3:], (("8", "uc"), ("16", "us"), ("32", "ui")), strict=True
):
    COPIES.call(
        f"cuMemsetD2D{bits}Async",
        id,
        ONE_WAY,
        {
            "dstDevice": Device(
                writes=f"dstPitch * (Height - 1) + Width * {int(bits) // 8}",
                aligned=int(bits) // 8,
            ),
            "dstPitch": Pitch(row=f"Width * {int(bits) // 8}", rows="Height", unit=int(bits) // 8),
            value: VALUE,
            "Width": VALUE,
            "Height": VALUE,
            "hStream": ON_STREAM,
        },
        needs_context=False,
        predicts=SPAN_ERRORS,
    )
    COPIES.via(f"cuMemsetD2D{bits}_v2", ONE_WAY, f"cuMemsetD2D{bits}Async")
