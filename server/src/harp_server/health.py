"""How a server's devices are: what takes one out of the pool by itself, and what brings it back.

* A **fault** lasts for as long as whoever watches says so: workers that do not start, what the
  driver says of a device (`nvml`), sessions that crash one after the other.
* An **incident** has happened, and nothing says when it is over: an Xid for which the device has to
  be reset (`xids`). The scheduler keeps it until an admin says that it was seen to.

Sessions that run go on; no lease begins on the device.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from harp_api.control.v1 import agent_pb2 as control
from harp_server.admission import Admission
from harp_server.logs import Log
from harp_server.nvml import NO_ANSWER, Events, Fault, Gpu, Nvml
from harp_server.xids import Action, xid

POLL_SECONDS = 5.0
"""Between two looks at a device of which nothing is reported."""

WAIT_SECONDS = 1.0
"""How long the watching thread waits for events before it looks whether it is to end."""

JOIN_SECONDS = 5.0
"""A driver that has lost a device may not come back from a call: the thread is then left."""

SILENT_SECONDS = 60.0
"""Without a look that came back after which the driver counts as gone: several are missing."""

CRASHES = 3
"""Sessions of a device that crash one after the other before it counts as faulty."""

CRASH_SIGNALS = frozenset(
    (
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGSEGV,
        signal.SIGSYS,
        signal.SIGTRAP,
    )
)
"""What a process dies of by its own doing. The agent ends workers by others."""

REST_SECONDS = (60.0, 900.0)
"""How long a device takes no new leases after such crashes: at first, and at most."""


class Health:
    """What is told of a server's devices by all who watch them. Of the agent's event loop."""

    def __init__(self, admission: Admission, changed: Callable[[], None]) -> None:
        """Reports tell what is written into `admission`; `changed` has one sent."""
        self._admission = admission
        self._changed = changed
        self._faults: dict[str, Mapping[int, str]] = {}

    def faults(self, watcher: str, faults: Mapping[int, str]) -> None:
        """All that a watcher has to say now, by device, each with what to do."""
        self._faults[watcher] = faults
        told = {
            ordinal: "; ".join(filter(None, (said.get(ordinal) for said in self._faults.values())))
            for ordinal in self._admission.memory
        }
        # One that never had a fault needs no word, one that has none any more does.
        told = {o: text for o, text in told.items() if text or o in self._admission.faults}
        if told != self._admission.faults:
            self._admission.faults = told
            self._changed()

    def everywhere(self, watcher: str, fault: str) -> None:
        """The same of all devices."""
        self.faults(watcher, dict.fromkeys(self._admission.memory, fault))

    def happened(self, ordinal: int, cause: str) -> None:
        """An incident."""
        last = self._admission.incidents.get(ordinal)
        number = max(time.time_ns() // 1_000_000, last.number + 1 if last else 0)
        self._admission.incidents[ordinal] = control.Incident(number=number, cause=cause)
        self._changed()


@dataclass(slots=True)
class _Run:
    """Crashes of one device without a session between them that went well."""

    crashes: int = 0
    users: set[str] = field(default_factory=set)
    rests: int = 0


class Crashes:
    """Takes devices out whose sessions crash one after the other.

    One user's program may have itself to blame, or mean harm, so the crashes have to be of two
    users at least. Nobody can say when it is over but the next session: after a while the device is
    tried again, and another crash takes it out for twice as long.
    """

    def __init__(
        self,
        tell: Callable[[Mapping[int, str]], None],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        """`tell` gets the faults of all devices; `later` calls back after some seconds."""
        self._tell = tell
        self._later = later
        self._runs: dict[int, _Run] = {}
        self._faults: dict[int, str] = {}

    def ended(self, ordinals: Sequence[int], user: str, crash: str) -> None:
        """A session of these devices is over; `crash`: what its worker died of, "" if it went
        well."""
        for ordinal in ordinals:
            if not crash:
                self._runs.pop(ordinal, None)
                if self._faults.pop(ordinal, ""):
                    self._tell(dict(self._faults))
                continue
            run = self._runs.setdefault(ordinal, _Run())
            run.crashes += 1
            if len(run.users) < 2:
                run.users.add(user)
            is_out = ordinal in self._faults
            if run.crashes >= CRASHES and len(run.users) > 1 and not is_out:
                self._take_out(ordinal, run, crash)

    def _take_out(self, ordinal: int, run: _Run, crash: str) -> None:
        first, most = REST_SECONDS
        seconds = min(first * 2**run.rests, most)
        run.rests = min(run.rests + 1, 10)
        cause = f"{run.crashes} sessions in a row have crashed, the last was {crash}"
        step = f"look into the server's log; after {seconds:.0f} s it is tried again"
        self._faults[ordinal] = str(Fault(cause, step))
        self._tell(dict(self._faults))

        def try_again() -> None:
            if self._runs.get(ordinal) is run and self._faults.pop(ordinal, ""):
                self._tell(dict(self._faults))

        self._later(seconds, try_again)


class DeviceWatch:
    """Has a thread ask NVML how the devices are, and wait for what happens to them."""

    def __init__(
        self, nvml: Nvml, devices: Sequence[tuple[int, str, str]], health: Health, log: Log
    ) -> None:
        """`devices`: numbers, UUIDs and PCI bus ids."""
        self._nvml = nvml
        self._devices = devices
        self._gpus: list[Gpu] = []
        self.xids: dict[int, int] = {}
        """The last Xid of each device, by ordinal."""

        self._health = health
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nvml", daemon=True)
        self._looked = time.monotonic()
        self._thread.start()
        self._hearing = self._loop.call_later(WAIT_SECONDS, self._hear)

    @property
    def is_alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    async def close(self) -> None:
        """Ends the thread."""
        self._hearing.cancel()
        self._stop.set()
        await asyncio.to_thread(self._thread.join, JOIN_SECONDS)

    def _hear(self) -> None:
        """Whether the thread still comes back from the driver. On the event loop."""
        is_silent = self.is_alive and time.monotonic() - self._looked > SILENT_SECONDS
        self._health.everywhere("driver", str(NO_ANSWER) if is_silent else "")
        if self.is_alive:
            self._hearing = self._loop.call_later(WAIT_SECONDS, self._hear)

    def _run(self) -> None:
        try:
            self._watch()
        except Exception as error:
            cause = repr(error)
            self._on_loop(lambda: self._log.error("devices are not watched", cause=cause))

    def _watch(self) -> None:
        self._find()
        events = None
        try:
            events = Events(self._nvml, self._gpus)
        except self._nvml.api.NVMLError as error:
            cause = str(error)
            self._on_loop(lambda: self._log.warning("events are not heard", cause=cause))
        due = 0.0
        while not self._stop.is_set():
            if time.monotonic() >= due:
                due = time.monotonic() + POLL_SECONDS
                self._look()
            if (event := self._next(events)) is not None:
                self._take(*event)
                due = 0.0  # what is reported may have left something that lasts
        if events is not None:
            events.close()

    def _find(self) -> None:
        self._gpus = self._nvml.find(self._devices)
        known = {gpu.ordinal for gpu in self._gpus}
        if unknown := sorted(ordinal for ordinal, *_ in self._devices if ordinal not in known):
            cause = "NVML does not know them"
            self._on_loop(
                lambda: self._log.warning("devices are not watched", devices=unknown, cause=cause)
            )

    def _look(self) -> None:
        found = {
            gpu.ordinal: "; ".join(str(fault) for fault in self._nvml.faults(gpu))
            for gpu in self._gpus
        }
        self._looked = time.monotonic()
        self._on_loop(lambda: self._health.faults("nvml", found))

    def _next(self, events: Events | None) -> tuple[Gpu | None, int] | None:
        if events is not None and events.watched:
            try:
                return events.wait(WAIT_SECONDS)
            except self._nvml.api.NVMLError:
                pass  # a device is lost, for one: the next look says which
        self._stop.wait(WAIT_SECONDS)
        return None

    def _take(self, gpu: Gpu | None, number: int) -> None:
        text, action = xid(number) if number else ("uncorrectable memory error", Action.ASK)
        # Parts of a device (MIG) are each told of what happens to the whole.
        devices = [one.ordinal for one in self._gpus if gpu and one.address == gpu.address]
        write = self._log.error if action.takes_out else self._log.warning

        def tell() -> None:
            if number:
                self.xids.update(dict.fromkeys(devices, number))
            write("device event", devices=devices, cause=text, asks_for=action.name.lower())
            if action.takes_out:
                for ordinal in devices:
                    self._health.happened(ordinal, str(Fault(text, action.value)))

        self._on_loop(tell)

    def _on_loop(self, what: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone, and this thread was left
            self._loop.call_soon_threadsafe(what)
