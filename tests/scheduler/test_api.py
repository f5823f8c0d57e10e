"""The service `Pool`, called as anybody in the pool can call it: what it lets through, and that it
keeps its promises under any sequence of calls (a stateful test against a simple model)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)

from harp_api.control.v1 import agent_pb2 as agent
from harp_api.control.v1 import pool_pb2 as api
from harp_scheduler.core.events import Connected, Reported, TenantSet
from harp_scheduler.core.model import Quota
from harp_scheduler.core.pool import Pool
from harp_scheduler.service import views
from harp_scheduler.service.access import Caller, Role, identify
from harp_scheduler.service.api import PoolApi
from harp_scheduler.service.leader import Leader
from harp_server.admission import Admission

GIB = 1 << 30
BOUND = 30.0
DEVICES = 3
ALICE = "spiffe://lab/tenant/research/user/alice"
BOB = "spiffe://lab/tenant/other/user/bob"
SERVER = "spiffe://lab/server/s1"
ADMIN = "spiffe://lab/tenant/system/user/admin"


class Aborted(Exception):
    """The call ended with a status."""

    def __init__(self, code: grpc.StatusCode, details: str, metadata: Any) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code, self.details = code, details


class Context:
    """A call of somebody, as the service sees it."""

    def __init__(self, identity: str) -> None:
        self._identity = identity

    def peer_identities(self) -> list[bytes]:
        return [self._identity.encode()]

    async def abort(self, code: grpc.StatusCode, details: str, metadata: Any = ()) -> None:
        raise Aborted(code, details, metadata)


class Members:
    """Who is in the pool: whoever its certificates name, with one admin; nobody is revoked."""

    pool = "lab"

    def caller(self, context: Any) -> Caller:
        caller = identify(context, self.pool)
        roles = {"*": Role.ADMIN} if caller.identity == ADMIN else {}
        return replace(caller, roles=roles)

    def check(self, context: Any) -> None:
        """Nobody is revoked."""


class NothingStored:
    """A store that keeps nothing, at once."""

    def commit(self, *_: object) -> None:
        pass


class Service:
    """The service over a pool with one server, that takes each order at once."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = ThreadPoolExecutor(1)
        self.admission = Admission(dict.fromkeys(range(DEVICES), GIB), 0.0)
        self.numbers = count(1)
        self.reports: set[asyncio.Future[Any]] = set()
        self.loop.run_until_complete(self._start())

    async def _start(self) -> None:
        self.store = NothingStored()
        self.leader = Leader(Pool(1, 0.0), self.store, self.thread)  # type: ignore[arg-type]
        self.running = asyncio.create_task(self.leader.run())
        self.api = PoolApi(Members(), lambda: self.leader)  # type: ignore[arg-type]
        self.leader.links["s1"] = self._ordered
        await self.leader.handle(TenantSet("research", Quota(devices=2)))
        await self.leader.handle(TenantSet("other", Quota()))
        register = agent.Register(address="s1:7443", report=self.admission.register(0.0))
        for ordinal in range(DEVICES):
            register.devices.add(ordinal=ordinal, kind="gpu", model="m", memory=GIB)
        await self.leader.handle(Connected("s1", register))
        await self._settle()

    def _ordered(self, message: agent.ToAgent) -> None:
        self.admission.take_orders(message.orders)
        self._report()

    def _report(self) -> None:
        event = Reported("s1", self.admission.report(0.0))
        reported = asyncio.ensure_future(self.leader.handle(event))
        self.reports.add(reported)
        reported.add_done_callback(self.reports.discard)

    async def _settle(self) -> None:
        """Until all that the server has to report is taken."""
        while self.reports:
            await asyncio.gather(*self.reports)

    def call(self, name: str, request: Any, identity: str = ALICE) -> Any:
        """The answer. Raises Aborted."""

        async def run() -> Any:
            method: Callable[..., Awaitable[Any]] = getattr(self.api, name)
            answer = await method(request, Context(identity))
            await self._settle()
            return answer

        return self.loop.run_until_complete(run())

    def request(self) -> str:
        return f"r{next(self.numbers)}"

    def attach(self, identity: str = ALICE, **fields: Any) -> api.Lease:
        fields.setdefault("request_id", self.request())
        lease: api.Lease = self.call("Attach", api.AttachRequest(**fields), identity)
        return lease

    def session(self, begins: bool, lease: str, session: str = "session") -> None:
        async def run() -> None:
            if begins:
                self.admission.enter(lease, session)
            else:
                self.admission.leave(session)
            self._report()
            await self._settle()

        self.loop.run_until_complete(run())

    def close(self) -> None:
        self.running.cancel()
        with suppress(asyncio.CancelledError):
            self.loop.run_until_complete(self.running)
        self.thread.shutdown()
        self.loop.close()


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.close()


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"request_id": ""}, "needs a request_id"),
        ({"request_id": "x" * 65}, "needs a request_id"),
        ({"users": ["../root"]}, "cannot name a user"),
        ({"users": ["user"] * 257}, "at most 256 users"),
        ({"name": "No Spaces"}, "cannot name a lease"),
        ({"name": "\x1b[2J"}, "cannot name a lease"),
        ({"demand": api.Demand(count=1025)}, "are too many"),
        ({"demand": api.Demand(compute=1001)}, "more than a device"),
        ({"demand": api.Demand(memory=2**64 - 1)}, "more than any device"),
        ({"demand": api.Demand(models=["m"] * 65)}, "at most 64 models"),
        ({"demand": api.Demand(labels={"a": "x" * 257})}, "at most 256 letters"),
        ({"demand": api.Demand(kind="tpu")}, "no kind of accelerator"),
        ({"ttl": float("nan")}, "is no time"),
        ({"longest": float("inf")}, "is no time"),
        ({"profile": "nothing"}, "there is no profile nothing"),
    ],
)
def test_what_makes_no_sense_is_refused(
    service: Service, fields: dict[str, Any], cause: str
) -> None:
    with pytest.raises(Aborted, match=cause):
        service.attach(**fields)
    assert not service.leader.pool.book.leases


