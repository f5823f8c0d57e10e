"""The scheduler's core: events in, what is to be done out. It has no clock, no sockets, no threads.

    outcome = pool.handle(event, now)

The caller stores `outcome.changes` and `outcome.numbers` in one transaction, and only then sends
`outcome.orders` and tells whoever waits for `outcome.told`. Where the transaction fails, another
scheduler leads: the pool is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from harp_api.control.v1 import agent_pb2 as agent
from harp_scheduler.core import agents, requests
from harp_scheduler.core.book import PATIENCE, Book, Key, Number, Record
from harp_scheduler.core.events import (
    Asked,
    Connected,
    Cordoned,
    Disconnected,
    Event,
    GivenBack,
    ProfileRemoved,
    ProfileSet,
    RecordingAsked,
    Renewed,
    Reported,
    ServerRemoved,
    ServerRevoked,
    Started,
    TenantSet,
    Ticked,
)
from harp_scheduler.core.granting import grant_waiting
from harp_scheduler.core.leases import expire
from harp_scheduler.core.placement.engine import Placement
from harp_scheduler.core.refused import Refused

GRACE = 300.0
"""Seconds that sessions go on while their server's agent and the scheduler do not hear each other:
a scheduler can be replaced in the meantime. A server that comes back later has lost its leases."""

LEARN_AGAIN = 600.0
"""Seconds between looks at which demands arrive: all scores are worked out anew then."""

MARGIN = 5.0
"""Seconds that the scheduler waits beyond the grace: what it takes a server to see that its own is
over and to kill its workers, and for clocks that run at different speeds."""


@dataclass(slots=True)
class Outcome:
    """What one event leads to."""

    subject: str = ""
    """What the event was about: the lease's id, where somebody asked for one."""

    refused: Refused | None = None
    """Why nothing was done."""

    changes: dict[Key, Record | None] = field(default_factory=dict)
    """Records to store; None: to remove."""

    numbers: list[Number] = field(default_factory=list)
    orders: dict[str, agent.Orders] = field(default_factory=dict)
    """What to send to the agents of which servers."""

    told: frozenset[str] = frozenset()
    """Leases that have changed or are gone."""


class Pool:
    """One pool, as the scheduler that leads sees it."""

    def __init__(
        self,
        term: int,
        now: float,
        records: Iterable[Record] = (),
        numbers: Iterable[Number] = (),
        *,
        placement: Placement | None = None,
        grace: float = GRACE,
        margin: float = MARGIN,
        since_1970: float | None = None,
        patience: float = PATIENCE,
    ) -> None:
        """`now`: of the clock that `handle` is given. `since_1970`: what the database's clock says
        then, whose times are stored; None: the same. `patience`: see `book.PATIENCE`."""
        self.grace = grace
        self.margin = margin
        self.book = Book(
            term, placement or Placement(), now, now if since_1970 is None else since_1970
        )
        self.book.patience = patience
        self.book.load(records, numbers)
        self._learn(now)

    def _learn(self, now: float) -> None:
        """Has the placement score by what arrives in this pool."""
        self._learned = now
        self.book.placement.set_workload(self.book.workload.typical())

    def handle(self, event: Event, now: float) -> Outcome:
        """Takes one event. `now` never goes back."""
        outcome = Outcome()
        book = self.book
        try:
            match event:
                case Connected():
                    agents.connect(book, event, now)
                case Reported():
                    agents.report(book, event, now)
                case Disconnected():
                    agents.disconnect(book, event, now)
                case ServerRevoked():
                    agents.revoke(book, event, now)
                case Ticked():
                    self._tick(now)
                case _:
                    outcome.subject = REQUESTS[type(event)](book, event, now)
        except Refused as refused:
            outcome.refused = refused
        grant_waiting(book, now)
        self._collect(outcome)
        return outcome

    def _tick(self, now: float) -> None:
        agents.fence_silent(self.book, self.grace + self.margin, now)
        expire(self.book, now)
        if now - self._learned >= LEARN_AGAIN:
            self._learn(now)
        # Who has waited for long may now keep others back.
        self.book.capacity_changed = bool(self.book.waiting)

    def _collect(self, outcome: Outcome) -> None:
        book = self.book
        for name in sorted(book.reordered):
            link = book.links.get(name)
            if link is not None and link.connected:
                outcome.orders[name] = agents.next_orders(book, name, self.grace)
        # Who is not connected gets them when it comes.
        book.reordered.clear()
        outcome.changes, book.changes = book.changes, {}
        outcome.numbers, book.numbers = list(book.numbers.values()), {}
        outcome.told, book.told = frozenset(book.told), set()


REQUESTS: dict[type, Callable[[Book, Any, float], str]] = {
    Asked: requests.ask,
    GivenBack: requests.give_back,
    Started: requests.start,
    Renewed: requests.renew,
    RecordingAsked: requests.record,
    Cordoned: requests.cordon,
    ServerRemoved: requests.remove_server,
    TenantSet: requests.set_tenant,
    ProfileSet: requests.set_profile,
    ProfileRemoved: requests.remove_profile,
}
