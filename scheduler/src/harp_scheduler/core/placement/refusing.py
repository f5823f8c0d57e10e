"""Why a demand gets nothing: every device counted where it fails first."""

from __future__ import annotations

from collections import Counter

import numpy as np

from harp_scheduler.core.placement.eligible import ALL, NONE, Allowed
from harp_scheduler.core.placement.machines import Machines
from harp_scheduler.core.placement.model import Demand, Device, Refusal, labels_match
from harp_scheduler.core.placement.standing import ABSENT

FITS = "fits"
UNUSABLE = "unusable"
HOST = "CPU or memory of the server"
ORDER = ("kind", "model", "labels", "excluded", UNUSABLE, "taken", "memory", "compute", HOST)
"""In which the counts are told."""


def refusal(machines: Machines, demand: Demand, allowed: Allowed | None) -> Refusal:
    """Counts what keeps each device out."""
    counts: Counter[str] = Counter()
    standing = machines.standing[: len(machines.rows)]
    if allowed is not None:
        _count_kept_out(machines, demand, allowed, counts)
        standing = standing[allowed.status == ALL]
    known = machines.standings
    of_standing = np.bincount(standing, minlength=known.count)
    present = np.flatnonzero(of_standing)
    lacking = (known.cpu[present] < demand.cpu_milli) | (known.memory[present] < demand.host_memory)
    for standings, fit in ((present[~lacking], FITS), (present[lacking], HOST)):
        devices = known.devices[standings]
        each = np.repeat(of_standing[standings], devices.shape[1])
        of_remainder = np.bincount(devices.ravel(), each, machines.remainders.count)
        of_remainder[ABSENT] = 0
        for number in np.flatnonzero(of_remainder).tolist():
            stage = _stage(machines, demand, number)
            counts[fit if stage == FITS else stage] += int(of_remainder[number])
    fitting = counts.pop(FITS, 0)
    if counts.pop(UNUSABLE, 0):
        counts.update(_why_unusable(machines, demand, allowed))
    told = sorted(counts.items(), key=lambda each: (_rank(each[0]), each[0]))
    return Refusal(demand.count, fitting, tuple(told))


def _rank(what: str) -> int:
    return ORDER.index(what if what in ORDER else UNUSABLE)


def _stage(machines: Machines, demand: Demand, number: int) -> str:
    """The first filter that a remainder fails."""
    left = machines.remainders
    kind, model, total = left.models[left.model[number]]
    if kind != demand.kind:
        return "kind"
    if demand.models and model not in demand.models:
        return "model"
    if left.order[number][0]:
        return UNUSABLE
    if left.compute[number] == 0 and demand.memory <= total:
        return "taken"
    if left.memory[number] < demand.memory_on(total):
        return "memory"
    return FITS if left.compute[number] >= demand.compute else "compute"


def _count_kept_out(
    machines: Machines, demand: Demand, allowed: Allowed, counts: Counter[str]
) -> None:
    """Counts the devices of machines that a demand may not use, or not wholly."""
    for row in np.flatnonzero(allowed.status != ALL).tolist():
        known = machines.rows[row]
        cpu, memory = machines.host_left(row)
        for slot, device in enumerate(known.machine.devices):
            if allowed.status[row] != NONE and slot in allowed.slots[row]:
                stage = _stage(machines, demand, known.remainders[slot])
                if stage == FITS and (cpu < demand.cpu_milli or memory < demand.host_memory):
                    stage = HOST
            elif (by := _described(demand, device)) is not None:
                stage = by
            elif labels_match(demand.labels, device.labels, known.machine.labels):
                stage = "excluded"
            else:
                stage = "labels"
            counts[stage] += 1


def _described(demand: Demand, device: Device) -> str | None:
    if device.kind != demand.kind:
        return "kind"
    return "model" if demand.models and device.model not in demand.models else None


def _why_unusable(machines: Machines, demand: Demand, allowed: Allowed | None) -> Counter[str]:
    reasons: Counter[str] = Counter()
    for name, reason in machines.unusable.items():
        found = machines.find(name)
        if found is None:
            continue
        row, slot = found
        if allowed is None or allowed.has(row, slot):
            device = machines.rows[row].machine.devices[slot]
            if _described(demand, device) is None:
                reasons[reason] += 1
    return reasons
