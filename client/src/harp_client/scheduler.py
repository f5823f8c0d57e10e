"""Calls to the pool's scheduler, from this host: finds the one that leads, and tries again.

Every call that changes something has a request id, so that trying again does nothing twice.
"""

import datetime
import importlib
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

# gRPC writes each handshake that fails to stderr, in OpenSSL's words; here they are told once.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

from harp_client.errors import HarpError
from harp_client.target import SCHEDULER_NAME

USABLE = ("Available", "InUse")
"""States in which programs can use a lease."""

TRY_SECONDS = 15.0
"""How long a call goes on trying the addresses that it knows: another scheduler takes over in 5."""

CALL_SECONDS = 70.0
"""Longest that one call may take; a detach waits for programs to be ended."""

PAUSE = 0.3

OPTIONS = [
    ("grpc.ssl_target_name_override", SCHEDULER_NAME),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.enable_retries", 0),
]

EXIT_CODES = {
    grpc.StatusCode.NOT_FOUND: 3,
    grpc.StatusCode.PERMISSION_DENIED: 4,
    grpc.StatusCode.UNAUTHENTICATED: 4,
    grpc.StatusCode.FAILED_PRECONDITION: 5,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 5,
    grpc.StatusCode.UNAVAILABLE: 6,
    grpc.StatusCode.DEADLINE_EXCEEDED: 6,
    grpc.StatusCode.INVALID_ARGUMENT: 2,
}

Answer = TypeVar("Answer")


SERVICES = {"pool": "Pool", "access": "Access", "history": "History", "join": "Renewal"}
"""The services that members of the pool call, by the file that describes them."""


class Calls:
    """Every call that a scheduler answers to members of the pool."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def __getattr__(self, name: str) -> Any:
        """The call of that name. A service is loaded when one of its calls is first wanted."""
        for file, service in SERVICES.items():
            module = importlib.import_module(f"harp_api.control.v1.{file}_pb2_grpc")
            if hasattr(getattr(module, f"{service}Servicer"), name):
                return getattr(getattr(module, f"{service}Stub")(self._channel), name)
        raise AttributeError(name)


class Scheduler:
    """The pool's schedulers, of which one leads."""

    def __init__(self, addresses: Sequence[str], credentials: str) -> None:
        """`credentials`: the user's folder. Raises HarpError where it cannot be read."""
        self.addresses = list(addresses)
        self.credentials = credentials
        self._credentials = self._load()
        self._channel: grpc.Channel | None = None
        self._turn = 0

    def _load(self) -> grpc.ChannelCredentials:
        parts = []
        for name in ("ca.pem", "client.key", "client.pem"):
            path = os.path.join(self.credentials, name)
            try:
                with open(path, "rb") as file:
                    parts.append(file.read())
            except OSError as error:
                raise HarpError(
                    f"no credentials: {path}: {error.strerror}", "harp join, or --credentials"
                ) from error
        return grpc.ssl_channel_credentials(*parts)

    def reload(self) -> None:
        """Uses what the folder holds now, from the next call on."""
        self._credentials = self._load()
        self.close()

    @property
    def address(self) -> str:
        """Of the one that answered last, or is asked next."""
        return self.addresses[self._turn % len(self.addresses)]

    def again(self) -> "Scheduler":
        """The same, over a connection of its own: for another thread."""
        other = object.__new__(Scheduler)
        other.addresses, other.credentials = self.addresses, self.credentials
        other._credentials = self._credentials
        other._channel, other._turn = None, self._turn
        return other

    def close(self) -> None:
        """Closes the connection."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def call(self, name: str, request: Any, seconds: float = TRY_SECONDS) -> Any:
        """The answer of the scheduler that leads to the call `name`. Raises HarpError."""
        return self._try(lambda stub: getattr(stub, name)(request, timeout=CALL_SECONDS), seconds)

    def watch(self, name: str, request: Any) -> Iterator[Any]:
        """The answers of a call that streams; goes on at another scheduler when one is lost."""
        while True:
            stream = self._try(lambda stub: _begun(getattr(stub, name)(request)), TRY_SECONDS)
            try:
                yield from stream
                return
            except grpc.RpcError as error:
                if not _is_away(error):
                    raise told(error) from None
                self._next()

    def _try(self, call: Callable[[Calls], Answer], seconds: float) -> Answer:
        deadline = time.monotonic() + seconds
        failed = 0
        while True:
            try:
                return call(Calls(self._connected()))
            except grpc.RpcError as error:
                failed += 1
                is_over = time.monotonic() > deadline or (
                    # Trying again sets no clock.
                    failed >= len(self.addresses) and disagreement(error.details() or "")
                )
                if is_over or not _is_away(error):
                    raise told(error, self.addresses) from None
                self._next()
                if failed % len(self.addresses) == 0:
                    time.sleep(PAUSE)

    def _connected(self) -> grpc.Channel:
        if self._channel is None:
            self._channel = grpc.secure_channel(self.address, self._credentials, OPTIONS)
        return self._channel

    def _next(self) -> None:
        self.close()
        self._turn += 1


def request_id() -> str:
    """A new id for one call that changes something."""
    return uuid.uuid4().hex


def _begun(stream: Any) -> Iterator[Any]:
    """A stream whose first answer has arrived: whether there is a leader is known."""
    first = next(stream, None)

    def answers() -> Iterator[Any]:
        if first is not None:
            yield first
            yield from stream

    return answers()


def _is_away(error: grpc.RpcError) -> bool:
    return error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


CLOCKS = {
    "certificate is not yet valid": "by this machine's clock the scheduler's certificate is not "
    "valid yet",
    "certificate has expired": "by this machine's clock the scheduler's certificate has expired",
    "ALERT_CERTIFICATE_EXPIRED": "by the scheduler's clock this member's certificate has expired, "
    "or is not valid yet",
}
"""What OpenSSL says where a certificate is not valid by one end's clock, and what that means."""


def disagreement(details: str) -> str:
    """The cause in a sentence where two clocks do not agree on a certificate; "": it is another."""
    return next((text for word, text in CLOCKS.items() if word in details), "")


def told(error: grpc.RpcError, addresses: Sequence[str] = ()) -> HarpError:
    """A refusal as the scheduler put it, or that there is none."""
    code = error.code()
    cause = error.details() or code.name
    metadata: Any = error.trailing_metadata() or ()
    following = next((value for key, value in metadata if key == "harp-next"), "")
    if code == grpc.StatusCode.UNAVAILABLE and addresses:
        following = "harp doctor; is `harp scheduler` running there?"
        if clocks := disagreement(cause):
            now = f"{datetime.datetime.now(datetime.UTC):%F %T} UTC"
            cause, following = clocks, f"set the clock that is wrong; this one says {now}"
        cause = f"no scheduler at {', '.join(addresses)} leads: {cause}"
    return HarpError(cause, str(following), EXIT_CODES.get(code, 1))
