"""Measures what tenants use while this scheduler leads.

What a tenant's leases hold stays the same between two changes of them; so each change adds what was
held since the one before, in the very transaction that stores the change. A scheduler that takes
over finds how far that has come, and what is held: nothing is lost or counted twice.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from harp_scheduler.core.book import Book, Usage
from harp_scheduler.core.placement.model import WHOLE
from harp_scheduler.store.usage import UsageRow

HOUR = 3600.0


@dataclass(slots=True)
class Amount:
    """What was used within one hour and is not stored yet."""

    devices: float = 0.0
    compute: float = 0.0
    memory: float = 0.0


@dataclass(slots=True)
class Held:
    """What a tenant holds, and up to when that was counted."""

    until: float
    devices: int = 0
    compute: int = 0
    memory: int = 0

    def is_nothing(self) -> bool:
        """Whether there is nothing to count."""
        return not (self.devices or self.compute or self.memory)


@dataclass(slots=True)
class Meter:
    """Takes what changes, and gives what is to be stored. Times are seconds since 1970, UTC, of a
    clock that does not jump while this scheduler leads."""

    book: Book
    measured: Mapping[str, datetime]
    """Until when each tenant's usage is stored."""

    began: float = field(default_factory=time.time)
    monotonic: float = field(default_factory=time.monotonic)
    _held: dict[str, Held] = field(default_factory=dict)
    _amounts: dict[tuple[str, float], Amount] = field(default_factory=lambda: defaultdict(Amount))

    def __post_init__(self) -> None:
        for tenant, used in self.book.usage.items():
            until = self.measured.get(tenant)
            # The clock of the scheduler before this one may have been ahead.
            known = self.began if until is None else min(self.began, until.timestamp())
            self._held[tenant] = _holding(known, used)
        self.book.accounted.clear()

    def now(self) -> float:
        """The time that is measured by."""
        return self.began + time.monotonic() - self.monotonic

    def changes(self, now: float) -> None:
        """Counts for the tenants whose leases have changed; to be called after each event."""
        while self.book.accounted:
            tenant = self.book.accounted.pop()
            self._count(tenant, now)
            self._held[tenant] = _holding(now, self.book.usage[tenant])

    def all(self, now: float) -> None:
        """Counts for every tenant up to now."""
        for tenant in self._held:
            self._count(tenant, now)

    def take(self) -> list[UsageRow]:
        """What was counted since the last time, to be stored."""
        rows = [
            UsageRow(
                tenant,
                datetime.fromtimestamp(hour, UTC),
                amount.devices,
                amount.compute,
                amount.memory,
                datetime.fromtimestamp(self._held[tenant].until, UTC),
            )
            for (tenant, hour), amount in self._amounts.items()
        ]
        self._amounts.clear()
        return rows

    def _count(self, tenant: str, now: float) -> None:
        held = self._held.get(tenant)
        if held is None:
            return
        since, held.until = held.until, now
        if held.is_nothing():
            return
        for hour, seconds in hours(since, now):
            amount = self._amounts[tenant, hour]
            amount.devices += seconds * held.devices
            amount.compute += seconds * held.compute / WHOLE
            amount.memory += seconds * held.memory


def _holding(now: float, used: Usage) -> Held:
    return Held(now, used.devices, used.compute, used.memory)


def hours(since: float, until: float) -> Iterable[tuple[float, float]]:
    """The hours that a time reaches into: when each began, and the seconds of it."""
    while since < until:
        hour = since // HOUR * HOUR
        end = min(until, hour + HOUR)
        yield hour, end - since
        since = end
