"""`harp host`: the agent of a host without accelerators."""

from __future__ import annotations

import asyncio
import datetime
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harp_client.commands.serving import serving_options, tell_ready
from harp_client.errors import HarpError
from harp_client.state import kept

if TYPE_CHECKING:
    from harp_client.host_metrics import Seen
    from harp_client.scheduler import Scheduler
    from harp_server.exposition import Exposition
    from harp_server.logs import Log

LOOK = 5.0
"""Seconds between two questions what is attached here, where somebody watches."""

LOOK_SECONDS = 2.0
"""How long such a question tries the schedulers."""


@click.command()
@click.option(
    "--scheduler",
    "schedulers",
    multiple=True,
    required=True,
    metavar="HOST:PORT",
    help="The pool's scheduler; once for each, if there are several.",
)
@click.option(
    "--credentials",
    "folder",
    type=click.Path(path_type=Path),
    help="The host's folder (default: where harp join puts it).",
)
@serving_options("host's name")
def host(
    schedulers: tuple[str, ...],
    folder: Path | None,
    metrics: str,
    log_format: str,
    log_level: str,
    ready_fd: int | None,
) -> None:
    """Keep this host's certificate fresh until it is stopped (SIGTERM, SIGINT).

    \b
    Examples:
      harp host --scheduler pool.example:7440
      harp host --scheduler pool.example:7440 --metrics 10.0.0.2:9440
    """
    from harp_client import credentials
    from harp_client.host_metrics import Seen
    from harp_client.renewing import keep_fresh
    from harp_client.scheduler import Scheduler
    from harp_server.ca import identity
    from harp_server.commands import stop_signals
    from harp_server.logs import Log

    place = (folder or Path(kept(), "host")).absolute()
    log = Log(log_format, log_level)
    scheduler = Scheduler(schedulers, str(place))
    certificate = place / "client.pem"
    name = identity(credentials.certificate(certificate)).rpartition("/")[2]

    async def run() -> None:
        stop = stop_signals()
        await asyncio.to_thread(keep_fresh, scheduler, "host")
        seen = Seen(expiry(certificate))
        exposition = expose(metrics, seen) if metrics else None
        if exposition is not None:
            log.info("metrics", address=exposition.address)
        log.info("host ready", host=name, until=str(seen.expires))
        tell_ready(ready_fd, name)
        due, pause = time.monotonic(), 0.0
        while not await stopped(stop, pause):
            if time.monotonic() >= due:
                rest = await asyncio.to_thread(freshen, scheduler, certificate, seen, log)
                due = time.monotonic() + rest
            pause = due - time.monotonic()
            if exposition is not None:
                await asyncio.to_thread(look, scheduler, seen)
                pause = min(pause, LOOK)
        if exposition is not None:
            await exposition.close()

    asyncio.run(run())
    scheduler.close()


async def stopped(stop: asyncio.Queue[int], pause: float) -> bool:
    """Waits; says whether the agent was asked to stop meanwhile."""
    try:
        async with asyncio.timeout(max(0.0, pause)):
            await stop.get()
    except TimeoutError:
        return False
    return True


def freshen(scheduler: Scheduler, certificate: Path, seen: Seen, log: Log) -> float:
    """Gets another certificate, if it is time and it can; says after how many seconds to look
    again."""
    from harp_client import credentials
    from harp_client.renewing import keep_fresh

    try:
        is_new = keep_fresh(scheduler, "host")
    except HarpError as error:
        seen.renewals["failed"] += 1
        log.error("certificate not renewed", cause=error.cause, next=error.next_step)
        return credentials.CHECK
    if is_new:
        seen.renewals["done"] += 1
        seen.expires = expiry(certificate)
        log.info("certificate renewed", until=str(seen.expires))
        return credentials.rest(credentials.certificate(certificate))
    due = credentials.half_life(credentials.certificate(certificate))
    left = due - datetime.datetime.now(datetime.UTC)
    if left <= datetime.timedelta():
        seen.renewals["failed"] += 1
        return credentials.RETRY
    return min(left.total_seconds(), credentials.CHECK)


def look(scheduler: Scheduler, seen: Seen) -> None:
    """Asks the scheduler what is attached to this host."""
    from harp_api.control.v1 import pool_pb2 as api

    try:
        seen.things = scheduler.call("Get", api.GetRequest(kinds=["leases"]), LOOK_SECONDS)
        seen.heard = time.monotonic()
    except HarpError:
        seen.things = None


def expose(listen: str, seen: Seen) -> Exposition:
    """Opens the port for Prometheus. Raises HarpError."""
    from harp_client.host_metrics import HostCollector
    from harp_server.exposition import Exposition, Health, registry

    async def health() -> Health:
        if seen.left <= 0:
            return Health(False, "the host's certificate has expired")
        reach = "is out of reach" if seen.things is None else "answers"
        return Health(True, f"the certificate is valid; the scheduler {reach}")

    metrics = registry("host")
    metrics.register(HostCollector(seen))
    return Exposition(listen, metrics, health)


def expiry(certificate: Path) -> datetime.datetime:
    from harp_client import credentials

    return credentials.certificate(certificate).not_valid_after_utc
