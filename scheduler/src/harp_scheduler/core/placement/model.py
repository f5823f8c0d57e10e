"""What is placed, where it can be placed, and what came of it: plain values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

WHOLE = 1000
"""The compute of a whole device, in per mille."""


class ConflictError(ValueError):
    """A slice is not free to be taken, or not taken to be given back. Nothing has changed."""


@dataclass(frozen=True, slots=True)
class Device:
    """An accelerator as its server reports it."""

    id: str
    """Unique in the pool."""

    server: str
    kind: str
    """gpu, fpga, npu or cpu."""

    model: str
    memory: int
    """Bytes."""

    labels: Mapping[str, str] = field(default_factory=dict)
    """Everything else that a demand may ask for: compute capability, driver, NVLink group."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A server with its devices, in its own order."""

    name: str
    devices: tuple[Device, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    cpu_milli: int = 0
    """Thousandths of a core that demands may ask for beside devices."""

    host_memory: int = 0
    """Bytes of the server's own memory that demands may ask for."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one lease asks for: `count` slices of one size, each of a device of its own."""

    kind: str = "gpu"
    count: int = 1
    """Devices; 0 asks for host resources alone."""

    models: tuple[str, ...] = ()
    """Any of these; empty: every model."""

    memory: int = 0
    """Bytes of each slice; 0: the device's memory times the share of its compute."""

    compute: int = WHOLE
    """Per mille of each device."""

    labels: tuple[tuple[str, str], ...] = ()
    """Each must be a label of the device, or of its server where the device has none like it."""

    cpu_milli: int = 0
    host_memory: int = 0
    """Of the server that has the devices: who asks for host resources is never spread."""

    same_server: Literal["prefer", "require"] = "prefer"
    avoid: frozenset[str] = frozenset()
    """Servers and devices that must not be used."""

    only: frozenset[str] | None = None
    """Servers and devices of which the slices must be; None: all."""

    def __post_init__(self) -> None:
        if self.count < 0 or not 1 <= self.compute <= WHOLE:
            raise ValueError(f"{self.count} devices of {self.compute} per mille cannot be")
        if min(self.memory, self.cpu_milli, self.host_memory) < 0:
            raise ValueError("a demand asks for nothing negative")
        if self.count == 0 and not (self.cpu_milli or self.host_memory):
            raise ValueError("a demand asks for something")

    def memory_on(self, total: int) -> int:
        """Bytes that a slice takes of a device that has `total`."""
        return self.memory or total * self.compute // WHOLE


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a device: bytes of its memory, per mille of its compute."""

    device: str
    memory: int
    compute: int


@dataclass(frozen=True, slots=True)
class HostShare:
    """A part of a server's own resources."""

    server: str
    cpu_milli: int
    memory: int


@dataclass(frozen=True, slots=True)
class Placed:
    """What a demand gets."""

    slices: tuple[Slice, ...]
    host: HostShare | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a demand gets nothing now."""

    asked: int
    """Devices."""

    fitting: int
    """Devices that fit by themselves."""

    filtered: tuple[tuple[str, int], ...] = ()
    """What kept devices out, and how many, each counted once, where it failed first."""

    @property
    def reason(self) -> str:
        """For a person: `3 devices: model; 5: memory; 2: cordoned`."""
        counts = [f"{count}: {what}" for what, count in self.filtered]
        if counts:
            first, _, what = counts[0].partition(": ")
            counts[0] = f"{first} device{'' if first == '1' else 's'}: {what}"
        if self.fitting:
            fit = f"{self.fitting} fit{'s' if self.fitting == 1 else ''}"
            counts.insert(0, f"{fit}, {self.asked} asked for together")
        return "; ".join(counts) or "there are no devices"


def labels_match(
    asked: Iterable[tuple[str, str]], device: Mapping[str, str], server: Mapping[str, str]
) -> bool:
    """Whether a device has each label, by itself or by its server."""
    return all(device.get(name, server.get(name)) == value for name, value in asked)
