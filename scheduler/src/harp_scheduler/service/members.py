"""Who is a member of the pool: what each may do, whose certificates count, and new ones.

What callers may do is looked up at every call, so it is kept here; all changes of it come through
the scheduler that leads, which reads it anew when it begins to lead.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

from cryptography import x509

from harp_api.control.v1 import join_pb2 as api
from harp_scheduler.service.access import (
    Caller,
    Context,
    Denied,
    Role,
    identify,
    identity_of,
    read_identity,
)
from harp_scheduler.store.audit import AuditEntry
from harp_scheduler.store.errors import StoreUnavailable
from harp_scheduler.store.store import Store
from harp_server.ca import REVOKED, Authority, identity, pem, requested_key

SYSTEM = "system"
"""The tenant of those who look after the pool itself; it has no leases."""

ADMIN = "admin"
"""Name of the user of it that a new pool's first admin is."""

SWEEP = datetime.timedelta(days=1)
"""How often certificates and tokens that have expired are forgotten."""

KEPT = datetime.timedelta(days=30)
"""How long after its end a certificate is known, and refused where it was revoked: a clock that was
ahead for a while brings none back. A token is as long in the list of them."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Lives:
    """How long new certificates are valid. Each is renewed when half of that is over."""

    server: datetime.timedelta = datetime.timedelta(days=1)
    host: datetime.timedelta = datetime.timedelta(days=1)
    user: datetime.timedelta = datetime.timedelta(days=7)


class Members:
    """The members of one pool."""

    def __init__(
        self, authority: Authority, store: Store, thread: ThreadPoolExecutor, lives: Lives
    ) -> None:
        """`thread`: the one that uses the store."""
        self.authority, self.store, self.lives = authority, store, lives
        self._thread = thread
        self._roles: dict[str, dict[str, Role]] = {}
        self._known: set[str] = set()
        self.revoked: frozenset[str] = frozenset()
        """Serial numbers of the certificates that count no more and have not long expired."""

        self._recording: set[asyncio.Task[None]] = set()
        self._swept = now()

    @property
    def pool(self) -> str:
        """The pool's name."""
        return self.authority.pool

    @property
    def first_admin(self) -> str:
        """Who is an admin of the pool without having been made one."""
        return identity_of(self.pool, "user", ADMIN, SYSTEM)

    async def in_store(self, call: Callable[[], Result]) -> Result:
        """Runs something that uses the store, in the store's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def load(self) -> None:
        """Reads what is kept here."""
        bindings = await self.in_store(self.store.roles)
        roles: dict[str, dict[str, Role]] = defaultdict(dict)
        for binding in bindings:
            roles[binding.principal][binding.tenant] = Role[binding.role.upper()]
        self._roles = dict(roles)
        stored = await self.in_store(self.store.certificates)
        self._known = {known.serial for known in stored}
        self.revoked = await self.in_store(lambda: self.store.revoked_serials(now() - KEPT))

    def roles(self, principal: str) -> Mapping[str, Role]:
        """What an identity may do, by tenant, beside what a user may in his own."""
        known = self._roles.get(principal, {})
        if principal == self.first_admin:
            return known | {"*": Role.ADMIN}
        return known

    def caller(self, context: Context) -> Caller:
        """Who calls. Raises Denied: nobody of this pool, or revoked."""
        caller = identify(context, self.pool)
        self.check(context)
        return replace(caller, roles=self.roles(caller.identity))

    def check(self, context: Context) -> None:
        """Raises Denied where the certificate of a connection was revoked, also after it began."""
        for shown in context.auth_context().get("x509_pem_cert", ()):
            number = serial_of(shown)
            if number in self.revoked:
                raise Denied(REVOKED, "join again: harp join")
            if number not in self._known:
                self._meet(shown)

    def _meet(self, shown: bytes) -> None:
        """Notes a certificate that was made without this scheduler (harp ca), so that it can be
        revoked."""
        certificate = x509.load_pem_x509_certificate(shown)
        self._known.add(serial(certificate))

        async def note() -> None:
            with contextlib.suppress(StoreUnavailable):
                await self.in_store(lambda: self._note(certificate, ()))

        task = asyncio.create_task(note())
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)

    def member(self, principal: str) -> Caller:
        """Whom an identity names, with his roles. Raises Denied: nobody of this pool."""
        found = read_identity(principal, self.pool)
        if found is None:
            raise Denied(f"{principal} names nobody of this pool", f"spiffe://{self.pool}/...")
        return replace(found, roles=self.roles(principal))

    def sign(self, member: Caller, requests: api.Requests) -> Signed:
        """Certificates for a member. Raises HarpError where a request is none, or the name."""
        authority = self.authority
        client = requested_key(requests.client)
        server = None
        match member.kind:
            case "server":
                life = self.lives.server
                signed = authority.sign_agent(member.name, client, life)
                server = authority.sign_server(member.name, requested_key(requests.server), life)
            case "host":
                signed = authority.sign_host(member.name, client, self.lives.host)
            case _:
                life = self.lives.user
                signed = authority.sign_user(member.tenant, member.name, client, life)
        return Signed(authority.trusted_pem(), signed, server)

    def record(self, signed: Signed, audit: Sequence[AuditEntry]) -> None:
        """Notes certificates before they are handed out; in the store's thread."""
        if now() - self._swept > SWEEP:
            self._swept = now()
            self._known.difference_update(self.store.forget_certificates(now() - KEPT))
            self.store.forget_tokens(now() - KEPT)
        for certificate in signed.certificates:
            self._known.add(serial(certificate))
            self._note(certificate, audit)
            audit = ()

    def _note(self, certificate: x509.Certificate, audit: Sequence[AuditEntry]) -> None:
        until = certificate.not_valid_after_utc
        self.store.record_certificate(serial(certificate), identity(certificate), until, audit)


@dataclass(frozen=True, slots=True)
class Signed:
    """New certificates of one member."""

    authority: bytes
    client: x509.Certificate
    server: x509.Certificate | None

    @property
    def certificates(self) -> list[x509.Certificate]:
        """All of them."""
        return [self.client] if self.server is None else [self.client, self.server]

    def message(self, port: int) -> api.Credentials:
        """As it is sent; `port`: where the scheduler answers its members."""
        return api.Credentials(
            identity=identity(self.client),
            authority=self.authority,
            client=pem(self.client),
            server=pem(self.server) if self.server else b"",
            port=port,
        )


def serial(certificate: x509.Certificate) -> str:
    """Its serial number, in hexadecimal digits as the store has it."""
    return f"{certificate.serial_number:x}"


@lru_cache(4096)
def serial_of(shown: bytes) -> str:
    """The serial number of a certificate in PEM, which TLS has verified."""
    return serial(x509.load_pem_x509_certificate(shown))


def now() -> datetime.datetime:
    """The time by which certificates and tokens are valid, UTC."""
    return datetime.datetime.now(datetime.UTC)
