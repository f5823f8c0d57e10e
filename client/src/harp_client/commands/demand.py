"""The options that say which devices, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from harp_api.control.v1 import pool_pb2 as api
from harp_client.quantities import per_mille, size


def demand_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --kind, --count, --model, --memory and --compute; `demand` takes them."""
    for option in (
        click.option("--compute", metavar="SHARE", help="Share of each device (50%)."),
        click.option("--memory", metavar="SIZE", help="Memory of each device (8GiB)."),
        click.option("--model", "models", multiple=True, help="Any of these models."),
        click.option("--count", type=click.IntRange(1, 1024), default=1, show_default=True),
        click.option("--kind", default="gpu", show_default=True, help="gpu, fpga, npu or cpu."),
    ):
        command = option(command)
    return command


def demand(
    kind: str, count: int, models: Sequence[str], memory: str | None, compute: str | None
) -> api.Demand:
    """What the options of `demand_options` ask for. Raises HarpError."""
    return api.Demand(
        kind=kind,
        count=count,
        models=models,
        memory=size(memory) if memory else 0,
        compute=per_mille(compute) if compute else 0,
    )
