"""One call to a scheduler over a connection of its own, without gRPC's library: loading that takes
longer than all else that `harp-run` does before the program starts.

It understands what a scheduler answers when all is well, and refusals. Whatever else comes is
`Unclear`: the caller makes the call again through gRPC, which tries longer and says what is wrong.

    connection preface, SETTINGS, WINDOW_UPDATE, HEADERS, DATA     there (RFC 9113)
    HEADERS, DATA, ..., HEADERS with `grpc-status`                 back

Neither end compresses headers: we send literals, and a table of size 0 (RFC 7541) leaves the peer
nothing to refer to.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
from collections.abc import Iterator, Mapping

from harp_client.target import CREDENTIAL_FILES, SCHEDULER_NAME

CONNECT_SECONDS = 1.0
SILENCE_SECONDS = 3.0
"""How long nothing may come of an answer."""

LARGEST_ANSWER = 64 << 20
"""Bytes: the window that a peer is given. It gets no other, so what is longer is Unclear."""

LARGEST_HEADERS = 64 << 10
LARGEST_FRAME = 1 << 14
"""Bytes that each end takes in one frame, where it has said nothing of it."""

MESSAGE_HEAD = struct.Struct(">?I")
"""Of a message of gRPC's: whether it is compressed, and its length."""

STREAM = 1
STATUS = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
"""gRPC's names of its status codes."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 4, 6, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
HEADER_TABLE_SIZE, ENABLE_PUSH, INITIAL_WINDOW_SIZE = 1, 2, 4

PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
"""Variables by which gRPC is told to connect by way of a proxy. That is left to it."""


class Unclear(Exception):
    """There is no answer, or none that is understood."""


class Refused(Exception):
    """The scheduler's own refusal."""

    def __init__(self, code: str, details: str, metadata: Mapping[str, str]) -> None:
        """`code` is gRPC's name for it; `metadata` what trails the answer."""
        super().__init__(details)
        self.code, self.details, self.metadata = code, details, metadata


def answers(address: str, credentials: str, path: str, request: bytes) -> Iterator[bytes]:
    """The messages that answer a call to `path` (`/SERVICE/METHOD`). `credentials`: the user's
    folder. Raises Unclear, Refused."""
    if len(request) > LARGEST_FRAME - MESSAGE_HEAD.size:
        raise Unclear("a long request")
    if any(name in os.environ for name in PROXIES):
        raise Unclear("a proxy")
    try:
        with _connected(address, credentials) as connection:
            connection.sendall(_asking(path, request))
            yield from _Answer(connection).messages()
    except (OSError, EOFError, ValueError, LookupError, struct.error) as error:
        raise Unclear(str(error)) from error


def _connected(address: str, credentials: str) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    trusted, certificate, key = (os.path.join(credentials, name) for name in CREDENTIAL_FILES)
    context.load_verify_locations(trusted)
    # A password, so that nobody is asked for one.
    context.load_cert_chain(certificate, key, password="")
    host, _, port = address.rpartition(":")
    plain = socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS)
    plain.settimeout(SILENCE_SECONDS)
    connection = context.wrap_socket(plain, server_hostname=SCHEDULER_NAME)  # closes it, failing
    if connection.selected_alpn_protocol() != "h2":
        connection.close()
        raise ValueError("it does not speak HTTP/2")
    return connection


def _asking(path: str, request: bytes) -> bytes:
    """Everything that we send of our own accord."""
    settings = ((HEADER_TABLE_SIZE, 0), (ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, LARGEST_ANSWER))
    headers = {
        ":method": "POST",
        ":scheme": "https",
        ":path": path,
        ":authority": SCHEDULER_NAME,
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return b"".join(
        (
            PREFACE,
            _frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *each) for each in settings)),
            _frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", LARGEST_ANSWER)),
            _frame(HEADERS, END_HEADERS, STREAM, b"".join(map(_literal, headers.items()))),
            _frame(DATA, END_STREAM, STREAM, MESSAGE_HEAD.pack(False, len(request)) + request),
        )
    )


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


def _literal(header: tuple[str, str]) -> bytes:
    """A header field without indexing, as it is (RFC 7541 section 6.2.2)."""
    return b"\0" + b"".join(_sized(text.encode()) for text in header)


