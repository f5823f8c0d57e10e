"""What people, programs and hosts ask: the service `Pool`."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from harp_api.control.v1 import agent_pb2 as agent
from harp_api.control.v1 import pool_pb2 as api
from harp_api.control.v1 import pool_pb2_grpc
from harp_scheduler.core.book import Book
from harp_scheduler.core.events import (
    Asked,
    Cordoned,
    Event,
    GivenBack,
    ProfileRemoved,
    ProfileSet,
    RecordingAsked,
    Renewed,
    ServerRemoved,
    Started,
    TenantSet,
)
from harp_scheduler.core.model import (
    MEMORY_MOST,
    WORD_MOST,
    WORDS_MOST,
    After,
    Closing,
    Lease,
    Profile,
    Quota,
)
from harp_scheduler.core.placement.model import WHOLE, Demand
from harp_scheduler.core.pool import Outcome
from harp_scheduler.core.refused import Conflict, NotFound
from harp_scheduler.core.requests import repeated
from harp_scheduler.service import views
from harp_scheduler.service.access import Caller, Context, Role, identity_of
from harp_scheduler.service.answers import Invalid, answering
from harp_scheduler.service.leader import Leader
from harp_scheduler.service.members import Members
from harp_scheduler.store.audit import AuditEntry
from harp_server.ca import NAME

LETTERS = "use a-z, 0-9, '.', '-' and '_'"
KINDS = ("gpu", "fpga", "npu", "cpu")
TTL = 30.0
"""Seconds that a run's lease lives without being renewed, where the caller does not say."""

TTL_LEAST, TTL_MOST = 5.0, 86_400.0
LONGEST_MOST = 10 * 365 * 86_400.0
COUNT_MOST = 1024
USERS_MOST = 256

CLOSING = {
    api.DetachRequest.HOW_IF_UNUSED: Closing.IF_UNUSED,
    api.DetachRequest.HOW_DRAIN: Closing.DRAIN,
    api.DetachRequest.HOW_FORCE: Closing.FORCE,
}
SETTLE_SECONDS = 60.0
"""Longest that a detach waits for the servers to say that nothing uses the lease any more."""


