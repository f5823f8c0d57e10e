"""Whether a call costs the same however much is live: the cost with 10,000 objects of a kind by
that with one, of the call for which that is worst."""

from __future__ import annotations

from measure import Samples
from report import Row, row
from sides import Sides

LIVE = 10_000
CALLS = {
    "allocations": ("alloc_free", "launch", "copy", "fill", "range", "synchronize"),
    "modules": ("load_unload", "get_function", "launch", "launch_other", "synchronize"),
    "streams": ("create_destroy", "launch", "launch_legacy", "synchronize_one", "synchronize"),
    "events": ("create_destroy", "record", "launch", "synchronize_one", "synchronize"),
}
"""What the measuring client's `flat` does with each kind, in its order."""

COUNT = 200
BUDGETS = {"pool": 1.2, "direct": 1.5}
"""Without the way to a server a call takes 40 to 600 ns, of which 10,000 objects are some misses of
the processor's caches."""


def measure(sides: Sides, samples: Samples, scale: int) -> None:
    for way, start in (("pool", sides.in_pool), ("direct", sides.in_program)):
        for kind, calls in CALLS.items():
            fresh = start()
            fresh.ask("start")
            # Both counts as often, and neither later: what a machine is at changes meanwhile.
            found = [fresh.ask("flat", kind, live, COUNT) for live in (1, LIVE, LIVE, 1)]
            for call, *costs in zip(calls, *found, strict=True):
                one, many = min(costs[0], costs[3]), min(costs[1:3])
                samples.add(f"flat {kind} {call} {way}", [many / one])
            fresh.close()


def rows(samples: Samples) -> list[Row]:
    found = []
    for kind, calls in CALLS.items():
        for way, suffix in (("pool", ""), ("direct", "_direct")):
            ratios = {call: min(samples.found[f"flat {kind} {call} {way}"]) for call in calls}
            worst = max(ratios, key=lambda call: ratios[call])
            name = f"flat_10000_{kind}{suffix}"
            found.append(row(name, ratios[worst], f"× ({worst})", at_most=BUDGETS[way]))
    return found
