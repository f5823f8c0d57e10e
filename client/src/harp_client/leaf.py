"""What a member's own certificate says of it, read without a library of X.509: loading one takes
longer than all the rest that `harp-run` does before the program starts.

Nothing is verified: the file is its reader's own, and whoever it is shown to verifies it.
"""

from __future__ import annotations

import binascii
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from harp_client.errors import HarpError

SEQUENCE, OCTETS, OBJECT = 0x30, 0x04, 0x06
EXTENSIONS = 0xA3
"""The optional field of a certificate that holds its extensions (RFC 5280 section 4.1)."""

URI = 0x86
"""The kind of a subject alternative name that is a URI (RFC 5280 section 4.2.1.6)."""

ALTERNATIVE_NAMES = bytes.fromhex("551d11")
"""The extension's object identifier, 2.5.29.17."""

BEGIN, END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"


class Leaf(NamedTuple):
    """The first certificate of a file."""

    identity: str
    """The SPIFFE URI, or ''."""

    not_valid_before_utc: datetime.datetime
    not_valid_after_utc: datetime.datetime


def read(path: Path) -> Leaf:
    """Reads it. Raises HarpError."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise HarpError(f"no credentials: {path}: {error.strerror}", "harp join") from error
    try:
        return parse(binascii.a2b_base64(text.split(BEGIN, 1)[1].split(END, 1)[0]))
    except (ValueError, IndexError) as error:
        raise HarpError(f"{path} is not a PEM certificate", "harp join") from error


def parse(der: bytes) -> Leaf:
    """What a DER certificate says. Raises ValueError or IndexError where it is none."""
    (_, certificate), *_ = _elements(der)
    (_, signed), *_ = _elements(certificate)
    fields = list(_elements(signed))
    # Serial number, algorithm, issuer, validity, subject, key; before them the version, behind them
    # what is optional.
    first = 1 if fields[0][0] == 0xA0 else 0
    begins, ends = (_time(tag, value) for tag, value in _elements(fields[first + 3][1]))
    extensions = next((value for tag, value in fields[first + 6 :] if tag == EXTENSIONS), b"")
    return Leaf(_identity(extensions), begins, ends)


def _identity(extensions: bytes) -> str:
    for _, listed in _elements(extensions):
        for _, extension in _elements(listed):
            parts = list(_elements(extension))
            if parts[0] == (OBJECT, ALTERNATIVE_NAMES) and parts[-1][0] == OCTETS:
                (_, names), *_ = _elements(parts[-1][1])
                return next((name.decode() for tag, name in _elements(names) if tag == URI), "")
    return ""


def _time(tag: int, value: bytes) -> datetime.datetime:
    """UTCTime until 2049, GeneralizedTime from then on (RFC 5280 section 4.1.2.5)."""
    text = value.decode("ascii")
    if tag == 0x17:
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    return datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC)


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tags and contents of DER elements in a row."""
    at = 0
    while at < len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        if at + length > len(data):
            raise ValueError("a DER element that is cut off")
        yield tag, data[at : at + length]
        at += length
