"""`harp attach`, `detach`, `start`, `stop`: leases of hosts, as EAIS has them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click

from harp_api.control.v1 import pool_pb2 as api
from harp_client.commands.demand import demand, demand_options
from harp_client.commands.options import connect, pool_options
from harp_client.errors import HarpError, printable
from harp_client.quantities import as_labels, seconds
from harp_client.scheduler import USABLE, Scheduler, request_id

ENDED = ("", "Lost")


def lease_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --tenant and --request-id."""
    command = click.option("--tenant", default="", help="Of the lease (default: your own).")(
        command
    )
    return click.option(
        "--request-id",
        default=request_id,
        show_default="a new one",
        help="The same call with the same id does nothing twice.",
    )(command)


def ending_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds what `detach` and `stop` have: --drain, --force, and which lease of which pool."""
    command = lease_options(pool_options(command))
    for option in (
        click.option("--force", is_flag=True, help="Now: the programs get a CUDA error."),
        click.option("--drain", is_flag=True, help="When the programs that use it have ended."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("host")
@demand_options
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Of device or server.")
@click.option("--same-server", is_flag=True, help="All devices of one server, or none.")
@click.option("--profile", default="", help="A named size, in place of the options above.")
@click.option("--name", default="", help="To name the lease by later.")
@click.option("--user", "users", multiple=True, help="Who may use it (default: you).")
@click.option(
    "--priority",
    type=click.IntRange(-(1 << 31), (1 << 31) - 1),
    default=0,
    show_default=True,
    help="Of leases that wait the higher comes first (operators only).",
)
@click.option("--wait", is_flag=True, help="Until it can be used.")
@click.option("--timeout", metavar="TIME", help="Give up waiting after this (5m), and detach.")
@lease_options
@pool_options
def attach(
    host: str,
    kind: str,
    count: int,
    models: tuple[str, ...],
    memory: str | None,
    compute: str | None,
    labels: tuple[str, ...],
    same_server: bool,
    profile: str,
    name: str,
    users: tuple[str, ...],
    priority: int,
    wait: bool,
    timeout: str | None,
    tenant: str,
    request_id: str,
    **pool: str | None,
) -> None:
    """Attach devices of the pool to HOST: programs started there from now on use them.

    Without a model or name the first that fits is taken.

    \b
    Examples:
      harp attach web1
      harp attach web1 --count 2 --memory 8GiB --wait
      harp attach web1 --profile half --name training --timeout 5m
    """
    limit = seconds(timeout) if timeout else None
    wanted = demand(kind, count, models, memory, compute)
    wanted.labels.update(as_labels(labels))
    wanted.same_server = same_server
    request = api.AttachRequest(
        request_id=request_id,
        tenant=tenant,
        demand=wanted,
        profile=profile,
        name=name,
        host=host,
        users=users,
        priority=priority,
    )
    scheduler = connect(**pool)
    lease = scheduler.call("Attach", request)
    if wait or timeout:
        lease = _wait(scheduler, lease, limit)
    click.echo(told(lease))


def _wait(scheduler: Scheduler, lease: api.Lease, limit: float | None) -> api.Lease:
    """The lease when it can be used. Raises HarpError."""
    deadline = None if limit is None else time.monotonic() + limit
    said = ""
    while True:
        if lease.state in USABLE:
            return lease
        if lease.state in ENDED:
            raise HarpError(f"the lease is gone: {lease.reason or 'it was detached'}", exit_code=5)
        if (line := told(lease)) != said:
            click.echo(line, err=True)
            said = line
        if deadline is not None and time.monotonic() > deadline:
            give_back = api.DetachRequest(
                request_id=request_id(), lease=lease.id, how=api.DetachRequest.HOW_FORCE
            )
            scheduler.call("Detach", give_back)
            raise HarpError(
                f"not attached after {limit:.0f} s: {lease.reason}", "harp get queue", 124
            )
        time.sleep(0.2)
        lease = one(scheduler, lease.id)


def one(scheduler: Scheduler, lease: str) -> api.Lease:
    """The lease as it is now; with an empty state where it is gone."""
    things = scheduler.call("Get", api.GetRequest(kinds=["leases"], name=lease))
    return things.leases[0] if things.leases else api.Lease(id=lease)


@click.command()
@click.argument("lease")
@ending_options
def detach(
    lease: str, drain: bool, force: bool, tenant: str, request_id: str, **pool: str | None
) -> None:
    """Detach LEASE (its name or id), if no program uses it.

    \b
    Examples:
      harp detach training
      harp detach training --drain
      harp detach training --force
    """
    _give_back("Detach", lease, drain, force, tenant, request_id, **pool)


@click.command()
@click.argument("lease")
@ending_options
def stop(
    lease: str, drain: bool, force: bool, tenant: str, request_id: str, **pool: str | None
) -> None:
    """Free the devices of LEASE for others and keep its reservation; `harp start` takes new ones.

    \b
    Examples:
      harp stop training
    """
    _give_back("Stop", lease, drain, force, tenant, request_id, **pool)


def _give_back(
    call: str,
    lease: str,
    drain: bool,
    force: bool,
    tenant: str,
    request_id: str,
    **pool: str | None,
) -> None:
    if drain and force:
        raise HarpError("--drain and --force exclude each other", "choose one", 2)
    how = (
        api.DetachRequest.HOW_DRAIN
        if drain
        else api.DetachRequest.HOW_FORCE
        if force
        else api.DetachRequest.HOW_IF_UNUSED
    )
    request = api.DetachRequest(request_id=request_id, lease=lease, tenant=tenant, how=how)
    after = connect(**pool).call(call, request)
    if after.reason.startswith("not detached"):
        raise HarpError(f"{lease}: {after.reason}", "add --drain to wait, or --force", 5)
    click.echo(told(after) if after.state else f"{lease}: detached")


@click.command()
@click.argument("lease")
@lease_options
@pool_options
def start(lease: str, tenant: str, request_id: str, **pool: str | None) -> None:
    """Give a stopped or lost LEASE devices again.

    \b
    Examples:
      harp start training
    """
    request = api.StartRequest(request_id=request_id, lease=lease, tenant=tenant)
    click.echo(told(connect(**pool).call("Start", request)))


def told(lease: api.Lease) -> str:
    """A lease in one line."""
    devices = ", ".join(target.device for target in lease.targets)
    place = f", place {lease.place} in the queue" if lease.place else ""
    reason = f" ({lease.reason})" if lease.reason else ""
    where = f" on {devices}" if devices else ""
    return printable(f"{lease.name or lease.id}: {lease.state}{where}{place}{reason}")
