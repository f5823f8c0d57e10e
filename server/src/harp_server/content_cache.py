"""What tenants have uploaded, for their next sessions: the agent's side of `harp-cache`.

The agent says whose a session is, and never sees a byte of what is kept.
"""

import functools
import hashlib
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

from harp_server.channel import Message
from harp_server.logs import Log
from harp_server.process import Process, how_it_ended

RESTART_SECONDS = 5.0
"""A cache that has ended is started again for a session, but not more often than this."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where it is kept, and how much of it."""

    folder: str
    size: int
    """Bytes of all tenants together."""
    tenant_size: int
    """Bytes of one tenant."""
    label: str = ""
    """What the folder of whoever comes is called, where there is one tenant only."""


class ContentCache:
    """The process `harp-cache`. Where it cannot be had, sessions are served without."""

    def __init__(self, program: str, place: Place, environ: Mapping[str, str], log: Log) -> None:
        self._program = program
        self._place = place
        self._environ = environ
        self._log = log
        self._process: Process | None = None
        self._not_before = 0.0
        self._ended = False

    def start(self) -> None:
        """Starts the process if it does not run."""
        if self._ended or (self._process is not None and self._process.alive):
            return
        if time.monotonic() < self._not_before:
            return
        self._not_before = time.monotonic() + RESTART_SECONDS
        try:
            self._process = Process(
                self._command,
                self._environ,
                self._message,
                functools.partial(self._log.output, "cache"),
            )
        except OSError as error:
            self._log.warning("cache not started", program=self._program, cause=str(error))
        else:
            self._process.exited.add_done_callback(
                lambda exited: (
                    None
                    if self._ended
                    else self._log.warning("cache lost", cause=how_it_ended(exited.result()))
                )
            )

    def _command(self, control_fd: int) -> list[str]:
        return [
            self._program,
            "--control-fd",
            str(control_fd),
            "--folder",
            self._place.folder,
            "--size",
            str(self._place.size),
            "--tenant-size",
            str(self._place.tenant_size),
        ]

    def bind(self, identity: str) -> socket.socket | None:
        """A worker's way to what the tenant of `identity` (a user's SPIFFE URI) has uploaded."""
        self.start()
        if self._process is None or not self._process.alive:
            return None
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            self._log.warning("a session has no cache", cause=str(error))
            return None
        with theirs:
            try:
                label = self._place.label or tenant_label(identity)
                self._process.send({"tenant": label}, theirs.fileno())
            except OSError:
                ours.close()
                return None
        return ours

    def _message(self, message: Message, _descriptor: int | None) -> None:
        match message.get("event"):
            case "ready":
                pieces, size = message.get("pieces"), message.get("bytes")
                self._log.debug("cache ready", pieces=pieces, bytes=size)
            case "damaged":
                self._log.warning(
                    "cached piece damaged",
                    tenant=str(message.get("tenant")),
                    piece=str(message.get("piece")),
                    next="it was removed, and will be uploaded again",
                )
            case "failing":
                self._log.warning("nothing is cached", cause=str(message.get("cause")))

    async def end(self) -> None:
        """Ends the process when it has written what workers had handed over."""
        self._ended = True
        if self._process is not None:
            await self._process.end()


def tenant_label(identity: str) -> str:
    """What the folder of a user's tenant is called: other for every tenant of every pool."""
    tenant = identity.partition("/user/")[0]
    return hashlib.sha256(tenant.encode()).hexdigest()[:32]
