"""A simulated pool under a seed: faults, users, and what must be true after every event."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from itertools import count

from harp_api.control.v1 import agent_pb2
from harp_scheduler.core.events import Asked, Cordoned, Event, GivenBack, Renewed, Started
from harp_scheduler.core.model import Accelerator, After, Closing, Lease, State, server_of
from harp_scheduler.core.placement.model import Demand
from harp_scheduler.core.pool import Outcome
from harp_server.admission import Admission
from scheduler.simulation.clock import Clock
from scheduler.simulation.parts import (
    GRACE,
    MARGIN,
    TAKEOVER,
    TENANT,
    Agent,
    Database,
    Scheduler,
    used_parts,
)

MEMORY = 1 << 30
DEVICES = (1, 2, 4)
ACTIVE = 120.0
"""Seconds of use and faults; then everything is repaired and given back."""

QUIET = GRACE + MARGIN + 60.0


@dataclass
class User:
    """Asks for leases, uses them, gives them back, or just dies."""

    world: World
    name: str
    requests: list[str] = field(default_factory=list)
    """Ids of the requests for leases."""

    sessions: list[tuple[Agent, str]] = field(default_factory=list)
    numbers: count[int] = field(default_factory=lambda: count(1))

    def act(self) -> None:
        clock, world = self.world.clock, self.world
        if clock.now > ACTIVE:
            return
        clock.later(clock.spread(0.2, 4.0), "", self.act)
        choice = clock.random.choice(
            ["ask", "ask", "begin", "begin", "begin", "end", "back", "stop", "start"]
        )
        known = [self.world.created[r] for r in self.requests if r in self.world.created]
        if choice == "ask" and len(self.requests) < 6:
            self._ask()
        elif choice == "begin" and known:
            self._begin(clock.random.choice(known))
        elif choice == "end" and self.sessions:
            server, session = self.sessions.pop(clock.random.randrange(len(self.sessions)))
            server.end(session)
        elif choice in ("back", "stop") and known:
            lease = clock.random.choice(known)
            how = clock.random.choice(list(Closing))
            after = After.GONE if choice == "back" else After.STOPPED
            if how is Closing.FORCE:
                world.forced.add(lease)
            world.call(GivenBack(self.name, self._request(), lease, how, after))
        elif choice == "start" and known:
            world.call(Started(self.name, self._request(), clock.random.choice(known)))

    def _request(self) -> str:
        return f"{self.name}-{next(self.numbers)}"

    def _ask(self) -> None:
        random = self.world.clock.random
        request = self._request()
        whole = random.random() < 0.5
        demand = Demand(
            kind="gpu",
            count=random.choice([1, 1, 1, 2, 3]) if whole else 1,
            memory=MEMORY if whole else MEMORY // 4,
            compute=1000 if whole else random.choice([250, 500]),
        )
        run = random.random() < 0.5
        event = Asked(
            caller=self.name,
            request=request,
            lease="",
            tenant=TENANT,
            demand=demand,
            host="" if run else f"host-of-{self.name}",
            ttl=10.0 if run else 0.0,
            priority=random.choice([0, 0, 1]),
        )
        self.requests.append(request)
        self.world.call(event)
        if run and random.random() < 0.8:
            self._keep(request)  # else its holder dies at once

    def _keep(self, request: str) -> None:
        if self.world.clock.now < ACTIVE:
            if lease := self.world.created.get(request):
                self.world.call(Renewed(lease), tries=1)
            self.world.clock.later(3.0, "", lambda: self._keep(request))

    def _begin(self, lease: str) -> None:
        known = self.world.database.records.get(("Lease", lease))
        if isinstance(known, Lease):
            # A program may act on what it was told long ago, so the state is not looked at.
            for server in known.servers:
                agent = self.world.agents[server]
                if session := agent.begin(lease):
                    self.sessions.append((agent, session))


class World:
    """Two schedulers, several servers, several users."""

    def __init__(self, seed: int, crash_rate: float = 0.002) -> None:
        self.clock = Clock(seed)
        self.database = Database()
        self.schedulers = [Scheduler(f"scheduler{n}", self.clock, self.database) for n in (1, 2)]
        for scheduler in self.schedulers:
            scheduler.crash_rate = crash_rate
            scheduler.on_crash = self._scheduler_died
        self.agents = {
            f"server{n}": Agent(
                f"server{n}",
                self.clock,
                devices,
                MEMORY,
                self._leader,
                speed=self.clock.spread(0.999, 1.001),
                may_end=self._may_be_taken,
            )
            for n, devices in enumerate(DEVICES, 1)
        }
        self.users = [User(self, f"user{n}") for n in range(1, 4)]
        self.created: dict[str, str] = {}
        """The lease that each request was answered with."""

        self.forced: set[str] = set()
        """Leases that may be taken from programs."""

        self.lease_numbers = count(1)
        self.epochs: dict[int, str] = {}
        self.incidents: set[str] = set()
        """Devices with one that is stored."""

        self.seen_to: set[str] = set()
        """Devices that somebody has asked to use again."""

    def _may_be_taken(self, lease: str) -> bool:
        """Whether a program may lose this lease: somebody said so, or a server of it was lost."""
        known = self.database.records.get(("Lease", lease))
        return lease in self.forced or (
            isinstance(known, Lease)
            and (known.state == State.LOST or "was away for too long" in known.reason)
        )

    def _leader(self) -> Scheduler | None:
        """Who an agent or a user reaches: whoever answers that it leads."""
        leading = [scheduler for scheduler in self.schedulers if scheduler.leads]
        return self.clock.random.choice(leading) if leading else None

    def _scheduler_died(self, _: Scheduler) -> None:
        if not any(scheduler.leads for scheduler in self.schedulers):
            standby = self.clock.random.choice(self.schedulers)
            self.clock.later(
                TAKEOVER,
                f"{standby.name} takes over",
                lambda: None if any(s.leads for s in self.schedulers) else standby.lead(),
            )

    def call(self, event: Event, tries: int = 6) -> None:
        """A call of a user: may be lost, or answered without an answer arriving; tried again."""
        clock = self.clock

        def deliver() -> Outcome | None:
            scheduler = self._leader()
            sent = event
            if isinstance(event, Asked):  # the scheduler that answers names the lease
                sent = replace(event, lease=f"lease{next(self.lease_numbers)}")
            return scheduler.handle(sent) if scheduler else None

        def arrive() -> None:
            outcome = deliver()
            if outcome is not None:
                self._check_answer(event, outcome)
            if clock.chance(0.1):  # the network delivers it twice
                clock.later(clock.spread(0, 5), "", deliver)
            if (outcome is None or clock.chance(0.1)) and tries > 1:
                clock.later(clock.spread(0.5, 2), "", lambda: self.call(event, tries - 1))

        if clock.chance(0.1) and tries > 1:
            clock.later(1.0, "", lambda: self.call(event, tries - 1))
        else:
            clock.later(clock.spread(0.001, 0.5), f"arrives: {event}", arrive)

    def _check_answer(self, event: Event, outcome: Outcome) -> None:
        if isinstance(event, Asked) and outcome.refused is None:
            known = self.created.setdefault(event.request, outcome.subject)
            assert known == outcome.subject, "one request has made two leases"

    def fault(self) -> None:
        """Something breaks."""
        clock = self.clock
        if clock.now > ACTIVE:
            return
        clock.later(clock.spread(1, 12), "", self.fault)
        kind = clock.random.choice(
            ["cut", "cut", "stall", "agent", "scheduler", "second leader", "cordon", "device"]
        )
        agent = clock.random.choice(list(self.agents.values()))
        if kind == "cut" and agent.link:
            clock.tell(f"{agent.name} is cut off")
            agent.link.cut()
            if clock.chance(0.3):
                self._keep_away(agent)
        elif kind == "stall" and agent.link:
            side = clock.random.choice([0, 1])
            clock.tell(f"{agent.name} {('hears', 'is heard')[side]} late")
            agent.link.stall(side, clock.spread(1, 1.6 * GRACE))
        elif kind == "agent" and agent.admission is not None:
            clock.tell(f"the agent of {agent.name} is killed")
            agent.die()
            life = agent.life
            clock.later(
                clock.spread(0.5, 1.5 * GRACE),
                f"the agent of {agent.name} is started",
                lambda: agent.start() if agent.life == life else None,
            )
        elif kind == "scheduler":
            leading = [scheduler for scheduler in self.schedulers if scheduler.leads]
            if leading:
                clock.tell(f"{leading[0].name} is killed")
                leading[0].die()
                self._scheduler_died(leading[0])
        elif kind == "second leader":
            idle = [scheduler for scheduler in self.schedulers if not scheduler.leads]
            if idle:
                # The other one was only slow: for a while two believe to lead.
                clock.tell(f"{idle[0].name} takes the lead from one that lives")
                idle[0].lead()
        elif kind == "cordon":
            self.call(Cordoned(agent.name, True, drain=clock.chance(0.5)))
            clock.later(
                clock.spread(1, 10), "", lambda: self.call(Cordoned(agent.name, False), tries=20)
            )
        elif kind == "device" and agent.admission is not None:
            self._break(agent, agent.admission)

    def _break(self, agent: Agent, admission: Admission) -> None:
        """A device of a server has a fault for a while, or an incident that somebody sees to."""
        clock, ordinal = self.clock, self.clock.random.randrange(agent.devices)
        device = f"{agent.name}/{ordinal}"
        if clock.chance(0.5):
            clock.tell(f"{device} is faulty")
            admission.faults[ordinal] = "a row of its memory is to be remapped"
            clock.later(clock.spread(1, 10), "", lambda: admission.faults.update({ordinal: ""}))
            return
        clock.tell(f"{device} has an incident")
        number = round(1000 * clock.now)
        admission.incidents[ordinal] = agent_pb2.Incident(number=number, cause="Xid 79")

        def see_to() -> None:
            self.seen_to.add(device)
            self.call(Cordoned(device, False), tries=20)

        clock.later(clock.spread(3, 20), "", see_to)

    def _keep_away(self, agent: Agent) -> None:
        """Cut off for long: now and then for longer than the grace."""
        reach = agent.find
        agent.find = lambda: None
        self.clock.later(
            self.clock.spread(1, 1.6 * GRACE),
            f"{agent.name} can connect again",
            lambda: setattr(agent, "find", reach),
        )

    def check(self) -> None:
        """What must be true after every event."""
        for agent in self.agents.values():
            for ordinal, parts in used_parts(agent).items():
                assert sum(compute for _, _, compute in parts) <= 1000, (
                    f"device {ordinal} of {agent.name} serves too many leases: {parts}"
                )
                assert sum(memory for _, memory, _ in parts) <= MEMORY, (
                    f"memory of device {ordinal} of {agent.name} is given twice: {parts}"
                )
        held: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        devices = 0
        for record in self.database.records.values():
            if not isinstance(record, Lease):
                continue
            devices += len(record.slices)
            if record.slices:
                if record.epoch not in self.epochs:
                    self._check_usable(record)
                assert self.epochs.setdefault(record.epoch, record.id) == record.id
            for part in record.slices:
                held[part.device][0] += part.memory
                held[part.device][1] += part.compute
        granted = {
            record.epoch
            for record in self.database.records.values()
            if isinstance(record, Lease) and record.slices
        }
        for agent in self.agents.values():
            for session in agent.sessions.values():
                assert session.epoch in granted, (
                    f"{session} lives, and its slices are free for others"
                )
        for device, (memory, compute) in held.items():
            assert memory <= MEMORY, f"{device} is over-granted: {memory} bytes"
            assert compute <= 1000, f"{device} is over-granted: {compute} per mille"
        assert devices <= 10, "the tenant's quota is exceeded"
        self._check_incidents()

    def _check_usable(self, lease: Lease) -> None:
        """A lease that has just been granted is on devices that may be."""
        for part in lease.slices:
            device = self.database.records["Accelerator", part.device]
            assert isinstance(device, Accelerator)
            is_out = device.fault or device.incident or device.cordoned
            assert not is_out, f"{lease} was granted on {device}"

    def _check_incidents(self) -> None:
        """What has happened to a device is known until somebody has seen to it."""
        for record in self.database.records.values():
            if isinstance(record, Accelerator):
                if record.incident:
                    self.incidents.add(record.id)
                elif record.id in self.incidents:
                    assert record.id in self.seen_to, f"{record.id}: its incident is forgotten"
                    self.incidents.discard(record.id)

    def run(self) -> None:
        """Everything, from the start to an empty pool."""
        self.schedulers[0].lead()
        for agent in self.agents.values():
            agent.start()
        for user in self.users:
            self.clock.later(self.clock.spread(0, 2), "", user.act)
        self.clock.later(5.0, "", self.fault)
        self.clock.run(ACTIVE, self.check)
        self._repair()
        self.clock.run(ACTIVE + QUIET, self.check)
        self._check_granted()
        self._give_everything_back()
        self.clock.run(ACTIVE + 2 * QUIET, self.check)
        self._check_empty()

    def _repair(self) -> None:
        """No more faults: all processes run, all networks work."""
        self.clock.tell("everything is repaired")
        for scheduler in self.schedulers:
            scheduler.crash_rate = 0.0
        if not any(scheduler.leads for scheduler in self.schedulers):
            self.schedulers[0].lead()
        for agent in self.agents.values():
            agent.find = self._leader
            if agent.admission is None:
                agent.start()
            assert agent.admission is not None
            agent.admission.faults = dict.fromkeys(agent.admission.faults, "")

        # Who believes to lead and does not finds out as soon as it writes.
        def settle() -> None:
            for name in self.agents:
                self.call(Cordoned(name, False), tries=50)

        self.clock.later(15.0, "", settle)

        # Only then has every report that stood still arrived.
        def see_to() -> None:
            for name, agent in self.agents.items():
                for device in (f"{name}/{ordinal}" for ordinal in range(agent.devices)):
                    self.seen_to.add(device)
                    self.call(Cordoned(device, False), tries=50)

        self.clock.later(2 * GRACE, "", see_to)

    def _leading(self) -> Scheduler:
        (leader,) = (
            s for s in self.schedulers if s.pool and s.pool.book.term == self.database.term
        )
        return leader

    def _check_granted(self) -> None:
        """What fits has been granted, and every state tells the truth."""
        leader = self._leading()
        assert leader.pool is not None
        book = leader.pool.book
        records = {k: r for k, r in self.database.records.items() if isinstance(r, Lease)}
        assert {lease.id: lease for lease in records.values()} == book.leases
        for name, agent in self.agents.items():
            assert agent.admission is not None
            ordered = {
                lease.epoch
                for lease in book.leases.values()
                if name in lease.servers and lease.closing is not Closing.FORCE
            }
            holds = set(agent.admission.holds)
            assert holds == ordered, f"{name} holds {holds}, ordered: {ordered}"
        for lease in book.leases.values():
            assert lease.state != State.ATTACHING, f"{lease} is still attaching"
            if lease.state in (State.AVAILABLE, State.IN_USE):
                sessions = sum(
                    session.epoch == lease.epoch
                    for agent in self.agents.values()
                    for session in agent.sessions.values()
                )
                assert (lease.state == State.IN_USE) == bool(sessions), lease

    def _give_everything_back(self) -> None:
        self.clock.tell("everything is given back")
        self.forced.update(self.created.values())
        for number, name in enumerate(sorted(self._leading().pool.book.leases)):  # type: ignore[union-attr]
            self.call(GivenBack("admin", f"end-{number}", name, Closing.FORCE), tries=50)

    def _check_empty(self) -> None:
        leader = self._leading()
        assert leader.pool is not None
        assert not leader.pool.book.leases, f"left over: {leader.pool.book.leases}"
        for agent in self.agents.values():
            assert not agent.sessions, f"{agent.name} still has {agent.sessions}"
            assert agent.admission is not None
            assert not agent.admission.holds
        whole = Demand(kind="gpu", count=1, memory=MEMORY, compute=1000)
        names = [f"check-{n}" for n in range(sum(DEVICES))]
        for name in names:
            outcome = leader.handle(Asked("admin", name, name, f"{TENANT}", whole))
            assert outcome is not None
            assert outcome.refused is None
        book = leader.pool.book
        assert all(book.leases[name].slices for name in names), "capacity has leaked"
        assert {server_of(part.device) for name in names for part in book.leases[name].slices} == (
            set(self.agents)
        )
