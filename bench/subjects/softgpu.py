"""The soft GPU's own speed, used directly, beside NumPy in one thread on the same numbers."""

from __future__ import annotations

import numpy
from measure import MIB, Samples, timed
from report import Row, row
from sides import Sides

ELEMENTS = 4 * MIB
MATRIX = 512


def measure(sides: Sides, samples: Samples, scale: int) -> None:
    samples.add("start latency us", sides.direct.ask("start_latency", 2000 // scale))
    samples.add("saxpy ms", sides.direct.ask("saxpy", ELEMENTS, 3))
    x, y, out = (numpy.arange(ELEMENTS, dtype="f4") for _ in range(3))
    a = numpy.float32(2)

    def saxpy() -> None:
        numpy.multiply(x, a, out=out)
        numpy.add(out, y, out=out)

    samples.add("numpy saxpy ms", timed(saxpy))
    samples.add("sum ms", sides.direct.ask("sum", ELEMENTS, 3))
    samples.add("numpy sum ms", timed(x.sum))
    gflop = 2 * MATRIX**3 / 1e9
    times = sides.direct.ask("matmul", MATRIX, 3)
    samples.add("matmul gflops", (gflop / (ms / 1e3) for ms in times))


def rows(samples: Samples) -> list[Row]:
    of = samples.median
    return [
        row("soft_launch_to_start_us", of("start latency us"), "us", at_most=1.5),
        row("soft_saxpy_vs_numpy", of("saxpy ms"), "ms", of("numpy saxpy ms")),
        row("soft_sum_vs_numpy", of("sum ms"), "ms", of("numpy sum ms")),
        row("soft_matmul_gflops", of("matmul gflops"), "GFLOP/s"),
    ]
