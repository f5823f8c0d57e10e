"""Who may join the pool, what principals may do, and which certificates were issued."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from harp_scheduler.store.audit import AuditEntry, asked, changing
from harp_scheduler.store.database import Database
from harp_scheduler.store.errors import TokenRefused
from harp_scheduler.store.records import put
from harp_scheduler.store.schema import certificates, role_bindings, tokens

ROLES = ("viewer", "user", "operator", "admin")
"""What a principal may be, from least to most."""

SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class Token:
    """A join token, without its secret."""

    id: str
    role: str
    """What its bearer joins as: `server`, `host` or `user`."""

    name: str
    """The only name that it may be used for; empty: any."""

    tenant: str
    labels: tuple[tuple[str, str], ...]
    """Given to who joins with it."""

    uses_left: int
    expires: datetime
    revoked: bool
    created: datetime
    creator: str


@dataclass(frozen=True, slots=True)
class RoleBinding:
    """What a principal may do in a tenant, or with `*` in all of them and in the pool itself."""

    principal: str
    tenant: str
    role: str


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that the pool's authority has issued."""

    serial: str
    """Hexadecimal digits."""

    identity: str
    not_after: datetime
    revoked: bool


TOKEN = [tokens.c[name] for name in Token.__dataclass_fields__]
BINDING = [role_bindings.c[name] for name in RoleBinding.__dataclass_fields__]
CERTIFICATE = [certificates.c[name] for name in Certificate.__dataclass_fields__]


