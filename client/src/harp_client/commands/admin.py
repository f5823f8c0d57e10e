"""`harp cordon`, `uncordon`, `drain`, `create`, `delete`: for operators and admins of a pool."""

from __future__ import annotations

import click

from harp_api.control.v1 import pool_pb2 as api
from harp_client.commands.demand import demand, demand_options
from harp_client.commands.options import connect, pool_options
from harp_client.errors import printable
from harp_client.quantities import per_mille, seconds, size
from harp_client.scheduler import request_id

COUNT = click.IntRange(0, (1 << 32) - 1)
"""As a message holds it."""


@click.command()
@click.argument("subject")
@pool_options
def cordon(subject: str, **pool: str | None) -> None:
    """Begin no more leases on a server or a device (SERVER, or SERVER/NUMBER).

    \b
    Examples:
      harp cordon gpu1
      harp cordon gpu1/3
    """
    _cordon(subject, on=True, drain=False, **pool)
    click.echo(f"{subject}: cordoned")


@click.command()
@click.argument("subject")
@pool_options
def uncordon(subject: str, **pool: str | None) -> None:
    """Use a cordoned server or device again; or a device with which something has happened that is
    seen to now.

    \b
    Examples:
      harp uncordon gpu1
      harp uncordon gpu1/3
    """
    _cordon(subject, on=False, drain=False, **pool)
    asked = api.GetRequest(kinds=["devices"], name=subject)
    for device in connect(**pool).call("Get", asked).devices:
        if device.fault:  # its server says so still
            click.echo(printable(f"{subject}: faulty: {device.fault}"))
            return
    click.echo(f"{subject}: ready")


@click.command()
@click.argument("subject")
@pool_options
def drain(subject: str, **pool: str | None) -> None:
    """Empty a server or a device: no new leases, and those on it end with their programs.

    Attachments then get devices elsewhere.

    \b
    Examples:
      harp drain gpu1
    """
    _cordon(subject, on=True, drain=True, **pool)
    click.echo(f"{subject}: draining (harp get leases)")


def _cordon(subject: str, on: bool, drain: bool, **pool: str | None) -> None:
    request = api.CordonRequest(request_id=request_id(), subject=subject, on=on, drain=drain)
    connect(**pool).call("Cordon", request)


@click.group()
def create() -> None:
    """Make a profile or a tenant, or change one.

    \b
    Examples:
      harp create profile half --compute 50%
      harp create tenant research --devices 8
    """


@create.command("profile")
@click.argument("name")
@demand_options
@pool_options
def create_profile(
    name: str,
    kind: str,
    count: int,
    models: tuple[str, ...],
    memory: str | None,
    compute: str | None,
    **pool: str | None,
) -> None:
    """Name a size, for `harp attach --profile NAME` and `harp-run --size NAME`.

    \b
    Examples:
      harp create profile half --compute 50%
      harp create profile small --memory 4GiB --compute 25%
    """
    profile = api.Profile(
        request_id=request_id(), name=name, demand=demand(kind, count, models, memory, compute)
    )
    connect(**pool).call("SetProfile", profile)
    click.echo(f"profile {name}: set")


@create.command("tenant")
@click.argument("name")
@click.option("--devices", type=COUNT, help="Devices at one time.")
@click.option("--memory", metavar="SIZE", help="Memory of all devices together.")
@click.option("--compute", metavar="SHARE", help="Of all devices together (400% is four devices).")
@click.option("--leases", type=COUNT, help="Leases, those that wait included.")
@click.option("--longest", metavar="TIME", help="How long one lease may be held (8h).")
@click.option("--sessions", type=COUNT, help="Programs that use them at one time.")
@pool_options
def create_tenant(
    name: str,
    devices: int | None,
    memory: str | None,
    compute: str | None,
    leases: int | None,
    longest: str | None,
    sessions: int | None,
    **pool: str | None,
) -> None:
    """Make a tenant with a quota, or give it another one; what is not named has no limit.

    \b
    Examples:
      harp create tenant research --devices 8 --longest 12h
    """
    quota = api.Quota(
        devices=devices,
        memory=size(memory) if memory else None,
        compute=per_mille(compute, most=1_000_000) if compute else None,
        leases=leases,
        longest=seconds(longest) if longest else None,
        sessions=sessions,
    )
    connect(**pool).call("SetTenant", api.Tenant(request_id=request_id(), name=name, quota=quota))
    click.echo(f"tenant {name}: set")


@click.group()
def delete() -> None:
    """Forget a server that has gone, or a profile.

    \b
    Examples:
      harp delete server gpu1
      harp delete profile half
    """


@delete.command("server")
@click.argument("name")
@pool_options
def delete_server(name: str, **pool: str | None) -> None:
    """Forget a server that is not connected and holds no leases.

    \b
    Examples:
      harp delete server gpu1
    """
    _remove("RemoveServer", name, **pool)
    click.echo(f"server {name}: deleted")


@delete.command("profile")
@click.argument("name")
@pool_options
def delete_profile(name: str, **pool: str | None) -> None:
    """Do not offer a named size any more; leases that used it stay.

    \b
    Examples:
      harp delete profile half
    """
    _remove("RemoveProfile", name, **pool)
    click.echo(f"profile {name}: deleted")


def _remove(call: str, name: str, **pool: str | None) -> None:
    connect(**pool).call(call, api.RemoveRequest(request_id=request_id(), name=name))