def _sized(text: bytes) -> bytes:
    if len(text) < 0x7F:
        return bytes((len(text),)) + text
    rest = len(text) - 0x7F
    if rest > 0x3FFF:
        raise ValueError("a header that is too long")
    return bytes((0x7F, rest & 0x7F | 0x80, rest >> 7)) + text


class _Answer:
    """What comes back."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._connection = connection
        self._received = bytearray()

    def messages(self) -> Iterator[bytes]:
        """Each message when it has arrived, until the status is there, which is OK. Raises
        Refused, and whatever Python does for bytes that are not understood."""
        body, is_last = bytearray(), False
        while not is_last:
            kind, flags, stream, payload = self._frame()
            if kind == HEADERS and stream == STREAM:
                is_last = bool(flags & END_STREAM)
                block = payload
                while not flags & END_HEADERS:
                    kind, flags, stream, payload = self._frame()
                    block += payload
                    if (kind, stream) != (CONTINUATION, STREAM) or len(block) > LARGEST_HEADERS:
                        raise ValueError("headers without an end")
                if is_last:
                    _judge(dict(_fields(block)))
            elif kind == DATA and stream == STREAM and not flags:
                body += payload
                yield from _cut(body)
            elif kind in (SETTINGS, PING):
                if not flags & ACK:
                    answer = payload if kind == PING else b""
                    self._connection.sendall(_frame(kind, ACK, 0, answer))
            elif kind != WINDOW_UPDATE:
                raise ValueError(f"a frame of kind {kind}")
        if body:
            raise ValueError("a message that is cut off")

    def _frame(self) -> tuple[int, int, int, bytes]:
        """Kind, flags, stream and payload of the next frame."""
        word, flags, stream = struct.unpack(">IBI", self._take(9))
        if word >> 8 > LARGEST_FRAME:
            raise ValueError("a frame that is too large")
        return word & 0xFF, flags, stream, self._take(word >> 8)

    def _take(self, size: int) -> bytes:
        while len(self._received) < size:
            piece = self._connection.recv(LARGEST_FRAME)
            if not piece:
                raise EOFError
            self._received += piece
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken


def _cut(body: bytearray) -> Iterator[bytes]:
    """Takes the messages that are whole off the front of a stream's bytes."""
    while len(body) >= MESSAGE_HEAD.size:
        is_compressed, length = MESSAGE_HEAD.unpack_from(body)
        if is_compressed or length > LARGEST_ANSWER:
            raise ValueError("a message that nobody asked for")
        end = MESSAGE_HEAD.size + length
        if len(body) < end:
            return
        yield bytes(body[MESSAGE_HEAD.size : end])
        del body[:end]


def _judge(trailers: Mapping[str, str]) -> None:
    """Raises Refused where the status is not OK."""
    code = STATUS[int(trailers["grpc-status"])]
    if code != "OK":
        from urllib.parse import unquote

        raise Refused(code, unquote(trailers.get("grpc-message", code)), trailers)


def _fields(block: bytes) -> Iterator[tuple[str, str]]:
    """Names and values of the header fields that are written out. Others are common ones of
    HTTP/2's, by number; what is compressed by Huffman's code has no name that is looked for."""
    at = 0
    while at < len(block):
        first = block[at]
        if first & 0x80 or first & 0xE0 == 0x20:  # by number, or the size of the table
            _, at = _integer(block, at, 7 if first & 0x80 else 5)
            continue
        number, at = _integer(block, at, 6 if first & 0x40 else 4)
        name = ""
        if number == 0:
            name, at = _text(block, at)
        value, at = _text(block, at)
        yield name, value


def _text(block: bytes, at: int) -> tuple[str, int]:
    is_huffman = bool(block[at] & 0x80)
    length, at = _integer(block, at, 7)
    if at + length > len(block):
        raise ValueError("a header that is cut off")
    return "" if is_huffman else block[at : at + length].decode("latin-1"), at + length


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """A number with a prefix of so many bits (RFC 7541 section 5.1), and where it ends."""
    most = (1 << bits) - 1
    number, at = block[at] & most, at + 1
    if number < most:
        return number, at
    for shift in (0, 7, 14, 21):
        number += (block[at] & 0x7F) << shift
        at += 1
        if not block[at - 1] & 0x80:
            return number, at
    raise ValueError("a number that is too large")