class Identities:
    """Tokens, role bindings and certificates; every method may raise StoreUnavailable.

    The `audit` of a call is written in the transaction of its change."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create_token(
        self,
        role: str,
        *,
        expires: datetime,
        now: datetime,
        creator: str,
        uses: int = 1,
        name: str = "",
        tenant: str = "",
        labels: tuple[tuple[str, str], ...] = (),
        made: tuple[str, str] | None = None,
        audit: Sequence[AuditEntry] = (),
    ) -> tuple[Token, str]:
        """A new token and its secret, which is told here and never again.

        `made`: id and secret, where the caller makes the same of the same request. A token that
        there is already is returned as it is. Raises TokenRefused where that has another secret."""
        key, secret = made or (secrets.token_hex(4), secrets.token_hex(SECRET_BYTES))
        if made is not None and (known := self._known(key, secret)) is not None:
            return known, secret
        token = Token(key, role, name, tenant, labels, uses, expires, False, now, creator)
        row = {field: getattr(token, field) for field in Token.__dataclass_fields__}
        with changing(self._database, audit) as connection:
            connection.execute(insert(tokens).values(**row, secret_hash=_hashed(secret)))
        return token, secret

    def _known(self, token: str, secret: str) -> Token | None:
        query = select(tokens.c.secret_hash, *TOKEN).where(tokens.c.id == token)
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        if not hmac.compare_digest(row.secret_hash, _hashed(secret)):
            raise TokenRefused(
                "this call has made a token before, whose secret went with the pool's former key"
            )
        return Token(*row[1:])

    def check_token(self, token: str, secret: str, now: datetime) -> Token:
        """What a token allows. Raises TokenRefused: why is told only to who knows the secret."""
        with self._database.reading() as connection:
            return _checked(connection, token, secret, now)

    def take_token(
        self, token: str, secret: str, now: datetime, audit: Sequence[AuditEntry] = ()
    ) -> Token:
        """Uses a token up by one, in one transaction, and says what it allows.

        Raises TokenRefused, as `check_token` does."""
        with changing(self._database, audit) as connection:
            found = _checked(connection, token, secret, now)
            left = {"uses_left": found.uses_left - 1}
            connection.execute(update(tokens).where(tokens.c.id == token).values(left))
        return found

    def tokens(self) -> list[Token]:
        """All tokens, those that can be used no more included; the newest last."""
        with self._database.reading() as connection:
            rows = connection.execute(select(*TOKEN).order_by(tokens.c.created, tokens.c.id))
            return [Token(*row) for row in rows]

    def revoke_token(self, token: str, audit: Sequence[AuditEntry] = ()) -> bool:
        """Nobody joins with it any more. Says whether there is such a token."""
        with changing(self._database, audit) as connection:
            revoked = update(tokens).where(tokens.c.id == token).values(revoked=True)
            return connection.execute(revoked).rowcount > 0

    def forget_tokens(self, before: datetime) -> int:
        """Removes the tokens that expired before a time; how many."""
        with changing(self._database) as connection:
            return connection.execute(delete(tokens).where(tokens.c.expires < before)).rowcount

    def bind_role(
        self, principal: str, role: str, tenant: str = "*", audit: Sequence[AuditEntry] = ()
    ) -> None:
        """Gives a principal a role in a tenant, in place of one that it has there. Raises
        ValueError for a role that there is not."""
        if role not in ROLES:
            raise ValueError(f"no role {role!r}; roles are {', '.join(ROLES)}")
        with changing(self._database, audit) as connection:
            row = {"principal": principal, "tenant": tenant, "role": role}
            put(connection, role_bindings, [row])

    def unbind_role(
        self, principal: str, tenant: str = "*", audit: Sequence[AuditEntry] = ()
    ) -> bool:
        """Takes the role away. Says whether there was one, now or when this was asked before."""
        row = role_bindings.c
        changes: list[AuditEntry] = []
        with changing(self._database, changes) as connection:
            gone = delete(role_bindings).where(row.principal == principal, row.tenant == tenant)
            if connection.execute(gone).rowcount == 0:
                return any(asked(connection, entry) for entry in audit)
            changes += audit
        return True

    def roles(self, principal: str = "") -> list[RoleBinding]:
        """The bindings of one principal, or all."""
        query = select(*BINDING).order_by(role_bindings.c.principal, role_bindings.c.tenant)
        if principal:
            query = query.where(role_bindings.c.principal == principal)
        with self._database.reading() as connection:
            return [RoleBinding(*row) for row in connection.execute(query)]

    def record_certificate(
        self, serial: str, identity: str, not_after: datetime, audit: Sequence[AuditEntry] = ()
    ) -> None:
        """Notes a certificate, before it is handed out."""
        row = {"serial": serial, "identity": identity, "not_after": not_after, "revoked": False}
        with changing(self._database, audit) as connection:
            connection.execute(insert(certificates).values(row))

    def revoke_certificates(self, identity: str) -> int:
        """Revokes all certificates of an identity; how many were valid until now."""
        row = certificates.c
        with changing(self._database) as connection:
            valid = update(certificates).where(row.identity == identity, row.revoked.is_(False))
            return connection.execute(valid.values(revoked=True)).rowcount

    def revoke_identity(self, entry: AuditEntry) -> tuple[int, int]:
        """Revokes the certificates of the identity that is the entry's subject, and the tokens that
        it has made: how many of each still counted, now or when the same was asked before."""
        row, token = certificates.c, tokens.c
        valid = update(certificates).where(row.identity == entry.subject, row.revoked.is_(False))
        usable = update(tokens).where(
            token.creator == entry.subject, token.revoked.is_(False), token.uses_left > 0
        )
        changes: list[AuditEntry] = []
        with changing(self._database, changes) as connection:
            if before := asked(connection, entry):
                counts: list[int] = json.loads(before.after)
                return counts[0], counts[1]
            revoked = [
                connection.execute(some.values(revoked=True)).rowcount for some in (valid, usable)
            ]
            changes.append(replace(entry, after=revoked))
        return revoked[0], revoked[1]

    def certificates(self, identity: str = "") -> list[Certificate]:
        """The certificates of one identity, or all; the one that expires last comes last."""
        query = select(*CERTIFICATE).order_by(certificates.c.not_after, certificates.c.serial)
        if identity:
            query = query.where(certificates.c.identity == identity)
        with self._database.reading() as connection:
            return [Certificate(*row) for row in connection.execute(query)]

    def forget_certificates(self, before: datetime) -> frozenset[str]:
        """Removes the certificates that expired before a time; their serial numbers."""
        row = certificates.c
        expired = delete(certificates).where(row.not_after < before).returning(row.serial)
        with changing(self._database) as connection:
            return frozenset(connection.execute(expired).scalars())

    def revoked_serials(self, now: datetime) -> frozenset[str]:
        """Of the certificates that were revoked and would be valid still."""
        row = certificates.c
        query = select(row.serial).where(row.revoked.is_(True), row.not_after > now)
        with self._database.reading() as connection:
            return frozenset(connection.execute(query).scalars())


def _checked(connection: Connection, token: str, secret: str, now: datetime) -> Token:
    query = select(tokens.c.secret_hash, *TOKEN).where(tokens.c.id == token)
    row = connection.execute(query).one_or_none()
    known = row.secret_hash if row is not None else _hashed("")
    if not hmac.compare_digest(known, _hashed(secret)) or row is None:
        raise TokenRefused("there is no such join token")
    found = Token(*row[1:])
    if found.revoked:
        raise TokenRefused(f"join token {token} was revoked")
    if now >= found.expires:
        raise TokenRefused(f"join token {token} expired at {found.expires:%F %T} UTC")
    if found.uses_left < 1:
        raise TokenRefused(f"join token {token} is used up")
    return found


def _hashed(secret: str) -> str:
    """How a secret is kept. It is random and 256 bits long: a plain hash tells nothing of it."""
    return hashlib.sha256(secret.encode()).hexdigest()
