"""What becomes of launches: the API call that makes one, the time until its kernel begins, and the
kernel's time on the device."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from harp_replay.clocks import Clocks
from harp_replay.events import Call, DeviceTime, Enter, Event, Leave, Told, device_names

NEVER = (1 << 64) - 1
"""Stands for a time that the trace does not tell."""

DEVICE_MOST = (1 << 31) - 1
"""No device has a higher number."""

CONTEXTS = ("cuDevicePrimaryCtxRetain", "cuCtxCreate_v2")
"""Calls that make a context of a device."""


class Kind(NamedTuple):
    """Launches that are counted together."""

    thread: int
    device: int
    """As the program numbers its devices."""
    api: str
    """The driver API call."""
    kernel: str


class Phases(NamedTuple):
    """How long launches of a kind took, in ns."""

    total: array[int]
    """From the begin of the API call until it and the kernel have ended."""
    api: array[int]
    queue: array[int]
    """From the end of the API call until the kernel begins; of those only that begin afterwards."""
    kernel: array[int]


class Launches:
    """Launches, learned from the events of a trace; 52 bytes for each."""

    def __init__(self) -> None:
        self._clocks = Clocks()
        self._open: dict[int, tuple[Enter, list[int]]] = {}
        """API calls that have begun, with their launches."""
        self._kinds: dict[Kind, int] = {}
        self._sessions: dict[int, int] = {}
        """The first device of each session."""
        self._devices = 0
        self._contexts: dict[tuple[int, int], int] = {}
        self._current: dict[tuple[int, int], int] = {}
        """The context of each session and thread."""
        self._call: array[int] = array("Q")
        self._kind: array[int] = array("I")
        self._entered: array[int] = array("Q")
        self._left: array[int] = array("Q")
        self._began: array[int] = array("Q")
        self._ended: array[int] = array("Q")
        self._session: array[int] = array("Q")

    def take(self, event: Event) -> None:
        """Takes in the next event."""
        self._clocks.take(event)
        match event:
            case Enter():
                self._open[event.number] = (event, [])
            case Leave():
                opened = None if event.enter is None else self._open.pop(event.enter, None)
                for place in opened[1] if opened is not None else ():
                    self._left[place] = event.time
            case Call(kernel=None):
                self._context(event)
            case Call():
                self._launch(event)
            case DeviceTime():
                place = bisect_left(self._call, event.call)
                if place < len(self._call) and self._call[place] == event.call:
                    self._began[place], self._ended[place] = event.began, event.ended
            case Told(kind="session"):
                number = event.fields.get("number")
                if type(number) is int:
                    self._sessions[number] = self._devices
                self._devices += len(list(device_names(event.fields)))
            case _:
                pass

    def _context(self, call: Call) -> None:
        """Learns which device a thread's calls are for."""
        if call.name == "harp_set_current":
            self._current[call.session, call.thread] = _serial(call.args.get("context"))
        elif call.name in CONTEXTS:
            device = call.args.get("dev")
            made = _serial(call.args.get("pctx"))
            if type(device) is not int or not 0 <= device <= DEVICE_MOST:
                device = 0
            self._contexts[call.session, made] = device

    def _launch(self, call: Call) -> None:
        opened = None if call.enter is None else self._open.get(call.enter)
        if opened is None or call.kernel is None:
            return
        entered, launches = opened
        launches.append(len(self._call))
        context = self._current.get((call.session, call.thread), 0)
        device = self._sessions.get(call.session, 0)
        device += self._contexts.get((call.session, context), 0)
        kind = Kind(call.thread, device, entered.name, call.kernel)
        self._kind.append(self._kinds.setdefault(kind, len(self._kinds)))
        self._call.append(call.number)
        self._session.append(call.session)
        self._entered.append(entered.time)
        for times in (self._left, self._began, self._ended):
            times.append(NEVER)

    def phases(self) -> dict[Kind, Phases]:
        """How long those took of which the trace says it, by kind."""
        found = [Phases(*(array("Q") for _ in range(4))) for _ in self._kinds]
        for kind, (entered, left, began, ended) in self._spans():
            phases = found[kind]
            phases.total.append(max(left, ended) - entered)
            phases.api.append(left - entered)
            if began > left:
                phases.queue.append(began - left)
            phases.kernel.append(ended - began)
        return {kind: found[number] for kind, number in self._kinds.items() if found[number].total}

    def _spans(self) -> Iterator[tuple[int, tuple[int, int, int, int]]]:
        columns = (self._kind, self._session, self._entered, self._left, self._began, self._ended)
        for kind, session, entered, left, began, ended in zip(*columns, strict=True):
            if NEVER not in (left, began):
                yield kind, (entered, max(entered, left), *self._clocks.span(session, began, ended))


def _serial(handle: Any) -> int:
    """The serial number of a handle; 0 where there is none."""
    serial = handle.get("id") if isinstance(handle, Mapping) else None
    return serial if type(serial) is int else 0