def test_who_is_not_of_the_pool_or_tenant_is_denied(service: Service) -> None:
    for identity in ("", "spiffe://other/tenant/research/user/alice", "spiffe://lab/server/s1"):
        with pytest.raises(Aborted) as denied:
            service.attach(identity)
        assert denied.value.code is grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(Aborted, match="is not user of tenant research"):
        service.attach(BOB, tenant="research")
    with pytest.raises(Aborted, match="is not operator of tenant research"):
        service.attach(ALICE, host="web1")
    for call, request in (
        ("Cordon", api.CordonRequest(subject="s1", on=True)),
        ("SetTenant", api.Tenant(name="research")),
        ("SetProfile", api.Profile(name="p")),
        ("RemoveServer", api.RemoveRequest(name="s1")),
    ):
        with pytest.raises(Aborted) as denied:
            service.call(call, request)
        assert denied.value.code is grpc.StatusCode.PERMISSION_DENIED


def test_leases_of_others_are_not_seen_nor_touched(service: Service) -> None:
    lease = service.attach()
    assert not service.call("Get", api.GetRequest(), BOB).leases
    for call, request in (
        ("Detach", api.DetachRequest(request_id="x", lease=lease.id)),
        ("Start", api.StartRequest(request_id="x", lease=lease.id)),
        ("Renew", api.RenewRequest(lease=lease.id)),
    ):
        with pytest.raises(Aborted) as refused:
            service.call(call, request, BOB)
        assert refused.value.code is grpc.StatusCode.NOT_FOUND
    assert service.call("Get", api.GetRequest(), ADMIN).leases[0].id == lease.id


@pytest.mark.parametrize(
    ("identity", "seen"), [(ALICE, ["secret"]), (ADMIN, ["secret"]), (BOB, []), (SERVER, [])]
)
def test_that_a_device_is_taken_is_seen_by_all_and_by_whose_lease_by_those_who_see_the_lease(
    service: Service, identity: str, seen: list[str]
) -> None:
    service.attach(name="secret")
    devices = service.call("Get", api.GetRequest(), identity).devices
    (taken,) = [device for device in devices if device.compute_leased]
    assert list(taken.leases) == seen


def test_nobody_sees_what_is_not_stored(service: Service) -> None:
    goes_on = threading.Event()
    service.store.commit = lambda *_: goes_on.wait(BOUND)  # type: ignore[method-assign]

    async def ask_and_look() -> api.Things:
        asked = asyncio.ensure_future(
            service.api.Attach(api.AttachRequest(request_id="r"), Context(ALICE))
        )
        while not service.leader.pool.book.leases:
            await asyncio.sleep(0)
        looking = asyncio.ensure_future(service.api.Get(api.GetRequest(), Context(ALICE)))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not looking.done()
        goes_on.set()
        await asked
        return await looking

    seen = service.loop.run_until_complete(ask_and_look())
    assert [lease.state for lease in seen.leases] == ["Attaching"]


def test_who_was_slow_sees_nothing_that_is_not_stored_either(service: Service) -> None:
    goes_on = threading.Event()

    async def ask_and_look() -> None:
        changes = service.leader.changes()
        await anext(changes)
        await service.leader.handle(TenantSet("third", Quota()))  # not looked at yet
        service.store.commit = lambda *_: goes_on.wait(BOUND)  # type: ignore[method-assign]
        asked = asyncio.ensure_future(
            service.api.Attach(api.AttachRequest(request_id="r"), Context(ALICE))
        )
        while not service.leader.pool.book.leases:
            await asyncio.sleep(0)
        looking = asyncio.ensure_future(anext(changes))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not looking.done()
        goes_on.set()
        await asyncio.gather(asked, looking)
        await changes.aclose()

    service.loop.run_until_complete(ask_and_look())


