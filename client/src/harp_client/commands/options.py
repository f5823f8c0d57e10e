"""Options that every command to a scheduler has, and the connection that they name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from harp_client.errors import HarpError
from harp_client.renewing import keep_fresh
from harp_client.scheduler import Scheduler
from harp_client.target import Flags, schedulers


def pool_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --scheduler, --credentials and --context; `connect` takes them."""
    for option in (
        click.option("--context", metavar="NAME", help="A context of the configuration file."),
        click.option(
            "-c", "--credentials", metavar="DIR", help="ca.pem, client.pem and client.key."
        ),
        click.option(
            "--scheduler", metavar="HOST:PORT[,...]", help="The pool's schedulers (HARP_SCHEDULER)."
        ),
    ):
        command = option(command)
    return command


def connect(scheduler: str | None, credentials: str | None, context: str | None) -> Scheduler:
    """The scheduler that flags, environment or configuration name. Raises HarpError."""
    pool = schedulers(Flags(None, credentials, None, context, scheduler))
    if pool is None:
        raise HarpError(
            "no scheduler is named",
            "add --scheduler HOST:PORT, set HARP_SCHEDULER, or name it in the context",
            2,
        )
    found = Scheduler(pool.addresses, pool.credentials)
    keep_fresh(found)
    return found
