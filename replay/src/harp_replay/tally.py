"""What a trace adds up to: calls, kernels, copies and waits, counted in one pass over it."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from harp_replay import moved
from harp_replay.events import (
    Allocation,
    Call,
    DeviceTime,
    Enter,
    Event,
    Free,
    Leave,
    Loss,
    Payload,
    Reply,
    Thread,
    Told,
    Wait,
    Whole,
    reasons,
)
from harp_replay.labels import Labels
from harp_replay.launches import Launches
from harp_replay.results import result_name

ASKED = ("data", "synchronise")
"""Reasons of waits that the program itself wanted."""

GRIDS = 8
"""So many different grids of a kernel are remembered."""


def times() -> array[int]:
    """Nanoseconds or bytes, 8 bytes each."""
    return array("Q")


@dataclass(slots=True)
class Kernel:
    """Launches of the kernels of one name."""

    launches: int = 0
    grids: Counter[tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=Counter)
    """Grid and block, with how often."""
    times: array[int] = field(default_factory=times)
    """What the device took for each, in ns, where the trace says so."""


@dataclass(slots=True)
class Moves:
    """Copies or fills of one direction."""

    sizes: array[int] = field(default_factory=times)
    times: array[int] = field(default_factory=times)


class Work(NamedTuple):
    """What a call gave a device to do."""

    kind: str
    """`kernel` or `move`."""
    name: str


@dataclass(slots=True)
class Tally:
    """A trace, counted. It holds 8 bytes for each event, 60 for each launch, and each name once."""

    told: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """What the recorder says of the program (`process`), of how it ended (`end`)."""
    sessions: list[Mapping[str, Any]] = field(default_factory=list)
    threads: dict[int, int] = field(default_factory=dict)
    """The system's number of each thread."""
    api: defaultdict[str, array[int]] = field(default_factory=lambda: defaultdict(times))
    """How long driver API calls took, by name."""
    begun: Counter[str] = field(default_factory=Counter)
    """Driver API calls begun; those that never ended are the program's last."""
    failed: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Results other than CUDA_SUCCESS."""
    calls: Counter[str] = field(default_factory=Counter)
    """Calls of the wire, by name."""
    answered: int = 0
    """Calls of the wire that ask for an answer."""
    sent: int = 0
    """Bytes of calls, on the wire."""
    received: int = 0
    """Bytes of replies, on the wire."""
    kernels: defaultdict[str, Kernel] = field(default_factory=lambda: defaultdict(Kernel))
    moves: defaultdict[str, Moves] = field(default_factory=lambda: defaultdict(Moves))
    waits: defaultdict[tuple[str, str], array[int]] = field(
        default_factory=lambda: defaultdict(times)
    )
    """How long calls waited, by reason and call of the wire."""
    payloads: Counter[str] = field(default_factory=Counter)
    """Payloads by policy."""
    payload_bytes: int = 0
    named_bytes: int = 0
    """Bytes of payloads that have a name, as often as they occurred."""
    names: dict[str, int] = field(default_factory=dict)
    """Bytes of each content."""
    lost_blocks: int = 0
    lost_bytes: int = 0
    lost_because: set[str] = field(default_factory=set)
    live: dict[int, int] = field(default_factory=dict)
    peak_bytes: int = 0
    """The most device memory that the program had at a time."""
    allocations: int = 0
    last: int = 0
    """When the last event was, in ns."""
    device_times: int = 0
    launches: Launches = field(default_factory=Launches)
    whole: Whole | None = None
    _live_bytes: int = 0
    _open: dict[int, Enter] = field(default_factory=dict)
    _works: Labels[Work] = field(default_factory=Labels)

    def count(self, events: Iterable[Event]) -> Tally:
        """Counts events; the tally itself."""
        for event in events:
            self.take(event)
        return self

    def take(self, event: Event) -> None:
        """Counts one event."""
        self.launches.take(event)
        add = ADD.get(type(event))
        if add is not None:
            add(self, event)

    def reason(self, because: str) -> str:
        """What a reason for waits means."""
        return reasons(self.told.get("define", {})).get(because, because)

    def unended(self) -> list[str]:
        """Driver API calls that began and never ended."""
        return [enter.name for enter in self._open.values()]

    def unsupported(self) -> dict[str, int]:
        """Driver API calls that returned CUDA_ERROR_NOT_SUPPORTED."""
        return {
            name: count
            for (name, code), count in self.failed.items()
            if result_name(code) == "CUDA_ERROR_NOT_SUPPORTED"
        }

    def _enter(self, event: Enter) -> None:
        self.last = event.time
        self.begun[event.name] += 1
        self._open[event.number] = event

    def _leave(self, event: Leave) -> None:
        self.last = event.time
        entered = None if event.enter is None else self._open.pop(event.enter, None)
        if entered is None:
            return
        self.api[entered.name].append(max(0, event.time - entered.time))
        if event.result:
            self.failed[entered.name, event.result] += 1

    def _call(self, event: Call) -> None:
        self.last = event.time
        self.calls[event.name] += 1
        self.answered += event.ticket is not None
        self.sent += event.size
        self._payload(event.payload)
        work: Work | None = None
        if event.kernel is not None:
            kernel = self.kernels[event.kernel]
            kernel.launches += 1
            shape = moved.shape(event)
            if shape is not None and (shape in kernel.grids or len(kernel.grids) < GRIDS):
                kernel.grids[shape] += 1
            work = Work("kernel", event.kernel)
        elif (move := moved.move(event)) is not None:
            moves = self.moves[move.operation]
            moves.sizes.append(move.bytes)
            work = Work("move", move.operation)
        self._works.append(work)

    def _reply(self, event: Reply) -> None:
        self.last = event.time
        self.received += event.size
        self._payload(event.payload)

    def _payload(self, payload: Payload | None) -> None:
        if payload is None:
            return
        self.payloads[payload.policy] += 1
        self.payload_bytes += payload.bytes
        if payload.hash is not None:
            self.named_bytes += payload.bytes
            self.names[payload.hash] = payload.bytes

    def _wait(self, event: Wait) -> None:
        self.last = event.ended
        self.waits[event.because, event.name].append(max(0, event.ended - event.began))

    def _device_time(self, event: DeviceTime) -> None:
        work = self._works.get(event.call)
        if work is not None:
            self.device_times += 1
            of = self.kernels if work.kind == "kernel" else self.moves
            of[work.name].times.append(max(0, event.ended - event.began))

    def _allocation(self, event: Allocation) -> None:
        self.allocations += 1
        self.live[event.number] = event.bytes
        self._live_bytes += event.bytes
        self.peak_bytes = max(self.peak_bytes, self._live_bytes)

    def _free(self, event: Free) -> None:
        if event.allocation is not None:
            self._live_bytes -= self.live.pop(event.allocation, 0)

    def _loss(self, event: Loss) -> None:
        self.lost_blocks += event.blocks
        self.lost_bytes += event.bytes
        self.lost_because.update(event.reasons)

    def _thread(self, event: Thread) -> None:
        self.threads[event.thread] = event.tid

    def _told(self, event: Told) -> None:
        if event.kind == "session":
            self.sessions.append(event.fields)
        elif event.kind != "annotation":
            self.told[event.kind] = event.fields

    def _whole(self, event: Whole) -> None:
        self.whole = event


ADD: dict[type, Callable[[Tally, Any], None]] = {
    Enter: Tally._enter,
    Leave: Tally._leave,
    Call: Tally._call,
    Reply: Tally._reply,
    Wait: Tally._wait,
    DeviceTime: Tally._device_time,
    Allocation: Tally._allocation,
    Free: Tally._free,
    Loss: Tally._loss,
    Thread: Tally._thread,
    Told: Tally._told,
    Whole: Tally._whole,
}
