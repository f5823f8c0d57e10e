"""How soon a program can work."""

from __future__ import annotations

from measure import Samples
from report import Row, row
from sides import Sides


def measure(sides: Sides, samples: Samples, scale: int) -> None:
    fresh = sides.in_pool()
    samples.add("first_call_ms", fresh.ask("start"))
    fresh.close()


def rows(samples: Samples) -> list[Row]:
    return [row("first_call_ms", samples.median("first_call_ms"), "ms", at_most=20)]
