"""Who calls, and what he may do. Deny by default.

The identity is the SPIFFE URI of the client's certificate, which TLS has checked against the pool's
authority:

    spiffe://POOL/tenant/TENANT/user/NAME    a person or a service of a tenant
    spiffe://POOL/server/NAME                the agent of a server
    spiffe://POOL/host/NAME                  the agent of a host
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeAlias

import grpc

from harp_scheduler.core.refused import Refused

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

IDENTITY = re.compile(
    r"spiffe://(?P<pool>[^/]+)/(?:tenant/(?P<tenant>[^/]+)/user/(?P<user>[^/]+)"
    r"|server/(?P<server>[^/]+)|host/(?P<host>[^/]+))"
)

PATHS = {
    "server": "server/{name}",
    "host": "host/{name}",
    "user": "tenant/{tenant}/user/{name}",
}
"""Where the identities of each kind of member lie."""


class Role(IntEnum):
    """What somebody may do in a tenant; each may also do all that those before it may."""

    NONE = 0
    """See the pool's servers, devices and profiles, as every member may."""

    VIEWER = 1
    """See the tenant, its leases and what it uses."""

    USER = 2
    """Have leases of his own."""

    OPERATOR = 3
    """Change everybody's leases in the tenant; with `*`, cordon and drain servers."""

    ADMIN = 4
    """Set quotas, profiles, roles and tokens."""


class Denied(Refused):
    """The caller may not do this."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls."""

    identity: str
    tenant: str = ""
    user: str = ""
    server: str = ""
    host: str = ""
    roles: Mapping[str, Role] = field(default_factory=dict)
    """By tenant; `*` stands for all of them, and for the pool itself."""

    @property
    def kind(self) -> str:
        """server, host or user."""
        return "server" if self.server else "host" if self.host else "user"

    @property
    def name(self) -> str:
        """Of the server, the host or the user."""
        return self.server or self.host or self.user

    def role(self, tenant: str) -> Role:
        """The highest role in a tenant; a tenant's own users have USER there."""
        own = Role.USER if self.tenant and self.tenant == tenant else Role.NONE
        return max(own, self.roles.get(tenant, Role.NONE), self.roles.get("*", Role.NONE))

    def needs(self, role: Role, tenant: str = "*") -> None:
        """Raises Denied where the caller's role is less."""
        if self.role(tenant) < role:
            where = "the pool" if tenant == "*" else f"tenant {tenant}"
            raise Denied(
                f"{self.identity} is not {role.name.lower()} of {where}",
                "ask an admin of the pool for the role",
            )


def identity_of(pool: str, kind: str, name: str, tenant: str = "") -> str:
    """The SPIFFE URI of a member. `kind`: one of PATHS; `tenant`: a user's."""
    return f"spiffe://{pool}/{PATHS[kind].format(name=name, tenant=tenant)}"


def read_identity(text: str, pool: str) -> Caller | None:
    """Whom a SPIFFE URI names, without roles; None: nobody of this pool."""
    found = IDENTITY.fullmatch(text)
    if found is None or found["pool"] != pool:
        return None
    return Caller(
        text, found["tenant"] or "", found["user"] or "", found["server"] or "", found["host"] or ""
    )


def names(context: Context) -> list[str]:
    """What the certificate of a connection, which TLS has verified, says that the caller is."""
    return [
        name.decode(errors="replace") if isinstance(name, bytes) else str(name)
        for name in context.peer_identities() or ()
    ]


def identify(context: Context, pool: str) -> Caller:
    """Reads the caller's identity from the connection. Raises Denied where there is none."""
    for name in names(context):
        if caller := read_identity(name, pool):
            return caller
    raise Denied("the certificate names nobody of this pool", "join the pool: harp join")
