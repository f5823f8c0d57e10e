"""Join tokens, roles and revocation: the service `Access`."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from harp_api.control.v1 import access_pb2 as api
from harp_api.control.v1 import access_pb2_grpc
from harp_scheduler.core.events import GivenBack, ServerRevoked
from harp_scheduler.core.model import After, Closing
from harp_scheduler.core.pool import Outcome
from harp_scheduler.core.refused import NotFound, Refused
from harp_scheduler.service.access import PATHS, Caller, Context, Role, identity_of
from harp_scheduler.service.agents import revocation
from harp_scheduler.service.answers import Invalid, answering
from harp_scheduler.service.api import bounded, checked_name, request_id
from harp_scheduler.service.join import (
    may_manage,
    needs_to_manage,
    refusal,
    refuse_more_than_own,
)
from harp_scheduler.service.leader import Leader
from harp_scheduler.service.members import SYSTEM, Members, now
from harp_scheduler.store.audit import AuditEntry
from harp_scheduler.store.identities import ROLES, Token

TOKEN_PREFIX = "harp1"
TTL_MOST = 30 * 86_400.0
"""Seconds that a token is good for at most."""

USES_MOST = 10_000
TOKEN_ID = 16
"""Hexadecimal digits of a token's id."""


class AccessApi(access_pb2_grpc.AccessServicer):
    """Answers while this scheduler leads."""

    def __init__(
        self, members: Members, leader: Callable[[], Leader], join_port: Callable[[], int]
    ) -> None:
        """`leader` raises NotLeading."""
        self._members = members
        self._store = members.store
        self._leader = leader
        self._join_port = join_port

    def _caller(self, context: Context) -> Caller:
        self._leader()
        return self._members.caller(context)

    async def CreateToken(  # noqa: N802
        self, request: api.CreateTokenRequest, context: Context
    ) -> api.CreatedToken:
        async with answering(context):
            caller = self._caller(context)
            call_id = request_id(request.request_id)
            name, tenant = self._token_for(caller, request)
            made = now()
            ends = made + datetime.timedelta(seconds=bounded(request.ttl, 1.0, TTL_MOST))
            uses = min(request.uses or 1, USES_MOST)
            entry = AuditEntry(
                caller=caller.identity,
                verb="create token",
                subject=f"{request.role} {name or '(any)'}",
                tenant=tenant,
                request=request.request_id,
                after={"expires": ends.isoformat(), "uses": uses},
            )
            token, secret = await self._members.in_store(
                lambda: self._store.create_token(
                    request.role,
                    expires=ends,
                    now=made,
                    creator=caller.identity,
                    uses=uses,
                    name=name,
                    tenant=tenant,
                    made=self._made(caller.identity, call_id),
                    audit=[entry],
                )
            )
            shown = self._members.authority.fingerprint()
            return api.CreatedToken(
                token=token_view(token),
                text=f"{TOKEN_PREFIX}.{shown}.{token.id}.{secret}",
                join_port=self._join_port(),
            )
        raise AssertionError

    def _made(self, caller: str, request: str) -> tuple[str, str]:
        """Id and secret of the token that a call makes. Every scheduler makes the same of the same
        call, so that a repeated one has the same answer though none keeps the secret."""
        words = ("join token", caller, request)
        digest = hashlib.sha256("\0".join(words).encode()).hexdigest()
        return digest[:TOKEN_ID], self._members.authority.derive(*words).hex()

    def _token_for(self, caller: Caller, request: api.CreateTokenRequest) -> tuple[str, str]:
        """Name and tenant of a new token. Raises Refused: it makes no sense, or may not be."""
        if request.role not in PATHS:
            raise Invalid(f"{request.role!r} is no role to join as", ", ".join(PATHS))
        tenant = (request.tenant or "default") if request.role == "user" else ""
        if request.tenant and not tenant:
            raise Invalid(f"a {request.role} belongs to no tenant", "leave --tenant away")
        name = checked_name(request.name, request.role) if request.name else ""
        needs_to_manage(caller, request.role, tenant)
        if tenant not in ("", SYSTEM) and tenant not in self._leader().pool.book.tenants:
            raise NotFound(f"there is no tenant {tenant}", f"harp create tenant {tenant}")
        if name:
            identity = identity_of(self._members.pool, request.role, name, tenant)
            member = self._members.member(identity)
            refuse_more_than_own(caller, member)
        return name, tenant

    async def ListTokens(  # noqa: N802
        self, request: api.ListTokensRequest, context: Context
    ) -> api.JoinTokens:
        async with answering(context):
            caller = self._caller(context)
            tokens = await self._members.in_store(self._store.tokens)
            seen = [t for t in tokens if may_manage(caller, t.role, t.tenant)]
            return api.JoinTokens(tokens=map(token_view, seen))
        raise AssertionError

    async def RevokeToken(  # noqa: N802
        self, request: api.RevokeTokenRequest, context: Context
    ) -> api.JoinTokens:
        async with answering(context):
            caller = self._caller(context)
            tokens = await self._members.in_store(self._store.tokens)
            found = next((t for t in tokens if t.id == request.id), None)
            if found is None or not may_manage(caller, found.role, found.tenant):
                raise NotFound(f"there is no join token {request.id}", "harp token list")
            entry = AuditEntry(
                caller=caller.identity,
                verb="revoke token",
                subject=found.id,
                tenant=found.tenant,
                request=request_id(request.request_id),
            )
            await self._members.in_store(lambda: self._store.revoke_token(found.id, [entry]))
            tokens = await self._members.in_store(self._store.tokens)
            return api.JoinTokens(tokens=[token_view(t) for t in tokens if t.id == found.id])
        raise AssertionError

    async def GrantRole(self, request: api.RoleRequest, context: Context) -> api.Roles:  # noqa: N802
        async with answering(context):
            caller, principal, tenant = self._binding(request, context)
            role = request.role.role
            if role not in ROLES:
                raise Invalid(f"{role!r} is no role", ", ".join(ROLES))
            entry = self._role_entry(caller, "grant role", request, role)
            await self._members.in_store(
                lambda: self._store.bind_role(principal, role, tenant, [entry])
            )
            return await self._roles_of(principal)
        raise AssertionError

    async def RevokeRole(self, request: api.RoleRequest, context: Context) -> api.Roles:  # noqa: N802
        async with answering(context):
            caller, principal, tenant = self._binding(request, context)
            entry = self._role_entry(caller, "revoke role", request, None)
            if not await self._members.in_store(
                lambda: self._store.unbind_role(principal, tenant, [entry])
            ):
                raise NotFound(f"{principal} has no role there", "harp role list")
            return await self._roles_of(principal)
        raise AssertionError

    def _binding(self, request: api.RoleRequest, context: Context) -> tuple[Caller, str, str]:
        """Who asks, for whom, and where. Raises Refused."""
        caller = self._caller(context)
        request_id(request.request_id)
        tenant = request.role.tenant or "*"
        caller.needs(Role.ADMIN, tenant)
        if tenant != "*":
            checked_name(tenant, "tenant")
        return caller, self._members.member(request.role.principal).identity, tenant

    def _role_entry(
        self, caller: Caller, verb: str, request: api.RoleRequest, after: str | None
    ) -> AuditEntry:
        tenant = request.role.tenant or "*"
        before = self._members.roles(request.role.principal).get(tenant)
        return AuditEntry(
            caller=caller.identity,
            verb=verb,
            subject=request.role.principal,
            tenant=tenant,
            request=request.request_id,
            before=None if before is None else before.name.lower(),
            after=after,
        )

    async def _roles_of(self, principal: str) -> api.Roles:
        """What a principal may do, after a change."""
        await self._members.load()
        return api.Roles(
            roles=[
                api.Role(principal=principal, tenant=tenant, role=role.name.lower())
                for tenant, role in sorted(self._members.roles(principal).items())
            ]
        )

    async def RevokeIdentity(  # noqa: N802
        self, request: api.RevokeIdentityRequest, context: Context
    ) -> api.RevokedIdentity:
        async with answering(context):
            caller = self._caller(context)
            request_id(request.request_id)
            member = self._members.member(request.identity)
            caller.needs(Role.ADMIN, member.tenant if member.tenant not in ("", SYSTEM) else "*")
            entry = AuditEntry(
                caller=caller.identity,
                verb="revoke identity",
                subject=member.identity,
                tenant=member.tenant,
                request=request.request_id,
            )
            revoked = await self._members.in_store(lambda: self._store.revoke_identity(entry))
            await self.revoked()
            await self._take_back(entry)
            if member.server:
                await self._leader().handle(ServerRevoked(member.server))
            return api.RevokedIdentity(certificates=revoked[0], tokens=revoked[1])
        raise AssertionError

    async def _take_back(self, entry: AuditEntry) -> None:
        """Takes back the leases of runs of an identity that was revoked: it cannot any more."""
        leader = self._leader()
        owned = [
            lease
            for lease in leader.pool.book.leases.values()
            if lease.owner == entry.subject and not lease.host
        ]
        for lease in owned:
            told = replace(entry, verb="detach", subject=lease.id, before=lease)
            request = f"{entry.request} {lease.id}"
            event = GivenBack(entry.caller, request, lease.id, Closing.FORCE, After.GONE)
            with contextlib.suppress(Refused):  # it has gone by itself
                await leader.handle(event, partial(_told, told))

    async def revoked(self) -> None:
        """Lets everybody know whose certificates count no more."""
        await self._members.load()
        leader = self._leader()
        for send in list(leader.links.values()):
            send(revocation(self._members))
        leader.touch()

    async def ListRoles(self, request: api.ListRolesRequest, context: Context) -> api.Roles:  # noqa: N802
        async with answering(context):
            caller = self._caller(context)
            bindings = await self._members.in_store(self._store.roles)
            first = self._members.first_admin
            return api.Roles(
                roles=[
                    api.Role(principal=p, tenant=t, role=r)
                    for p, t, r in [
                        (first, "*", "admin"),
                        *((b.principal, b.tenant, b.role) for b in bindings),
                    ]
                    if p == caller.identity or caller.role(t) >= Role.ADMIN
                ]
            )
        raise AssertionError


def _told(entry: AuditEntry, outcome: Outcome) -> AuditEntry:
    return entry if outcome.refused is None else refusal(entry, outcome.refused)


def token_view(token: Token) -> api.JoinToken:
    """A token as callers see it."""
    state = "valid"
    if token.revoked:
        state = "revoked"
    elif token.expires <= now():
        state = "expired"
    elif token.uses_left < 1:
        state = "used up"
    return api.JoinToken(
        id=token.id,
        role=token.role,
        name=token.name,
        tenant=token.tenant,
        uses_left=token.uses_left,
        expires=token.expires.timestamp(),
        revoked=token.revoked,
        created=token.created.timestamp(),
        creator=token.creator,
        state=state,
    )
