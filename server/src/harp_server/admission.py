"""Which leases a server holds, and which sessions may begin: the agent's side of the leases.

No clock, no files, no sockets: the agent calls in with what happens and does what comes out. The
simulation of the pool runs this same code.

The scheduler orders the whole set of leases that the server is to hold. What is not ordered any
more ends first: its sessions are killed, and its part of a device is free when the last is dead.
Only then is an ordered lease admitted that needs that part. So whatever the scheduler believes, no
part of a device serves two leases at one time.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from harp_api.control.v1 import agent_pb2 as agent
from harp_client.quantities import WHOLE

WAITING = agent.Held.STATE_WAITING
ADMITTED = agent.Held.STATE_ADMITTED
ENDING = agent.Held.STATE_ENDING
REFUSED = agent.Held.STATE_REFUSED

RUNNING_TOLD = 1000
"""Programs that one report tells of: it must stay far below what the scheduler takes (4 MiB)."""

REPORTS_KEPT = 64
"""Reports whose answer may still come."""

NUMBER_MOST = (1 << 64) - 1
"""Terms and epochs are not greater."""


@dataclass(slots=True)
class Hold:
    """One grant that the server was told of."""

    order: agent.Order
    state: agent.Held.State = WAITING
    sessions: set[str] = field(default_factory=set)
    running: dict[str, agent.Running] = field(default_factory=dict)
    """What is known of them, once their programs have been let in."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a session that may begin is given."""

    lease: str
    epoch: int
    parts: tuple[tuple[int, int, int], ...]
    """Ordinal of the device, bytes, per mille; in the lease's order."""

    owners: tuple[str, ...]
    """Identities that may use it: the worker checks the client's certificate."""


REVOKED = "the pool trusts this server no more: its certificate was revoked"


class Closed(Exception):
    """No session may begin under this lease: the reason, for the person who started the program."""


