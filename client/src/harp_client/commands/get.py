"""`harp get` and `harp describe`: what there is, for people and for programs."""

from __future__ import annotations

from typing import Any

import click

from harp_api.control.v1 import pool_pb2 as api
from harp_client.commands.access import show_tokens
from harp_client.commands.forms import Column, Kind, as_data, as_yaml, output_option, show, when
from harp_client.commands.history import EVENTS, show_audit, show_events
from harp_client.commands.options import connect, pool_options
from harp_client.errors import HarpError, printable
from harp_client.quantities import GIB


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
            Column("FAULT", lambda device: device.fault),
            Column("LABELS", lambda device: _labels(device), is_wide=True),
        ),
        key=lambda device: str(device.id),
    ),
    "leases": Kind("Lease", "leases", LEASES),
    "hosts": Kind(
        "Host",
        "hosts",
        (
            Column("NAME", lambda host: host.name),
            Column("LEASES", lambda host: ",".join(host.leases)),
            Column("DEVICES", lambda host: ",".join(host.devices) or "-"),
            Column("PROGRAMS", lambda host: host.sessions),
            Column("LEFT OUT", lambda host: "; ".join(host.left_out) or "-"),
        ),
    ),
    "sessions": Kind(
        "Session",
        "sessions",
        (
            Column("NAME", lambda session: session.name),
            Column("PROGRAM", lambda session: session.program),
            Column("USER", lambda session: session.user.rpartition("/")[2]),
            Column("LEASE", lambda session: session.lease_name),
            Column("HOST", lambda session: session.host or "(a run)"),
            Column("SERVER", lambda session: session.server),
            Column("SINCE", lambda session: when(session.began)),
            Column("PID", lambda session: session.pid, is_wide=True),
            Column("TENANT", lambda session: session.tenant, is_wide=True),
        ),
    ),
    "events": EVENTS,
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
            Column("PROGRAMS", lambda t: f"{t.used.sessions} of {_limit(t.quota, 'sessions')}"),
        ),
    ),
}
TOKEN_WORDS = ("tokens", "token")
"""What admins list, and is no part of what everybody is told of the pool."""

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
@click.argument("kind", type=click.Choice([*KINDS, *ALIASES, *TOKEN_WORDS]), metavar="KIND")
@click.argument("name", default="")
@output_option("table", "wide", "json", "yaml", "name")
@click.option("-w", "--watch", is_flag=True, help="Go on: print again what has changed.")
@click.option("--no-headers", is_flag=True, help="A table without its first line.")
@click.option("--tenant", default="", help="Only leases of this tenant.")
@click.option("--audit", is_flag=True, help="Events: who asked for what, since the pool began.")
@pool_options
def get(
    kind: str,
    name: str,
    output: str,
    watch: bool,
    no_headers: bool,
    tenant: str,
    audit: bool,
    **pool: str | None,
) -> None:
    """List what the pool has.

    Kinds are servers, devices, leases, hosts, sessions, queue, profiles, tenants, events and, for
    admins, tokens.

    \b
    Examples:
      harp get devices
      harp get leases -o wide
      harp get lease training -o json
      harp get queue --watch
      harp get events --audit
    """
    if kind in TOKEN_WORDS:
        show_tokens(connect(**pool), output, not no_headers, name)
        return
    wanted = KINDS[ALIASES.get(kind, kind)]
    if audit and wanted is not EVENTS:
        raise HarpError(f"--audit goes with events, not with {kind}", "harp get events --audit", 2)
    if audit:
        show_audit(connect(**pool), output, not no_headers, subject=name, tenant=tenant)
        return
    if wanted is EVENTS:
        show_events(connect(**pool), output, not no_headers, watch, name, tenant)
        return
    request = api.GetRequest(kinds=[wanted.asked], name=name, tenant=tenant)
    scheduler = connect(**pool)
    if not watch:
        things = found(scheduler.call("Get", request), wanted)
        if name and not things:
            raise HarpError(f"no {wanted.name.lower()} {name}", f"harp get {kind}", 3)
        show(wanted, things, output, not no_headers)
        return
    before: dict[str, object] | None = None
    for answer in scheduler.watch("Watch", request):
        now = {wanted.key(thing): thing for thing in found(answer, wanted)}
        changed = [thing for key, thing in now.items() if (before or {}).get(key) != thing]
        if changed or before is None:
            show(wanted, changed, output, not no_headers and not before)
        for key in (before or {}).keys() - now.keys():
            click.echo(printable(f"{key}: gone"), err=True)
        before = dict(now)


def found(things: api.Things, kind: Kind) -> list[Any]:
    """The things of a kind in an answer."""
    listed = [thing for thing in getattr(things, kind.asked) if kind.takes(thing)]
    return sorted(listed, key=lambda lease: lease.place) if kind is KINDS["queue"] else listed


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
    if wanted is EVENTS:
        raise HarpError("an event is all that its line says", f"harp get events {name}", 2)
    request = api.GetRequest(kinds=[wanted.asked], name=name)
    things = found(connect(**pool).call("Get", request), wanted)
    if not things:
        raise HarpError(f"no {wanted.name.lower()} {name}", f"harp get {kind}", 3)
    click.echo(as_yaml(as_data(wanted, things[0])))
