"""Calls to the pool's scheduler, from this host: finds the one that leads, and tries again.

Every call that changes something has a request id, so that trying again does nothing twice.

gRPC's library is loaded only by who needs it: `harp-run` has to be soon over.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

# gRPC writes each handshake that fails to stderr, in OpenSSL's words; here they are told once.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from harp_client import brief
from harp_client.errors import NEXT, HarpError
from harp_client.target import CREDENTIAL_FILES, SCHEDULER_NAME

if TYPE_CHECKING:
    import grpc

USABLE = ("Available", "InUse")
"""States in which programs can use a lease."""

TRY_SECONDS = 15.0
"""How long a call goes on trying the addresses that it knows: another scheduler takes over in 5."""

CALL_SECONDS = 70.0
"""Longest that one call may take; a detach waits for programs to be ended."""

PAUSE = 0.3

YOUNG_SECONDS = 5.0
"""Who has been asking for less makes brief calls; who stays opens a connection that stays too."""

OPTIONS = [
    ("grpc.ssl_target_name_override", SCHEDULER_NAME),
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.enable_retries", 0),
]

EXIT_CODES = {
    "NOT_FOUND": 3,
    "PERMISSION_DENIED": 4,
    "UNAUTHENTICATED": 4,
    "FAILED_PRECONDITION": 5,
    "RESOURCE_EXHAUSTED": 5,
    "UNAVAILABLE": 6,
    "DEADLINE_EXCEEDED": 6,
    "INVALID_ARGUMENT": 2,
}
"""By gRPC's names for what went wrong."""

AWAY = ("UNAVAILABLE", "CANCELLED")
"""What another scheduler may answer, or the same one a little later."""

Answer = TypeVar("Answer")


SERVICES = {"pool": "Pool", "access": "Access", "history": "History", "join": "Renewal"}
"""The services that members of the pool call, by the file that describes them."""


class Method(NamedTuple):
    """A call that a scheduler answers to members of the pool."""

    path: str
    """`/SERVICE/NAME`."""

    answer: Any
    """The class of its answers."""


def method(name: str) -> Method:
    """The call of that name. A service is loaded when one of its calls is first wanted."""
    for file, service in SERVICES.items():
        module = importlib.import_module(f"harp_api.control.v1.{file}_pb2")
        found = module.DESCRIPTOR.services_by_name[service]
        if one := found.methods_by_name.get(name):
            return Method(f"/{found.full_name}/{name}", getattr(module, one.output_type.name))
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
        self._brief_until = time.monotonic() + YOUNG_SECONDS

    def _load(self) -> dict[str, bytes]:
        """What the folder holds, by the names of the files."""
        parts = {}
        for name in CREDENTIAL_FILES:
            path = os.path.join(self.credentials, name)
            try:
                with open(path, "rb") as file:
                    parts[name] = file.read()
            except OSError as error:
                raise HarpError(
                    f"no credentials: {path}: {error.strerror}", "harp join, or --credentials"
                ) from error
        return parts

    def reload(self) -> None:
        """Uses what the folder holds now, from the next call on. Raises HarpError as `__init__`."""
        self._credentials = self._load()
        self.close()

    @property
    def address(self) -> str:
        """Of the one that answered last, or is asked next."""
        return self.addresses[self._turn % len(self.addresses)]

    def again(self) -> Scheduler:
        """The same, over a connection of its own: for another thread."""
        other = copy.copy(self)
        other._channel = None
        return other

    def close(self) -> None:
        """Closes the connection."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def call(self, name: str, request: Any, seconds: float = TRY_SECONDS) -> Any:
        """The answer of the scheduler that leads to the call `name`. Raises HarpError."""
        asked = method(name)
        with contextlib.suppress(brief.Unclear):
            answers = list(self._briefly(asked, request))
            if len(answers) == 1:
                return answers[0]

        def ask(channel: grpc.Channel) -> Any:
            call: Any = channel.unary_unary(asked.path, None, asked.answer.FromString)
            return call(request.SerializeToString(), timeout=CALL_SECONDS)

        return self._try(ask, seconds)

    def watch(self, name: str, request: Any, may_repeat: bool = False) -> Iterator[Any]:
        """The answers of a call that streams; goes on at another scheduler when one is lost.

        `may_repeat`: what was answered last may be answered again soon, so that the first answers
        can come sooner. Raises HarpError.
        """
        asked = method(name)
        if may_repeat:
            with contextlib.suppress(brief.Unclear):
                yield from self._briefly(asked, request)
                return
        import grpc

        def ask(channel: grpc.Channel) -> Iterator[Any]:
            call: Any = channel.unary_stream(asked.path, None, asked.answer.FromString)
            return _begun(call(request.SerializeToString()))

        while True:
            stream = self._try(ask, TRY_SECONDS)
            try:
                yield from stream
                return
            except grpc.RpcError as error:
                if not _is_away(error):
                    raise told(error) from None
                self._next()

    def _briefly(self, asked: Method, request: Any) -> Iterator[Any]:
        """The answers without gRPC's library. Raises HarpError where they are a refusal, and
        brief.Unclear where gRPC is to ask."""
        if self._channel is not None or time.monotonic() > self._brief_until:
            raise brief.Unclear("a connection stays")
        said = request.SerializeToString()
        for _ in self.addresses:
            try:
                for answer in brief.answers(self.address, self.credentials, asked.path, said):
                    yield asked.answer.FromString(answer)
                return
            except brief.Refused as refused:
                if refused.code not in AWAY:
                    following = refused.metadata.get(NEXT, "")
                    raise failure(refused.code, refused.details, following) from None
            except brief.Unclear:
                pass
            self._turn += 1
        self._brief_until = 0.0
        raise brief.Unclear("no scheduler that leads")

    def _try(self, ask: Callable[[grpc.Channel], Answer], seconds: float) -> Answer:
        import grpc

        deadline = time.monotonic() + seconds
        failed = 0
        while True:
            try:
                return ask(self._connected())
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
            import grpc

            trusted, certificate, key = (self._credentials[name] for name in CREDENTIAL_FILES)
            credentials = grpc.ssl_channel_credentials(trusted, key, certificate)
            self._channel = grpc.secure_channel(self.address, credentials, OPTIONS)
        return self._channel

    def _next(self) -> None:
        self.close()
        self._turn += 1


def request_id() -> str:
    """A new id for one call that changes something."""
    return os.urandom(16).hex()


def _begun(stream: Any) -> Iterator[Any]:
    """A stream whose first answer has arrived: whether there is a leader is known."""
    first = next(stream, None)

    def answers() -> Iterator[Any]:
        if first is not None:
            yield first
            yield from stream

    return answers()


def _is_away(error: grpc.RpcError) -> bool:
    return error.code().name in AWAY


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
    code = error.code().name
    metadata: Any = error.trailing_metadata() or ()
    following = next((str(value) for key, value in metadata if key == NEXT), "")
    return failure(code, error.details() or code, following, addresses)


def failure(code: str, cause: str, following: str = "", addresses: Sequence[str] = ()) -> HarpError:
    """What to raise for an answer that is none. `code`: gRPC's name for it."""
    if code == "UNAVAILABLE" and addresses:
        following = "harp doctor; is `harp scheduler` running there?"
        if clocks := disagreement(cause):
            import datetime

            now = f"{datetime.datetime.now(datetime.UTC):%F %T} UTC"
            cause, following = clocks, f"set the clock that is wrong; this one says {now}"
        cause = f"no scheduler at {', '.join(addresses)} leads: {cause}"
    return HarpError(cause, following, EXIT_CODES.get(code, 1))
