"""What a call costs: one that nobody waits for, and one that is waited for."""

from __future__ import annotations

from measure import Samples
from report import Row, row
from sides import Sides


def measure(sides: Sides, samples: Samples, scale: int) -> None:
    for side, name in ((sides.pool, "pool"), (sides.direct, "direct")):
        samples.add(f"oneway {name}", side.ask("oneway", 200, 200 // scale))
        samples.add(f"launches {name}", side.ask("launches", 200_000 // scale))
    for _ in range(8):
        with sides.ends_apart():
            samples.add("ping 64", sides.raw.ask("ping", 64, 400 // scale))
            samples.add("wait pool", sides.pool.ask("wait", 400 // scale))
            samples.add("little pool", sides.pool.ask("little", 64, 400 // scale))
            samples.add("synchronize pool", sides.pool.ask("synchronize", 400 // scale))
        samples.add("waits of 1 thread", sides.pool.ask("threads", 1600 // scale, 1))
        samples.add("waits of 4 threads", sides.pool.ask("threads", 400 // scale, 4))


def rows(samples: Samples) -> list[Row]:
    of, best = samples.median, samples.best
    return [
        row("oneway_call_ns", of("oneway pool"), "ns", at_most=300),
        row("oneway_call_direct_ns", of("oneway direct"), "ns"),
        row("launches_per_s", best("launches pool"), "1/s", at_least=400_000),
        row("launches_direct_per_s", best("launches direct"), "1/s"),
        row("waiting_call_vs_tcp", of("wait pool"), "us", of("ping 64"), at_most=1.35),
        row("copy_64b_d2h_vs_wait", of("little pool"), "us", of("wait pool"), at_most=1.1),
        row("synchronize_vs_tcp", of("synchronize pool"), "us", of("ping 64"), at_most=1.35),
        row(
            "waits_of_4_threads_vs_one",
            of("waits of 4 threads"),
            "1/s",
            of("waits of 1 thread"),
        ),
    ]
