"""A scheduler that leads: takes events, stores what they change, then tells whoever is to know.

Events that come while a transaction is written are decided together and written by the next one:
a durable grant costs a share of a write, not a write. Nothing that is not stored leaves here.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from harp_api.control.v1 import agent_pb2 as agent
from harp_scheduler.core.book import Key, Number, Record
from harp_scheduler.core.events import Event, Ticked
from harp_scheduler.core.pool import Outcome, Pool
from harp_scheduler.metrics import Timings
from harp_scheduler.service.history import History
from harp_scheduler.service.meter import Meter
from harp_scheduler.store.audit import AuditEntry
from harp_scheduler.store.events import Happening
from harp_scheduler.store.usage import UsageRow
from harp_scheduler.workload_trace import Line, Workload, WorkloadFile

TICK = 1.0
"""Seconds between looks at who is silent, and what has expired."""

MEASURE = 300.0
"""Seconds between looks at what is used by leases that nothing happens to."""

BATCH = 256
"""Events that one transaction holds at most."""


class NotLeading(Exception):
    """This scheduler does not lead, or does so no more: the caller goes to another one."""


class Durable(Protocol):
    """What a leader needs of a store."""

    def commit(
        self,
        term: int,
        changes: dict[Key, Record | None],
        numbers: Sequence[Number],
        audit: Sequence[AuditEntry] = (),
        usage: Sequence[UsageRow] = (),
        happened: Sequence[Happening] = (),
    ) -> None:
        """See `Store.commit`."""


@dataclass(slots=True)
class Pending:
    """One event that waits for its transaction."""

    event: Event
    audit: Callable[[Outcome], AuditEntry | None]
    done: asyncio.Future[Outcome]


@dataclass(slots=True)
class Batch:
    """What several events change together."""

    changes: dict[Key, Record | None] = field(default_factory=dict)
    numbers: dict[str, Number] = field(default_factory=dict)
    orders: dict[str, agent.Orders] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    audit: list[AuditEntry] = field(default_factory=list)
    usage: Sequence[UsageRow] = ()
    happened: Sequence[Happening] = ()
    workload: list[Line] = field(default_factory=list)
    answers: list[tuple[Pending, Outcome]] = field(default_factory=list)

    def add(self, pending: Pending, outcome: Outcome) -> None:
        """Takes what one event has led to; later changes of a record replace earlier ones."""
        self.changes |= outcome.changes
        self.numbers.update((number.name, number) for number in outcome.numbers)
        self.orders |= outcome.orders
        self.told |= outcome.told
        if (entry := pending.audit(outcome)) is not None:
            self.audit.append(entry)
        self.answers.append((pending, outcome))

    @property
    def is_to_be_stored(self) -> bool:
        """Whether there is anything for a transaction."""
        return bool(self.changes or self.numbers or self.audit or self.usage or self.happened)


class Leader:
    """Runs one `Pool` from the moment that this scheduler leads until it does no more."""

    def __init__(
        self,
        pool: Pool,
        store: Durable,
        thread: ThreadPoolExecutor,
        timings: Timings | None = None,
        measured: Mapping[str, datetime] | None = None,
        before: Sequence[Happening] = (),
        workload: WorkloadFile | None = None,
    ) -> None:
        """`measured`: until when each tenant's usage is stored. `before`: events that are.
        `workload`: where what arrives is recorded."""
        self.pool = pool
        self.history = History(pool.book, before)
        self._meter = Meter(pool.book, measured or {})
        self._timings = timings or Timings()
        self._workload_file = workload
        self._workload = Workload(workload.began if workload else 0)
        self._store = store
        self._thread = thread
        self._pending: asyncio.Queue[Pending] = asyncio.Queue()
        self._watchers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        """Who waits for changes: of one lease, or under the empty name of anything."""

        self.revision = 0
        """Counts what was stored, for watchers."""

        self.links: dict[str, Callable[[agent.ToAgent], None]] = {}
        """How to send to the agents that are connected here."""

        self.ended: Exception | None = None
        self._is_stored = asyncio.Event()
        """Unset while the pool in memory is ahead of the store."""

        self._is_stored.set()

    async def run(self) -> None:
        """Until the leadership is lost, or a store cannot be written: raises why."""
        try:
            if self._workload_file is not None:
                self._workload_file.write(self._workload.begin(self.pool.book))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._tick())
                group.create_task(self._work())
        except BaseException as error:
            failed = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error
            self._end(failed if isinstance(failed, Exception) else NotLeading("it is stopping"))
            raise failed from None

    def _end(self, cause: Exception) -> None:
        self.ended = cause
        self._is_stored.set()
        self._wake(self._watchers)
        while not self._pending.empty():
            pending = self._pending.get_nowait()
            if not pending.done.done():
                pending.done.set_exception(NotLeading(str(cause)))

    async def handle(
        self,
        event: Event,
        audit: Callable[[Outcome], AuditEntry | None] = lambda _: None,
    ) -> Outcome:
        """One event. Raises Refused, or NotLeading: then it is not known whether it was stored."""
        if self.ended is not None:
            raise NotLeading(str(self.ended))
        done: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._pending.put_nowait(Pending(event, audit, done))
        outcome = await done
        if outcome.refused is not None:
            raise outcome.refused
        return outcome

    async def changes(self, lease: str = "") -> AsyncIterator[int]:
        """The revision now, and after each change of a lease, or of anything; each time as after
        `stored`. Raises NotLeading."""
        changed = asyncio.Event()
        self._watchers[lease].add(changed)
        try:
            while True:
                # Also where it has changed meanwhile: by now more may have, which is not stored.
                await self.stored()
                changed.clear()
                yield self.revision
                await changed.wait()
        finally:
            self._watchers[lease].discard(changed)
            if not self._watchers[lease]:
                del self._watchers[lease]

    async def stored(self) -> Pool:
        """The pool when nothing of it is not stored; to be read before anything else is awaited.
        Raises NotLeading."""
        await self._is_stored.wait()
        if self.ended is not None:
            raise NotLeading(str(self.ended))
        return self.pool

    def _wake(self, names: Iterable[str]) -> None:
        for name in tuple(names):
            for changed in self._watchers.get(name, ()):
                changed.set()

    async def measure(self) -> None:
        """Stores what all tenants have used up to now. Raises NotLeading."""
        self._meter.all(self._meter.now())
        await self.handle(Ticked())

    def touch(self) -> None:
        """Something has changed outside of the pool that all watchers are to look at."""
        self.revision += 1
        self._wake(self._watchers)

    async def _tick(self) -> None:
        measured = time.monotonic()
        while True:
            await asyncio.sleep(TICK)
            if time.monotonic() - measured < MEASURE:
                await self.handle(Ticked())
            else:
                measured = time.monotonic()
                await self.measure()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            waiting = [await self._pending.get()]
            while len(waiting) < BATCH and not self._pending.empty():
                waiting.append(self._pending.get_nowait())
            batch = Batch()
            self._is_stored.clear()
            try:
                for pending in waiting:
                    with self._timings.decision.time():
                        outcome = self.pool.handle(pending.event, time.monotonic())
                    batch.add(pending, outcome)
                    self.history.take(pending.event, outcome)
                    if self._workload_file is not None:
                        batch.workload += self._workload.take(self.pool.book, outcome)
                    self._meter.changes(self._meter.now())
                batch.usage = self._meter.take()
                batch.happened = self.history.to_be_stored()
                if batch.is_to_be_stored:
                    with self._timings.commit.time():
                        await loop.run_in_executor(self._thread, self._commit, batch)
            except BaseException as error:
                for pending in waiting:
                    if not pending.done.done():
                        pending.done.set_exception(NotLeading(str(error)))
                raise
            self._is_stored.set()
            self._publish(batch)
            # Whoever was told or waits to read sees the pool as it is stored, before it goes on.
            await asyncio.sleep(0)

    def _commit(self, batch: Batch) -> None:
        term = self.pool.book.term
        self._store.commit(
            term,
            batch.changes,
            list(batch.numbers.values()),
            batch.audit,
            batch.usage,
            batch.happened,
        )

    def _publish(self, batch: Batch) -> None:
        happened = bool(self.history.untold)
        self.history.tell()
        if self._workload_file is not None:
            self._workload_file.write(batch.workload)
        for server, orders in batch.orders.items():
            if send := self.links.get(server):
                send(agent.ToAgent(orders=orders))
        for pending, outcome in batch.answers:
            if not pending.done.done():
                pending.done.set_result(outcome)
        if batch.is_to_be_stored or batch.told or happened:
            self.revision += 1
            # Who waits in the queue has another place when one before it has gone.
            waiting = self.pool.book.waiting_since.keys() if batch.told else set()
            self._wake({"", *batch.told} | (self._watchers.keys() & waiting))
