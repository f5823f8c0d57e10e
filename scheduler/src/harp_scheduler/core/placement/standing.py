"""What is left of devices and machines, numbered: equal remainders have one number.

A pool has many machines and few different remainders, so what has been worked out for one machine
holds for all that stand alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from harp_scheduler.core.placement.model import Demand

ABSENT = 0
"""The remainder that fills up the rows of machines with fewer devices than others."""

Ints = NDArray[np.signedinteger[Any]]

NEVER = 1 << 62
"""Bytes: more than any device has."""


def lengthened(column: NDArray[Any], least: int, filler: int = 0) -> NDArray[Any]:
    """The column if it has at least so many entries, else a copy with more than enough of them."""
    if len(column) >= least:
        return column
    longer = np.full((max(2 * len(column), least), *column.shape[1:]), filler, column.dtype)
    longer[: len(column)] = column
    return longer


class Remainders:
    """What can be left of a device: compute and memory, of which model, and if it is usable."""

    def __init__(self) -> None:
        self.models: list[tuple[str, str, int]] = [("", "", 0)]
        """Kind, model, total memory in bytes."""

        self._model_numbers = {self.models[0]: 0}
        self._numbers: dict[tuple[int, int, int, bool], int] = {}
        self.count = 0
        self.compute = np.zeros(64, np.int64)
        """Per mille; 0 where the device is not usable."""

        self.memory = np.zeros(64, np.int64)
        """Bytes; -1 where the device is not usable."""

        self.model = np.zeros(64, np.int32)
        self.order: list[tuple[bool, int, int, str, str, int]] = []
        """Sorts a machine's devices the same way whatever was numbered first: tightest first."""

        self.number(("", "", 0), 0, 0, False)

    def number(self, model: tuple[str, str, int], compute: int, memory: int, usable: bool) -> int:
        """The number of a remainder."""
        of = self._model_numbers.get(model)
        if of is None:
            of = self._model_numbers[model] = len(self.models)
            self.models.append(model)
        key = (of, compute, memory, usable)
        known = self._numbers.get(key)
        if known is None:
            known = self._numbers[key] = self.count
            self.count += 1
            self.compute, self.memory, self.model = (
                lengthened(each, self.count) for each in (self.compute, self.memory, self.model)
            )
            self.compute[known] = compute if usable else 0
            self.memory[known] = memory if usable else -1
            self.model[known] = of
            self.order.append((not usable, compute, memory, *model))
        return known

    def described(self, number: int) -> tuple[tuple[str, str, int], int, int, bool]:
        """What `number` was given."""
        unusable, compute, memory, *_ = self.order[number]
        return self.models[self.model[number]], compute, memory, not unusable

    def less(self, numbers: Ints, size: Demand) -> list[int]:
        """The numbers of what is left of each once a slice is taken; ABSENT where none fits."""
        of_model = np.array([takes(size, *of) for of in self.models], np.int64)
        memory = self.memory[numbers] - of_model[self.model[numbers]]
        compute = self.compute[numbers] - size.compute
        left = [ABSENT] * len(numbers)
        for place in np.flatnonzero((memory >= 0) & (compute >= 0)).tolist():
            of = self.models[self.model[numbers[place]]]
            left[place] = self.number(of, int(compute[place]), int(memory[place]), True)
        return left


def takes(size: Demand, kind: str, model: str, total: int) -> int:
    """Bytes that a slice takes of a device of a model; NEVER where it may not be of that model."""
    if kind != size.kind or (size.models and model not in size.models):
        return NEVER
    return size.memory_on(total)


class Standings:
    """What can be left of a machine: the remainders of its devices, and its host resources."""

    def __init__(self, remainders: Remainders) -> None:
        self._remainders = remainders
        self._numbers: dict[tuple[tuple[int, ...], int, int], int] = {}
        self.count = 0
        self.devices = np.zeros((64, 1), np.int32)
        """Remainders of each standing's devices, in order, then ABSENT."""

        self.cpu = np.zeros(64, np.int64)
        self.memory = np.zeros(64, np.int64)

    def number(self, devices: list[int], cpu: int, memory: int) -> int:
        """The number of a standing, whatever order the machine has its devices in."""
        ordered = tuple(sorted(devices, key=self._remainders.order.__getitem__))
        key = (ordered, cpu, memory)
        known = self._numbers.get(key)
        if known is None:
            known = self._numbers[key] = self.count
            self.count += 1
            self.devices, self.cpu, self.memory = (
                lengthened(each, self.count) for each in (self.devices, self.cpu, self.memory)
            )
            if len(ordered) > self.devices.shape[1]:
                more = len(ordered) - self.devices.shape[1]
                self.devices = np.pad(self.devices, ((0, 0), (0, more)))
            self.devices[known, : len(ordered)] = ordered
            self.cpu[known] = cpu
            self.memory[known] = memory
        return known
