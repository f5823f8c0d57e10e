"""Copies of fresh random bytes, each way, beside a raw TLS socket."""

from __future__ import annotations

from measure import KIB, MIB, Samples
from report import Row, row
from sides import Sides

SIZES = (("64k", 64 * KIB, 200), ("1m", MIB, 60), ("256m", 256 * MIB, 3))
WAYS = (("h2d", "send"), ("d2h", "receive"))
"""Each way's copy, and what the raw socket does for it."""


def measure(sides: Sides, samples: Samples, scale: int) -> None:
    with sides.ends_apart():
        for label, size, count in SIZES:
            count = max(1, count // scale)
            for way, socket in WAYS:
                samples.add(f"{socket} {label}", sides.raw.ask(socket, size, count))
                samples.add(f"{way} {label}", sides.pool.ask(way, size, count))


def rows(samples: Samples) -> list[Row]:
    return [
        row(
            f"copy_{label}_{way}_vs_tls",
            samples.median(f"{way} {label}"),
            "GB/s",
            samples.median(f"{socket} {label}"),
            at_least=1.5 if label == "256m" else 1.0,
        )
        for label, _, _ in SIZES
        for way, socket in WAYS
    ]