class PoolApi(pool_pb2_grpc.PoolServicer):
    """Answers while this scheduler leads."""

    def __init__(self, members: Members, leader: Callable[[], Leader]) -> None:
        """`leader` raises NotLeading."""
        self._pool = members.pool
        self._members = members
        self._leader = leader
        self.caller = members.caller
        self._viewer = ThreadPoolExecutor(1, "viewer")
        """Builds what callers are shown of the whole pool, which takes long where that is large."""

    async def _do(
        self, leader: Leader, caller: Caller, event: Event, verb: str, tenant: str, request: str
    ) -> str:
        """Handles one event that changes something, with its line in the audit."""
        book = leader.pool.book
        before = book.leases.get(getattr(event, "lease", ""))

        def entry(outcome: Outcome) -> AuditEntry:
            refused = outcome.refused
            return AuditEntry(
                caller=caller.identity,
                verb=verb,
                subject=outcome.subject,
                tenant=tenant,
                request=request,
                outcome="done" if refused is None else f"refused: {refused.cause}",
                before=before,
                after=book.leases.get(outcome.subject),
            )

        return (await leader.handle(event, entry)).subject

    async def Attach(self, request: api.AttachRequest, context: Context) -> api.Lease:  # noqa: N802
        async with answering(context):
            leader, caller = self._leader(), self.caller(context)
            tenant = request.tenant or caller.tenant
            caller.needs(Role.USER, tenant)
            for text, what in ((request.name, "lease"), (request.host, "host")):
                if text:
                    checked_name(text, what)
            if len(request.users) > USERS_MOST:
                raise Invalid(f"a lease is for at most {USERS_MOST} users", "attach another one")
            owner, users = "", [self._user(tenant, user) for user in request.users]
            if request.host:
                caller.needs(Role.OPERATOR, tenant)
                owner = identity_of(self._pool, "host", request.host)
                users = users or [caller.identity]
            event = Asked(
                caller=caller.identity,
                request=request_id(request.request_id),
                lease=f"l-{secrets.token_hex(6)}",
                tenant=tenant,
                demand=self._demand(leader, request),
                name=request.name,
                owner=owner,
                host=request.host,
                users=tuple(users),
                priority=request.priority if caller.role(tenant) >= Role.OPERATOR else 0,
                ttl=0.0 if request.host else bounded(request.ttl or TTL, TTL_LEAST, TTL_MOST),
                longest=bounded(request.longest, 0.0, LONGEST_MOST),
            )
            subject = await self._do(leader, caller, event, "attach", tenant, event.request)
            return view(leader, subject)
        raise AssertionError

    def _user(self, tenant: str, name: str) -> str:
        """The identity of a tenant's user."""
        return identity_of(self._pool, "user", checked_name(name, "user"), tenant)

    def _demand(self, leader: Leader, request: api.AttachRequest) -> Demand:
        if request.profile:
            profile = leader.pool.book.profiles.get(request.profile)
            if profile is None:
                raise NotFound(f"there is no profile {request.profile}", "harp get profiles")
            return profile.demand
        return demand(request.demand)

    async def _give_back(
        self, request: api.DetachRequest, context: Context, after: After, verb: str
    ) -> api.Lease:
        async with answering(context):
            leader, caller = self._leader(), self.caller(context)
            call_id, how = request_id(request.request_id), CLOSING.get(request.how)
            name = await answered(leader, caller, call_id)
            if name is None:
                lease = self._own(leader, caller, request.lease, request.tenant)
                name = lease.id
                event = GivenBack(caller.identity, call_id, name, how or Closing.IF_UNUSED, after)
                await self._do(leader, caller, event, verb, lease.tenant, call_id)
            if how is not Closing.DRAIN:
                await self._settled(leader, name)
            return view(leader, name)
        raise AssertionError

    async def _settled(self, leader: Leader, name: str) -> None:
        """Waits until a lease that is being given back is so, or is not."""
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                async for _ in leader.changes(name):
                    lease = leader.pool.book.leases.get(name)
                    if lease is None or lease.closing is None:
                        return
        except TimeoutError:
            return  # the answer says that it is still being detached, and why

    async def Detach(self, request: api.DetachRequest, context: Context) -> api.Lease:  # noqa: N802
        return await self._give_back(request, context, After.GONE, "detach")

    async def Stop(self, request: api.DetachRequest, context: Context) -> api.Lease:  # noqa: N802
        return await self._give_back(request, context, After.STOPPED, "stop")

    async def Start(self, request: api.StartRequest, context: Context) -> api.Lease:  # noqa: N802
        async with answering(context):
            leader, caller = self._leader(), self.caller(context)
            call_id = request_id(request.request_id)
            name = await answered(leader, caller, call_id)
            if name is None:
                lease = self._own(leader, caller, request.lease, request.tenant)
                name = lease.id
                event = Started(caller.identity, call_id, name)
                await self._do(leader, caller, event, "start", lease.tenant, call_id)
            return view(leader, name)
        raise AssertionError

    async def Renew(self, request: api.RenewRequest, context: Context) -> api.Lease:  # noqa: N802
        async with answering(context):
            leader, caller = self._leader(), self.caller(context)
            lease = self._own(leader, caller, request.lease, "")
            await leader.handle(Renewed(lease.id))
            return view(leader, lease.id)
        raise AssertionError

    async def WatchLease(  # noqa: N802
        self, request: api.WatchLeaseRequest, context: Context
    ) -> AsyncIterator[api.Lease]:
        async with answering(context):
            leader, caller = self._leader(), self.caller(context)
            lease = self._own(leader, caller, request.lease, "")
            before = None
            async for _ in leader.changes(lease.id):
                self._members.check(context)
                now = view(leader, lease.id)
                if now != before:
                    yield now
                    before = now
                if not now.state:
                    return

    async def Get(self, request: api.GetRequest, context: Context) -> api.Things:  # noqa: N802
        async with answering(context):
            leader, caller = self._leader(), self.caller(context)
            await leader.stored()
            return await self._shown(leader, caller, request)
        raise AssertionError

    async def Watch(  # noqa: N802
        self, request: api.GetRequest, context: Context
    ) -> AsyncIterator[api.Things]:
        async with answering(context):
            leader = self._leader()
            async for _ in leader.changes():
                yield await self._shown(leader, self.caller(context), request)

    async def _shown(self, leader: Leader, caller: Caller, request: api.GetRequest) -> api.Things:
        """What was asked for, of the pool as it is when this is called."""
        book, revision = leader.pool.book, leader.revision
        if sees_its_own_alone(caller) and list(request.kinds) == ["leases"]:
            # Hosts ask again and again, for less than it takes to copy.
            return things(book, revision, caller, request)
        build = partial(things, book.copied(), revision, caller, request)
        return await asyncio.get_running_loop().run_in_executor(self._viewer, build)

    async def _admin(
        self, context: Context, role: Role, event: Event, verb: str, request: str
    ) -> api.Done:
        async with answering(context):
            leader, caller = self._leader(), self.caller(context)
            caller.needs(role)
            await self._do(leader, caller, event, verb, "*", request_id(request))
        return api.Done()

    async def Cordon(self, request: api.CordonRequest, context: Context) -> api.Done:  # noqa: N802
        event = Cordoned(request.subject, request.on, request.drain)
        verb = ("drain" if request.drain else "cordon") if request.on else "uncordon"
        return await self._admin(context, Role.OPERATOR, event, verb, request.request_id)

    async def Record(self, request: api.RecordRequest, context: Context) -> api.Session:  # noqa: N802
        async with answering(context):
            leader, caller = self._leader(), self.caller(context)
            session = self._session(leader, caller, request.session)
            if len(request.payload) > WORD_MOST:
                raise Invalid("no such payload policy", "shape, hash, full, or images=full,…")
            caller.needs(Role.OPERATOR, session.tenant)
            event, call_id = RecordingAsked(session.name), request_id(request.request_id)
            await self._do(leader, caller, event, "record", session.tenant, call_id)
            send = leader.links.get(session.server)
            if send is None:
                raise Conflict(f"{session.server} is out of reach", "harp get servers")
            record = agent.Record(session=session.name, payload=request.payload)
            send(agent.ToAgent(record=record))
            return session
        raise AssertionError

    async def RemoveServer(self, request: api.RemoveRequest, context: Context) -> api.Done:  # noqa: N802
        event = ServerRemoved(request.name)
        return await self._admin(context, Role.ADMIN, event, "remove server", request.request_id)

    async def SetTenant(self, request: api.Tenant, context: Context) -> api.Done:  # noqa: N802
        async with answering(context):
            event = TenantSet(checked_name(request.name, "tenant"), quota(request.quota))
        return await self._admin(context, Role.ADMIN, event, "set tenant", request.request_id)

    async def SetProfile(self, request: api.Profile, context: Context) -> api.Done:  # noqa: N802
        async with answering(context):
            known = Profile(checked_name(request.name, "profile"), demand(request.demand))
        event = ProfileSet(known)
        return await self._admin(context, Role.ADMIN, event, "set profile", request.request_id)

    async def RemoveProfile(self, request: api.RemoveRequest, context: Context) -> api.Done:  # noqa: N802
        event = ProfileRemoved(request.name)
        return await self._admin(context, Role.ADMIN, event, "remove profile", request.request_id)

    def _session(self, leader: Leader, caller: Caller, name: str) -> api.Session:
        """The session of this name, or the only one whose name begins so. Raises NotFound."""
        book = leader.pool.book
        leases = [lease for lease in book.leases.values() if may_see(caller, lease)]
        found = [each for lease in leases for each in views.sessions(book, lease)]
        exact = [each for each in found if each.name == name]
        alike = exact or [each for each in found if name and each.name.startswith(name)]
        if len(alike) != 1:
            several = f"{len(alike)} sessions begin with {name}"
            cause = several if alike else f"there is no session {name}"
            raise NotFound(cause, "harp get sessions")
        return alike[0]

    def _own(self, leader: Leader, caller: Caller, name: str, tenant: str) -> Lease:
        """The lease of this id or name that the caller may change. Raises NotFound, Denied."""
        book = leader.pool.book
        lease = book.leases.get(name) or book.leases.get(
            book.names.get((tenant or caller.tenant, name), "")
        )
        if lease is None or not may_see(caller, lease):
            raise NotFound(f"there is no lease {name}", "harp get leases")
        if caller.identity != lease.owner:
            caller.needs(Role.OPERATOR, lease.tenant)
        return lease


