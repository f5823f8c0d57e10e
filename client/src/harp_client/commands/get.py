"""`harp get` and `harp describe`: what there is, for people and for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
from google.protobuf.message import Message

from harp_api.control.v1 import pool_pb2 as api
from harp_client.commands.options import connect, pool_options
from harp_client.errors import HarpError, printable

API_VERSION = "harp.control/v1"
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    title: str
    value: Callable[[Any], object]
    is_wide: bool = False
    """Only with `-o wide`."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What `harp get` can list."""

    name: str
    """As in messages and in JSON, in the singular."""

    asked: str
    """The list of a `Things` that holds it."""

    columns: tuple[Column, ...]
    takes: Callable[[Any], bool] = lambda _: True
    key: Callable[[Any], str] = lambda thing: str(thing.name)


def _share(compute: int) -> str:
    return f"{compute / 10:g}%"


def _memory(size: int) -> str:
    return f"{size / GIB:.4g} GiB" if size else ""


def _limit(quota: api.Quota, name: str) -> str:
    used = getattr(quota, name)
    return str(used) if quota.HasField(name) else "no limit"


LEASES = (
    Column("NAME", lambda lease: lease.name),
    Column("STATE", lambda lease: lease.state),
    Column("TENANT", lambda lease: lease.tenant),
    Column("HOST", lambda lease: lease.host or "(a run)"),
    Column("DEVICES", lambda lease: ",".join(t.device for t in lease.targets) or "-"),
    Column("MEMORY", lambda lease: _memory(max((t.memory for t in lease.targets), default=0))),
    Column("COMPUTE", lambda lease: _share(lease.demand.compute)),
    Column("PROGRAMS", lambda lease: lease.sessions),
    Column("REASON", lambda lease: lease.reason),
    Column("ID", lambda lease: lease.id, is_wide=True),
    Column("OWNER", lambda lease: lease.owner, is_wide=True),
    Column("PRIORITY", lambda lease: lease.priority, is_wide=True),
    Column("EPOCH", lambda lease: lease.epoch, is_wide=True),
)

KINDS = {
    "servers": Kind(
        "Server",
        "servers",
        (
            Column("NAME", lambda server: server.name),
            Column("STATE", lambda server: server_state(server)),
            Column("DEVICES", lambda server: server.devices),
            Column("PROGRAMS", lambda server: server.sessions),
            Column("ADDRESS", lambda server: server.address),
            Column("HEARD", lambda server: f"{server.silent:.0f} s ago"),
            Column("LABELS", lambda server: _labels(server), is_wide=True),
        ),
    ),
    "devices": Kind(
        "Device",
        "devices",
        (
            Column("ID", lambda device: device.id),
            Column("STATE", lambda device: device.unusable or "ready"),
            Column("KIND", lambda device: device.kind),
            Column("MODEL", lambda device: device.model),
            Column("MEMORY", lambda device: _memory(device.memory)),
            Column("LEASED", lambda device: _memory(device.memory_leased) or "-"),
            Column("COMPUTE", lambda device: _share(device.compute_leased)),
            Column("LEASES", lambda device: ",".join(device.leases) or "-"),
            Column("FAULT", lambda device: device.fault, is_wide=True),
            Column("LABELS", lambda device: _labels(device), is_wide=True),
        ),
        key=lambda device: str(device.id),
    ),
    "leases": Kind("Lease", "leases", LEASES),
    "queue": Kind(
        "Lease",
        "leases",
        (
            Column("PLACE", lambda lease: lease.place),
            Column("NAME", lambda lease: lease.name),
            Column("TENANT", lambda lease: lease.tenant),
            Column("WANTS", lambda lease: wants(lease.demand)),
            Column("PRIORITY", lambda lease: lease.priority),
            Column("REASON", lambda lease: lease.reason),
        ),
        takes=lambda lease: bool(lease.place),
    ),
    "profiles": Kind(
        "Profile",
        "profiles",
        (
            Column("NAME", lambda profile: profile.name),
            Column("SIZE", lambda profile: wants(profile.demand)),
        ),
    ),
    "tenants": Kind(
        "Tenant",
        "tenants",
        (
            Column("NAME", lambda tenant: tenant.name),
            Column("LEASES", lambda t: f"{t.used.leases} of {_limit(t.quota, 'leases')}"),
            Column("DEVICES", lambda t: f"{t.used.devices} of {_limit(t.quota, 'devices')}"),
            Column("COMPUTE", lambda t: f"{_share(t.used.compute)}"),
            Column("MEMORY", lambda t: _memory(t.used.memory) or "0"),
        ),
    ),
}
ALIASES = {name[:-1]: name for name in KINDS if name.endswith("s")}


def server_state(server: api.Server) -> str:
    """In a word: cordoned, ready, or out of reach."""
    if not server.connected:
        return "out of reach"
    return "cordoned" if server.cordoned else "ready"


def wants(demand: api.Demand) -> str:
    """A demand in a few words."""
    size = _memory(demand.memory) if demand.memory else _share(demand.compute)
    models = f" of {'|'.join(demand.models)}" if demand.models else ""
    return f"{demand.count} {demand.kind}{models}, {size} each"


