"""How this machine, or a user of it, becomes a member of a pool, with a join token.

    harp1.<SHA-256 of the authority's certificate>.<id>.<secret>

The scheduler shows its chain of certificates first. Only if the authority in it is the one of the
token, and the scheduler proves by TLS that this authority knows it, is the secret sent.
"""

from __future__ import annotations

import datetime
import re
import select
import socket
import time
from dataclasses import dataclass
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from OpenSSL import SSL

from harp_api.control.v1 import join_pb2 as api
from harp_api.control.v1 import join_pb2_grpc
from harp_client import endpoint
from harp_client.errors import HarpError
from harp_client.scheduler import OPTIONS, told

PORT = 7441
"""Where members join, unless the command says otherwise."""

EXAMPLE = f"pool.example:{PORT}"
"""Of an address where members join."""

CLOCK_SKEW = datetime.timedelta(minutes=5)
"""How long before it is made the certificate of a join port is valid: who joins reads the
scheduler's clock off it, and what he gets is to be valid by both."""

CONNECT_SECONDS = 10.0
CALL_SECONDS = 30.0
TOKEN_MAX = 1024
"""Bytes of a token."""

TOKEN = re.compile(r"harp1\.([0-9a-f]{64})\.([0-9a-f]{1,64})\.([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A join token, taken apart."""

    authority: str
    """SHA-256 of the authority's certificate, in hexadecimal digits."""

    shown: api.Token
    """What the scheduler is to see of it."""

    @classmethod
    def parse(cls, text: str) -> JoinToken:
        """Raises HarpError, which says nothing of what was read."""
        found = TOKEN.fullmatch(text.strip())
        if found is None:
            raise HarpError(
                "this is no join token: harp1.HASH.ID.SECRET", "harp token create makes one", 2
            )
        return cls(found[1], api.Token(id=found[2], secret=found[3]))


class Door:
    """The join port of a scheduler that has proved to be the one of a token's pool."""

    def __init__(self, address: str, token: JoinToken) -> None:
        """Raises HarpError: out of reach, another authority, or the clocks disagree."""
        self._address, self._token = address, token
        chain = shown_chain(address)
        hashed = bytes.fromhex(token.authority)
        root = next((c for c in chain if c.fingerprint(hashes.SHA256()) == hashed), None)
        if root is None:
            raise HarpError(
                f"{address} belongs to another authority than the token says: nothing was sent",
                "check the address; if it is right, somebody is in between",
                4,
            )
        check_clock(chain[0], datetime.datetime.now(datetime.UTC))
        pem = root.public_bytes(serialization.Encoding.PEM)
        self._channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(pem), OPTIONS)
        self._stub = join_pb2_grpc.JoiningStub(self._channel)

    def look(self) -> api.Allowed:
        """What the token allows. Raises HarpError."""
        answer: api.Allowed = self._call(self._stub.Look, self._token.shown)
        return answer

    def join(self, name: str, requests: api.Requests, replace: bool) -> api.Credentials:
        """Uses the token. Raises HarpError."""
        request = api.JoinRequest(
            token=self._token.shown, name=name, requests=requests, replace=replace
        )
        answer: api.Credentials = self._call(self._stub.Join, request)
        return answer

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            raise told(error, [self._address]) from None


def shown_chain(address: str) -> list[x509.Certificate]:
    """The certificates that whoever listens at an address shows, not verified; its own first.

    Raises HarpError.
    """
    where = endpoint.parse(address, EXAMPLE)
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_verify(SSL.VERIFY_NONE)
    context.set_alpn_protos([b"h2"])
    try:
        plain = socket.create_connection(where, CONNECT_SECONDS)
    except OSError as error:
        raise HarpError(
            f"cannot reach {address}: {error.strerror or error}",
            "check the address; harp token create names it",
            6,
        ) from error
    with plain:
        connection = SSL.Connection(context, plain)
        connection.set_connect_state()
        try:
            _shake_hands(connection, plain, time.monotonic() + CONNECT_SECONDS)
        except (SSL.Error, OSError) as error:
            raise HarpError(
                f"{address} does not speak TLS 1.3 as a join port does",
                "harp token create names the port",
                6,
            ) from error
        return connection.get_peer_cert_chain(as_cryptography=True) or []


def _shake_hands(connection: SSL.Connection, plain: socket.socket, deadline: float) -> None:
    while True:
        try:
            connection.do_handshake()
            return
        except SSL.WantReadError:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([plain], [], [], left)[0]:
                raise TimeoutError("no answer") from None


def check_clock(certificate: x509.Certificate, now: datetime.datetime) -> None:
    """Raises HarpError where this machine's clock and the scheduler's disagree too much for its
    certificate, which was made in the last minute, to be valid here."""
    there = certificate.not_valid_before_utc + CLOCK_SKEW
    if certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        return
    valid = "not valid yet" if now < there else "expired"
    raise HarpError(
        f"the scheduler's certificate is {valid}: this machine's clock says {now:%F %T} UTC, "
        f"the scheduler's about {there:%F %T} UTC",
        "set the clock that is wrong, then join again",
        5,
    )
