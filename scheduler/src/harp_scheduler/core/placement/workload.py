"""The typical workload: which demands arrive, and how often. What is a fragment depends on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from math import exp2

from harp_scheduler.core.placement.model import Demand

Typical = tuple[tuple[Demand, float], ...]
"""Demands with their share of all arrivals, the most frequent first."""

HALF_LIFE = 5_000.0
"""Arrivals after which one counts half."""


@lru_cache(4096)
def size_of(demand: Demand) -> Demand:
    """The demand without what is about one asker: labels, and servers to use or to avoid."""
    return replace(
        demand,
        models=tuple(sorted(set(demand.models))),
        labels=(),
        same_server="prefer",
        avoid=frozenset(),
        only=None,
    )


class Workload:
    """Learns the distribution of demands from their arrivals; old ones fade."""

    def __init__(self, half_life: float = HALF_LIFE) -> None:
        self._growth = exp2(1 / half_life)
        self._weight = 1.0
        self._seen: dict[Demand, float] = {}

    def observe(self, demand: Demand) -> None:
        """Counts an arrival. Who asks for no device makes no fragments."""
        if demand.count == 0:
            return
        size = size_of(demand)
        self._seen[size] = self._seen.get(size, 0.0) + self._weight
        # Later arrivals weigh more: the same as fading all earlier ones, without touching them.
        self._weight *= self._growth
        if self._weight > 1e12:
            self._fade()

    def _fade(self) -> None:
        kept = {size: seen / self._weight for size, seen in self._seen.items()}
        self._seen = {size: seen for size, seen in kept.items() if seen > 1e-9}
        self._weight = 1.0

    def typical(self, most: int = 64) -> Typical:
        """The `most` frequent sizes."""
        return _shares(self._seen.items(), most)


def typical_of(demands: Iterable[Demand], most: int | None = None) -> Typical:
    """The distribution of a list of demands, none of them fading."""
    seen = Counter(size_of(demand) for demand in demands if demand.count)
    return _shares(seen.items(), most)


def _shares(seen: Iterable[tuple[Demand, float]], most: int | None) -> Typical:
    ranked = sorted(seen, key=lambda each: (-each[1], _order(each[0])))[:most]
    total = sum(count for _, count in ranked)
    return tuple((size, count / total) for size, count in ranked)


def _order(size: Demand) -> tuple[object, ...]:
    return (
        size.kind,
        size.count,
        size.compute,
        size.memory,
        size.models,
        size.cpu_milli,
        size.host_memory,
    )
