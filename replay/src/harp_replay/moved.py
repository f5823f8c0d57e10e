"""What a call gives a device to do: kernels with their shapes, copies and fills with bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from harp_replay.events import Call

TO_DEVICE = "[CUDA memcpy Host-to-Device]"
TO_HOST = "[CUDA memcpy Device-to-Host]"
ON_DEVICE = "[CUDA memcpy Device-to-Device]"
BETWEEN = "[CUDA memcpy Peer-to-Peer]"
FILL = "[CUDA memset]"

MOST = (1 << 63) - 1
"""No call moves more bytes; what says so is no call of a program."""

PER_THREAD = 2
"""Stands for the stream that each thread has for itself."""

WIDTHS = {"D8": 1, "D16": 2, "D32": 4}


class Move(NamedTuple):
    """Bytes that a call copies or sets; the operation is called as nsys does."""

    operation: str
    bytes: int


def move(call: Call) -> Move | None:
    """What `call` copies or sets, or None for one that does neither."""
    operation = operation_of(call.name)
    if operation is None:
        return None
    return Move(operation, min(_bytes(call), MOST))


def operation_of(name: str) -> str | None:
    """The operation of a call of the wire, by its name."""
    if name.startswith("cuMemset"):
        return FILL
    if name.startswith(("cuMemcpyHtoD", "harp_copy_box_to_device", "harp_copy_cached")):
        return TO_DEVICE
    if name.startswith(("cuMemcpyDtoH", "harp_copy_box_to_host")):
        return TO_HOST
    if name.startswith(("cuMemcpyDtoD", "harp_copy_box_on_device")):
        return ON_DEVICE
    return BETWEEN if name.startswith("cuMemcpyPeer") else None


def _bytes(call: Call) -> int:
    args = call.args
    if call.payload is not None:
        return call.payload.bytes
    data = args.get("data")
    if isinstance(data, Mapping):
        return _number(data, "bytes")
    for key in ("ByteCount", "bytes"):
        if key in args:
            return _number(args, key)
    if call.name.startswith("cuMemset"):
        width = next((size for word, size in WIDTHS.items() if word in call.name[8:]), 1)
        if "N" in args:
            return width * _number(args, "N")
        return width * _number(args, "Width") * _number(args, "Height")
    return _number(args, "width") * _number(args, "height") * _number(args, "depth")


def _number(of: Mapping[str, Any], key: str) -> int:
    value = of.get(key, 0)
    return value if type(value) is int and 0 <= value < 1 << 63 else 0


def shape(call: Call) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Grid and block of a launch."""
    grid, block = call.args.get("grid"), call.args.get("block")
    if isinstance(grid, list) and isinstance(block, list):
        numbers = [*grid[:3], *block[:3]]
        if all(type(number) is int for number in numbers):
            return tuple(grid[:3]), tuple(block[:3])
    return None


def stream(call: Call) -> int | None:
    """The stream that `call` is queued in, by its serial number; 0 for the default stream.

    The default stream that a thread has for itself is minus the thread's number. None for a call
    that is in none.
    """
    for key in ("stream", "hStream"):
        if key in call.args:
            value = call.args[key]
            if isinstance(value, Mapping):
                return _number(value, "id")
            return -call.thread if value == PER_THREAD else 0
    return None
