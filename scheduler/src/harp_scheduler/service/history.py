"""What has happened to the pool: the newest events, and how many since this scheduler leads.

It is made of what the core has decided, and told when the store has taken that. The audit keeps who
asked for what for good; this keeps what came of it, for as long as there is room. What is out of
order is stored, so that the next scheduler can tell it too.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

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
from harp_scheduler.core.requests import GIVEN_BACK
from harp_scheduler.store.events import KEPT, Happening

GONE, CONNECTED, LEADS = "Gone", "Connected", "Leads"

TERM = 1 << 32
"""A scheduler that takes over numbers its events from the next multiple of this on."""


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

    def __init__(self, book: Book | None = None, before: Sequence[Happening] = ()) -> None:
        """`book`: what there is already. `before`: what is stored of former schedulers' events."""
        self.before = before
        self.newest: deque[Happening] = deque(maxlen=KEPT)
        """Since this scheduler leads."""

        self.untold: list[Happening] = []
        """Not known to be stored yet."""

        self.counts = Counts()
        self.refusals: Counter[str] = Counter()
        """By the class of the refusal."""

        self.number = (before[-1].number // TERM + 1) * TERM if before else 0
        """Of the newest."""

        self._leases: dict[str, Lease] = dict(book.leases) if book else {}
        self._servers: dict[str, Server] = dict(book.servers) if book else {}
        self._devices: dict[str, Accelerator] = dict(book.accelerators) if book else {}

    def leads(self, scheduler: str, term: int) -> None:
        """This scheduler begins to lead."""
        self._tell("scheduler", scheduler, LEADS, f"in term {term}")

    def to_be_stored(self) -> list[Happening]:
        """What of the untold has to outlive this scheduler: what is out of order, and that it
        leads. Because of the latter no number is given twice."""
        return [happening for happening in self.untold if _lasts(happening)]

    def tell(self) -> None:
        """All that was untold is stored."""
        self.newest.extend(self.untold)
        self.untold.clear()

    def take(self, event: Event, outcome: Outcome) -> None:
        """One event is done; what it led to is told when it is stored."""
        if outcome.refused is not None:
            self.refusals[type(outcome.refused).__name__] += 1
        match event:
            case Connected(server=server):
                self._tell("server", server, CONNECTED, event.register.address)
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
                case None if kind == "Accelerator":
                    self._devices.pop(key, None)
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
        self.untold.append(
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
        for happening in chain(reversed(self.newest), reversed(self.before)):
            if happening.number <= number:
                break
            fresh.append(happening)
        return reversed(fresh)


def _lasts(happening: Happening) -> bool:
    """Whether it is worth a row: leases that come and go in good order are in the audit, and after
    each change of the leader all servers connect."""
    if happening.kind == "lease":
        return happening.reason not in ("", GIVEN_BACK)
    return happening.what != CONNECTED


def _told(device: Accelerator) -> tuple[bool, str, str, bool]:
    """Whose change is an event."""
    return device.cordoned, device.incident, device.fault, device.present
