"""One session as the agent sees it: a worker, who it serves, and the two log lines about it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from harp_client.errors import printable
from harp_server.channel import Message
from harp_server.logs import Log
from harp_server.process import how_it_ended
from harp_server.workers import Worker

COUNTERS = ("calls", "waits", "bytes_in", "bytes_out")

FIELDS = (
    *("peer", "serial", "program", "pid", "tls", "cipher", "cause", "after"),
    *("call", "code", "name", "number"),
    *("waits_unasked", "waited_for", "bytes_cached", *COUNTERS),
)
"""What the log has of what a worker says."""

EVENTS_MAX = 1000
"""Lines of the log about a session between its start and its end: its client has a say in them."""

COUNT_MAX = 1 << 63
"""No count is as high."""

PID_MAX = 1 << 31
"""No process has as high a number."""


@dataclass(slots=True)
class Totals:
    """Counts of all sessions of a server since it started."""

    started: int = 0
    refused: int = 0
    """Connections that nobody was let in from."""

    ended: Counter[str] = field(default_factory=Counter)
    """By how: `ended`, as both ends expect; `lost`, its connection broke; `failed`."""

    counted: Counter[str] = field(default_factory=Counter)
    """What the workers said at the end of their sessions, by the names of COUNTERS."""

    seconds: float = 0.0
    """How long the sessions that have ended lasted, together."""


@dataclass(slots=True)
class Session:
    """From the moment a worker has the client's socket until that worker is gone."""

    id: str
    address: str
    worker: Worker
    log: Log
    totals: Totals
    on_start: Callable[[Session], None] = lambda _: None
    """Called when a program has been let in."""

    began: float = field(default_factory=time.monotonic)
    started: bool = False
    gives_way: bool = False
    refused: bool = False
    serial: str = ""
    """Of the certificate that its client began with."""

    went_well: bool = False
    """It ended as both ends expect."""

    death: int = 0
    """The signal that its worker died of; 0: of none, or it lives."""

    events: int = 0
    """What was to be logged of it, apart from its start and its end."""

    interrupted: float | None = None
    end_event: Message | None = None
    recorded: bool = False
    """It has a recorder."""

    owners: tuple[str, ...] = ()
    """Identities that may have the session; any user of the pool, where none is named."""

    user: str = ""
    """Identity (SPIFFE URI) of who was let in."""

    program: str = ""
    pid: int = 0
    """Of the program on its host, as that says."""

    def event(self, message: Message) -> None:
        """Takes one event of the worker."""
        match message.get("event"):
            case "start" if not self.started:
                # Once: whoever has a client make its worker say more stays who it is.
                self.started = True
                self.serial = str(message.get("serial", ""))
                self.user = printable(str(message.get("peer")))
                self.program = printable(str(message.get("program")))
                pid = message.get("pid")
                self.pid = pid if isinstance(pid, int) and 0 <= pid < PID_MAX else 0
                self.totals.started += 1
                self.on_start(self)
                self.log.info(
                    "session start",
                    session=self.id,
                    address=self.address,
                    worker=self.worker.process.pid,
                    **_fields(message),
                )
            case "interrupted":
                self.interrupted = time.monotonic()
                self._say(self.log.info, "session interrupted", **_fields(message))
            case "resumed":
                self.interrupted = None
                self._say(self.log.info, "session resumed", **_fields(message))
            case "not_resumed":
                address, cause = str(message.get("peer", "?")), str(message.get("cause", "?"))
                self._say(self.log.warning, "connection refused", address=address, cause=cause)
            case "not_recorded":
                cause = str(message.get("cause", "?"))
                self._say(self.log.warning, "session not recorded", cause=cause)
            case "refused_call":
                self._say(self.log.error, "system call refused", **_fields(message))
            case "end":
                self.end_event = message
            case name:
                self.log.debug("worker event", session=self.id, kind=str(name), **_fields(message))

    def _say(self, write: Callable[..., None], event: str, **fields: Any) -> None:
        """Logs something that its worker says, unless that has said too much."""
        self.events += 1
        if self.events <= EVENTS_MAX:
            write(event, session=self.id, **fields)
        elif self.events == EVENTS_MAX + 1:
            cause = f"more than {EVENTS_MAX} events of it: the rest is not logged"
            self.log.warning("session says too much", session=self.id, cause=cause)

    async def run(self) -> None:
        """Waits for the end of the session and logs it with its counts."""
        status = await asyncio.shield(self.worker.process.exited)
        end = _fields(self.end_event or {})
        cause = str(end.pop("cause", None) or how_it_ended(status))
        if self.gives_way:
            cause = "it did not say who it is, and others wait"
        if not self.started:
            # Nobody was let in: a scanner, a wrong certificate, another protocol version.
            self.totals.refused += 1
            self.log.warning("connection refused", address=self.address, cause=cause)
            return
        if self.interrupted is not None:
            waited = round(time.monotonic() - self.interrupted, 3)
            self.log.warning("session lost", session=self.id, waited=waited, cause=cause)
        counts = {name: end.pop(name, None) for name in COUNTERS}
        self.went_well = self.end_event is not None and status == 0
        self.death = max(0, -status)
        how = "lost" if self.interrupted is not None else "ended" if self.went_well else "failed"
        self.totals.ended[how] += 1
        self.totals.counted.update(
            {k: v for k, v in counts.items() if isinstance(v, int) and 0 <= v < COUNT_MAX}
        )
        self.totals.seconds += time.monotonic() - self.began
        write = self.log.info if self.went_well else self.log.error
        write(
            "session end",
            session=self.id,
            **counts,
            seconds=round(time.monotonic() - self.began, 3),
            cause=cause,
            **end,
        )


def _fields(message: Message) -> dict[str, Any]:
    """What the log has of a message. A worker may say anything, under any name and however deep."""
    found: dict[str, Any] = {}
    for key in FIELDS:
        match message.get(key):
            case None | list():
                pass
            case dict() as counts:
                found[key] = {k: v for k, v in counts.items() if isinstance(v, int)}
            case value:
                found[key] = value
    return found
