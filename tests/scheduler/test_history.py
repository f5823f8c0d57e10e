"""Events, usage and counts: what is remembered of what the core decided."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from harp_api.control.v1.access_pb2 import CreateTokenRequest
from harp_api.control.v1.history_pb2 import EventsRequest, UsageRequest
from harp_scheduler.core.book import Usage
from harp_scheduler.core.events import Asked, Cordoned, Disconnected, Event, ServerRevoked
from harp_scheduler.core.model import Closing
from harp_scheduler.core.placement.model import Demand
from harp_scheduler.core.pool import Outcome
from harp_scheduler.service.access import Caller, Denied, Role
from harp_scheduler.service.history import TERM, History
from harp_scheduler.service.history_api import HistoryApi
from harp_scheduler.service.identities import AccessApi
from harp_scheduler.service.meter import HOUR, Meter, hours
from harp_scheduler.store.events import KEPT, Happening
from scheduler.test_api import ADMIN, Aborted, Context, Service
from scheduler.test_core import GIB, GRACE, MARGIN, Bench


class Remembering(Bench):
    """A pool whose outcomes go into a history."""

    def __init__(self, *servers: str) -> None:
        self.history = History()
        self.stored: list[Happening] = []
        super().__init__(*servers)

    def do(self, event: Event) -> Outcome:  # type: ignore[override]
        outcome = self.pool.handle(event, self.now)
        self.history.take(event, outcome)
        self.stored += self.history.to_be_stored()
        self.history.tell()
        for server, orders in outcome.orders.items():
            self.agents[server].take_orders(orders)
            self.report(server)
        return outcome

    def told(self) -> list[tuple[str, str, str]]:
        return [(h.kind, h.name, h.what) for h in self.history.newest]

    def run(self, ttl: float) -> str:
        """The lease of a run."""
        demand = Demand(kind="gpu", memory=GIB)
        return self.do(Asked("me", "run", "run", "t", demand, ttl=ttl)).subject


def test_the_life_of_a_lease_is_told_in_order() -> None:
    bench = Remembering("s1")
    lease = bench.ask(id="work")
    bench.begin("s1", lease)
    bench.back(lease)
    bench.end("s1")
    bench.back(lease)
    states = [
        (what, h.reason) for h in bench.history.newest if (what := h.what) and h.kind == "lease"
    ]
    assert [what for what, _ in states] == [
        *("Attaching", "Available", "InUse", "Detaching", "InUse", "Available", "Detaching", "Gone")
    ]
    assert "not detached: a program uses it" in [reason for _, reason in states]
    assert bench.history.counts.grants == 1
    numbers = [h.number for h in bench.history.newest]
    assert numbers == list(range(1, len(numbers) + 1))
    assert [h.number for h in bench.history.since(numbers[-3])] == numbers[-2:]


def test_servers_and_devices_are_told_of() -> None:
    bench = Remembering("s1")
    bench.do(Cordoned("s1/1", on=True))
    bench.do(Cordoned("s1/1", on=False))
    bench.do(Cordoned("s1", on=True, drain=True))
    bench.do(Disconnected("s1"))
    assert [told for told in bench.told() if told[0] != "tenant"] == [
        ("server", "s1", "Connected"),
        ("device", "s1/1", "Cordoned"),
        ("device", "s1/1", "Ready"),
        ("server", "s1", "Cordoned"),
        ("server", "s1", "Draining"),
        ("server", "s1", "Disconnected"),
    ]


def test_what_a_scheduler_finds_when_it_takes_over_is_no_event() -> None:
    bench = Remembering("s1")
    lease = bench.ask()
    bench.do(Cordoned("s1", on=True))
    bench.do(Cordoned("s1/0", on=True))
    bench.history = History(bench.pool.book)
    bench.connect("s1")
    bench.wait(1.0)
    assert bench.lease(lease).slices
    assert [told for told in bench.told() if told[0] != "lease"] == [("server", "s1", "Connected")]
    assert bench.history.counts.grants == 0


def test_a_run_that_is_not_renewed_has_expired_whether_it_waited_or_not() -> None:
    bench = Remembering()
    bench.run(ttl=5.0)
    bench.wait(6.0)
    assert bench.history.counts.expiries == 1
    assert bench.history.newest[-1].what == "Gone"
    assert bench.history.newest[-1].reason == "its holder has not renewed it"
    bench = Remembering("s1")
    bench.run(ttl=5.0)
    bench.wait(6.0)
    assert (bench.history.counts.expiries, bench.history.counts.grants) == (1, 1)
    assert not bench.pool.book.leases


def test_what_is_lost_or_refused_is_counted_as_such() -> None:
    bench = Remembering("s1")
    lease = bench.ask()
    bench.do(Disconnected("s1"))
    bench.wait(GRACE + MARGIN + 1.0)
    assert (bench.history.counts.lost, bench.history.counts.expiries) == (1, 0)
    assert (bench.lease(lease).name, bench.history.newest[-1].what) == (lease, "Lost")
    bench.do(Cordoned("nowhere", on=True))
    assert bench.history.refusals == {"NotFound": 1}


def test_the_next_scheduler_tells_what_was_out_of_order() -> None:
    bench = Remembering("s1", "s2")
    bench.history.leads("one", 1)
    kept, lost = bench.ask(), bench.ask()
    bench.back(kept)
    (server,) = bench.lease(lost).servers
    bench.do(ServerRevoked(server))
    bench.run(ttl=1.0)
    bench.wait(2.0)
    stored = [(h.kind, h.what, h.reason) for h in bench.stored if h.kind in ("lease", "scheduler")]
    assert stored == [
        ("scheduler", "Leads", "in term 1"),
        ("lease", "Lost", f"server {server} was revoked"),
        ("lease", "Detaching", "its holder has not renewed it"),
        ("lease", "Gone", "its holder has not renewed it"),
    ]
    assert ("server", server, "Revoked") in [(h.kind, h.subject, h.what) for h in bench.stored]
    assert not any(h.what == "Connected" for h in bench.stored)

    last = bench.history.number
    following = History(bench.pool.book, bench.stored)
    assert list(following.since(0)) == bench.stored
    following.leads("two", 2)
    assert list(following.since(last)) == [], "it is not stored yet"
    following.tell()
    (leads,) = following.since(last)
    assert (leads.number, leads.name) == (TERM + 1, "two")
    assert list(following.since(bench.stored[-2].number)) == [bench.stored[-1], leads]


def test_the_oldest_are_forgotten() -> None:
    bench = Remembering("s1")
    for number in range(KEPT):
        bench.do(Cordoned("s1", on=number % 2 == 0))
    assert len(bench.history.newest) == KEPT
    assert bench.history.newest[0].number > 1


def test_hours_are_cut_where_they_end() -> None:
    assert list(hours(HOUR - 10, 2 * HOUR + 5)) == [(0.0, 10.0), (HOUR, HOUR), (2 * HOUR, 5.0)]
    assert list(hours(7.0, 7.0)) == []


def test_usage_is_what_was_held_between_changes() -> None:
    bench = Bench("s1")
    lease = bench.ask(count=2, compute=500)
    meter = Meter(bench.pool.book, {}, began=0.0)
    meter.changes(0.0)
    assert meter.take() == []
    meter.all(10.0)
    (row,) = meter.take()
    assert (row.tenant, row.hour) == ("t", datetime.fromtimestamp(0, UTC))
    assert (row.device_seconds, row.compute_seconds) == (20.0, 10.0)
    assert row.byte_seconds == 20.0 * GIB
    bench.back(lease, Closing.FORCE)
    meter.changes(15.0)
    (row,) = meter.take()
    assert (row.device_seconds, row.until) == (10.0, datetime.fromtimestamp(15, UTC))
    meter.all(100.0)
    assert meter.take() == []


@pytest.mark.parametrize(("until", "seconds"), [(40.0, 60.0), (130.0, 0.0)])
def test_a_scheduler_that_takes_over_counts_on_from_where_it_was_stored(
    until: float, seconds: float
) -> None:
    bench = Bench()
    bench.pool.book.usage["t"] = Usage(devices=1, memory=GIB, compute=1000, leases=1)
    measured = {"t": datetime.fromtimestamp(until, UTC)}
    meter = Meter(bench.pool.book, measured, began=100.0)
    meter.all(100.0)
    assert sum(row.device_seconds for row in meter.take()) == seconds


def test_usage_since_what_is_no_time_is_refused() -> None:
    service = Service()
    history = HistoryApi(lambda _: Caller(ADMIN), lambda: service.leader, None)  # type: ignore[arg-type]

    async def ask(since: float) -> None:
        await history.Usage(UsageRequest(since=since), Context(ADMIN))  # type: ignore[arg-type]

    try:
        for since in (float("nan"), float("inf")):
            with pytest.raises(Aborted, match="is no time"):
                service.loop.run_until_complete(ask(since))
    finally:
        service.close()


def test_a_token_for_what_is_no_time_is_refused() -> None:
    service = Service()
    members = SimpleNamespace(
        pool="lab", store=None, caller=lambda _: Caller(ADMIN, roles={"*": Role.ADMIN})
    )
    access = AccessApi(members, lambda: service.leader, lambda: 0)  # type: ignore[arg-type]
    request = CreateTokenRequest(request_id="r", role="server", ttl=float("nan"))
    try:
        with pytest.raises(Aborted, match="is no time"):
            service.loop.run_until_complete(access.CreateToken(request, Context(ADMIN)))  # type: ignore[arg-type]
    finally:
        service.close()


def test_who_is_revoked_is_shown_no_further_event() -> None:
    service, revoked = Service(), False

    def caller(_: object) -> Caller:
        if revoked:
            raise Denied("the certificate was revoked")
        return Caller(ADMIN, roles={"*": Role.ADMIN})

    async def watch() -> None:
        nonlocal revoked
        history = HistoryApi(caller, lambda: service.leader, None)  # type: ignore[arg-type]
        events = history.Events(EventsRequest(follow=True), Context(ADMIN))  # type: ignore[arg-type]
        async with asyncio.timeout(60):
            for known in service.leader.history.newest:
                assert (await anext(events)).number == known.number
            revoked = True
            service.leader.touch()
            with pytest.raises(Aborted, match="the certificate was revoked"):
                await anext(events)

    try:
        service.loop.run_until_complete(watch())
    finally:
        service.close()
