"""Which machines and devices a demand may use by their labels and names, whatever is free there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harp_scheduler.core.placement.machines import Machines, Row
from harp_scheduler.core.placement.model import Demand, Device, Machine, labels_match
from harp_scheduler.core.placement.standing import lengthened

NONE, SOME, ALL = 0, 1, 2


def restricts(demand: Demand) -> bool:
    """Whether a demand cares which machines or devices it gets."""
    return bool(demand.labels or demand.avoid or demand.only is not None)


def is_eligible(demand: Demand, machine: Machine, device: Device) -> bool:
    """Whether a demand may use a device."""
    names = {machine.name, device.id}
    return (
        labels_match(demand.labels, device.labels, machine.labels)
        and not names & demand.avoid
        and (demand.only is None or bool(names & demand.only))
    )


class Labelled:
    """For one set of labels: whether ALL, SOME or NONE of each machine's devices have them."""

    def __init__(self, labels: tuple[tuple[str, str], ...], machines: Machines) -> None:
        self._labels = labels
        self._machines = machines
        self.status = np.zeros(64, np.int8)
        """By row."""

        for row in range(len(machines.rows)):
            self.update(row)

    def update(self, row: int) -> None:
        """Looks at a machine anew."""
        self.status = lengthened(self.status, row + 1)
        self.status[row] = self._look(self._machines.rows[row])

    def _look(self, row: Row) -> int:
        machine = row.machine
        if not row.has_device_labels:
            return ALL if labels_match(self._labels, {}, machine.labels) else NONE
        matches = [
            labels_match(self._labels, device.labels, machine.labels) for device in machine.devices
        ]
        return ALL if all(matches) else SOME if any(matches) else NONE


@dataclass(slots=True)
class Allowed:
    """What a demand may use."""

    status: NDArray[np.int8]
    """By row."""

    slots: dict[int, tuple[int, ...]]
    """Of the rows with SOME: which."""

    def has(self, row: int, slot: int) -> bool:
        """Whether the demand may use a device."""
        return bool(self.status[row] == ALL) or slot in self.slots.get(row, ())


def allowed(demand: Demand, machines: Machines, labelled: Labelled | None) -> Allowed:
    """Works out what a demand may use, given who has its labels."""
    rows = len(machines.rows)
    status = np.full(rows, ALL, np.int8) if labelled is None else labelled.status[:rows].copy()
    if demand.only is not None:
        listed = np.zeros(rows, np.int8)
        for name in demand.only:
            for row, whole in machines.rows_named(name):
                listed[row] = max(listed[row], ALL if whole else SOME)
        status = np.minimum(status, listed)
    for name in demand.avoid:
        for row, whole in machines.rows_named(name):
            status[row] = min(status[row], NONE if whole else SOME)
    slots: dict[int, tuple[int, ...]] = {}
    for row in np.flatnonzero(status == SOME).tolist():
        machine = machines.rows[row].machine
        slots[row] = tuple(
            slot
            for slot, device in enumerate(machine.devices)
            if is_eligible(demand, machine, device)
        )
    return Allowed(status, slots)
