"""The machines by how well one size of demand fits each: scores that are kept, and brought up to
date where machines have changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from harp_scheduler.core.placement.eligible import ALL, SOME, Allowed
from harp_scheduler.core.placement.fragmentation import UNIT, Fragmentation, quantised
from harp_scheduler.core.placement.machines import Machines, Renumbering
from harp_scheduler.core.placement.model import WHOLE, Demand
from harp_scheduler.core.placement.standing import ABSENT, Ints, lengthened

GROUP = "nvlink-group"
"""The label that devices have in common which reach each other over NVLink."""

UNFIT = -1
UNKNOWN = -2
BATCH = 1024
"""Machines that are scored at once: bounds the memory that this takes."""

LEVELS = 1 << 16
"""Scores are kept times this, plus a rank among equals that depends on the machine alone."""


@dataclass(slots=True)
class Scored:
    """How a demand fits some machines."""

    score: Ints
    """0 to 100 times LEVELS; UNFIT where it does not fit."""

    pick: Ints
    """The remainder to take from, where one device is asked for."""

    room: Ints
    """Devices that one slice fits, whatever else the machine lacks."""


class Ranking:
    """Every machine's score for one size of demand."""

    def __init__(self, size: Demand, machines: Machines, fragmentation: Fragmentation) -> None:
        self.size = size
        self._machines = machines
        self._fragmentation = fragmentation
        self._after: Ints = np.zeros(0, np.int32)
        self._by_standing: Ints = np.zeros((0, 3), np.int32)
        self.scores = np.zeros(0, np.int32)
        """By row of the machine."""

        self.seen = -1
        """How many changes of machines the scores know of; -1: they know of no machine."""

    def after(self, devices: Ints) -> Ints:
        """What is left of each remainder once a slice is taken; ABSENT where none fits."""
        self._after = lengthened(self._after, self._machines.remainders.count, UNKNOWN)
        found = self._after[devices]
        new = found == UNKNOWN
        if new.any():
            numbers = _distinct(devices[new])
            left = self._machines.remainders.less(numbers, self.size)
            self._after[numbers] = left
            found = self._after[devices]
        return found

    def renumber(self, fragmentation: Fragmentation, numbers: Renumbering) -> None:
        """Goes on with new numbers."""
        known = lengthened(self._by_standing, int(numbers.kept[-1]) + 1, UNKNOWN)[numbers.kept]
        fits = known[:, 0] >= 0
        known[fits, 1] = numbers.remainders[known[fits, 1]]
        self._fragmentation = fragmentation
        self._after = np.zeros(0, np.int32)
        self._by_standing = np.full((int(numbers.now.max()) + 1, 3), UNKNOWN, np.int32)
        self._by_standing[numbers.now] = known

    def update(self) -> None:
        """Brings the scores up to date."""
        machines = self._machines
        rows = len(machines.rows)
        if len(self.scores) < rows:
            more = np.full(rows - len(self.scores), UNFIT, np.int32)
            self.scores = np.concatenate((self.scores, more))
        if self.seen < machines.forgotten:
            self.scores = self.known(machines.standing[:rows])[:, 0].copy()
        elif changed := machines.changed[self.seen - machines.forgotten :]:
            self.scores[changed] = self.known(machines.standing[changed])[:, 0]
        self.seen = machines.forgotten + len(machines.changed)

    def known(self, standings: Ints) -> Ints:
        """Score, pick and room of each standing, worked out where they are not known."""
        count = self._machines.standings.count
        self._by_standing = lengthened(self._by_standing, count, UNKNOWN)
        found = self._by_standing[standings]
        new = found[:, 0] == UNKNOWN
        if new.any():
            numbers = _distinct(standings[new])
            for first in range(0, len(numbers), BATCH):
                some = numbers[first : first + BATCH]
                devices = self._machines.standings.devices[some]
                scored = self.score(some, devices, self.after(devices))
                for column, values in enumerate((scored.score, scored.pick, scored.room)):
                    self._by_standing[some, column] = values
            found = self._by_standing[standings]
        return found

    def restricted(self, may: Allowed) -> Ints:
        """The scores where a demand may not use everything."""
        scores = np.where(may.status == ALL, self.scores, UNFIT)
        rows = np.flatnonzero(may.status == SOME)
        if len(rows):
            scores[rows] = self._of_some(rows, may).score
        return scores

    def room(self, may: Allowed | None) -> Ints:
        """By row: how many slices fit."""
        machines = self._machines
        room = self.known(machines.standing[: len(machines.rows)])[:, 2].astype(np.int64)
        if may is not None:
            rows = np.flatnonzero(may.status == SOME)
            room[may.status != ALL] = 0
            if len(rows):
                room[rows] = self._of_some(rows, may).room
        return room

    def slots(self, row: int, count: int, may: Allowed | None) -> list[int]:
        """The devices of a machine to take slices of: the best one, or else the tightest, of one
        NVLink group if one has enough; of several such groups of the smallest."""
        machines = self._machines
        remainders = machines.rows[row].remainders
        slots: Iterable[int] = range(len(remainders))
        if may is None or may.status[row] == ALL:
            pick = self.known(machines.standing[row : row + 1])[0, 1]
        else:
            slots = may.slots[row]
            pick = self._of_some(np.array([row]), may).pick[0]
        if self.size.count == 1:
            return [next(slot for slot in slots if remainders[slot] == pick)]
        after = self.after(np.array(remainders, np.int32))
        order = machines.remainders.order
        fitting = [slot for slot in slots if after[slot] != ABSENT]
        fitting.sort(key=lambda slot: (order[remainders[slot]], slot))
        devices = machines.rows[row].machine.devices
        groups: dict[str, list[int]] = {}
        for slot in fitting:
            if group := devices[slot].labels.get(GROUP):
                groups.setdefault(group, []).append(slot)
        whole = [members for members in groups.values() if len(members) >= count]
        return (min(whole, key=len) if whole else fitting)[:count]

    def _of_some(self, rows: Ints, may: Allowed) -> Scored:
        """Scores machines of which only some devices may be used."""
        machines = self._machines
        order = machines.remainders.order
        devices = np.full((len(rows), machines.standings.devices.shape[1]), ABSENT, np.int32)
        usable = np.zeros(devices.shape, bool)
        for line, row in enumerate(rows.tolist()):
            remainders = machines.rows[row].remainders
            slots = sorted(range(len(remainders)), key=lambda slot: (order[remainders[slot]], slot))
            devices[line, : len(slots)] = [remainders[slot] for slot in slots]
            usable[line, : len(slots)] = [slot in may.slots[row] for slot in slots]
        after = np.where(usable, self.after(devices), ABSENT)
        return self.score(machines.standing[rows], devices, after)

    def score(self, numbers: Ints, devices: Ints, after: Ints) -> Scored:
        """Scores machines, given by their standings, the remainders of their devices and what would
        be left of each device (ABSENT: it must not be used)."""
        standings, size = self._machines.standings, self.size
        room = (after != ABSENT).sum(1)
        nothing = np.zeros(len(room), np.int64)
        result = Scored(nothing + UNFIT, nothing, room)
        fit = np.flatnonzero(
            (room >= size.count)
            & (standings.cpu[numbers] >= size.cpu_milli)
            & (standings.memory[numbers] >= size.host_memory)
        )
        if len(fit):
            numbers, devices, after = numbers[fit], devices[fit], after[fit]
            if self._fragmentation.is_blank:
                each = self._tightness(devices, after)
            else:
                each = self._gradient(numbers, devices, after)
            if size.count == 1:
                each = np.where(after != ABSENT, each, UNFIT)
            best = each.argmax(1)
            lines = np.arange(len(fit))
            score = each[lines, best] * LEVELS
            result.score[fit] = score if size.count else score + self._rank(devices)
            result.pick[fit] = devices[lines, best]
        return result

    def _rank(self, devices: Ints) -> Ints:
        """Among equal scores: who asks for no device goes where the least is idle."""
        ranks: Ints = LEVELS - 1 - self._machines.remainders.compute[devices].sum(1)
        return np.maximum(0, ranks)

    def _taken(self, devices: Ints, after: Ints) -> Ints:
        """The remainders once `count` slices are taken, of the tightest devices."""
        fits = after != ABSENT
        chosen = fits & (fits.cumsum(1) <= self.size.count)
        return np.where(chosen, after, devices)

    def _gradient(self, numbers: Ints, devices: Ints, after: Ints) -> Ints:
        """Score by the fragments that go away, for each device that one slice could be of; a single
        column where the devices are given by the machine."""
        judge, size, standings = self._fragmentation, self.size, self._machines.standings
        before = judge.usable_of(standings, numbers)
        hosted = judge.hosted(
            standings.cpu[numbers] - size.cpu_milli, standings.memory[numbers] - size.host_memory
        )
        gradient = size.count * size.compute * UNIT - before
        if size.count != 1:
            gradient += judge.usable(self._taken(devices, after), hosted)
            return quantised(gradient)[:, None]
        # Devices that are alike stand side by side: the first speaks for all.
        fits = after != ABSENT
        fits[:, 1:] &= after[:, 1:] != after[:, :-1]
        lines, columns = np.nonzero(fits)
        usable = judge.usable_after(devices, hosted, lines, columns, after[fits])
        scores = np.full(devices.shape, UNFIT, np.int64)
        scores[fits] = quantised(gradient[lines] + usable)
        return scores

    def _tightness(self, devices: Ints, after: Ints) -> Ints:
        """Score by how little is left, half for the device and half for its machine: what is done
        while nothing is known of the workload."""
        compute, size = self._machines.remainders.compute, self.size
        whole = WHOLE * np.maximum(1, (devices != ABSENT).sum(1))
        left = compute[devices].sum(1) - size.count * size.compute
        score: Ints = (50 - 50 * left // whole)[:, None]
        if size.count == 1:
            score = score + 50 - 50 * compute[after] // WHOLE
        return score


def _distinct(numbers: Ints) -> Ints:
    """The different ones, in order. They are few most often, which numpy takes long for."""
    if len(numbers) > 64:
        return np.unique(numbers)
    return np.array(sorted(set(numbers.tolist())))
