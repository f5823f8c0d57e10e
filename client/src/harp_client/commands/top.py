"""`harp top`: what of the pool is used, live."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

import click

from harp_api.control.v1 import pool_pb2 as api
from harp_client.commands.finite import FiniteRange
from harp_client.commands.get import KINDS, found, server_state, wants
from harp_client.commands.options import connect, pool_options
from harp_client.errors import printable
from harp_client.quantities import GIB, WHOLE

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

BAR = 16
"""Characters of a bar."""

Thing = TypeVar("Thing")


@click.command()
@click.option(
    "-n",
    "--interval",
    type=FiniteRange(0.2, 3600),
    default=2.0,
    show_default=True,
    help="Seconds between looks.",
)
@click.option("--once", is_flag=True, help="Print it once, for scripts.")
@pool_options
def top(interval: float, once: bool, **pool: str | None) -> None:
    """Show devices with what is leased of them, leases and the queue, until Ctrl-C.

    \b
    Examples:
      harp top
      harp top -n 5
      harp top --once
    """
    from rich.console import Console
    from rich.live import Live

    scheduler = connect(**pool)
    request = api.GetRequest(kinds=["servers", "devices", "leases"])
    console = Console(highlight=False, markup=False, emoji=False)
    if once or not console.is_terminal:
        wide = Console(highlight=False, markup=False, emoji=False, width=160)
        wide.print(screen(scheduler.call("Get", request), 1 << 20))
        return
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                things = scheduler.call("Get", request)
                live.update(screen(things, console.height), refresh=True)
                time.sleep(interval)
    except KeyboardInterrupt:
        return


def screen(things: api.Things, height: int) -> RenderableType:
    """Everything, in as many lines as there are."""
    from rich.console import Group
    from rich.text import Text

    waiting = found(things, KINDS["queue"])
    leases = [lease for lease in things.leases if not lease.place]
    room = max(3, height - 8)
    # Devices first, but never all of the screen: who waits is what one looks for.
    shown = min(len(things.devices), max(room - len(leases) - len(waiting), room // 2))
    rest = max(2, room - shown)
    parts: list[RenderableType] = [
        Text(summary(things, len(waiting)), style="bold"),
        Text(),
        devices_table(things.devices, shown),
        Text(),
        leases_table(leases, max(1, rest - min(len(waiting), rest // 3))),
    ]
    if waiting:
        parts += [Text(), queue_table(waiting, max(1, rest // 3))]
    return Group(*parts)


def summary(things: api.Things, waiting: int) -> str:
    """The pool in one line."""
    ready = sum(server_state(server) == "ready" for server in things.servers)
    memory = sum(device.memory for device in things.devices)
    leased = sum(device.memory_leased for device in things.devices)
    compute = sum(device.compute_leased for device in things.devices) / WHOLE
    return (
        f"{ready} of {len(things.servers)} servers ready, {len(things.devices)} devices; leased: "
        f"{leased / GIB:.4g} of {memory / GIB:.4g} GiB, {compute:g} devices' compute; "
        f"{len(things.leases) - waiting} leases, {waiting} waiting"
    )


def bar(part: float, whole: float) -> str:
    """A share as a bar and a number."""
    share = min(1.0, part / whole) if whole else 0.0
    full = round(share * BAR)
    return f"{'█' * full}{'·' * (BAR - full)} {share:4.0%}"


def devices_table(devices: Iterable[api.Accelerator], room: int) -> Table:
    """Devices, and how much of each is leased."""

    def row(device: api.Accelerator) -> Sequence[str]:
        return (
            device.id,
            device.model,
            device.unusable or "ready",
            bar(device.memory_leased, device.memory),
            bar(device.compute_leased, WHOLE),
            ",".join(device.leases) or "-",
        )

    return _table(("DEVICE", "MODEL", "STATE", "MEMORY", "COMPUTE", "LEASES"), row, devices, room)


def leases_table(leases: Iterable[api.Lease], room: int) -> Table:
    """Leases that have devices, or had them."""

    def row(lease: api.Lease) -> Sequence[str]:
        return (
            lease.name,
            lease.state,
            lease.tenant,
            lease.host or "(a run)",
            ",".join(target.device for target in lease.targets) or "-",
            str(lease.sessions),
        )

    return _table(("LEASE", "STATE", "TENANT", "HOST", "DEVICES", "PROGRAMS"), row, leases, room)


def queue_table(waiting: Iterable[api.Lease], room: int) -> Table:
    """Leases that wait, in their order."""

    def row(lease: api.Lease) -> Sequence[str]:
        return str(lease.place), lease.name, lease.tenant, wants(lease.demand), lease.reason

    return _table(("PLACE", "WAITS", "TENANT", "WANTS", "REASON"), row, waiting, room)


def _table(
    titles: Sequence[str], row: Callable[[Thing], Sequence[str]], things: Iterable[Thing], room: int
) -> Table:
    """One line for each thing that there is room for, and how many more there are."""
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        grid.add_column(title, no_wrap=True, overflow="ellipsis")
    listed = list(things)
    for thing in listed[:room]:
        grid.add_row(*map(printable, row(thing)))
    if len(listed) > room:
        grid.add_row(f"… {len(listed) - room} more")
    return grid