async def answered(leader: Leader, caller: Caller, request: str) -> str | None:
    """The lease that the same request was about before, which may be gone; None: it is new."""
    return repeated((await leader.stored()).book, caller.identity, request)


def may_see(caller: Caller, lease: Lease) -> bool:
    """Whether a lease is the caller's, for him, or of a tenant that he may look at."""
    return (
        caller.identity in (lease.owner, *lease.users) or caller.role(lease.tenant) >= Role.VIEWER
    )


def view(leader: Leader, name: str) -> api.Lease:
    """A lease as callers see it; with an empty state where it is gone."""
    lease = leader.pool.book.leases.get(name)
    return api.Lease(id=name) if lease is None else views.lease(leader.pool.book, lease)


def things(book: Book, revision: int, caller: Caller, request: api.GetRequest) -> api.Things:
    """What of the pool was asked for, and the caller may see."""
    wanted = set(request.kinds)
    found = api.Things(revision=revision, now=time.time())

    def takes(kind: str, *names: str) -> bool:
        return (not wanted or kind in wanted) and (not request.name or request.name in names)

    found.servers.extend(
        views.server(book, known)
        for name, known in sorted(book.servers.items())
        if takes("servers", name)
    )
    found.devices.extend(
        views.devices(
            book,
            [known for name, known in sorted(book.accelerators.items()) if takes("devices", name)],
            lambda lease: may_see(caller, lease),
        )
    )
    of_leases = not wanted or wanted & {"leases", "hosts", "sessions"}
    leases = leases_of(book, caller, request) if of_leases else []
    found.leases.extend(
        views.lease(book, lease) for lease in leases if takes("leases", lease.id, lease.name)
    )
    found.hosts.extend(host for host in views.hosts(book, leases) if takes("hosts", host.name))
    found.sessions.extend(
        session
        for lease in leases
        for session in views.sessions(book, lease)
        if takes("sessions", session.name, session.lease, session.lease_name)
    )
    found.profiles.extend(
        views.profile(known)
        for name, known in sorted(book.profiles.items())
        if takes("profiles", name)
    )
    found.tenants.extend(
        views.tenant(book, known)
        for name, known in sorted(book.tenants.items())
        if takes("tenants", name) and caller.role(name) >= Role.VIEWER
    )
    return found


