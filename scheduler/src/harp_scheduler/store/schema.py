"""The tables, the same in SQLite and PostgreSQL. A change needs a migration beside it.

A table of the core's records has a column for each field of the record, of the field's name; what
is made of parts (a demand, slices, labels) is JSON text in one column.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache, partial
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)

from harp_scheduler.core.model import After, Closing, Quota, State
from harp_scheduler.core.placement.model import Demand, Slice
from harp_scheduler.store.canonical import canonical, frozen

Labels = tuple[tuple[str, str], ...]

ESCAPE, ITSELF, ZERO = "\ufdd0", "\ufdd1", "\ufdd2"
"""Characters that Unicode leaves to programs: how a NUL is stored, which PostgreSQL refuses."""


class AnyText(TypeDecorator[str]):
    """Text of any characters. A user's or an agent's words must never make a transaction fail."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        if value is not None and ("\0" in value or ESCAPE in value):
            escaped: str = value.replace(ESCAPE, ESCAPE + ITSELF).replace("\0", ESCAPE + ZERO)
            return escaped
        return None if value is None else str(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        if value is not None and ESCAPE in value:
            plain: str = value.replace(ESCAPE + ZERO, "\0").replace(ESCAPE + ITSELF, ESCAPE)
            return plain
        return None if value is None else str(value)


class Choice(TypeDecorator[StrEnum]):
    """One of an enum's values, stored as its text."""

    impl = Text
    cache_ok = True

    def __init__(self, choices: type[StrEnum]) -> None:
        super().__init__()
        self.choices = choices

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else self.choices(value).value

    def process_result_value(self, value: Any, dialect: Dialect) -> StrEnum | None:
        return None if value is None else self.choices(value)


@lru_cache(maxsize=1 << 14)
def _read(kind: Any, text: str) -> Any:
    """Equal texts become one value: of the demands and labels of 100,000 leases few differ."""
    return frozen(kind, text)


class Parts(TypeDecorator[Any]):
    """A value of a type that is made of parts, as canonical JSON."""

    impl = Text
    cache_ok = True

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        return canonical(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return _read(self.kind, value)


class Moment(TypeDecorator[datetime]):
    """A time in UTC, stored as text of one length, so that texts compare as times do."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else moment(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return None if value is None else datetime.fromisoformat(value)


def moment(time: datetime) -> str:
    """`2026-11-26T04:28:13.123456Z`. Raises ValueError for a time without a zone."""
    if time.tzinfo is None:
        raise ValueError("a time without a zone")
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def decoded(kind: Any, dialect: Dialect, values: Sequence[Any]) -> Iterable[Any]:
    """A column's values out of what a driver has for them; all at once, for there are many."""
    match kind:
        case AnyText() if ESCAPE not in "".join(values):
            return values
        case Parts():
            return map(partial(_read, kind.kind), values)
        case Choice():
            choices: dict[str | None, StrEnum | None] = {None: None}
            choices.update((one.value, one) for one in kind.choices)
            return map(choices.__getitem__, values)
        case TypeDecorator():
            return (kind.process_result_value(value, dialect) for value in values)
        case Boolean():
            return map(bool, values)  # SQLite has none
    return values


metadata = MetaData()


def _column(name: str, kind: Any, **options: Any) -> Column[Any]:
    return Column(name, kind, nullable=options.pop("nullable", False), **options)


pool = Table(
    "pool",
    metadata,
    # One row. Every transaction that changes something locks it first.
    Column("id", Integer, primary_key=True, autoincrement=False),
    _column("term", BigInteger),
    _column("holder", AnyText),
    _column("since", Moment, nullable=True),
    _column("audited", BigInteger),
    _column("audit_hash", Text),
)

numbers = Table(
    "numbers",
    metadata,
    Column("name", Text, primary_key=True),
    _column("value", BigInteger),
)

servers = Table(
    "servers",
    metadata,
    Column("name", AnyText, primary_key=True),
    _column("address", AnyText),
    _column("labels", Parts(Labels)),
    _column("cordoned", Boolean),
    _column("draining", Boolean),
)

accelerators = Table(
    "accelerators",
    metadata,
    Column("id", AnyText, primary_key=True),
    _column("server", AnyText),
    _column("ordinal", BigInteger),
    _column("kind", AnyText),
    _column("model", AnyText),
    _column("memory", BigInteger),
    _column("labels", Parts(Labels)),
    _column("cordoned", Boolean),
    _column("fault", AnyText),
    _column("incident", AnyText),
    _column("incident_number", BigInteger),
    _column("present", Boolean),
    _column("version", BigInteger),
)

leases = Table(
    "leases",
    metadata,
    Column("id", AnyText, primary_key=True),
    _column("tenant", AnyText),
    _column("owner", AnyText),
    _column("demand", Parts(Demand)),
    _column("order", BigInteger),
    _column("name", AnyText),
    _column("host", AnyText),
    _column("users", Parts(tuple[str, ...])),
    _column("priority", BigInteger),
    _column("ttl", Double),
    _column("longest", Double),
    _column("state", Choice(State)),
    _column("reason", AnyText),
    _column("slices", Parts(tuple[Slice, ...])),
    _column("epoch", BigInteger),
    _column("granted", Double),
    _column("closing", Choice(Closing), nullable=True),
    _column("after", Choice(After)),
)

tenants = Table(
    "tenants",
    metadata,
    Column("name", AnyText, primary_key=True),
    _column("quota", Parts(Quota)),
)

profiles = Table(
    "profiles",
    metadata,
    Column("name", AnyText, primary_key=True),
    _column("demand", Parts(Demand)),
)

requests = Table(
    "requests",
    metadata,
    # The core's key of the record: caller, space, id.
    Column("key", AnyText, primary_key=True),
    _column("caller", AnyText),
    _column("id", AnyText),
    _column("subject", AnyText),
    # Who came first: the oldest are forgotten first.
    _column("number", BigInteger),
)

audit = Table(
    "audit",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    _column("time", Moment),
    _column("caller", AnyText),
    _column("verb", AnyText),
    _column("subject", AnyText),
    _column("tenant", AnyText),
    _column("request", AnyText),
    _column("outcome", AnyText),
    _column("before", Text),
    _column("after", Text),
    _column("previous", Text),
    _column("hash", Text),
)

events = Table(
    "events",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    _column("time", Double),
    _column("kind", AnyText),
    _column("subject", AnyText),
    _column("name", AnyText),
    _column("what", AnyText),
    _column("reason", AnyText),
    _column("tenant", AnyText),
)

usage = Table(
    "usage",
    metadata,
    Column("tenant", AnyText, primary_key=True),
    Column("hour", Moment, primary_key=True),
    _column("device_seconds", Double),
    _column("compute_seconds", Double),
    _column("byte_seconds", Double),
    _column("until", Moment),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", AnyText, primary_key=True),
    _column("secret_hash", Text),
    _column("role", Text),
    _column("name", AnyText),
    _column("tenant", AnyText),
    _column("labels", Parts(Labels)),
    _column("uses_left", BigInteger),
    _column("expires", Moment),
    _column("revoked", Boolean),
    _column("created", Moment),
    _column("creator", AnyText),
)

role_bindings = Table(
    "role_bindings",
    metadata,
    Column("principal", AnyText, primary_key=True),
    Column("tenant", AnyText, primary_key=True),
    _column("role", Text),
)

certificates = Table(
    "certificates",
    metadata,
    Column("serial", Text, primary_key=True),
    _column("identity", AnyText),
    _column("not_after", Moment),
    _column("revoked", Boolean),
    Index("certificates_identity", "identity"),
)
