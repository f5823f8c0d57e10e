"""How somebody with a token becomes a member: the service `Joining`, on a port of its own."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from harp_api.control.v1 import join_pb2 as api
from harp_api.control.v1 import join_pb2_grpc
from harp_client.errors import HarpError
from harp_scheduler.core.refused import Conflict, Refused
from harp_scheduler.metrics import Timings
from harp_scheduler.service.access import Caller, Context, Denied, Role, identity_of
from harp_scheduler.service.answers import Invalid, TooMany, answering
from harp_scheduler.service.api import checked_name
from harp_scheduler.service.denials import Denials
from harp_scheduler.service.failures import Failures
from harp_scheduler.service.leader import Leader
from harp_scheduler.service.members import SYSTEM, Members, Signed, now
from harp_scheduler.store.audit import AuditEntry
from harp_scheduler.store.errors import TokenRefused
from harp_scheduler.store.identities import Token
from harp_server.logs import Log

TOKEN = re.compile(r"[0-9a-f]{1,64}")


class JoinApi(join_pb2_grpc.JoiningServicer):
    """Answers strangers while this scheduler leads."""

    def __init__(
        self,
        members: Members,
        leader: Callable[[], Leader],
        port: Callable[[], int],
        revoked: Callable[[], Awaitable[None]],
        denials: Denials,
        timings: Timings,
        log: Log,
    ) -> None:
        """`port`: of the scheduler's other services. `leader` raises NotLeading. `revoked` is
        called when certificates have been. `denials`: what has room in the audit. `timings`: what
        is counted."""
        self._failures = Failures()
        self._timings = timings
        self._revoked = revoked
        self._denials = denials
        self._log = log
        self._members = members
        self._leader = leader
        self._port = port

    async def Look(self, request: api.Token, context: Context) -> api.Allowed:  # noqa: N802
        async with answering(context), self._guarding(context):
            self._leader()
            token = await self._members.in_store(lambda: self._checked(request))
            return api.Allowed(
                role=token.role, name=token.name, tenant=token.tenant, pool=self._members.pool
            )
        raise AssertionError

    async def Join(self, request: api.JoinRequest, context: Context) -> api.Credentials:  # noqa: N802
        async with answering(context), self._guarding(context):
            leader = self._leader()
            link = leader.pool.book.links.get(request.name)
            is_here = link is not None and link.connected
            signed = await self._members.in_store(lambda: self._join(request, is_here))
            if request.replace:
                await self._revoked()
            return signed.message(self._port())
        raise AssertionError

    @asynccontextmanager
    async def _guarding(self, context: Context) -> AsyncIterator[None]:
        """Logs and counts who is refused: the audit takes only those who have shown a token. Raises
        TooMany, which is not logged: each was preceded by many lines."""
        peer = context.peer()
        try:
            self._failures.check(peer)
            yield
        except (Refused, TokenRefused) as refused:
            self._timings.joins_refused.labels(type(refused).__name__).inc()
            if not isinstance(refused, TooMany):
                self._failures.add(peer)
                self._log.warning("joining refused", address=peer, cause=refused.cause)
            raise

    def _checked(self, shown: api.Token) -> Token:
        """The token that was shown. Raises TokenRefused."""
        if not TOKEN.fullmatch(shown.id) or not TOKEN.fullmatch(shown.secret):
            raise TokenRefused("there is no such join token")
        return self._members.store.check_token(shown.id, shown.secret, now())

    def _join(self, request: api.JoinRequest, is_here: bool) -> Signed:
        """In the store's thread, so one after the other. `is_here`: a server of this name is."""
        token = self._checked(request.token)
        checked_name(request.name, token.role)
        store = self._members.store
        identity = identity_of(self._members.pool, token.role, request.name, token.tenant)
        entry = AuditEntry(
            caller=f"token {token.id} of {token.creator}",
            verb="join",
            subject=identity,
            tenant=token.tenant,
        )
        try:
            member = self._judge(token, request, identity, is_here and token.role == "server")
            try:
                signed = self._members.sign(member, request.requests)
            except HarpError as error:
                raise Invalid(error.cause, error.next_step) from error
        except Refused as refused:
            if self._denials.room(entry.caller) >= 0:
                store.record([refusal(entry, refused)])
            raise
        store.take_token(token.id, request.token.secret, now(), [entry])
        if request.replace:
            store.revoke_certificates(identity)
        self._members.record(signed, ())
        return signed

    def _judge(
        self, token: Token, request: api.JoinRequest, identity: str, is_here: bool
    ) -> Caller:
        """Who joins. Raises Refused: that is not for this token."""
        if token.name and token.name != request.name:
            raise Denied(
                f"token {token.id} lets in {token.name} alone, not {request.name}",
                f"--name {token.name}",
            )
        member = self._members.member(identity)
        creator = self._members.member(token.creator)
        needs_to_manage(creator, token.role, token.tenant)
        refuse_more_than_own(creator, member)
        if member.roles and not token.name:
            raise Denied(
                f"{identity} has roles in the pool, which no token for any name gives",
                _named(member, "harp join"),
            )
        valid = [
            known
            for known in self._members.store.certificates(identity)
            if known.not_after > now() and not known.revoked
        ]
        if not (valid or is_here):
            return member
        if request.replace and token.name:
            return member
        until = f", with a certificate until {valid[-1].not_after:%F %T} UTC" if valid else ""
        raise Conflict(
            f"{token.role} {request.name} has joined already{until}",
            "another --name, or to take its place: " + _named(member, "harp join --replace"),
        )


def needs_to_manage(caller: Caller, role: str, tenant: str) -> None:
    """Raises Denied where somebody may not make tokens of a role."""
    caller.needs(*_manager(role, tenant))


def may_manage(caller: Caller, role: str, tenant: str) -> bool:
    """Whether somebody may make, see and revoke tokens of a role."""
    least, where = _manager(role, tenant)
    return caller.role(where) >= least


def _manager(role: str, tenant: str) -> tuple[Role, str]:
    """What one has to be for that, and where."""
    if role == "user" and tenant != SYSTEM:
        return Role.OPERATOR, tenant
    return Role.ADMIN, "*"


def refuse_more_than_own(creator: Caller, member: Caller) -> None:
    """Raises Denied where somebody who joins would get a role that the token's creator has not."""
    for tenant, role in member.roles.items():
        if creator.role(tenant) < role:
            raise Denied(
                f"{member.identity} is {Role(role).name.lower()}, and {creator.identity} is not",
                "ask an admin of the pool for the token",
            )


def _named(member: Caller, then: str) -> str:
    tenant = f" --tenant {member.tenant}" if member.tenant else ""
    return f"harp token create --role {member.kind} --name {member.name}{tenant}, then {then}"


def refusal(entry: AuditEntry, refused: Refused) -> AuditEntry:
    """The same call, refused."""
    return replace(entry, outcome=f"refused: {refused.cause}")
