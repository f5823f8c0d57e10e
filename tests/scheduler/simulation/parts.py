"""The simulated pool's processes: schedulers over one database, agents with sessions, users.

The scheduler's core and the agent's admission are the real ones. Around them is a world that loses
and delays and repeats messages, cuts connections on one side only, kills processes between any two
steps, and whose clocks run at different speeds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from harp_api.control.v1 import agent_pb2 as agent
from harp_scheduler.core.book import Key, Number, Record
from harp_scheduler.core.events import (
    Connected,
    Disconnected,
    Event,
    Reported,
    TenantSet,
    Ticked,
)
from harp_scheduler.core.model import Quota
from harp_scheduler.core.pool import Outcome, Pool
from harp_server.admission import Admission, Closed
from scheduler.simulation.clock import Clock

GRACE = 20.0
MARGIN = 6.0
"""More than it takes an agent to see that the grace is over (a heartbeat), and a worker to die."""
HEARTBEAT = 2.0
TAKEOVER = 3.0
"""Seconds until a standby leads after the leader has died."""

TENANT = "research"


class LeaderLost(Exception):
    """The transaction was refused: another scheduler leads."""


class Database:
    """What is durable: the records, and who leads."""

    def __init__(self) -> None:
        self.term = 0
        self.records: dict[Key, Record] = {}
        self.numbers: dict[str, Number] = {}

    def lead(self) -> int:
        self.term += 1
        return self.term

    def commit(self, term: int, outcome: Outcome) -> None:
        if term != self.term:
            raise LeaderLost
        for key, record in outcome.changes.items():
            if record is None:
                self.records.pop(key, None)
            else:
                self.records[key] = record
        self.numbers.update((number.name, number) for number in outcome.numbers)


class Scheduler:
    """One scheduler process. It may believe to lead for longer than it does."""

    def __init__(self, name: str, clock: Clock, database: Database) -> None:
        self.name, self.clock, self.database = name, clock, database
        self.pool: Pool | None = None
        self.links: dict[str, Connection] = {}
        self.crash_rate = 0.0
        self.on_crash: Callable[[Scheduler], None] = lambda _: None
        self.life = 0

    @property
    def leads(self) -> bool:
        return self.pool is not None

    def lead(self) -> None:
        self.life += 1
        term = self.database.lead()
        self.pool = Pool(
            term,
            self.clock.now,
            list(self.database.records.values()),
            list(self.database.numbers.values()),
            grace=GRACE,
            margin=MARGIN,
        )
        self.clock.tell(f"{self.name} leads, term {term}")
        if not self.pool.book.tenants:
            quota = Quota(devices=10, leases=30)
            self.handle(TenantSet(TENANT, quota))
        self._tick(self.life)

    def _tick(self, life: int) -> None:
        if self.pool is not None and self.life == life:
            self.handle(Ticked())
            self.clock.later(1.0, "", lambda: self._tick(life))

    def die(self) -> None:
        """Ends without a word, as by kill -9."""
        self.pool = None
        self.life += 1
        for link in list(self.links.values()):
            link.cut()
        self.links.clear()

    def handle(self, event: Event) -> Outcome | None:
        """One event: decided, stored, then told; None where the process died on the way."""
        if self.pool is None:
            return None
        if self._dies("before the transaction"):
            return None
        outcome = self.pool.handle(event, self.clock.now)
        try:
            self.database.commit(self.pool.book.term, outcome)
        except LeaderLost:
            self.clock.tell(f"{self.name} finds that it leads no more")
            self.die()
            return None
        if self._dies("after the transaction"):
            return None
        for server, orders in outcome.orders.items():
            if link := self.links.get(server):
                link.to_agent(agent.ToAgent(orders=orders))
        return outcome

    def _dies(self, when: str) -> bool:
        if not self.clock.chance(self.crash_rate):
            return False
        self.clock.tell(f"{self.name} is killed {when}")
        self.die()
        self.on_crash(self)
        return True

    def accept(self, link: Connection) -> None:
        self.links[link.agent.name] = link

    def from_agent(self, link: Connection, message: agent.FromAgent) -> None:
        server = link.agent.name
        if self.links.get(server) is not link or self.pool is None:
            return
        if message.HasField("register"):
            self.handle(Connected(server, message.register))
            report = message.register.report
        else:
            report = message.report
            self.handle(Reported(server, report))
        if self.links.get(server) is link and self.pool is not None:
            term = self.pool.book.term
            link.to_agent(agent.ToAgent(heard=agent.Heard(number=report.number, term=term)))

    def link_lost(self, link: Connection) -> None:
        if self.links.get(link.agent.name) is link:
            del self.links[link.agent.name]
            self.handle(Disconnected(link.agent.name))


class Connection:
    """One connection of an agent: in order, delayed, and dead at some moment, which each end
    learns at a moment of its own."""

    def __init__(self, clock: Clock, agent_: Agent, scheduler: Scheduler) -> None:
        self.clock, self.agent, self.scheduler = clock, agent_, scheduler
        self.life = scheduler.life
        self.alive = True
        self._arrives = [0.0, 0.0]

    def stall(self, side: int, seconds: float) -> None:
        """Nothing of one direction arrives for so long; nothing of it is lost."""
        self._arrives[side] = max(self._arrives[side], self.clock.now + seconds)

    def _deliver(self, side: int, call: Callable[[], None]) -> None:
        if not self.alive:
            return
        at = max(self._arrives[side], self.clock.now + self.clock.spread(0.001, 0.3))
        self._arrives[side] = at
        self.clock.later(at - self.clock.now, "", lambda: self.alive and call())

    def to_agent(self, message: agent.ToAgent) -> None:
        self._deliver(0, lambda: self.agent.receive(self, message))

    def to_scheduler(self, message: agent.FromAgent) -> None:
        self._deliver(1, lambda: self.scheduler.from_agent(self, message))

    def cut(self) -> None:
        """Nothing arrives any more; either end finds out later."""
        if not self.alive:
            return
        self.alive = False
        self.clock.later(self.clock.spread(0, 6), "", lambda: self.agent.link_lost(self))
        self.clock.later(self.clock.spread(0, 6), "", lambda: self.scheduler.link_lost(self))


@dataclass
class Session:
    """A program's session on one server."""

    id: str
    lease: str
    epoch: int
    parts: tuple[tuple[int, int, int], ...]
    dying: bool = False


