"""Tensor maps: 128 opaque bytes that kernels of sm_90 and newer take as a parameter.

How they are encoded is known to the server's driver alone, so it makes them.
"""

from harp_spec.codecs import BYTES, DEVICE_POINTER, I32, U32, U64, sequence
from harp_spec.spec.vocabulary import CHOSEN, REPLY, Area, Custom

TENSOR_MAPS = Area("tensor maps", 0x0900)

TENSOR = {
    "data_type": U32,
    "address": DEVICE_POINTER,
    "dims": sequence(U64),
    "strides": sequence(U64),
    "element_strides": sequence(U32),
}
READING = {"interleave": U32, "swizzle": U32, "l2_promotion": U32, "out_of_bounds": U32}
MAP = {"map": BYTES}
READS_ARRAYS = Custom("reads arrays whose lengths follow from the rank")
CHECKS_LENGTHS = Custom("checks that the arrays are as long as the rank says")

TENSOR_MAPS.wire(
    "cuTensorMapEncodeTiled",
    0x0901,
    REPLY,
    {**TENSOR, "extent": sequence(U32), **READING},
    MAP,
    client=READS_ARRAYS,
    server=CHECKS_LENGTHS,
    because=CHOSEN,
)
TENSOR_MAPS.wire(
    "cuTensorMapEncodeIm2col",
    0x0902,
    REPLY,
    {
        **TENSOR,
        "lower": sequence(I32),
        "upper": sequence(I32),
        "channels_per_pixel": U32,
        "pixels_per_column": U32,
        **READING,
    },
    MAP,
    client=READS_ARRAYS,
    server=CHECKS_LENGTHS,
    because=CHOSEN,
)
TENSOR_MAPS.wire(
    "cuTensorMapReplaceAddress",
    0x0903,
    REPLY,
    {"map": BYTES, "address": DEVICE_POINTER},
    MAP,
    client=Custom("sends the map there and back"),
    server=CHECKS_LENGTHS,
    because=CHOSEN,
)
