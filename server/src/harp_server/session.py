"""One session as the agent sees it: a worker, who it serves, and the two log lines about it."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from harp_server.channel import Message
from harp_server.logs import Log
from harp_server.process import how_it_ended
from harp_server.workers import Worker

COUNTERS = ("calls", "waits", "bytes_in", "bytes_out")


@dataclass(slots=True)
class Session:
    """From the moment a worker has the client's socket until that worker is gone."""

    id: str
    address: str
    worker: Worker
    log: Log
    began: float = field(default_factory=time.monotonic)
    started: bool = False
    gives_way: bool = False
    refused: bool = False
    interrupted: float | None = None
    end_event: Message | None = None

    def event(self, message: Message) -> None:
        """Takes one event of the worker."""
        match message.get("event"):
            case "start":
                self.started = True
                self.log.info(
                    "session start",
                    session=self.id,
                    address=self.address,
                    worker=self.worker.process.pid,
                    **_fields(message),
                )
            case "interrupted":
                self.interrupted = time.monotonic()
                self.log.info("session interrupted", session=self.id, **_fields(message))
            case "resumed":
                self.interrupted = None
                self.log.info("session resumed", session=self.id, **_fields(message))
            case "not_resumed":
                self.log.warning(
                    "connection refused",
                    session=self.id,
                    address=str(message.get("peer", "?")),
                    cause=str(message.get("cause", "?")),
                )
            case "end":
                self.end_event = message
            case name:
                self.log.debug("worker event", session=self.id, kind=str(name), **_fields(message))

    async def run(self) -> None:
        """Waits for the end of the session and logs it with its counts."""
        status = await asyncio.shield(self.worker.process.exited)
        end = _fields(self.end_event or {})
        cause = str(end.pop("cause", None) or how_it_ended(status))
        if self.gives_way:
            cause = "it did not say who it is, and others wait"
        if not self.started:
            # Nobody was let in: a scanner, a wrong certificate, another protocol version.
            self.log.warning("connection refused", address=self.address, cause=cause)
            return
        if self.interrupted is not None:
            waited = round(time.monotonic() - self.interrupted, 3)
            self.log.warning("session lost", session=self.id, waited=waited, cause=cause)
        counts = {name: end.pop(name, None) for name in COUNTERS}
        write = self.log.info if self.end_event is not None and status == 0 else self.log.error
        write(
            "session end",
            session=self.id,
            **counts,
            seconds=round(time.monotonic() - self.began, 3),
            cause=cause,
            **end,
        )


def _fields(message: Message) -> dict[str, Any]:
    """The message's own fields, without names that the log line uses itself."""
    taken = {"event", "session", "address", "worker", "kind", "seconds", "level", "timestamp"}
    return {key: value for key, value in message.items() if key not in taken}
