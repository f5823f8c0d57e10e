"""One call to a scheduler over a connection of its own, without gRPC's library: loading that takes
as long as all else that `harp-run` does before the program starts. h2 speaks HTTP/2, and here is
what gRPC says in it.

It understands what a scheduler answers when all is well, and refusals. Whatever else comes is
`Unclear`: the caller makes the call again through gRPC, which tries longer and says what is wrong.

    headers with the call's path, one message           there
    headers, messages, trailers with `grpc-status`      back
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import time
from collections.abc import Iterable, Iterator, Mapping

from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings

from harp_client import endpoint
from harp_client.target import CREDENTIAL_FILES, EXAMPLE, SCHEDULER_NAME

CONNECT_SECONDS = 1.0
SILENCE_SECONDS = 3.0
"""How long nothing may come of an answer, whatever else comes."""

LARGEST_ANSWER = 64 << 20
"""Bytes: the window that a peer is given. It gets no other, so what is longer is Unclear."""

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
    folder. Raises Unclear, Refused; HarpError for an address that is none."""
    if len(request) > LARGEST_FRAME - MESSAGE_HEAD.size:
        raise Unclear("a long request")
    if any(name in os.environ for name in PROXIES):
        raise Unclear("a proxy")
    try:
        with _connected(address, credentials) as connection:
            call = _Call(connection)
            call.ask(path, request)
            yield from call.messages()
    except (OSError, EOFError, ValueError, LookupError, H2Error) as error:
        raise Unclear(str(error)) from error


def _connected(address: str, credentials: str) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    trusted, certificate, key = (os.path.join(credentials, name) for name in CREDENTIAL_FILES)
    context.load_verify_locations(trusted)
    # A password, so that nobody is asked for one.
    context.load_cert_chain(certificate, key, password="")
    plain = socket.create_connection(endpoint.parse(address, EXAMPLE), CONNECT_SECONDS)
    plain.settimeout(SILENCE_SECONDS)
    connection = context.wrap_socket(plain, server_hostname=SCHEDULER_NAME)  # closes it, failing
    if connection.selected_alpn_protocol() != "h2":
        connection.close()
        raise ValueError("it does not speak HTTP/2")
    return connection


class _Call:
    """What is said on one connection, and what comes back."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._connection = connection
        self._http = H2Connection()
        self._http.local_settings = Settings(
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: LARGEST_ANSWER,
                # What h2 holds the peer to.
                SettingCodes.MAX_HEADER_LIST_SIZE: H2Connection.DEFAULT_MAX_HEADER_LIST_SIZE,
            }
        )

    def ask(self, path: str, request: bytes) -> None:
        """Sends everything that we send of our own accord."""
        headers = {
            ":method": "POST",
            ":scheme": "https",
            ":path": path,
            ":authority": SCHEDULER_NAME,
            "te": "trailers",
            "content-type": "application/grpc",
        }
        self._http.initiate_connection()
        self._http.increment_flow_control_window(LARGEST_ANSWER)
        self._http.send_headers(STREAM, headers.items())
        message = MESSAGE_HEAD.pack(False, len(request)) + request
        self._http.send_data(STREAM, message, end_stream=True)
        self._send()

    def messages(self) -> Iterator[bytes]:
        """Each message when it has arrived, until the status is there, which is OK. Raises
        Refused, and what h2 and Python raise for bytes that are not understood."""
        body = bytearray()
        trailers: dict[str, str] = {}
        until = time.monotonic() + SILENCE_SECONDS
        while True:
            for event in self._events(until):
                if isinstance(event, DataReceived) and event.data:
                    body += event.data
                    yield from _cut(body)
                elif isinstance(event, ResponseReceived | TrailersReceived):
                    trailers = _text(event.headers)  # an answer without messages has no others
                elif isinstance(event, StreamEnded):
                    _judge(trailers)
                    if body:
                        raise ValueError("a message that is cut off")
                    return
                elif isinstance(event, StreamReset | ConnectionTerminated):
                    raise EOFError(f"an end with HTTP/2's error {event.error_code}")
                else:
                    continue
                until = time.monotonic() + SILENCE_SECONDS

    def _events(self, until: float) -> list[Event]:
        """What the next bytes say. `until`: the time by which they are to come."""
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("silence")
        self._connection.settimeout(left)
        received = self._connection.recv(LARGEST_FRAME)
        if not received:
            raise EOFError("an end without a status")
        events = self._http.receive_data(received)
        self._send()
        return events

    def _send(self) -> None:
        if said := self._http.data_to_send():
            self._connection.sendall(said)


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


def _text(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}


def _judge(trailers: Mapping[str, str]) -> None:
    """Raises Refused where the status is not OK."""
    code = STATUS[int(trailers["grpc-status"])]
    if code != "OK":
        from urllib.parse import unquote

        raise Refused(code, unquote(trailers.get("grpc-message", code)), trailers)
