"""Sizes, shares, times and labels as people write them on a command line, and read them."""

import math
import re
from collections.abc import Iterable

from harp_client.errors import HarpError

GIB = 1 << 30
WHOLE = 1000
"""Per mille of compute that a device has."""

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
NANOSECONDS = {"ns": 1, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9}
BITS = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}

BYTES_MOST = 1 << 63
SECONDS_MOST = 100 * 365 * 86_400
"""More is a slip of the hand, and no clock or message would take it."""


def size(text: str) -> int:
    """Bytes of `8GiB`, `512M`, `1073741824`. Raises HarpError (2)."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    count = float(found[1]) * UNITS[found[2].upper()] if found else BYTES_MOST
    if count >= BYTES_MOST:
        raise HarpError(f"{text!r} is no size of memory", "write it like 8GiB or 512M", 2)
    return int(count)


def readable(count: float) -> str:
    """Bytes with a unit, of four digits at most: `512 B`, `1.5 MiB`."""
    if count < 1 << 10:
        return f"{count:.0f} B"
    unit = next((name for name in "KMG" if count < UNITS[name] << 10), "T")
    return f"{count / UNITS[unit]:,.1f} {unit}iB"


def nanoseconds(text: str) -> float:
    """Nanoseconds of `200us`, `0.2ms`, `1s`. Raises HarpError (2)."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ns|us|µs|ms|s)", text.strip())
    time = float(found[1]) * NANOSECONDS[found[2]] if found else math.inf
    if time > SECONDS_MOST * 1e9:
        raise HarpError(f"{text!r} is no round trip", "write it like 0.2ms or 150us", 2)
    return time


def bit_rate(text: str) -> float:
    """Bits a second of `10Gbit`, `100Mbit/s`. Raises HarpError (2)."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)bit(?:/s)?", text.strip())
    rate = float(found[1]) * BITS[found[2]] if found else 0.0
    if not 0 < rate < math.inf:
        raise HarpError(f"{text!r} is no bandwidth", "write it like 10Gbit or 100Mbit", 2)
    return rate


def per_mille(text: str, most: float = WHOLE) -> int:
    """Per mille of a device of `50%` or `0.5`. Raises HarpError (2), also above `most`."""
    try:
        value = float(text[:-1]) * 10 if text.endswith("%") else float(text) * WHOLE
    except ValueError:
        value = 0.0
    if not 1 <= value <= most:
        raise HarpError(f"{text!r} is no share of a device", "write it like 50%", 2)
    return round(value)


def seconds(text: str) -> float:
    """Seconds of `90`, `90s`, `5m`, `2h`, `7d`. Raises HarpError (2)."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    time = float(found[1]) * SECONDS[found[2]] if found else math.inf
    if time > SECONDS_MOST:
        raise HarpError(f"{text!r} is no time", "write it like 90s, 5m or 2h", 2)
    return time


def as_labels(words: Iterable[str]) -> dict[str, str]:
    """The labels of `NAME=VALUE` words. Raises HarpError (2)."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise HarpError(f"{word!r} is not a label", "write NAME=VALUE, such as rack=r1", 2)
        found[name] = value
    return found
