"""Policies under which a workload can be driven: where demands are placed, and who comes first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from harp_scheduler.core.book import PATIENCE
from harp_scheduler.core.placement.engine import Placement
from harp_scheduler.core.placement.model import Demand, Machine, Placed, Refusal
from harp_scheduler.core.placement.workload import Typical

FOREVER = float("inf")


class Tightest(Placement):
    """Places where the least is left, whatever arrives."""

    def set_workload(self, typical: Typical) -> None:
        """Nothing is learned."""


class Chosen(Placement):
    """Places on the machine that `choose` names, of those with room for all of a demand."""

    def place(self, demand: Demand) -> Placed | Refusal:
        """Decides, and changes nothing."""
        names = self.scores(demand)
        if not names:
            return super().place(demand)
        return super().place(replace(demand, only=frozenset((self.choose(names),))))

    def choose(self, names: dict[str, int]) -> str:
        """One of these machines."""
        return min(names)


class Spread(Chosen):
    """Places where the most is idle."""

    def __init__(self) -> None:
        super().__init__()
        self._idle: dict[str, int] = {}

    def update(self, machine: Machine) -> None:
        """Takes a machine in."""
        super().update(machine)
        self._idle[machine.name] = sum(self.left(device.id)[1] for device in machine.devices)

    def take(self, placed: Placed) -> None:
        """Commits a placement."""
        super().take(placed)
        self._move(placed, -1)

    def give_back(self, placed: Placed) -> None:
        """Undoes `take`."""
        super().give_back(placed)
        self._move(placed, 1)

    def _move(self, placed: Placed, sign: int) -> None:
        for part in placed.slices:
            name = part.device.rpartition("/")[0]
            self._idle[name] = self._idle.get(name, 0) + sign * part.compute

    def choose(self, names: dict[str, int]) -> str:
        """The one with the most idle compute."""
        return max(sorted(names), key=lambda name: self._idle.get(name, 0))


class Policy(NamedTuple):
    """One way to decide."""

    meaning: str
    placement: Callable[[], Placement]
    patience: float
    """Seconds that a lease waits before those behind it may not pass it any more."""


POLICIES = {
    "harp": Policy(
        "as the scheduler does: the fewest fragments for what usually arrives; who has waited for "
        "a minute is not passed any more",
        Placement,
        PATIENCE,
    ),
    "tightest": Policy("where the least is left", Tightest, PATIENCE),
    "first-fit": Policy("the first machine with room, by name", Chosen, PATIENCE),
    "spread": Policy("the machine with the most idle", Spread, PATIENCE),
    "in-order": Policy("places as harp does; nobody passes who came before", Placement, 0.0),
    "backfill": Policy("places as harp does; whoever fits passes", Placement, FOREVER),
}
