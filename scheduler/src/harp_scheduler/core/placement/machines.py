"""The machines of a pool and what is taken of them: the book that placement decides by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from harp_scheduler.core.placement.model import (
    WHOLE,
    ConflictError,
    Device,
    HostShare,
    Machine,
    Placed,
    Slice,
)
from harp_scheduler.core.placement.standing import ABSENT, Ints, Remainders, Standings, lengthened

NOTHING = Machine("", ())
"""Stands in a row that no machine has."""

STANDINGS_LEAST = 1 << 14
"""Standings that may be known in small pools before those that no machine has are forgotten."""


@dataclass(slots=True)
class Held:
    """What is taken of one device, by whom it may be given back."""

    slices: list[Slice] = field(default_factory=list)
    memory: int = 0
    compute: int = 0


@dataclass(slots=True)
class Row:
    """A machine in its row."""

    machine: Machine
    remainders: list[int]
    has_device_labels: bool = False
    """Whether any of its devices has labels of its own."""


@dataclass(slots=True)
class Renumbering:
    """New numbers, after some were forgotten."""

    remainders: Ints
    """By old number; ABSENT for what is forgotten."""

    kept: Ints
    """The old numbers of the standings that are still known."""

    now: Ints
    """The new ones of those."""


class Machines:
    """Every machine has a row, which it keeps for as long as it is there.

    What is taken of a device stays taken whether or not its machine is known, so that leases can be
    taken up before their servers report, and outlive a server's absence.
    """

    def __init__(self) -> None:
        self.remainders = Remainders()
        self.standings = Standings(self.remainders)
        self._nothing = self.standings.number([], 0, 0)
        self.rows: list[Row] = []
        self.standing = np.full(64, self._nothing, np.int32)
        """By row."""

        self.changed: list[int] = []
        """Rows whose standing has changed, one after the other."""

        self.forgotten = 0
        """How many of the changes are no longer listed."""

        self.unusable: dict[str, str] = {}
        """Why no new slice may be of a device."""

        self._row_of: dict[str, int] = {}
        self._place_of: dict[str, int] = {}
        self._free_rows: list[int] = []
        self._held: dict[str, Held] = {}
        self._host_held: dict[str, list[HostShare]] = {}
        self._rank: Ints | None = None
        self._in_order = True

    def rows_named(self, name: str) -> Iterator[tuple[int, bool]]:
        """The row of a machine or of a device, and whether the whole machine was named."""
        row = self._row_of.get(name)
        if row is not None:
            yield row, True
        place = self._place_of.get(name)
        if place is not None:
            yield place >> 16, False

    def find(self, device: str) -> tuple[int, int] | None:
        """Row and slot of a device."""
        place = self._place_of.get(device)
        return None if place is None else (place >> 16, place & 0xFFFF)

    def update(self, machine: Machine) -> int | None:
        """Takes a machine in, or what has changed of one. Returns its row if anything has."""
        row = self._row_of.get(machine.name)
        if row is not None and self.rows[row].machine == machine:
            return None
        for device in machine.devices:
            place = self._place_of.get(device.id)
            if place is not None and place >> 16 != row:
                raise ConflictError(f"device {device.id} is {self._name(place)}'s already")
        if row is None:
            row = self._new_row(machine.name)
        self._forget_devices(row)
        for gone in {device.id for device in self.rows[row].machine.devices} - {
            device.id for device in machine.devices
        }:
            self.unusable.pop(gone, None)
        labels = any(device.labels for device in machine.devices)
        self.rows[row] = Row(machine, [0] * len(machine.devices), labels)
        for slot, device in enumerate(machine.devices):
            self._place_of[device.id] = row << 16 | slot
        self._restate(row, range(len(machine.devices)))
        return row

    def remove(self, name: str) -> int | None:
        """Forgets a machine. Returns the row that it had."""
        row = self._row_of.pop(name, None)
        if row is not None:
            for device in self.rows[row].machine.devices:
                self.unusable.pop(device.id, None)
            self._forget_devices(row)
            self.rows[row] = Row(NOTHING, [])
            self._free_rows.append(row)
            self._restate(row, ())
            self._rank = None
        return row

    def set_usable(self, device: str, reason: str) -> None:
        """Whether new slices may be of a device: an empty reason says that they may."""
        was = self.unusable.pop(device, "")
        if reason:
            self.unusable[device] = reason
        if bool(reason) != bool(was):
            self._restate_device(device)

    def take(self, placed: Placed) -> None:
        """Commits a placement, wholly or not at all. Raises ConflictError where it is not free."""
        taken: list[Slice] = []
        try:
            for part in placed.slices:
                self._take(part)
                taken.append(part)
            if placed.host is not None:
                self._take_host(placed.host)
        except ConflictError:
            for part in taken:
                self._give_back(part)
            raise

    def give_back(self, placed: Placed) -> None:
        """Undoes `take`, wholly or not at all. Raises ConflictError where it is not taken."""
        given: list[Slice] = []
        try:
            for part in placed.slices:
                self._give_back(part)
                given.append(part)
            if placed.host is not None:
                shares = self._host_held.get(placed.host.server, [])
                if placed.host not in shares:
                    raise ConflictError(f"{placed.host} is not taken")
                shares.remove(placed.host)
                self._restate_host(placed.host.server)
        except ConflictError:
            for part in given:
                self._hold(part)
            raise

    def left(self, device: str) -> tuple[int, int]:
        """Bytes and per mille that no lease has of a known device, usable or not."""
        place = self._place_of[device]
        total = self.rows[place >> 16].machine.devices[place & 0xFFFF].memory
        held = self._held.get(device)
        return (total - held.memory, WHOLE - held.compute) if held else (total, WHOLE)

    def host_left(self, row: int) -> tuple[int, int]:
        """Thousandths of a core and bytes that no lease has of a machine."""
        machine = self.rows[row].machine
        shares = self._host_held.get(machine.name, ())
        return (
            machine.cpu_milli - sum(share.cpu_milli for share in shares),
            machine.host_memory - sum(share.memory for share in shares),
        )

    def first(self, scores: Ints) -> int:
        """The row of the highest score; of several, that whose machine's name comes first."""
        if self._rank is None:
            self._sort()
        assert self._rank is not None
        best = int(scores.argmax())
        if self._in_order:
            return best
        equal = np.flatnonzero(scores == scores[best])
        return int(equal[self._rank[equal].argmin()])

    def compact(self) -> Renumbering | None:
        """Once they are many, forgets remainders and standings that no machine has."""
        if self.standings.count < max(STANDINGS_LEAST, 2 * len(self.rows)):
            return None
        old, old_standings = self.remainders, self.standings
        self.remainders = Remainders()
        self.standings = Standings(self.remainders)
        self._nothing = self.standings.number([], 0, 0)
        standing = self.standing[: len(self.rows)]
        kept = np.unique(standing)
        remainders = np.full(old.count, ABSENT, np.int32)
        for number in np.unique(old_standings.devices[kept]).tolist():
            remainders[number] = self.remainders.number(*old.described(number))
        numbers = [
            self.standings.number(remainders[devices[devices != ABSENT]].tolist(), cpu, memory)
            for devices, cpu, memory in zip(
                old_standings.devices[kept],
                old_standings.cpu[kept].tolist(),
                old_standings.memory[kept].tolist(),
                strict=True,
            )
        ]
        renumbering = Renumbering(remainders, kept, np.array(numbers, np.int32))
        standing[:] = renumbering.now[np.searchsorted(kept, standing)]
        self.standing[len(self.rows) :] = self._nothing
        of = remainders.tolist()
        for row in self.rows:
            row.remainders = [of[number] for number in row.remainders]
        return renumbering

    def trim(self) -> None:
        """Shortens the list of changes."""
        if len(self.changed) > 2 * len(self.rows) + STANDINGS_LEAST:
            cut = len(self.changed) - len(self.rows)
            del self.changed[:cut]
            self.forgotten += cut

    def _name(self, place: int) -> str:
        return self.rows[place >> 16].machine.name

    def _new_row(self, name: str) -> int:
        if self._free_rows:
            row = self._free_rows.pop()
        else:
            row = len(self.rows)
            self.rows.append(Row(NOTHING, []))
            self.standing = lengthened(self.standing, row + 1, self._nothing)
        self._row_of[name] = row
        self._rank = None
        return row

    def _sort(self) -> None:
        """Ranks the rows by name: what is decided must not depend on the order of arrival."""
        self._rank = np.zeros(len(self.rows), np.int32)
        rows = [self._row_of[name] for name in sorted(self._row_of)]
        self._rank[rows] = np.arange(len(rows), dtype=np.int32)
        self._in_order = rows == sorted(rows)

    def _forget_devices(self, row: int) -> None:
        for device in self.rows[row].machine.devices:
            self._place_of.pop(device.id, None)

    def _take(self, part: Slice) -> None:
        held = self._held.get(part.device) or Held()
        place = self._place_of.get(part.device)
        if held.compute + part.compute > WHOLE or (
            place is not None and held.memory + part.memory > self._device(place).memory
        ):
            raise ConflictError(f"{part} is not free")
        self._hold(part)

    def _hold(self, part: Slice) -> None:
        held = self._held.setdefault(part.device, Held())
        held.slices.append(part)
        held.memory += part.memory
        held.compute += part.compute
        self._restate_device(part.device)

    def _give_back(self, part: Slice) -> None:
        held = self._held.get(part.device)
        if held is None or part not in held.slices:
            raise ConflictError(f"{part} is not taken")
        held.slices.remove(part)
        held.memory -= part.memory
        held.compute -= part.compute
        if not held.slices:
            del self._held[part.device]
        self._restate_device(part.device)

    def _take_host(self, share: HostShare) -> None:
        row = self._row_of.get(share.server)
        if row is not None:
            cpu, memory = self.host_left(row)
            if share.cpu_milli > cpu or share.memory > memory:
                raise ConflictError(f"{share} is not free")
        self._host_held.setdefault(share.server, []).append(share)
        self._restate_host(share.server)

    def _device(self, place: int) -> Device:
        return self.rows[place >> 16].machine.devices[place & 0xFFFF]

    def _restate_device(self, device: str) -> None:
        place = self._place_of.get(device)
        if place is not None:
            self._restate(place >> 16, (place & 0xFFFF,))

    def _restate_host(self, server: str) -> None:
        row = self._row_of.get(server)
        if row is not None:
            self._restate(row, ())

    def _restate(self, row: int, slots: range | tuple[int, ...]) -> None:
        """Numbers anew what is left of these devices of a machine, and of the machine."""
        known = self.rows[row]
        for slot in slots:
            device = known.machine.devices[slot]
            memory, compute = self.left(device.id)
            model = (device.kind, device.model, device.memory)
            usable = device.id not in self.unusable
            known.remainders[slot] = self.remainders.number(model, compute, memory, usable)
        standing = self.standings.number(known.remainders, *self.host_left(row))
        if standing != self.standing[row]:
            self.standing[row] = standing
            self.changed.append(row)