@dataclass
class Agent:
    """One server: its disk, its devices with live sessions, and the process of its agent."""

    name: str
    clock: Clock
    devices: int
    memory: int
    find: Callable[[], Scheduler | None]
    """The scheduler that it reaches now."""

    may_end: Callable[[str], bool]
    """Whether the sessions of a lease may be ended by orders."""

    speed: float = 1.0
    """Of its clock: seconds that it counts in one true second."""

    disk: dict[str, object] = field(default_factory=dict)
    admission: Admission | None = None
    link: Connection | None = None
    sessions: dict[str, Session] = field(default_factory=dict)
    fenced: int = 0
    numbers: count[int] = field(default_factory=lambda: count(1))
    life: int = 0
    heard_at: float = 0.0
    """In true time: when the report was made that the scheduler last answered."""

    registered_at: float = 0.0
    """In true time: when the connection began."""

    made: dict[int, float] = field(default_factory=dict)

    def time(self) -> float:
        return self.clock.now * self.speed

    def start(self) -> None:
        self.life += 1
        memory = dict.fromkeys(range(self.devices), self.memory)
        self.admission = Admission(memory, self.time())
        if self.disk:
            self.admission.restore(self.disk)
        self.made.clear()
        self._beat(self.life)

    def die(self) -> None:
        """kill -9 of the agent: its workers die with it."""
        self.life += 1
        self.admission = None
        self.sessions.clear()
        if self.link:
            self.link.cut()
            self.link = None

    def _beat(self, life: int) -> None:
        if self.life != life or self.admission is None:
            return
        if self.admission.fence(self.time()):
            self.fenced += 1
            self.clock.tell(f"{self.name} fences itself")
            # It was not heard for the grace, by its own clock.
            assert self.clock.now - self.heard_at >= GRACE / self.speed - 1e-6
            if self.link:  # it may only be slow: a new one brings new orders
                self.link.cut()
                self.link = None
        self._end_sessions()
        if self.link is None:
            self._connect()
        else:
            self._report()
        self.clock.later(HEARTBEAT, "", lambda: self._beat(life))

    def _connect(self) -> None:
        scheduler = self.find()
        if scheduler is None or not scheduler.leads:
            return
        self.link = Connection(self.clock, self, scheduler)
        scheduler.accept(self.link)
        assert self.admission is not None
        report = self.admission.register(self.time())
        self.made[report.number] = self.registered_at = self.clock.now
        register = agent.Register(address=f"{self.name}:7443", report=report)
        for ordinal in range(self.devices):
            register.devices.add(ordinal=ordinal, kind="gpu", model="soft", memory=self.memory)
        self.link.to_scheduler(agent.FromAgent(register=register))

    def _next_report(self) -> agent.Report:
        assert self.admission is not None
        report = self.admission.report(self.time())
        self.made[report.number] = self.clock.now
        return report

    def _report(self) -> None:
        if self.link is not None and self.admission is not None:
            self.link.to_scheduler(agent.FromAgent(report=self._next_report()))

    def receive(self, link: Connection, message: agent.ToAgent) -> None:
        if link is not self.link or self.admission is None:
            return
        if message.HasField("heard"):
            self.admission.heard(message.heard)
            self.heard_at = max(self.heard_at, self.made.get(message.heard.number, 0.0))
            return
        self.heard_at = max(self.heard_at, self.registered_at)
        if self.admission.take_orders(message.orders):
            self.disk = self.admission.stored()
            self._end_sessions()
        self._report()

    def link_lost(self, link: Connection) -> None:
        if self.link is link:
            self.link = None

    def begin(self, lease: str) -> str | None:
        """A program connects under a lease; the session's id, or None: it was refused."""
        if self.admission is None:
            return None
        session = f"{self.name}-{next(self.numbers)}"
        try:
            entry = self.admission.enter(lease, session)
        except Closed as closed:
            self.clock.tell(f"{self.name} refuses {lease}: {closed}")
            return None
        self.sessions[session] = Session(session, lease, entry.epoch, entry.parts)
        self.clock.tell(f"{session} begins under {lease}")
        self._report()
        return session

    def end(self, session: str) -> None:
        """A session's worker is dead."""
        if self.sessions.pop(session, None) is not None and self.admission is not None:
            self.admission.leave(session)
            self._report()

    def _end_sessions(self) -> None:
        assert self.admission is not None
        while self.admission.to_end:
            session, reason = self.admission.to_end.popitem()
            known = self.sessions.get(session)
            if known is not None and "taken back" in reason:
                assert self.may_end(known.lease), f"{known} is ended, and nobody said so"
            if known is not None and not known.dying:
                known.dying = True
                # A worker takes its time to die.
                self.clock.later(
                    self.clock.spread(0, 3), f"{session} is killed", partial(self.end, session)
                )


def used_parts(agent_: Agent) -> dict[int, list[tuple[int, int, int]]]:
    """What live sessions use of each device: (epoch, bytes, per mille), once per grant."""
    used: dict[int, set[tuple[int, int, int]]] = defaultdict(set)
    for session in agent_.sessions.values():
        for ordinal, memory, compute in session.parts:
            used[ordinal].add((session.epoch, memory, compute))
    return {ordinal: sorted(parts) for ordinal, parts in used.items()}
