"""How soon a program can work."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from measure import Samples, timed
from report import Row, row
from sides import Sides


def measure(sides: Sides, samples: Samples, scale: int) -> None:
    fresh = sides.in_pool()
    samples.add("first_call_ms", fresh.ask("start"))
    fresh.close()

    def run(command: Sequence[object]) -> list[float]:
        words = [str(word) for word in command]
        return timed(lambda: subprocess.run(words, env=sides.environ, check=True))

    samples.add("true ms", run(["true"]))
    samples.add("harp-run true ms", run([*sides.remote(), "true"]))


def rows(samples: Samples) -> list[Row]:
    of = samples.median
    over = of("harp-run true ms") - of("true ms")
    return [
        row("first_call_ms", of("first_call_ms"), "ms", at_most=20),
        row("harp_run_true_ms", over, "ms", at_most=120),
    ]
