"""The scheduler's core: requests, the queue, and the life of a lease. Events in, outcomes out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import pytest

from harp_api.control.v1 import agent_pb2 as agent
from harp_scheduler.core.agents import DEVICES_MAX
from harp_scheduler.core.book import PATIENCE, Number, unusable
from harp_scheduler.core.events import (
    Asked,
    Connected,
    Cordoned,
    Disconnected,
    GivenBack,
    Renewed,
    Reported,
    ServerRemoved,
    ServerRevoked,
    Started,
    TenantSet,
    Ticked,
)
from harp_scheduler.core.model import After, Closing, Lease, Quota, State
from harp_scheduler.core.placement.model import Demand
from harp_scheduler.core.pool import LEARN_AGAIN, Outcome, Pool
from harp_scheduler.core.refused import Conflict, NotFound, OverQuota
from harp_server.admission import Admission, Closed

GIB = 1 << 30
GRACE, MARGIN = 20.0, 1.0


class Bench:
    """A pool with servers that answer at once, and a clock that only tests move."""

    def __init__(self, *servers: str, devices: int = 2, quota: Quota | None = None) -> None:
        self.now = 0.0
        self.pool = Pool(1, self.now, grace=GRACE, margin=MARGIN)
        self.agents: dict[str, Admission] = {}
        self.numbers = count(1)
        self.do(TenantSet("t", quota or Quota()))
        for server in servers:
            self.connect(server, devices)

    def connect(self, server: str, devices: int = 2, uuids: Sequence[str] = ()) -> None:
        """An agent has started, and knows nothing of before."""
        self.agents[server] = Admission(dict.fromkeys(range(devices), GIB), self.now)
        self.connect_again(server, uuids)

    def connect_again(self, server: str, uuids: Sequence[str] = ()) -> None:
        admission = self.agents[server]
        register = agent.Register(address=f"{server}:7443", report=admission.register(self.now))
        for ordinal in admission.memory:
            labels = {"uuid": uuids[ordinal]} if uuids else {}
            register.devices.add(ordinal=ordinal, kind="gpu", model="m", memory=GIB, labels=labels)
        self.do(Connected(server, register))

    def do(self, event: object) -> Outcome:
        """One event, and what the servers then report."""
        outcome = self.pool.handle(event, self.now)  # type: ignore[arg-type]
        if outcome.refused is not None:
            raise outcome.refused
        for server, orders in outcome.orders.items():
            self.agents[server].take_orders(orders)
            self.report(server)
        return outcome

    def report(self, server: str) -> None:
        self.do(Reported(server, self.agents[server].report(self.now)))

    def ask(self, *, id: str = "", request: str = "", **demand: object) -> str:
        number = next(self.numbers)
        return self.do(
            Asked(
                "me",
                request or f"r{number}",
                id or f"lease{number}",
                "t",
                Demand(**{"kind": "gpu", "memory": GIB, **demand}),  # type: ignore[arg-type]
                host="host",
            )
        ).subject

    def back(self, lease: str, how: Closing = Closing.IF_UNUSED, after: After = After.GONE) -> None:
        self.do(GivenBack("me", f"b{next(self.numbers)}", lease, how, after))

    def begin(self, server: str, lease: str, session: str = "session") -> None:
        self.agents[server].enter(lease, session)
        self.report(server)

    def end(self, server: str, session: str = "session") -> None:
        self.agents[server].leave(session)
        self.report(server)

    def lease(self, name: str) -> Lease:
        return self.pool.book.leases[name]

    def unusable(self, device: str) -> str:
        known = self.pool.book.accelerators[device]
        return unusable(
            self.pool.book.servers[known.server], self.pool.book.links[known.server], known
        )

    def reason(self, name: str) -> str:
        return self.pool.book.reason(self.lease(name))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.do(Ticked())


@pytest.fixture
def bench() -> Bench:
    return Bench("s1")


def test_a_lease_lives_as_eais_names_it(bench: Bench) -> None:
    lease = bench.ask()
    assert bench.lease(lease).state is State.AVAILABLE
    bench.begin("s1", lease)
    assert bench.lease(lease).state is State.IN_USE
    bench.end("s1")
    assert bench.lease(lease).state is State.AVAILABLE
    bench.back(lease, after=After.STOPPED)
    assert (bench.lease(lease).state, bench.lease(lease).slices) == (State.UNAVAILABLE, ())
    bench.do(Started("me", "again", lease))
    assert bench.lease(lease).state is State.AVAILABLE
    bench.back(lease)
    assert lease not in bench.pool.book.leases


def test_detaching_a_lease_in_use_is_refused_and_leaves_it_as_it_was(bench: Bench) -> None:
    lease = bench.ask()
    bench.begin("s1", lease)
    bench.back(lease)
    assert bench.lease(lease).state is State.IN_USE
    assert bench.reason(lease) == "not detached: a program uses it"
    bench.begin("s1", lease, "another")
    bench.back(lease)
    assert bench.reason(lease) == "not detached: 2 programs use it"


def test_draining_waits_for_programs_and_forcing_ends_them(bench: Bench) -> None:
    drained, forced = bench.ask(), bench.ask()
    bench.begin("s1", drained, "one")
    bench.begin("s1", forced, "two")
    bench.back(drained, Closing.DRAIN)
    assert bench.lease(drained).state is State.DETACHING
    bench.end("s1", "one")
    assert drained not in bench.pool.book.leases
    bench.back(forced, Closing.FORCE)
    assert list(bench.agents["s1"].to_end) == ["two"]
    assert forced in bench.pool.book.leases  # its slices are not free before it is dead
    bench.end("s1", "two")
    assert forced not in bench.pool.book.leases


def test_the_same_request_again_makes_no_second_lease(bench: Bench) -> None:
    first = bench.ask(id="a", request="r")
    assert bench.ask(id="b", request="r") == first
    assert list(bench.pool.book.leases) == [first]


def test_what_does_not_fit_waits_and_says_why_and_is_granted_when_it_does(bench: Bench) -> None:
    first = bench.ask(count=2)
    second = bench.ask()
    assert bench.lease(second).state is State.PENDING
    assert bench.reason(second).startswith("no capacity: ")
    bench.back(first)
    assert bench.lease(second).state is State.AVAILABLE


def test_a_large_demand_is_passed_over_until_it_has_waited_for_long(bench: Bench) -> None:
    held = bench.ask()
    large = bench.ask(count=2)
    small = bench.ask()
    assert bench.lease(small).slices
    bench.back(small)
    bench.wait(PATIENCE + 1)
    late = bench.ask()
    assert not bench.lease(late).slices
    assert bench.reason(late) == "a lease that has waited for longer comes first"
    bench.back(held)
    assert bench.lease(large).slices
    assert not bench.lease(late).slices


def test_priority_goes_before_arrival(bench: Bench) -> None:
    held = bench.ask(count=2)
    low = bench.ask(count=2)
    high = bench.do(
        Asked("me", "high", "high", "t", Demand(kind="gpu", count=2, memory=GIB), priority=5)
    ).subject
    bench.back(held)
    assert bench.lease(high).slices
    assert not bench.lease(low).slices


def test_epochs_only_grow_and_are_stored_with_what_they_are_for(bench: Bench) -> None:
    first = bench.ask()
    outcome = bench.do(Asked("me", "x", "second", "t", Demand(kind="gpu", memory=GIB)))
    epochs = [record.epoch for record in outcome.changes.values() if isinstance(record, Lease)]
    assert epochs == [bench.lease(first).epoch + 1]
    assert ("epoch", epochs[0]) in outcome.numbers


def test_quota_is_for_what_is_held_and_for_what_can_ever_be() -> None:
    bench = Bench("s1", devices=4, quota=Quota(devices=2, leases=3))
    with pytest.raises(OverQuota, match="it can never be granted: the tenant holds 0 of 2 devices"):
        bench.ask(count=3)
    first = bench.ask(count=2)
    waiting = bench.ask()
    assert bench.reason(waiting) == "the tenant holds 2 of 2 devices, and 1 are wanted"
    bench.ask()
    with pytest.raises(OverQuota, match="has its 3 leases"):
        bench.ask()
    bench.back(first)
    assert bench.lease(waiting).slices


def test_a_quota_of_memory_counts_what_a_share_takes() -> None:
    bench = Bench("s1", quota=Quota(memory=GIB + GIB // 2))
    whole = {"compute": 1000, "memory": 0}
    first, second = bench.ask(**whole), bench.ask(**whole)
    assert bench.lease(first).slices
    assert not bench.lease(second).slices
    assert bench.reason(second) == (
        f"the tenant holds {GIB} of {GIB + GIB // 2} bytes of memory, and {GIB} are wanted"
    )


def test_what_the_queue_waits_for_is_not_stored(bench: Bench) -> None:
    bench.ask(count=2)
    waiting = [bench.ask() for _ in range(3)]
    device = bench.lease("lease1").slices[0].device
    outcome = bench.do(Cordoned(device, True))
    assert {key for key in outcome.changes if key[0] == "Lease"} == set()
    assert set(waiting) <= outcome.told
    assert all("cordoned" in bench.reason(lease) for lease in waiting)


def test_a_detach_that_waits_for_a_lost_server_ends(bench: Bench) -> None:
    lease = bench.ask()
    bench.do(Disconnected("s1"))
    bench.back(lease)
    assert bench.lease(lease).state is State.DETACHING
    bench.wait(GRACE + MARGIN + 0.1)
    assert lease not in bench.pool.book.leases


def test_a_quota_of_sessions_is_shared_by_a_tenants_servers() -> None:
    bench = Bench("s1", "s2", quota=Quota(sessions=3))
    lease = bench.ask(count=4)
    assert set(bench.lease(lease).servers) == {"s1", "s2"}
    bench.begin("s1", lease, "one")
    bench.begin("s2", lease, "two")
    bench.begin("s2", lease, "three")
    for server in ("s1", "s2"):
        with pytest.raises(Closed, match="all the programs of its quota"):
            bench.begin(server, lease, "four")
    bench.end("s2", "two")
    bench.begin("s1", lease, "four")
    bench.do(TenantSet("t", Quota(sessions=4)))
    bench.begin("s2", lease, "five")
    bench.do(TenantSet("t", Quota()))
    bench.begin("s2", lease, "six")


def test_a_server_out_of_reach_keeps_its_leases_until_the_grace_is_over(bench: Bench) -> None:
    lease = bench.ask()
    bench.do(Disconnected("s1"))
    assert bench.lease(lease).state is State.UNAVAILABLE
    assert bench.reason(lease) == "out of reach: s1"
    waiting = bench.ask()
    assert not bench.lease(waiting).slices
    bench.wait(GRACE + MARGIN)
    assert bench.lease(lease).slices
    bench.wait(0.1)
    assert (bench.lease(lease).state, bench.lease(lease).slices) == (State.LOST, ())
    bench.connect("s1")
    assert bench.lease(waiting).slices
    bench.do(Started("me", "again", lease))
    assert bench.lease(lease).state is State.AVAILABLE


def test_what_a_revoked_server_holds_is_lost_at_once_whatever_it_goes_on_to_say() -> None:
    bench = Bench("s1", "s2")
    gang, other = bench.ask(count=3), bench.ask()
    assert bench.lease(gang).servers == ("s1", "s2")
    bench.begin("s1", gang)
    bench.begin("s2", gang, "another")
    bench.do(ServerRevoked("s1"))
    # Its part of the other server is free when that has ended what used it.
    assert (bench.lease(gang).state, bench.lease(gang).reason) == (
        State.LOST,
        "server s1 was revoked",
    )
    assert bench.lease(gang).slices
    bench.end("s2", "another")
    assert bench.lease(gang).slices == ()
    assert bench.lease(other).state is State.AVAILABLE
    bench.report("s1")
    assert bench.unusable("s1/0") == "out of reach"
    assert not bench.lease(bench.ask(count=2)).slices
    # It comes back with what it holds, and is told to end it before anything is admitted there.
    waiting = next(name for name, lease in bench.pool.book.leases.items() if lease.waits)
    bench.connect_again("s1")
    assert bench.lease(waiting).state is State.ATTACHING
    bench.end("s1")
    assert bench.lease(waiting).state is State.AVAILABLE


def test_a_gang_of_which_one_server_is_lost_is_taken_from_the_other() -> None:
    bench = Bench("s1", "s2")
    lease = bench.ask(count=4)
    bench.begin("s1", lease)
    bench.do(Disconnected("s2"))
    bench.wait(GRACE - 5)
    bench.report("s1")
    bench.wait(MARGIN + 6)
    assert list(bench.agents["s1"].to_end) == ["session"]
    assert bench.lease(lease).slices
    bench.end("s1")
    assert (bench.lease(lease).state, bench.lease(lease).slices) == (State.LOST, ())


def test_a_run_that_is_not_renewed_loses_its_lease_unless_a_program_uses_it(bench: Bench) -> None:
    demand = Demand(kind="gpu", memory=GIB)
    for name in ("used", "unused", "renewed"):
        if name == "renewed":
            bench.back("unused", Closing.FORCE)
        bench.do(Asked("me", name, name, "t", demand, ttl=10.0))
        if name == "used":
            bench.begin("s1", "used")
    bench.wait(9)
    bench.do(Renewed("renewed"))
    bench.wait(2)
    assert bench.lease("renewed").slices
    assert bench.lease("used").state is State.IN_USE
    bench.end("s1")
    bench.wait(10)
    assert not bench.pool.book.leases


def test_a_cordoned_device_takes_no_new_lease_and_keeps_the_old(bench: Bench) -> None:
    first = bench.ask()
    device = bench.lease(first).slices[0].device
    bench.do(Cordoned(device, True))
    assert bench.lease(first).state is State.AVAILABLE
    second = bench.ask()
    assert bench.lease(second).slices[0].device != device
    bench.back(first)
    third = bench.ask()
    assert not bench.lease(third).slices
    bench.do(Cordoned(device, False))
    assert bench.lease(third).slices


def test_a_drained_servers_attachments_move_to_another() -> None:
    bench = Bench("s1", "s2")
    lease = bench.ask(count=2)
    (before,) = bench.lease(lease).servers
    bench.begin(before, lease)
    bench.do(Cordoned(before, True, drain=True))
    assert bench.lease(lease).state is State.DETACHING
    bench.end(before)
    (after,) = bench.lease(lease).servers
    assert after != before
    assert bench.lease(lease).state is State.AVAILABLE


def test_a_faulty_device_is_taken_out_by_itself(bench: Bench) -> None:
    bench.agents["s1"].faults = {0: "XID 79"}
    bench.report("s1")
    leases = [bench.ask(), bench.ask()]
    assert [bool(bench.lease(lease).slices) for lease in leases] == [True, False]
    bench.agents["s1"].faults = {0: ""}
    bench.report("s1")
    assert bench.lease(leases[1]).slices


def test_a_device_with_an_incident_comes_back_only_by_an_admin(bench: Bench) -> None:
    bench.agents["s1"].incidents = {0: agent.Incident(number=7, cause="Xid 79")}
    bench.report("s1")
    leases = [bench.ask(), bench.ask()]
    assert [bool(bench.lease(lease).slices) for lease in leases] == [True, False]
    assert bench.pool.book.accelerators["s1/0"].incident == "Xid 79"
    assert bench.unusable("s1/0") == "faulty"
    # Neither that its server says nothing of it any more, nor that it starts anew.
    bench.agents["s1"].incidents = {}
    bench.report("s1")
    bench.connect("s1")
    assert not bench.lease(leases[1]).slices
    bench.do(Cordoned("s1", False))
    assert not bench.lease(leases[1]).slices
    bench.do(Cordoned("s1/0", False))
    assert bench.lease(leases[1]).slices


def test_an_incident_that_was_seen_to_is_not_taken_for_another(bench: Bench) -> None:
    server = bench.agents["s1"]
    server.incidents = {0: agent.Incident(number=7, cause="Xid 79")}
    bench.report("s1")
    bench.do(Cordoned("s1/0", False))
    # The server goes on telling it: to be heard it says each time all there is.
    server.faults = {1: "a row of its memory is to be remapped"}
    bench.report("s1")
    bench.connect_again("s1")
    assert [bench.unusable(key) for key in ("s1/0", "s1/1")] == ["", "faulty"]
    server.incidents = {0: agent.Incident(number=8, cause="Xid 79")}
    bench.report("s1")
    assert bench.unusable("s1/0") == "faulty"


def test_an_incident_is_of_the_device_and_not_of_its_number() -> None:
    bench = Bench()
    bench.connect("s1", uuids=("GPU-a", "GPU-b"))
    bench.agents["s1"].incidents = {0: agent.Incident(number=7, cause="Xid 79")}
    bench.report("s1")
    # The machine starts anew, and numbers them the other way round; and then one was replaced.
    bench.connect("s1", uuids=("GPU-b", "GPU-a"))
    devices = bench.pool.book.accelerators
    assert [devices[key].incident for key in ("s1/0", "s1/1")] == ["", "Xid 79"]
    bench.connect("s1", uuids=("GPU-b", "GPU-c"))
    assert [devices[key].incident for key in ("s1/0", "s1/1")] == ["", ""]


def test_a_server_that_has_other_devices_each_time_is_known_by_a_bounded_number_of_them() -> None:
    bench = Bench("s1", "s2", devices=3)
    lease = bench.ask(count=4)
    held = {part.device for part in bench.lease(lease).slices if part.device.startswith("s1/")}
    assert held
    server = bench.agents["s1"]
    server.incidents = {1: agent.Incident(number=7, cause="Xid 79")}
    bench.report("s1")
    bench.do(Cordoned("s1/2", True))
    known = bench.pool.book.devices_of["s1"]
    for start in range(1000, 1000 + 3 * DEVICES_MAX, DEVICES_MAX):
        register = agent.Register(report=server.register(bench.now))
        for ordinal in range(start, start + 2 * DEVICES_MAX):
            register.devices.add(ordinal=ordinal, kind="gpu", model="m", memory=GIB)
        bench.do(Connected("s1", register))
        assert len(known) == DEVICES_MAX
        assert f"s1/{start}" in known
        # What outlives their absence: leases, and what an admin did or is to see to.
        assert held | {"s1/1", "s1/2"} <= known
    assert bench.lease(lease).slices


def test_names_are_unique_in_a_tenant_and_unknown_things_are_said_to_be(bench: Bench) -> None:
    demand = Demand(kind="gpu", memory=GIB)
    bench.do(Asked("me", "1", "a", "t", demand, name="train"))
    with pytest.raises(Conflict, match="already has a lease named train"):
        bench.do(Asked("me", "2", "b", "t", demand, name="train"))
    with pytest.raises(NotFound, match="no tenant other"):
        bench.do(Asked("me", "3", "c", "other", demand))
    with pytest.raises(NotFound, match="no lease nothing"):
        bench.back("nothing")
    with pytest.raises(Conflict, match="is connected"):
        bench.do(ServerRemoved("s1"))


def test_the_placement_learns_which_demands_arrive(bench: Bench) -> None:
    typical: list[object] = []
    bench.pool.book.placement.set_workload = typical.append  # type: ignore[method-assign,assignment]
    for _ in range(3):
        bench.ask()
    bench.wait(LEARN_AGAIN)
    bench.wait(1)
    assert typical == [((Demand(kind="gpu", memory=GIB), 1.0),)]


def test_a_device_that_has_become_smaller_keeps_its_lease_through_a_new_leader(
    bench: Bench,
) -> None:
    lease = bench.ask()
    register = agent.Register(report=bench.agents["s1"].register(bench.now))
    for ordinal in range(2):
        register.devices.add(ordinal=ordinal, kind="gpu", model="m", memory=GIB // 2)
    bench.do(Connected("s1", register))
    again = restarted(bench)
    assert again.book.leases[lease].slices == bench.lease(lease).slices
    given_back = GivenBack("me", "b", lease, Closing.FORCE)
    assert again.handle(given_back, 100.0).refused is None


def restarted(bench: Bench, since_1970: float = 100.0) -> Pool:
    """The pool as another scheduler finds it, when the database's clock says `since_1970`."""
    book = bench.pool.book
    records = [
        *book.servers.values(),
        *book.accelerators.values(),
        *book.leases.values(),
        *book.tenants.values(),
        *book.requests.values(),
    ]
    numbers = [Number("epoch", book.epoch), Number("order", book.order)]
    return Pool(2, 100.0, records, numbers, since_1970=since_1970)