def _labels(thing: Any) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted(thing.labels.items()))


@click.command()
@click.argument("kind", type=click.Choice([*KINDS, *ALIASES]), metavar="KIND")
@click.argument("name", default="")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "wide", "json", "yaml", "name"]),
    default="table",
    show_default=True,
)
@click.option("-w", "--watch", is_flag=True, help="Go on: print again what has changed.")
@click.option("--no-headers", is_flag=True, help="A table without its first line.")
@click.option("--tenant", default="", help="Only leases of this tenant.")
@pool_options
def get(
    kind: str,
    name: str,
    output: str,
    watch: bool,
    no_headers: bool,
    tenant: str,
    **pool: str | None,
) -> None:
    """List what the pool has: servers, devices, leases, queue, profiles, tenants.

    \b
    Examples:
      harp get devices
      harp get leases -o wide
      harp get lease training -o json
      harp get queue --watch
    """
    wanted = KINDS[ALIASES.get(kind, kind)]
    request = api.GetRequest(kinds=[wanted.asked], name=name, tenant=tenant)
    scheduler = connect(**pool)
    if not watch:
        things = found(scheduler.call("Get", request), wanted)
        if name and not things:
            raise HarpError(f"no {wanted.name.lower()} {name}", f"harp get {kind}", 3)
        show(wanted, things, output, not no_headers)
        return
    before: dict[str, object] = {}
    for answer in scheduler.watch("Watch", request):
        now = {wanted.key(thing): thing for thing in found(answer, wanted)}
        changed = [thing for key, thing in now.items() if before.get(key) != thing]
        if changed or not before:
            show(wanted, changed, output, not no_headers and not before)
        for key in before.keys() - now.keys():
            click.echo(f"{key}: gone", err=True)
        before = dict(now)


def found(things: api.Things, kind: Kind) -> list[Any]:
    """The things of a kind in an answer."""
    listed = [thing for thing in getattr(things, kind.asked) if kind.takes(thing)]
    return sorted(listed, key=lambda lease: lease.place) if kind is KINDS["queue"] else listed


def show(kind: Kind, things: Sequence[Any], output: str, headers: bool) -> None:
    """Prints things in one of the forms of `-o`."""
    if output == "name":
        for thing in things:
            click.echo(f"{kind.name.lower()}/{kind.key(thing)}")
    elif output in ("json", "yaml"):
        items = [as_data(kind, thing) for thing in things]
        whole = {"apiVersion": API_VERSION, "kind": f"{kind.name}List", "items": items}
        click.echo(json.dumps(whole, indent=2) if output == "json" else as_yaml(whole), nl=True)
    else:
        table(kind, things, output == "wide", headers)


def as_data(kind: Kind, thing: Any) -> dict[str, Any]:
    """A thing as JSON has it."""
    return {"apiVersion": API_VERSION, "kind": kind.name, **_values(thing)}


def _values(message: Message) -> dict[str, Any]:
    """All fields of a message, those with their default too; what is optional and not set, not."""
    values: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.has_presence and not message.HasField(field.name):
            continue
        if isinstance(value, Message):
            values[field.name] = _values(value)
        elif isinstance(value, Mapping):
            values[field.name] = dict(sorted(value.items()))
        elif isinstance(value, Sequence) and not isinstance(value, str):
            values[field.name] = [_values(v) if isinstance(v, Message) else v for v in value]
        else:
            values[field.name] = value
    return values


def as_yaml(value: object) -> str:
    """YAML text."""
    import yaml

    return yaml.safe_dump(value, sort_keys=False).rstrip("\n")


def table(kind: Kind, things: Sequence[Any], wide: bool, headers: bool) -> None:
    """Columns, as wide as what is in them; nothing is cut off where the output is no terminal."""
    from rich.console import Console
    from rich.table import Table

    columns = [column for column in kind.columns if wide or not column.is_wide]
    grid = Table(box=None, pad_edge=False, show_header=headers, header_style="bold")
    for column in columns:
        grid.add_column(column.title, overflow="fold")
    for thing in things:
        grid.add_row(*(printable(str(column.value(thing))) for column in columns))
    width = None if sys.stdout.isatty() else 10_000
    Console(width=width, markup=False, highlight=False, emoji=False).print(grid)


@click.command()
@click.argument("kind", type=click.Choice([*KINDS, *ALIASES]), metavar="KIND")
@click.argument("name")
@pool_options
def describe(kind: str, name: str, **pool: str | None) -> None:
    """Say everything about one thing of the pool.

    \b
    Examples:
      harp describe server gpu1
      harp describe lease training
    """
    wanted = KINDS[ALIASES.get(kind, kind)]
    request = api.GetRequest(kinds=[wanted.asked], name=name)
    things = found(connect(**pool).call("Get", request), wanted)
    if not things:
        raise HarpError(f"no {wanted.name.lower()} {name}", f"harp get {kind}", 3)
    click.echo(as_yaml(as_data(wanted, things[0])))