class Admission:
    """The leases of one server."""

    def __init__(self, memory: Mapping[int, int], now: float) -> None:
        """`memory`: bytes of each device by ordinal. `now`: seconds of a clock that runs on while
        the machine sleeps."""
        self.memory = dict(memory)
        self.term = 0
        self.revision = 0
        self.grace = 0.0
        self.highest: dict[int, int] = {}
        """The highest epoch that was ever ordered, by device."""

        self.returning: set[int] = set()
        """Epochs that ended here though nobody took them back: an earlier process held them, the
        server fenced itself, or it was revoked. They may be ordered again."""

        self.ordered: dict[int, agent.Order] = {}
        """The last orders, by epoch."""

        self.holds: dict[int, Hold] = {}
        """By epoch."""

        self.deadline = now
        """When the server must end all it holds, if it is not heard before."""

        self.registered = now
        """When the report was made that the connection to the scheduler began with."""

        self.number = 0
        self.sent: dict[int, float] = {}
        self.to_end: dict[str, str] = {}
        """Sessions to end now, each with the reason; the agent takes them away."""

        self.is_revoked = False
        """Whether the pool trusts this server no more."""

        self.faults: dict[int, str] = {}
        """Why devices take no new leases now; those that had a fault are here too, with ""."""

        self.incidents: dict[int, agent.Incident] = {}
        """What has happened to devices, the last of each."""

    def take_orders(self, orders: agent.Orders) -> bool:
        """Takes orders unless they are old; says whether they were taken. What `stored_with` gives
        of them has to be on disk before."""
        if self.is_revoked or (orders.term, orders.revision) <= (self.term, self.revision):
            return False
        self.term, self.revision = orders.term, orders.revision
        self.grace = orders.grace_ms / 1000
        # They come over the connection, so the scheduler has heard what it began with.
        self.deadline = max(self.deadline, self.registered + self.grace)
        self.ordered = {order.epoch: order for order in orders.leases}
        self.returning &= self.ordered.keys()
        for epoch, hold in list(self.holds.items()):
            if epoch in self.ordered:
                hold.order = self.ordered[epoch]
            else:
                self._end(epoch, "the lease of this session was taken back")
        self._admit()
        return True

    def enter(self, lease: str, session: str) -> Entry:
        """A session begins under a lease. Raises Closed."""
        if self.is_revoked:
            raise Closed(REVOKED)
        if not lease:
            raise Closed("this server belongs to a pool: take a lease (harp-run --gpus 1)")
        hold = next((h for h in self._newest_first() if h.order.lease == lease), None)
        if hold is None:
            raise Closed(f"this server holds no lease {lease}")
        if hold.state == ENDING:
            raise Closed(f"lease {lease} was taken back")
        if hold.state == WAITING:
            raise Closed(f"lease {lease} waits for what used its device before to end")
        if hold.order.closed:
            raise Closed(f"lease {lease} is being given back: no new programs")
        if hold.order.HasField("sessions_most") and len(hold.sessions) >= hold.order.sessions_most:
            raise Closed(f"the tenant of lease {lease} has all the programs of its quota running")
        hold.sessions.add(session)
        return Entry(
            lease,
            hold.order.epoch,
            tuple((part.ordinal, part.memory, part.compute) for part in hold.order.parts),
            tuple(hold.order.owners),
        )

    def began(self, running: agent.Running) -> None:
        """The program of a session has been let in."""
        for hold in self.holds.values():
            if running.session in hold.sessions:
                hold.running[running.session] = running

    def leave(self, session: str) -> None:
        """A session's worker is dead."""
        self.to_end.pop(session, None)
        for epoch, hold in list(self.holds.items()):
            hold.sessions.discard(session)
            hold.running.pop(session, None)
            if hold.state == ENDING and not hold.sessions:
                del self.holds[epoch]
        self._admit()

    def report(self, now: float) -> agent.Report:
        """What the server holds, as the next report."""
        self.number += 1
        self.sent[self.number] = now
        while len(self.sent) > REPORTS_KEPT:
            del self.sent[next(iter(self.sent))]
        report = agent.Report(
            number=self.number,
            term=self.term,
            revision=self.revision,
            faults=self.faults,
            incidents=self.incidents,
        )
        room = RUNNING_TOLD
        for epoch, hold in sorted(self.holds.items()):
            running = list(islice(hold.running.values(), room))
            room -= len(running)
            report.leases.add(
                lease=hold.order.lease,
                epoch=epoch,
                state=hold.state,
                sessions=len(hold.sessions),
                running=running,
            )
        for epoch in sorted(self.ordered.keys() - self.holds.keys()):
            report.leases.add(lease=self.ordered[epoch].lease, epoch=epoch, state=REFUSED)
        return report

    def register(self, now: float) -> agent.Report:
        """The report that a new connection to a scheduler begins with."""
        self.registered = now
        return self.report(now)

    def heard(self, heard: agent.Heard) -> None:
        """The scheduler has a report: the grace counts from when it was made."""
        made = self.sent.pop(heard.number, None)
        if made is not None and heard.term >= self.term:
            self.deadline = max(self.deadline, made + self.grace)

    def fence(self, now: float) -> bool:
        """Ends everything if the scheduler was not heard for the grace; says whether it did."""
        if now <= self.deadline or not self.holds:
            return False
        self.ordered = {}
        for epoch in list(self.holds):
            self.returning.add(epoch)
            self._end(epoch, "the server has not heard from the scheduler for the lease's grace")
        return True

    def revoke(self) -> None:
        """Ends everything, for as long as this process lives. One that is started with other
        certificates may take again what the scheduler still orders."""
        self.is_revoked = True
        self.ordered = {}
        for epoch in list(self.holds):
            self.returning.add(epoch)
            self._end(epoch, REVOKED)

    def _end(self, epoch: int, reason: str) -> None:
        hold = self.holds[epoch]
        hold.state = ENDING
        for session in hold.sessions:
            self.to_end.setdefault(session, reason)
        if not hold.sessions:
            del self.holds[epoch]

    def _admit(self) -> None:
        """Admits what is ordered and fits beside all that is not dead; the oldest grants first."""
        for epoch in sorted(self.ordered.keys() - self.holds.keys()):
            ordinals = [part.ordinal for part in self.ordered[epoch].parts]
            if epoch not in self.returning and any(
                epoch <= self.highest.get(ordinal, 0) for ordinal in ordinals
            ):
                continue  # it was taken back, or is from before what was: never again
            for ordinal in ordinals:
                self.highest[ordinal] = max(epoch, self.highest.get(ordinal, 0))
            self.holds[epoch] = Hold(self.ordered[epoch])
        for _, hold in sorted(self.holds.items()):
            if hold.state == WAITING and self._fits(hold.order.parts):
                hold.state = ADMITTED

    def _fits(self, parts: Sequence[agent.Part]) -> bool:
        taken = [
            part
            for hold in self.holds.values()
            if hold.state != WAITING
            for part in hold.order.parts
        ]
        for ordinal in {part.ordinal for part in parts}:
            together = [part for part in (*taken, *parts) if part.ordinal == ordinal]
            if (
                sum(part.memory for part in together) > self.memory.get(ordinal, 0)
                or sum(part.compute for part in together) > WHOLE
            ):
                return False
        return True

    def _newest_first(self) -> list[Hold]:
        return [hold for _, hold in sorted(self.holds.items(), reverse=True)]

    def stored(self) -> dict[str, object]:
        """What outlives the agent's process, as JSON."""
        return {
            "term": self.term,
            "highest": {str(ordinal): epoch for ordinal, epoch in self.highest.items()},
            "held": sorted(self.returning | self.holds.keys()),
        }

    def stored_with(self, orders: agent.Orders) -> dict[str, object] | None:
        """What `stored` will give once these orders are taken; None: they are old. Nothing is
        changed by asking."""
        tried = copy.copy(self)
        tried.highest, tried.returning = dict(self.highest), set(self.returning)
        tried.holds = {epoch: replace(hold) for epoch, hold in self.holds.items()}
        tried.to_end = {}
        return tried.stored() if tried.take_orders(orders) else None

    def restore(self, stored: object) -> None:
        """Takes what an earlier process of this server has stored. Its sessions are dead.

        Raises ValueError where it is anything else, and takes none of it: what is left out would
        be forgotten, and orders taken that are older than it.
        """
        match stored:
            case {"term": term, "highest": dict(highest), "held": list(held)}:
                self.term, self.highest, self.returning = (
                    _number(term),
                    {_number(int(ordinal)): _number(epoch) for ordinal, epoch in highest.items()},
                    {_number(epoch) for epoch in held},
                )
            case _:
                raise ValueError("no term, epochs and leases")


def _number(value: object) -> int:
    """A term, an epoch or an ordinal. Raises ValueError where it is none."""
    if type(value) is not int or not 0 <= value <= NUMBER_MOST:
        raise ValueError(f"{value!r} is no number of a term, a lease or a device")
    return value
