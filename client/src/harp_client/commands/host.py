"""`harp host`: the agent of a host without accelerators."""

from __future__ import annotations

import datetime
import signal
import threading
from pathlib import Path

import click

from harp_client.commands.serving import serving_options, tell_ready
from harp_client.errors import HarpError
from harp_client.state import kept

CHECK = datetime.timedelta(seconds=30)
"""Longest time between looks at the clock, which may be set."""

RETRY = datetime.timedelta(seconds=5)


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
    log_format: str,
    log_level: str,
    ready_fd: int | None,
) -> None:
    """Keep this host's certificate fresh until it is stopped (SIGTERM, SIGINT).

    \b
    Examples:
      harp host --scheduler pool.example:7440
    """
    from harp_client import credentials
    from harp_client.renewing import keep_fresh
    from harp_client.scheduler import Scheduler
    from harp_server.ca import identity
    from harp_server.logs import Log

    place = (folder or Path(kept(), "host")).absolute()
    log = Log(log_format, log_level)
    scheduler = Scheduler(schedulers, str(place))
    certificate = place / "client.pem"
    name = identity(credentials.certificate(certificate)).rpartition("/")[2]
    keep_fresh(scheduler, "host")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log.info("host ready", host=name, until=str(expiry(certificate)))
    tell_ready(ready_fd, name)
    while True:
        due = credentials.half_life(credentials.certificate(certificate))
        wait = due - datetime.datetime.now(datetime.UTC)
        if stop.wait(min(max(wait, datetime.timedelta()), CHECK).total_seconds()):
            break
        try:
            if keep_fresh(scheduler, "host"):
                log.info("certificate renewed", until=str(expiry(certificate)))
                if stop.wait(credentials.rest(credentials.certificate(certificate))):
                    break
            elif wait <= datetime.timedelta() and stop.wait(RETRY.total_seconds()):
                break
        except HarpError as error:
            log.error("certificate not renewed", cause=error.cause, next=error.next_step)
            if stop.wait(CHECK.total_seconds()):
                break
    scheduler.close()


def expiry(certificate: Path) -> datetime.datetime:
    from harp_client import credentials

    return credentials.certificate(certificate).not_valid_after_utc
