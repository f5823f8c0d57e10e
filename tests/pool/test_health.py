"""What takes a server's devices out by itself, and what brings them back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from harp_server.admission import Admission
from harp_server.health import CRASHES, REST_SECONDS, Crashes, DeviceWatch, Health
from harp_server.logs import Log
from harp_server.nvml import Nvml
from pool.nvml_standin import Board, StandIn
from pool.standins import BOUND

SEGV = "killed by signal 11 (Segmentation fault)"


class Bench:
    """The agent's side of two devices."""

    def __init__(self) -> None:
        self.admission = Admission({0: 1, 1: 1}, 0.0)
        self.changes = 0
        self.xids: dict[int, int] = {}
        self.health = Health(self.admission, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    @property
    def faults(self) -> dict[int, str]:
        return dict(self.admission.report(0.0).faults)


def test_all_who_watch_are_heard_and_each_takes_back_its_own() -> None:
    bench = Bench()
    bench.health.faults("nvml", {0: "", 1: ""})
    assert (bench.faults, bench.changes) == ({}, 0)
    bench.health.everywhere("workers", "they do not start")
    bench.health.faults("nvml", {0: "", 1: "a row"})
    assert bench.faults == {0: "they do not start", 1: "a row; they do not start"}
    bench.health.everywhere("workers", "")
    assert bench.faults == {0: "", 1: "a row"}, "that it is over is told too"
    before = bench.changes
    bench.health.faults("nvml", {0: "", 1: "a row"})
    assert bench.changes == before


def test_every_incident_has_a_number_of_its_own() -> None:
    bench = Bench()
    bench.health.happened(1, "Xid 48")
    first = bench.admission.report(0.0).incidents[1].number
    bench.health.happened(1, "Xid 79")
    last = bench.admission.report(0.0).incidents[1]
    assert (last.number > first, last.cause) == (True, "Xid 79")
    assert 0 not in bench.admission.report(0.0).incidents


class Clock:
    """Calls back when it is told to."""

    def __init__(self) -> None:
        self.due: list[tuple[float, Callable[[], None]]] = []
        self.faults: dict[int, str] = {}
        self.crashes = Crashes(lambda faults: setattr(self, "faults", dict(faults)), self._later)

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        self.due.append((seconds, what))

    def crash(self, user: str, times: int = 1, ordinal: int = 0) -> None:
        for _ in range(times):
            self.crashes.ended([ordinal], user, SEGV)

    def passes(self) -> float:
        seconds, what = self.due.pop(0)
        what()
        return seconds


def test_crashes_of_two_users_in_a_row_take_a_device_out_for_a_while() -> None:
    clock = Clock()
    clock.crash("alice", CRASHES - 1)
    clock.crash("bob", ordinal=1)
    assert clock.faults == {}
    clock.crash("bob")
    assert clock.faults[0].startswith(
        f"{CRASHES} sessions in a row have crashed, the last was {SEGV}"
    )
    assert "Next: look into the server's log" in clock.faults[0]
    assert list(clock.faults) == [0]
    assert clock.passes() == REST_SECONDS[0]
    assert clock.faults == {}


def test_crashes_of_one_user_do_not_take_a_device_out() -> None:
    clock = Clock()
    clock.crash("mallory", 10 * CRASHES)
    assert clock.faults == {}


def test_a_session_that_goes_well_ends_the_run() -> None:
    clock = Clock()
    clock.crash("alice")
    clock.crash("bob")
    clock.crashes.ended([0], "alice", "")
    clock.crash("alice")
    clock.crash("bob")
    assert clock.faults == {}
    clock.crash("alice")
    assert 0 in clock.faults
    clock.crashes.ended([0, 1], "bob", "")  # one that had begun before
    assert clock.faults == {}
    clock.passes()
    assert clock.faults == {}


def test_a_device_that_crashes_again_rests_for_longer_each_time() -> None:
    clock = Clock()
    clock.crash("alice", CRASHES)
    rests = []
    for _ in range(6):
        clock.crash("bob")
        assert 0 in clock.faults
        rests.append(clock.passes())
    assert rests == [60, 120, 240, 480, 900, 900]
    clock.crashes.ended([0], "bob", "")
    clock.crash("alice", CRASHES)
    clock.crash("bob")
    assert clock.passes() == 60


def watched(test: Callable[[StandIn, Bench], Awaitable[None]], level: str = "critical") -> StandIn:
    """Runs a test beside a watch of two devices, which then ends; says what is of that level."""
    api = StandIn([Board("GPU-1", "0000:1b:00.0"), Board("GPU-2", "0000:2b:00.0")])

    async def run() -> None:
        bench = Bench()
        nvml = Nvml(api)
        devices = [(gpu.ordinal, gpu.uuid, gpu.bus) for gpu in nvml.all()]
        watch = DeviceWatch(nvml, devices, bench.health, Log("plain", level))
        bench.xids = watch.xids
        try:
            await test(api, bench)
        finally:
            await watch.close()
        assert not watch.is_alive

    asyncio.run(run())
    assert api.freed == 1
    return api


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(BOUND):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harp_server.health.POLL_SECONDS", 0.05)
    monkeypatch.setattr("harp_server.health.WAIT_SECONDS", 0.05)


def test_what_the_driver_says_of_a_device_lasts_as_long_as_it_says_so() -> None:
    async def test(api: StandIn, bench: Bench) -> None:
        api.boards[1].rows = (0, 1, 1, 0)
        await until(lambda: "remapped" in bench.faults.get(1, ""))
        assert 0 not in bench.faults
        api.boards[1].rows = (0, 1, 0, 0)
        await until(lambda: bench.faults == {1: ""})

    watched(test)


def test_a_lost_device_is_told_though_waiting_for_events_fails() -> None:
    async def test(api: StandIn, bench: Bench) -> None:
        for _ in range(3):
            api.events.put(api.NVML_ERROR_GPU_IS_LOST)
        api.boards[0].error = api.NVML_ERROR_GPU_IS_LOST
        await until(lambda: "fallen off the bus" in bench.faults.get(0, ""))
        assert 1 not in bench.faults

    watched(test)


def test_a_serious_xid_is_an_incident_and_one_of_a_program_is_none() -> None:
    async def test(api: StandIn, bench: Bench) -> None:
        api.xid(api.boards[0], 31)
        api.xid(api.boards[0], 43)
        api.xid(api.boards[1], 79)
        await until(lambda: bench.admission.incidents)
        incident = bench.admission.incidents[1]
        assert incident.cause == (
            "Xid 79: the device has fallen off the bus. Next: restart the machine"
        )
        assert list(bench.admission.incidents) == [1]
        assert bench.xids == {0: 43, 1: 79}
        assert bench.faults == {}

    watched(test)


def test_a_driver_without_events_is_asked_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(self: StandIn) -> None:
        raise self.NVMLError(self.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(StandIn, "nvmlEventSetCreate", refuse)

    async def test(api: StandIn, bench: Bench) -> None:
        api.freed = 1  # there is nothing to free
        api.boards[0].uncorrected = 2
        await until(lambda: "uncorrectable" in bench.faults.get(0, ""))

    watched(test, "warning")
    assert "events are not heard" in capsys.readouterr().err


def test_a_driver_that_does_not_come_back_is_a_fault_until_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("harp_server.health.SILENT_SECONDS", 0.2)
    answers = threading.Event()
    answers.set()
    uuid = StandIn.nvmlDeviceGetUUID

    def hang(self: StandIn, handle: Any) -> str:
        answers.wait()
        return uuid(self, handle)

    async def test(_: StandIn, bench: Bench) -> None:
        answers.clear()
        await until(lambda: "the driver does not answer" in bench.faults.get(1, ""))
        assert list(bench.faults) == [0, 1]
        answers.set()
        await until(lambda: bench.faults == {0: "", 1: ""})

    monkeypatch.setattr(StandIn, "nvmlDeviceGetUUID", hang)
    try:
        watched(test)
    finally:
        answers.set()


def test_a_watch_that_fails_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run() -> None:
        nvml = Nvml(StandIn([Board("GPU-1", "0000:1b:00.0")]))
        monkeypatch.delattr(StandIn, "nvmlDeviceGetUUID")
        watch = DeviceWatch(nvml, [(0, "GPU-1", "")], Bench().health, Log("json"))
        await until(lambda: not watch.is_alive)
        await watch.close()

    asyncio.run(run())
    assert "devices are not watched" in capsys.readouterr().err