@pytest.mark.parametrize(
    ("clock", "left"),
    [
        pytest.param(1030.0, 30.0, id="counted from the grant"),
        pytest.param(1070.0, 0.0, id="it ended while nobody led"),
        pytest.param(900.0, 60.0, id="the clock was set back"),
    ],
)
def test_how_long_a_lease_may_be_held_counts_from_its_grant_whoever_leads(
    clock: float, left: float
) -> None:
    bench = Bench("s1")
    bench.now = 1000.0
    lease = bench.do(
        Asked("me", "r", "lease", "t", Demand("gpu", memory=GIB), host="h", longest=60.0)
    ).subject
    assert bench.lease(lease).granted == 1000.0
    again = restarted(bench, clock)
    again.handle(Ticked(), 100.0 + left)
    assert again.book.leases[lease].closing is None or not left
    again.handle(Ticked(), 100.5 + left)
    reason = "it was held for as long as it may be"
    assert (again.book.leases[lease].closing, again.book.leases[lease].reason) == (
        Closing.FORCE,
        reason,
    )
    # A limit that the next scheduler reads is of the same grant.
    assert again.book.leases[lease].granted == min(1000.0, clock)


def test_what_was_stored_makes_the_same_pool_again(bench: Bench) -> None:
    for _ in range(3):
        bench.ask()
    book, again = bench.pool.book, restarted(bench)
    assert again.book.leases == book.leases
    assert again.book.waiting == book.waiting
    assert again.book.usage == book.usage
