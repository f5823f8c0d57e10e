"""What the commands have in common that run until they are stopped: logging, being ready, and the
port where they can be watched."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import click


def serving_options(said: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds --metrics, --log-format, --log-level and --ready-fd; `said`: what is written to the
    descriptor."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in (
            click.option(
                "--ready-fd",
                type=int,
                help=f"Also write the {said} to this descriptor when ready.",
            ),
            click.option(
                "--log-level",
                type=click.Choice(["debug", "info", "warning", "error"]),
                default="info",
                show_default=True,
            ),
            click.option(
                "--log-format",
                type=click.Choice(["auto", "json", "console"]),
                default="auto",
                show_default=True,
                help="Form of the log lines on stderr.",
            ),
            click.option(
                "--metrics",
                default="",
                metavar="HOST:PORT",
                help="Tell Prometheus (/metrics) and who asks for its health (/healthz); open to "
                "all who can reach it, so bind it to a management network. Default: off.",
            ),
        ):
            command = option(command)
        return command

    return add


def tell_ready(descriptor: int | None, said: str) -> None:
    """Writes a line to the descriptor of --ready-fd and closes it, if there is one; that nobody
    reads it is no failure."""
    if descriptor is not None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(descriptor, "w") as ready:
            ready.write(f"{said}\n")
