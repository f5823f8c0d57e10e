"""What NVML says of devices: faults, labels, events; and `harp doctor` about them."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from harp_client.errors import HarpError
from harp_server import checks, health, nvml, topology
from harp_server.nvml import NAMES, Events, Nvml
from harp_server.xids import XIDS, Action, xid
from pool.nvml_standin import Board, StandIn

SWITCH, OTHER_SWITCH = "0000:a0:00.0", "0000:b0:00.0"


def board(number: int, **described: object) -> Board:
    return Board(f"GPU-{number}", f"0000:{number:x}b:00.0", **described)  # type: ignore[arg-type]


def faults(**described: object) -> list[str]:
    nvml = Nvml(StandIn([board(1, **described)]))
    (gpu,) = nvml.find([(0, "GPU-1", "")])
    return [str(fault) for fault in nvml.faults(gpu)]


def test_a_device_that_is_well_has_no_faults() -> None:
    assert faults() == []
    # One that is older than row remapping, of a driver that tells no recovery action.
    assert faults(rows=None, recovery=None, uncorrected=None) == []


@pytest.mark.parametrize(
    ("described", "said"),
    [
        ({"error": 15}, "fallen off the bus. Next: restart the machine"),
        ({"error": 16}, "has to be reset. Next: reset the device"),
        ({"error": 999}, "NVML: 999. Next: nvidia-smi -q"),
        ({"recovery": 1}, "asks for recovery. Next: reset the device while harp server is stopped"),
        ({"recovery": 2}, "asks for recovery. Next: restart the machine"),
        ({"recovery": 99}, "asks for recovery. Next: restart the machine"),
        ({"rows": (0, 1, 1, 0)}, "a row of its memory is to be remapped"),
        ({"rows": (0, 8, 1, 1)}, "a row of its memory could not be remapped"),
        ({"rows": None, "pages_pending": 1}, "pages of its memory are to be retired"),
        ({"uncorrected": 3}, "uncorrectable memory errors: 3 since its last reset"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(described: dict[str, object], said: str) -> None:
    (fault,) = faults(**described)
    assert said in fault


def test_several_faults_are_all_told() -> None:
    assert len(faults(rows=(0, 1, 1, 0), uncorrected=1, recovery=1)) == 3


def test_a_device_is_found_by_its_bus_where_its_uuid_is_that_of_a_part() -> None:
    nvml = Nvml(StandIn([board(1), board(2)]))
    found = nvml.find([(0, "GPU-2", ""), (1, "MIG-of-1", "0000:1B:00.0"), (2, "GPU-3", "x")])
    assert [(gpu.ordinal, nvml.api.nvmlDeviceGetUUID(gpu.handle)) for gpu in found] == [
        (0, "GPU-2"),
        (1, "GPU-1"),
    ]


def labels(*boards: Board) -> list[dict[str, str]]:
    nvml = Nvml(StandIn(list(boards)))
    return topology.topology(nvml, nvml.all())


def test_devices_on_the_same_switches_are_one_nvlink_group() -> None:
    found = labels(
        board(1, links=(SWITCH, "", OTHER_SWITCH)),
        board(2, links=(OTHER_SWITCH,)),
        board(3, links=(SWITCH,)),
        board(4),
        board(5, links=("(unknown)",)),
    )
    groups = [one.get("nvlink-group") for one in found]
    assert groups == ["GPU-1", "GPU-1", "GPU-1", None, None]
    assert {one["driver"] for one in found} == {"580.105.08"}


def test_devices_that_are_linked_in_pairs_are_as_many_groups() -> None:
    one, two, three, four = (board(number) for number in (1, 2, 3, 4))
    one.links, two.links = (three.bus,), (four.bus, "")
    three.links, four.links = (one.bus,), (two.bus,)
    groups = [found["nvlink-group"] for found in labels(one, two, three, four)]
    assert groups == ["GPU-1", "GPU-2", "GPU-1", "GPU-2"]


def test_a_fabric_of_several_machines_names_its_group() -> None:
    cluster = bytes(range(16))
    here, alone = labels(
        board(1, links=(SWITCH,), fabric=(cluster, 7)),
        board(2, links=(SWITCH,), fabric=(bytes(16), 0)),
    )
    assert here["nvlink-group"] == "00010203-0405-0607-0809-0a0b0c0d0e0f/7"
    assert alone["nvlink-group"] == "GPU-1"  # the fabric of this machine alone has no name


def test_devices_below_one_pci_switch() -> None:
    one, two, three = board(1), board(2), board(3)
    one.ancestors = {two.bus: 10, three.bus: 30}
    two.ancestors = {one.bus: 10, three.bus: 30}
    three.ancestors = {one.bus: 30, two.bus: 30}
    assert [found.get("pci-switch") for found in labels(one, two, three)] == [
        one.bus,
        one.bus,
        None,
    ]


def test_what_the_machine_tells_without_nvml(tmp_path: Path) -> None:
    (tmp_path / "0000:1b:00.0").mkdir()
    (tmp_path / "0000:1b:00.0" / "numa_node").write_text("1\n")
    (tmp_path / "0000:2b:00.0").mkdir()
    (tmp_path / "0000:2b:00.0" / "numa_node").write_text("-1\n")
    (tmp_path / "version").write_text("535.104.05\n")
    ask = (tmp_path, tmp_path / "version")
    assert topology.labels_of("0000:1B:00.0", *ask) == {"numa-node": "1", "driver": "535.104.05"}
    assert topology.labels_of("0000:2b:00.0", *ask) == {"driver": "535.104.05"}
    assert topology.labels_of("0000:3b:00.0", tmp_path, tmp_path / "none") == {}


def test_events_say_which_device_and_which_xid() -> None:
    api = StandIn([board(1), board(2)])
    nvml = Nvml(api)
    events = Events(nvml, nvml.all())
    assert [gpu.ordinal for gpu in events.watched] == [0, 1]
    assert events.wait(0.01) is None
    api.xid(api.boards[1], 79)
    api.events.put((api.boards[0], api.nvmlEventTypeDoubleBitEccError, 5))
    told = [events.wait(10), events.wait(10)]
    assert [(gpu and gpu.uuid, number) for gpu, number in filter(None, told)] == [
        ("GPU-2", 79),
        ("GPU-1", 0),
    ]
    api.events.put(api.NVML_ERROR_GPU_IS_LOST)
    with pytest.raises(api.NVMLError):
        events.wait(10)
    events.close()
    assert api.freed == 1


def test_what_programs_can_bring_about_takes_no_device_out() -> None:
    for number in (8, 13, 31, 43, 45, 68, 94, 109, 63, 92, 154, 999):
        assert not xid(number)[1].takes_out, number
    for number in (46, 48, 62, 64, 74, 79, 95, 119, 120, 140):
        assert xid(number)[1].takes_out, number
    assert xid(79) == ("Xid 79: the device has fallen off the bus", Action.RESTART)
    assert xid(999) == ("Xid 999", Action.ASK)
    assert all(0 < number < 200 and text for number, (text, _) in XIDS.items())


def test_doctor_tells_what_nvml_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    api = StandIn([board(1, links=(SWITCH,)), board(2, rows=(0, 0, 1, 0))])
    monkeypatch.setitem(sys.modules, "pynvml", api)
    api.xid(api.boards[0], 13)
    api.xid(api.boards[0], 48)
    found = [(finding.name, finding.ok, finding.text) for finding in checks.devices(0.2)]
    assert found == [
        ("nvml", True, "driver 580.105.08, NVML 13.580.105.08"),
        (
            "device 0",
            True,
            "NVIDIA H200, GPU-1, 0000:1b:00.0, driver=580.105.08 nvlink-group=GPU-1",
        ),
        ("device 0", True, "no faults"),
        ("device 1", True, "NVIDIA H200, GPU-2, 0000:2b:00.0, driver=580.105.08"),
        ("device 1", False, "a row of its memory is to be remapped"),
        ("events", True, "of devices 0, 1"),
        ("device 0", True, "Xid 13: graphics engine exception"),
        ("device 0", False, "Xid 48: uncorrectable (double bit) memory error"),
    ]
    assert api.freed == 1


@pytest.mark.parametrize(
    ("call", "name", "before"),
    [
        ("nvmlInit", "nvml", []),
        ("nvmlDeviceGetCount", "nvml", []),
        ("nvmlDeviceGetRemappedRows", "device 0", ["nvml"]),
        ("nvmlEventSetWait", "events", ["nvml", "device 0", "device 0", "events"]),
    ],
)
def test_doctor_says_that_the_driver_does_not_answer(
    call: str, name: str, before: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    api, hangs = StandIn([board(1)]), threading.Event()
    monkeypatch.setattr(api, call, lambda *_: hangs.wait())
    monkeypatch.setitem(sys.modules, "pynvml", api)
    monkeypatch.setattr(nvml, "DRIVER_SECONDS", 0.5)
    try:
        *found, last = checks.devices(60)
    finally:
        hangs.set()
    assert [finding.name for finding in found] == before
    assert all(finding.ok for finding in found)
    assert (last.name, last.ok) == (name, False)
    assert (last.text, last.next_step) == nvml.NO_ANSWER


def test_doctor_goes_on_without_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    (finding,) = checks.devices(0)
    assert finding.ok
    assert "pip install nvidia-ml-py" in finding.next_step
    monkeypatch.setitem(sys.modules, "pynvml", StandIn([], is_ready=False))
    (finding,) = checks.devices(0)
    assert (finding.ok, finding.next_step) == (True, "is the driver loaded (nvidia-smi)?")


@pytest.mark.parametrize("missing", NAMES)
def test_a_module_that_is_too_old_is_said_to_be(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = StandIn([board(1)])
    old = SimpleNamespace(**{name: getattr(api, name) for name in NAMES if name != missing})
    monkeypatch.setitem(sys.modules, "pynvml", old)
    (finding,) = checks.devices(0)
    assert finding.ok
    assert f"nvidia-ml-py is too old: its module pynvml has no {missing}" in finding.text
    assert "pip install --upgrade nvidia-ml-py" in finding.next_step


def test_all_that_is_asked_for_is_looked_for_at_the_start() -> None:
    used: set[str] = set()
    for module in (nvml, topology, health, checks):
        text = Path(module.__file__).read_text()
        for pair in re.findall(r'\b_?api\.(n\w+|c_\w+|N\w+)|"(nvml\w+)"', text):
            used.update(filter(None, pair))
    assert used <= set(NAMES)
    assert {"nvmlDeviceGetUUID", "nvmlEventSetWait", "NVML_SUCCESS"} <= used


def test_a_driver_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "DRIVER_SECONDS", 0.05)
    hangs = threading.Event()
    try:
        with pytest.raises(HarpError, match="the driver does not answer"):
            asyncio.run(nvml.answered(hangs.wait))
    finally:
        hangs.set()


def test_what_the_driver_answers_is_passed_on() -> None:
    assert asyncio.run(nvml.answered(lambda: 5)) == 5
    with pytest.raises(ZeroDivisionError):
        asyncio.run(nvml.answered(lambda: 1 // 0))
