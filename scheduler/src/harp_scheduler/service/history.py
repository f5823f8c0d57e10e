"""What has happened to the pool since this scheduler leads: the newest events, and how many.

It is made of what the core has decided and the store has taken. The audit keeps who asked for what
for good; this keeps what came of it, for as long as there is room.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass

from harp_scheduler.core.book import Book
from harp_scheduler.core.events import (
    Connected,
    Disconnected,
    Event,
    ServerRevoked,
    Ticked,
)
from harp_scheduler.core.model import Accelerator, Lease, Profile, Server, State, Tenant
from harp_scheduler.core.pool import Outcome

KEPT = 4096
"""Events that are remembered."""

GONE = "Gone"


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened."""

    number: int
    """From 1, in this scheduler's term."""

    time: float
    """Seconds since 1970, UTC."""

    kind: str
    """lease, server, device, tenant or profile."""

    subject: str
    """Name or id of it."""

    name: str
    """What people call it: a lease's name."""

    what: str
    """A lease's new state, or Gone, Connected, Disconnected, Revoked, Cordoned, Ready, Faulty,
    Set."""

    reason: str = ""
    tenant: str = ""
    """Of a lease."""


@dataclass(slots=True)
class Counts:
    """Totals since this scheduler leads."""

    grants: int = 0
    expiries: int = 0
    """Leases that nobody renewed, or that were held for as long as they may be."""

    lost: int = 0
    """Leases whose server was away for too long."""


class History:
    """Follows the outcomes of events."""

    def __init__(self, book: Book | None = None) -> None:
        """`book`: what there is already."""
        self.newest: deque[Happening] = deque(maxlen=KEPT)
        self.counts = Counts()
        self.refusals: Counter[str] = Counter()
        """By the class of the refusal."""

        self.number = 0
        """Of the newest."""

        self._leases: dict[str, Lease] = dict(book.leases) if book else {}
        self._servers: dict[str, Server] = dict(book.servers) if book else {}
        self._devices: dict[str, Accelerator] = dict(book.accelerators) if book else {}

    def take(self, event: Event, outcome: Outcome) -> None:
        """One event is done, and stored."""
        if outcome.refused is not None:
            self.refusals[type(outcome.refused).__name__] += 1
        match event:
            case Connected(server=server):
                self._tell("server", server, "Connected", event.register.address)
            case Disconnected(server=server):
                self._tell("server", server, "Disconnected", "no connection to its agent")
            case ServerRevoked(server=server):
                self._tell("server", server, "Revoked", "it is trusted no more")
        for (kind, key), record in outcome.changes.items():
            match record:
                case Lease():
                    self._lease(record, isinstance(event, Ticked))
                case Server():
                    self._server(record)
                case Accelerator():
                    self._device(record)
                case Tenant() | Profile():
                    self._tell(kind.lower(), key, "Set")
                case None if kind == "Lease":
                    self._lease_gone(key, isinstance(event, Ticked))
                case None if kind in ("Server", "Profile"):
                    self._tell(kind.lower(), key, GONE)

    def _lease(self, new: Lease, ticked: bool) -> None:
        old = self._leases.get(new.id)
        self._leases[new.id] = new
        if new.epoch != (old.epoch if old else 0):
            self.counts.grants += 1
        is_new_state = old is None or new.state != old.state
        if is_new_state and new.state is State.LOST:
            self.counts.lost += 1
        elif ticked and new.closing and not (old and old.closing):
            self.counts.expiries += 1
        if is_new_state or (old is not None and new.reason != old.reason and new.reason):
            self._tell("lease", new.id, new.state.value, new.reason, new)

    def _lease_gone(self, key: str, ticked: bool) -> None:
        old = self._leases.pop(key, None)
        if old is None:
            return
        reason = old.reason
        if ticked and not old.closing:
            self.counts.expiries += 1
            reason = "its holder has not renewed it"
        self._tell("lease", key, GONE, reason, old)

    def _server(self, new: Server) -> None:
        old = self._servers.get(new.name)
        self._servers[new.name] = new
        if new.cordoned != (old.cordoned if old else False):
            self._tell("server", new.name, "Cordoned" if new.cordoned else "Ready")
        if new.draining and not (old and old.draining):
            self._tell("server", new.name, "Draining")

    def _device(self, new: Accelerator) -> None:
        old = self._devices.get(new.id)
        self._devices[new.id] = new
        if _told(new) == (_told(old) if old else (False, "", "", True)):
            return
        what = "Cordoned" if new.cordoned else "Ready"
        if not new.present:
            what = GONE
        elif new.incident or new.fault:
            what = "Faulty"
        self._tell("device", new.id, what, new.incident or new.fault)

    def _tell(
        self, kind: str, subject: str, what: str, reason: str = "", lease: Lease | None = None
    ) -> None:
        self.number += 1
        self.newest.append(
            Happening(
                self.number,
                time.time(),
                kind,
                subject,
                lease.name if lease else subject,
                what,
                reason,
                lease.tenant if lease else "",
            )
        )

    def since(self, number: int) -> Iterator[Happening]:
        """What happened after `number`, of what is still known; oldest first."""
        fresh = []
        for happening in reversed(self.newest):
            if happening.number <= number:
                break
            fresh.append(happening)
        return reversed(fresh)


def _told(device: Accelerator) -> tuple[bool, str, str, bool]:
    """Whose change is an event."""
    return device.cordoned, device.incident, device.fault, device.present
