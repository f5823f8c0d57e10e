"""Launches by a driver that takes as long as a real one: whether the pool keeps it busy."""

from __future__ import annotations

from pathlib import Path

from driven import HARP_RUN, Driven, build_slow_driver
from measure import Samples
from report import Row, row
from sides import Sides

LAUNCHES = 100_000
TURNS = 3
"""How often the sides take turns in a round."""


def once(sides: Sides, samples: Samples) -> None:
    build_slow_driver(_driver(sides))


def measure(sides: Sides, samples: Samples, scale: int) -> None:
    library = _driver(sides)
    pooled, local = (
        Driven([*HARP_RUN, *how, library, "--", *sides.client], sides.environ)
        for how in (("--embedded", "--device"), ("--local", "--libcuda"))
    )
    for side in (pooled, local):
        side.ask("start")
    for _ in range(TURNS):
        for side, name in ((pooled, "pool"), (local, "local")):
            samples.add(f"slow launches {name}", side.ask("launches", LAUNCHES // scale))
    for side in (pooled, local):
        side.close()


def _driver(sides: Sides) -> Path:
    return sides.folder / "slow" / "slow_driver.so"


def rows(samples: Samples) -> list[Row]:
    of = samples.median
    pooled, local = of("slow launches pool"), of("slow launches local")
    return [row("launches_slow_driver_vs_local", pooled, "1/s", local, at_least=0.95)]
