"""How much of a machine's idle compute the typical workload can use.

After the fragmentation gradient of Weng et al., "Beware of Fragmentation" (USENIX ATC 2023): idle
compute is a fragment for a demand that cannot use it, and a demand goes where the fragments that
are expected of the typical workload grow least. Two things differ, measured on the paper's traces:

* A device is judged by the next `PATIENCE` arrivals, not by one alone: with the chance p that an
  arrival can use it, the part 1 - (1 - p)^PATIENCE of what is idle counts as usable. So what only
  rare demands can use is worth keeping for them.
* A gradient of two devices moves a score by as much as one of a single device does there.

Everything is exact: chances are counted in whole units, so that a score does not depend on what it
is worked out together with.
"""

from __future__ import annotations

from math import ceil, log
from typing import Final

import numpy as np
from numpy.typing import NDArray

from harp_scheduler.core.placement.model import WHOLE
from harp_scheduler.core.placement.standing import Ints, Remainders, Standings, lengthened, takes
from harp_scheduler.core.placement.workload import Typical

SQUARINGS = 3
PATIENCE: Final = 1 << SQUARINGS
"""Arrivals."""

SPREAD = 2 * WHOLE
"""Per mille of compute that the logistic curve of the scores is as wide as."""

CERTAIN = 1 << 20
"""The chance 1. A float32 holds every sum of chances exactly."""

UNIT = 1 << 10
"""The units of one per mille of compute."""

UNKNOWN = -1

Floats = NDArray[np.float32]

THRESHOLDS = np.array([ceil(SPREAD * UNIT * log(s / (100 - s))) for s in range(1, 100)], np.int64)
"""The gradient from which on a score is at least 1, 2, … 99: a logistic curve with 50 for none."""


def quantised(gradient: Ints) -> Ints:
    """Scores from 0 to 100 of the fragments, in units, that a placement does away with."""
    return np.searchsorted(THRESHOLDS, gradient, side="right")


class Fragmentation:
    """The typical workload, ready to be held against remainders."""

    def __init__(self, typical: Typical, remainders: Remainders) -> None:
        self._remainders = remainders
        self._typical = [size for size, _ in typical]
        shares = [max(1, round(share * CERTAIN)) for _, share in typical]
        # Rounded up or down by a few units in all: the most frequent bears it.
        if shares:
            shares[0] += CERTAIN - sum(shares)
        self._shares = np.array(shares, np.float32)
        self._counts = np.array([size.count for size in self._typical], np.float32)
        self._cpu = np.array([size.cpu_milli for size in self._typical], np.int64)
        self._host_memory = np.array([size.host_memory for size in self._typical], np.int64)
        self._asks_nothing_of_hosts = not (self._cpu.any() or self._host_memory.any())
        self._compute = np.array([size.compute for size in self._typical], np.int64)
        self._memory = np.zeros((0, len(typical)), np.int64)
        self._fits: Floats = np.zeros((64, len(typical)), np.float32)
        self._known = 0
        self._usable = np.full(64, UNKNOWN, np.int64)
        """By standing."""

    @property
    def is_blank(self) -> bool:
        """Whether nothing is known of what arrives."""
        return not self._typical

    def fits(self) -> Floats:
        """1 where one slice of a typical demand (column) fits a remainder (row)."""
        left = self._remainders
        if self._known < left.count:
            self._extend_models()
            self._fits = lengthened(self._fits, left.count)
            new = slice(self._known, left.count)
            self._fits[new] = (left.compute[new, None] >= self._compute) & (
                left.memory[new, None] >= self._memory[left.model[new]]
            )
            self._known = left.count
        return self._fits

    def _extend_models(self) -> None:
        """Bytes that each typical demand takes of a device of each model; where it takes none of
        that model, more than there can be."""
        new = self._remainders.models[len(self._memory) :]
        rows = [[takes(size, *of) for size in self._typical] for of in new]
        if rows and self._typical:
            self._memory = np.vstack((self._memory, np.array(rows, np.int64)))

    def hosted(self, cpu: Ints, memory: Ints) -> Floats:
        """Shares of the typical demands whose host part fits each machine, 0 for the others."""
        if self._asks_nothing_of_hosts:
            return self._shares[None]
        fits = (cpu[:, None] >= self._cpu) & (memory[:, None] >= self._host_memory)
        chances: Floats = fits * self._shares
        return chances

    def usable(self, devices: Ints, hosted: Floats) -> Ints:
        """Usable compute of each machine, given by the remainders of its devices."""
        fits = self.fits()[devices]
        chances = hosted * (fits.sum(1) >= self._counts)
        chance = np.matmul(fits, chances[:, :, None])[:, :, 0]
        usable: Ints = _worth(self._remainders.compute[devices], chance).sum(1)
        return usable

    def usable_of(self, standings: Standings, numbers: Ints) -> Ints:
        """Usable compute of machines that stand like this: worked out once for all demands."""
        self._usable = lengthened(self._usable, standings.count, UNKNOWN)
        new = numbers[self._usable[numbers] == UNKNOWN]
        if len(new):
            hosted = self.hosted(standings.cpu[new], standings.memory[new])
            self._usable[new] = self.usable(standings.devices[new], hosted)
        return self._usable[numbers]

    def usable_after(
        self, devices: Ints, hosted: Floats, lines: Ints, columns: Ints, taken: Ints
    ) -> Ints:
        """Usable compute of machines (`lines`) once one of their devices (`columns`) has the
        remainder `taken`: `usable`, without the work that the columns of a line share."""
        fits = self.fits()
        fits_before = fits[devices]
        changed = devices[lines]
        counts = fits_before.sum(1)[lines] - fits[changed[np.arange(len(lines)), columns]]
        changed[np.arange(len(lines)), columns] = taken
        hosted = hosted[lines] if len(hosted) > 1 else hosted
        chances = hosted * (counts + fits[taken] >= self._counts)
        chance = np.matmul(fits[changed], chances[:, :, None])[:, :, 0]
        usable: Ints = _worth(self._remainders.compute[changed], chance).sum(1)
        return usable


def _worth(compute: Ints, chance: Floats) -> Ints:
    """Units of compute that somebody among the next arrivals can use."""
    nobody = 1 - chance.astype(np.float64) / CERTAIN
    for _ in range(SQUARINGS):
        nobody = nobody * nobody
    return np.rint(compute * (UNIT * (1 - nobody))).astype(np.int64)