@pytest.mark.parametrize("call", ["Get", "Watch"])
def test_the_pool_goes_on_while_it_is_shown_as_it_was(
    service: Service, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    begun, goes_on, server = threading.Event(), threading.Event(), views.server
    service.attach(name="before", demand=api.Demand(compute=400))

    def slow(*known: Any) -> api.Server:
        begun.set()
        goes_on.wait(BOUND)
        return server(*known)

    async def show() -> api.Things:
        answer = getattr(service.api, call)(api.GetRequest(), Context(ADMIN))
        shown: api.Things = await (anext(answer) if call == "Watch" else answer)
        shown.ClearField("now")
        shown.servers[0].ClearField("silent")
        if call == "Watch":
            await answer.aclose()
        return shown

    async def attach_meanwhile() -> api.Things:
        shown = asyncio.ensure_future(show())
        while not begun.is_set():
            await asyncio.sleep(0)
        for number in range(5):
            asked = api.AttachRequest(request_id=f"m{number}", demand=api.Demand(compute=300))
            await service.api.Attach(asked, Context(BOB))
        assert not shown.done()
        goes_on.set()
        return await shown

    before = service.loop.run_until_complete(show())
    monkeypatch.setattr(views, "server", slow)
    assert service.loop.run_until_complete(attach_meanwhile()) == before
    assert len(before.leases) == 1


@pytest.mark.parametrize("call", ["Detach", "Stop"])
def test_the_same_call_again_has_the_same_answer_though_the_lease_is_gone(
    service: Service, call: str
) -> None:
    lease = service.attach()
    again = api.DetachRequest(request_id="once", lease=lease.id)
    first = service.call(call, again)
    assert service.call(call, again) == first
    with pytest.raises(Aborted) as missing:  # it was another's call
        service.call(call, again, BOB)
    assert missing.value.code is grpc.StatusCode.NOT_FOUND


class Calls(RuleBasedStateMachine):
    """Any sequence of calls keeps to a model: who has a lease, what is used, what is free."""

    leases = Bundle("leases")
    used = Bundle("used")

    def __init__(self) -> None:
        super().__init__()
        self.service = Service()
        self.known: dict[str, str] = {}
        """Leases that were not given back, with who asked for each."""
        self.requests: dict[str, str] = {}
        self.sessions: dict[str, str] = {}

    def teardown(self) -> None:
        self.service.close()

    @rule(target=leases, who=st.sampled_from([ALICE, BOB]), compute=st.sampled_from([250, 1000]))
    def attach(self, who: str, compute: int) -> str:
        request = self.service.request()
        demand = api.Demand(memory=GIB * compute // 1000, compute=compute)
        lease = self.service.attach(who, request_id=request, demand=demand)
        again = self.service.attach(who, request_id=request, demand=demand)
        assert again.id == lease.id
        self.known[lease.id] = who
        return lease.id

    @rule(target=used, lease=leases)
    def begin(self, lease: str) -> Any:
        if self.state(lease) not in ("Available", "InUse"):
            return multiple()
        session = f"session{next(self.service.numbers)}"
        self.service.session(True, lease, session)
        self.sessions[session] = lease
        assert self.state(lease) == "InUse"
        return session

    @rule(session=consumes(used))
    def end(self, session: str) -> None:
        self.sessions.pop(session, None)
        self.service.session(False, "", session)

    @rule(lease=leases)
    def detach(self, lease: str) -> None:
        if lease not in self.known:
            return
        request = api.DetachRequest(request_id=self.service.request(), lease=lease)
        after = self.service.call("Detach", request, self.known[lease])
        if lease in self.sessions.values():
            assert after.reason.startswith("not detached")
        else:
            assert after.state == ""
            del self.known[lease]

    @rule(lease=leases)
    def stop_and_start(self, lease: str) -> None:
        if lease not in self.known or lease in self.sessions.values():
            return
        who = self.known[lease]
        stop = api.DetachRequest(request_id=self.service.request(), lease=lease)
        assert self.service.call("Stop", stop, who).state == "Unavailable"
        start = api.StartRequest(request_id=self.service.request(), lease=lease)
        assert self.service.call("Start", start, who).state in ("Starting", "Available")

    def state(self, lease: str) -> str:
        known = self.service.leader.pool.book.leases.get(lease)
        return known.state.value if known else ""

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        book = self.service.leader.pool.book
        assert set(book.leases) == set(self.known)
        for device in self.service.call("Get", api.GetRequest(kinds=["devices"]), ADMIN).devices:
            assert device.compute_leased <= 1000
            assert device.memory_leased <= GIB
        assert book.usage["research"].devices <= 2
        for lease in self.sessions.values():
            assert self.state(lease) == "InUse"


TestCalls = Calls.TestCase
TestCalls.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
