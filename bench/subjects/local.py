"""What local mode adds to a call of the soft GPU, in the same program with and without it."""

from __future__ import annotations

from driven import HARP_RUN, Driven
from measure import Samples, undisturbed
from report import Row, row
from sides import Sides

CALLS = {"call": ("current", 2000), "version": ("version", 2000), "launch": ("oneway", 200)}
"""By the name of its row: the client's command that times batches of it, and calls in a batch."""

BATCHES = 50
TURNS = 8
"""How often the sides take turns in a round."""

BUDGET_NS = 50


def measure(sides: Sides, samples: Samples, scale: int) -> None:
    wrapper = [*HARP_RUN, "--local", "--libcuda", "soft"]
    local = Driven([*wrapper, "--", *sides.client], sides.environ)
    profiled = Driven([*wrapper, "--stats", "--", *sides.client], sides.environ)
    for side in (local, profiled):
        side.ask("start")
    for _ in range(TURNS):
        for name, (command, batch) in CALLS.items():
            count = BATCHES // scale
            direct, plain, counted = (
                undisturbed(side.ask(command, batch, count))
                for side in (sides.direct, local, profiled)
            )
            samples.add(f"local {name}", [plain - direct])
            samples.add(f"local profiled {name}", [counted - direct])
            samples.add(f"local direct {name}", [direct])
    for side in (local, profiled):
        side.close()


def rows(samples: Samples) -> list[Row]:
    """Nanoseconds more than directly: medians of the differences of neighbouring turns."""
    found = []
    for name in CALLS:
        found.append(row(f"local_{name}_direct_ns", samples.median(f"local direct {name}"), "ns"))
        for hook, title in (("", ""), ("profiled ", "profiled_")):
            added = samples.median(f"local {hook}{name}")
            found.append(row(f"local_{title}{name}_added_ns", added, "ns", at_most=BUDGET_NS))
    return found
