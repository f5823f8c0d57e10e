"""Placement: which slices a demand gets. It has no clock and does no IO.

    found = placement.place(demand)      # decides
    if isinstance(found, Placed):
        placement.take(found)            # commits
        …
        placement.give_back(found)

What `place` answers depends on the machines, on what is taken and on the typical workload, not on
how things came to be so.
"""

from __future__ import annotations

import numpy as np

from harp_scheduler.core.placement.eligible import Allowed, Labelled, allowed, restricts
from harp_scheduler.core.placement.fragmentation import Fragmentation
from harp_scheduler.core.placement.machines import Machines
from harp_scheduler.core.placement.model import (
    Demand,
    HostShare,
    Machine,
    Placed,
    Refusal,
    Slice,
)
from harp_scheduler.core.placement.ranking import LEVELS, UNFIT, Ranking
from harp_scheduler.core.placement.refusing import refusal
from harp_scheduler.core.placement.workload import Typical, size_of

SIZES_MOST = 256
"""Sizes of demands whose scores are kept."""

LABELS_MOST = 64
"""Sets of labels for which it is kept who has them."""


class Placement:
    """The engine. Machines are those of one pool, names and device ids unique."""

    def __init__(self, typical: Typical = ()) -> None:
        self._machines = Machines()
        self._fragmentation = Fragmentation(typical, self._machines.remainders)
        self._typical = typical
        self._rankings: dict[tuple[object, ...], Ranking] = {}
        self._labelled: dict[tuple[tuple[str, str], ...], Labelled] = {}

    def set_workload(self, typical: Typical) -> None:
        """Scores by another workload from now on; without one, by how tightly demands fit. Each
        size is scored anew when it is next asked for: milliseconds where devices are 100,000."""
        self._typical = typical
        self._fragmentation = Fragmentation(typical, self._machines.remainders)
        self._rankings.clear()

    def update(self, machine: Machine) -> None:
        """Takes a machine in, or what has changed of one. What is taken of it stays taken. Raises
        ConflictError where another machine has one of its devices."""
        self._relabel(self._machines.update(machine))

    def remove(self, name: str) -> None:
        """Forgets a machine. What is taken of its devices can still be given back."""
        self._relabel(self._machines.remove(name))

    def set_usable(self, device: str, reason: str = "") -> None:
        """Says why no new slice may be of a device (cordoned, faulty); empty: one may."""
        self._machines.set_usable(device, reason)

    def take(self, placed: Placed) -> None:
        """Commits a placement, wholly or not at all. Raises ConflictError where it is not free."""
        self._machines.take(placed)

    def give_back(self, placed: Placed) -> None:
        """Undoes `take`, wholly or not at all. Raises ConflictError where it is not taken."""
        self._machines.give_back(placed)

    def left(self, device: str) -> tuple[int, int]:
        """Bytes and per mille of a device that nobody has. Raises KeyError for an unknown one."""
        return self._machines.left(device)

    def scores(self, demand: Demand) -> dict[str, int]:
        """How well each machine suits a demand, 0 to 100; those without room for all are left out.
        For people: what is decided is up to `place`."""
        machines, ranking = self._machines, self._ranking(demand)
        scores = ranking.scores
        if restricts(demand):
            scores = ranking.restricted(allowed(demand, machines, self._labels(demand)))
        return {
            machines.rows[row].machine.name: int(scores[row]) // LEVELS
            for row in np.flatnonzero(scores != UNFIT).tolist()
        }

    def place(self, demand: Demand) -> Placed | Refusal:
        """Decides, and changes nothing: `take` commits."""
        machines, ranking = self._machines, self._ranking(demand)
        if not machines.rows:
            return Refusal(demand.count, 0)
        if not restricts(demand):
            scores, may = ranking.scores, None
        else:
            may = allowed(demand, machines, self._labels(demand))
            scores = ranking.restricted(may)
        row = machines.first(scores)
        if scores[row] != UNFIT:
            return self._on(row, demand.count, demand, ranking, may)
        if demand.count > 1 and demand.same_server == "prefer" and not _wants_host(demand):
            spread = self._spread(demand, ranking, may)
            if spread is not None:
                return spread
        return refusal(machines, demand, may)

    def _on(
        self, row: int, count: int, demand: Demand, ranking: Ranking, may: Allowed | None
    ) -> Placed:
        """`count` slices of one machine."""
        machine = self._machines.rows[row].machine
        slices = []
        for slot in ranking.slots(row, count, may):
            device = machine.devices[slot]
            slices.append(Slice(device.id, demand.memory_on(device.memory), demand.compute))
        host = None
        if _wants_host(demand):
            host = HostShare(machine.name, demand.cpu_milli, demand.host_memory)
        return Placed(tuple(slices), host)

    def _spread(self, demand: Demand, ranking: Ranking, may: Allowed | None) -> Placed | None:
        """Slices of as few machines as possible: of those with the most room, and in the end of the
        one where the rest fits most tightly. None where there are too few."""
        room = ranking.room(may)
        missing = demand.count
        if room.sum() < missing:
            return None
        slices: list[Slice] = []
        while missing:
            enough = room >= missing
            if enough.any():
                room = np.where(enough, room.max() + 1 - room, 0)
                row, count = self._machines.first(room), missing
            else:
                row = self._machines.first(room)
                count = int(room[row])
            slices += self._on(row, count, demand, ranking, may).slices
            room[row] = 0
            missing -= count
        return Placed(tuple(slices))

    def _ranking(self, demand: Demand) -> Ranking:
        """The machines' scores for a demand of this size, up to date."""
        machines = self._machines
        if (numbers := machines.compact()) is not None:
            self._fragmentation = Fragmentation(self._typical, machines.remainders)
            for known in self._rankings.values():
                known.renumber(self._fragmentation, numbers)
        machines.trim()
        key = _key(demand)
        ranking = self._rankings.pop(key, None)
        if ranking is None:
            if len(self._rankings) >= SIZES_MOST:
                del self._rankings[next(iter(self._rankings))]
            ranking = Ranking(size_of(demand), machines, self._fragmentation)
        # Last in the dictionary: the last to be dropped.
        self._rankings[key] = ranking
        ranking.update()
        return ranking

    def _labels(self, demand: Demand) -> Labelled | None:
        if not demand.labels:
            return None
        labelled = self._labelled.pop(demand.labels, None)
        if labelled is None:
            if len(self._labelled) >= LABELS_MOST:
                del self._labelled[next(iter(self._labelled))]
            labelled = Labelled(demand.labels, self._machines)
        self._labelled[demand.labels] = labelled
        return labelled

    def _relabel(self, row: int | None) -> None:
        if row is not None:
            for labelled in self._labelled.values():
                labelled.update(row)


def _wants_host(demand: Demand) -> bool:
    return bool(demand.cpu_milli or demand.host_memory)


def _key(demand: Demand) -> tuple[object, ...]:
    """What `size_of` tells apart, without making one."""
    return (
        demand.kind,
        demand.count,
        demand.models,
        demand.memory,
        demand.compute,
        demand.cpu_milli,
        demand.host_memory,
    )