def sees_its_own_alone(caller: Caller) -> bool:
    """Whether what is attached to the caller, a host, is all that he may see of leases."""
    return caller.kind == "host" and not caller.roles


def leases_of(book: Book, caller: Caller, request: api.GetRequest) -> list[Lease]:
    """The leases that the caller may see, of the tenant that was asked for; first come first."""
    at_host = sees_its_own_alone(caller)
    names = book.leases_at.get(caller.host, ()) if at_host else book.leases
    leases = [
        lease
        for lease in (book.leases[name] for name in names)
        if may_see(caller, lease) and (not request.tenant or lease.tenant == request.tenant)
    ]
    return sorted(leases, key=lambda lease: lease.order)


def request_id(text: str) -> str:
    """A request's id. Raises Invalid where there is none, or one of unreasonable length."""
    if not 1 <= len(text) <= 64 or not text.isascii():
        raise Invalid("a call that changes something needs a request_id of 1 to 64 characters")
    return text


def checked_name(text: str, what: str) -> str:
    """A name that somebody chose. `what`: it is for. Raises Invalid."""
    if not NAME.fullmatch(text):
        # Not all of it: its length was the caller's choice, and the log may be told.
        raise Invalid(f"{text[:64]!r} cannot name a {what}", LETTERS)
    return text


def demand(asked: api.Demand) -> Demand:
    """A demand out of a message, with its defaults. Raises Invalid."""
    count, compute = asked.count or 1, asked.compute or WHOLE
    if count > COUNT_MOST:
        raise Invalid(f"{count} devices are too many", f"ask for at most {COUNT_MOST}")
    if compute > WHOLE:
        raise Invalid(f"{compute} per mille is more than a device", "ask for more devices")
    if asked.memory > MEMORY_MOST:
        raise Invalid(f"{asked.memory} bytes are more than any device has")
    if max(len(asked.models), len(asked.labels)) > WORDS_MOST:
        raise Invalid(f"a demand names at most {WORDS_MOST} models and {WORDS_MOST} labels")
    if any(len(w) > WORD_MOST for w in (*asked.models, *asked.labels, *asked.labels.values())):
        raise Invalid(f"models and labels have at most {WORD_MOST} letters")
    if asked.kind not in ("", *KINDS):
        raise Invalid(f"{asked.kind!r} is no kind of accelerator", f"known: {', '.join(KINDS)}")
    return Demand(
        kind=asked.kind or "gpu",
        count=count,
        models=tuple(asked.models),
        memory=asked.memory,
        compute=compute,
        labels=tuple(sorted(asked.labels.items())),
        same_server="require" if asked.same_server else "prefer",
    )


def quota(asked: api.Quota) -> Quota:
    """A quota out of a message; what is not set is not limited. Raises Invalid."""
    values = {
        name: getattr(asked, name)
        for name in ("devices", "memory", "compute", "leases", "longest", "sessions")
        if asked.HasField(name)
    }
    if "longest" in values:
        values["longest"] = bounded(values["longest"], 0.0, LONGEST_MOST)
    if max(values.get("memory", 0), values.get("compute", 0)) > MEMORY_MOST:
        raise Invalid("a quota of that much is none", "leave it out: no limit")
    return Quota(**values)


def bounded(value: float, least: float, most: float) -> float:
    """A number of seconds within limits. Raises Invalid where it is none."""
    if not math.isfinite(value):
        raise Invalid(f"{value} is no time")
    return min(max(value, least), most)
