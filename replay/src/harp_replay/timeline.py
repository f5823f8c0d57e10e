"""A trace as marks on tracks: what an exporter writes, in the order of the trace.

A thread's track has its driver API calls, in them the calls that went to a server and the waits for
it. A stream's track has what its device did and when: of what the trace does not say when, when it
was queued.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from harp_replay import moved
from harp_replay.clocks import Clocks
from harp_replay.events import (
    Allocation,
    Call,
    DeviceTime,
    Enter,
    Event,
    Free,
    Leave,
    Loss,
    Reply,
    Thread,
    Told,
    Wait,
    events,
    reasons,
)
from harp_replay.labels import Labels


class Track(NamedTuple):
    """Where marks lie."""

    kind: str
    """`process`, `thread`, `stream` or `counter`."""
    number: int
    """The thread's, or the stream's serial number."""
    session: int
    name: str
    unit: str = ""
    """What a counter counts."""

    @property
    def key(self) -> tuple[str, int, int]:
        """What it is known by: a thread may get its name late."""
        return self[:3]


class Begin(NamedTuple):
    """Something begins on a track, and lasts until its end there."""

    track: Track
    time: int
    name: str
    category: str
    args: Mapping[str, Any]
    arrow: int | None = None
    """An arrow that leads here, by its number."""


class End(NamedTuple):
    """What began last on a track, and has not ended, does."""

    track: Track
    time: int
    args: Mapping[str, Any] = {}


class Instant(NamedTuple):
    """Something happens."""

    track: Track
    time: int
    name: str
    category: str
    args: Mapping[str, Any]
    arrow: int | None = None
    """An arrow that begins here."""


class Count(NamedTuple):
    """A counter has a value from now on."""

    track: Track
    time: int
    value: int


class Named(NamedTuple):
    """The program, or a thread, has this name."""

    track: Track
    pid: int
    tid: int


Mark = Begin | End | Instant | Count | Named

SENT = Track("counter", 1, 0, "sent to servers", "bytes")
RECEIVED = Track("counter", 2, 0, "received from servers", "bytes")
MEMORY = Track("counter", 3, 0, "device memory", "bytes")


class Calls:
    """What a trace's calls gave its devices to do; 13 bytes for each call."""

    def __init__(self) -> None:
        self.clocks = Clocks()
        self.works: Labels[tuple[Track, str]] = Labels()
        """The stream's track and the name of what each call gave a device to do."""
        self._timed = bytearray()
        """Of each call whether the trace has the device's times."""
        self._streams: dict[tuple[int, int], int] = {}

    def take(self, event: Event) -> None:
        """Takes in the next event of the trace: all have to be before any is drawn."""
        self.clocks.take(event)
        if isinstance(event, Call):
            self.works.append(self._work(event))
            self._timed.append(0)
        elif isinstance(event, DeviceTime) and event.call < len(self._timed):
            self._timed[event.call] = 1

    def is_timed(self, number: int) -> bool:
        """Whether the trace has the device's times of a call."""
        return number < len(self._timed) and self._timed[number] == 1

    def _work(self, call: Call) -> tuple[Track, str] | None:
        stream = moved.stream(call)
        name = call.kernel or moved.operation_of(call.name)
        if name is None or (call.kernel is None and stream is None):
            return None
        number = stream or 0
        if number > 0:
            # Their serial numbers are large: they are counted, as they come up.
            count = self._streams.setdefault((call.session, number), len(self._streams) + 1)
            title = f"stream {count}"
        else:
            title = f"default stream of thread {-number}" if number else "default stream"
        title += f" (session {call.session})" if call.session else ""
        return Track("stream", number, call.session, title), name


def marks(trace: str) -> Iterator[Mark]:
    """The marks of the trace at path `trace`.

    Raises HarpError where it is damaged, after the marks before the damage.
    """
    calls = Calls()
    for event in events(trace):
        calls.take(event)
    timeline = Timeline(calls)
    for event in events(trace):
        yield from timeline.draw(event)


class Timeline:
    """Makes marks of one trace's events."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._threads: dict[int, Track] = {}
        self._open: dict[int, Track] = {}
        self._texts: dict[str, str] = {}
        self._live: dict[int, int] = {}
        self._sent = self._received = self._bytes = 0

    def draw(self, event: Event) -> Iterator[Mark]:
        """The marks of the next event."""
        match event:
            case Enter():
                track = self._thread(event.thread)
                self._open[event.number] = track
                yield Begin(track, event.time, event.name, "api", {})
            case Leave():
                opened = None if event.enter is None else self._open.pop(event.enter, None)
                if opened is not None:
                    result = {"result": event.result} if event.result else {}
                    yield End(opened, event.time, result)
            case Call():
                yield from self._call(event)
            case Reply():
                self._received += event.size
                yield Count(RECEIVED, event.time, self._received)
            case Wait():
                track = self._thread(event.thread)
                because = self._texts.get(event.because, event.because)
                args = {"because": because, "call": event.name}
                yield Begin(track, event.began, f"wait: {because}", "wait", args)
                yield End(track, max(event.began, event.ended))
            case DeviceTime():
                yield from self._device_time(event)
            case Allocation():
                self._live[event.number] = event.bytes
                self._bytes += event.bytes
                yield Count(MEMORY, event.time, self._bytes)
            case Free():
                if event.allocation is not None:
                    self._bytes -= self._live.pop(event.allocation, 0)
                    yield Count(MEMORY, event.time, self._bytes)
            case Loss():
                lost = {"blocks": event.blocks, "bytes": event.bytes}
                name = f"lost: {', '.join(event.reasons)}"
                yield Instant(PROCESS, event.time, name, "loss", lost)
            case Thread():
                track = Track("thread", event.thread, 0, event.name)
                self._threads[event.thread] = track
                yield Named(track, 0, event.tid)
            case Told(kind="process"):
                name = str(event.fields.get("program", "program"))
                pid = event.fields.get("pid")
                yield Named(PROCESS._replace(name=name), pid if type(pid) is int else 0, 0)
            case Told(kind="define"):
                self._texts = reasons(event.fields)

    def _thread(self, number: int) -> Track:
        return self._threads.setdefault(number, Track("thread", number, 0, f"thread {number}"))

    def _call(self, call: Call) -> Iterator[Mark]:
        self._sent += call.size
        track = self._thread(call.thread)
        work = self._calls.works.get(call.number)
        args: dict[str, Any] = {"call": call.number}
        shape = moved.shape(call)
        if shape is not None:
            args |= {"grid": _dim(shape[0]), "block": _dim(shape[1])}
        elif (move := moved.move(call)) is not None:
            args["bytes"] = move.bytes
        is_timed = self._calls.is_timed(call.number)
        arrow = call.number if work is not None and is_timed else None
        yield Instant(track, call.time, call.kernel or call.name, "call", args, arrow)
        if work is not None and not is_timed:
            yield Instant(work[0], call.time, work[1], "queued", args)
        yield Count(SENT, call.time, self._sent)

    def _device_time(self, event: DeviceTime) -> Iterator[Mark]:
        work = self._calls.works.get(event.call)
        if work is None:
            return
        began, ended = self._calls.clocks.span(event.session, event.began, event.ended)
        yield Begin(work[0], began, work[1], "device", {"call": event.call}, event.call)
        yield End(work[0], ended)


PROCESS = Track("process", 0, 0, "program")


def _dim(numbers: tuple[int, ...]) -> str:
    return " × ".join(map(str, numbers))
