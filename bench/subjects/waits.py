"""What a server's distance costs: an iteration of 1,000 launches and one synchronise, and the start
of a program up to its first kernel, over links with a round trip."""

from __future__ import annotations

from driven import HARP_RUN, Driven, build_baseline
from link import ROUND_TRIPS_MS, link
from measure import Samples
from report import Row, row
from sides import Sides

LAUNCHES = 1000
FAR_MS = 30
HANDSHAKE = 1
"""Round trips of TLS 1.3 with certificates on both sides. TCP's one ends at the link."""


def measure(sides: Sides, samples: Samples, scale: int) -> None:
    baseline, count = build_baseline(), max(2, 12 // scale)
    user = sides.credentials.user
    for round_trip in ROUND_TRIPS_MS:
        with link(baseline, sides.server.address, round_trip) as network:
            command = [*HARP_RUN, "--server", network.address, "--credentials", user, "--"]
            far = Driven([*command, *sides.client], sides.environ)
            samples.add(f"first {round_trip:g}", far.ask("first"))
            samples.add(f"trips {round_trip:g}", [network.carried()[2] - HANDSHAKE])
            samples.add(f"iteration {round_trip:g}", far.ask("iteration", LAUNCHES, count))
            far.close()
        samples.add("iteration direct", sides.direct.ask("iteration", LAUNCHES, count))


def rows(samples: Samples) -> list[Row]:
    of = samples.median
    native = of("iteration direct")
    iterations = [
        row(
            f"iteration_{round_trip:g}ms_vs_rtt_plus_native",
            of(f"iteration {round_trip:g}"),
            "ms",
            round_trip + native,
            at_most=1.1 if round_trip == FAR_MS else None,
        )
        for round_trip in ROUND_TRIPS_MS
    ]
    return [
        row("start_round_trips", of(f"trips {FAR_MS}"), "", at_most=3),
        row(f"first_kernel_{FAR_MS}ms", of(f"first {FAR_MS}"), "ms"),
        *iterations,
    ]
