"""Devices that report errors are taken out of a pool by themselves; NVML is a stand-in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harp_client import native
from scheduler.cluster import BOUND, Cluster, end, first_line

TESTS = Path(__file__).parents[1]
DEVICES = [(f"GPU-48415250-2073-6f66-7420-47505500000{n}", f"0000:0{n + 1}:00.0") for n in (0, 1)]


class Boards:
    """What NVML says in the server."""

    def __init__(self, file: Path) -> None:
        self.file = file
        switch = "0000:a0:00.0"
        near = {bus: 10 for _, bus in DEVICES}
        self.boards: list[dict[str, Any]] = [
            {"uuid": uuid, "bus": bus, "links": [switch], "ancestors": near}
            for uuid, bus in DEVICES
        ]
        self.xids: list[tuple[int, int]] = []
        self.say()

    def say(self) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps({"boards": self.boards, "xids": self.xids}))
        os.replace(new, self.file)


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[tuple[Cluster, Boards]]:
    """A scheduler, and a server whose two devices NVML seems to know."""
    cluster, boards = Cluster(tmp_path), Boards(tmp_path / "boards.json")
    cluster.environ["PYTHONPATH"] = f"{TESTS / 'pool' / 'as_pynvml'}:{TESTS}"
    cluster.environ["NVML_BOARDS"] = str(boards.file)
    cluster.scheduler()
    # By its path the soft GPU is a driver like any other.
    options = ("--device", native.find({}).softgpu, "--label", "pci-switch=mine")
    cluster.server("gpu1", 2, *options)
    yield cluster, boards
    cluster.close()


def device(cluster: Cluster, number: int) -> dict[str, Any]:
    return cluster.get("device", f"gpu1/{number}")[0]


def states(cluster: Cluster) -> list[str]:
    return [found["unusable"] for found in cluster.get("device")]


def test_what_the_driver_reports_takes_devices_out(pool: tuple[Cluster, Boards]) -> None:
    cluster, boards = pool
    labels = device(cluster, 0)["labels"]
    assert labels["driver"] == "580.105.08"
    assert labels["nvlink-group"] == DEVICES[0][0]
    assert "pci-switch" not in labels, "what an admin says counts"
    assert cluster.get("server")[0]["labels"] == {"pci-switch": "mine"}

    # Something that the driver says lasts as long as it says so.
    boards.boards[1]["rows"] = [0, 1, 1, 0]
    boards.say()
    cluster.wait(lambda: states(cluster) == ["", "faulty"], "a row is to be remapped")
    assert device(cluster, 1)["fault"] == (
        "a row of its memory is to be remapped. "
        "Next: reset the device while harp server is stopped (nvidia-smi --gpu-reset)"
    )
    waiting = cluster.run("--gpus", "2", "--queue-timeout", "1s")
    assert "faulty" in end(waiting)[2]
    boards.boards[1]["rows"] = [0, 1, 0, 0]
    boards.say()
    cluster.wait(lambda: states(cluster) == ["", ""], "it was reset")

    # An Xid is over when somebody says so. What a program has brought about is none.
    running = cluster.run("--gpus", "1")
    assert first_line(running) == "using 1"
    boards.xids += [(1, 31), (0, 79)]
    boards.say()
    cluster.wait(lambda: states(cluster) == ["faulty", ""], "it fell off the bus")
    said = cluster.harp("describe", "device", "gpu1/0").stdout
    assert "Xid 79: the device has fallen off the bus." in said.replace("\n ", "")
    assert device(cluster, 0)["fault"].endswith(
        "Next: restart the machine, then harp uncordon gpu1/0"
    )
    assert "Xid 79" in cluster.harp("get", "devices").stdout
    assert running.poll() is None, "what runs goes on"
    assert end(running)[0] == 0
    cluster.kill("gpu1", signal.SIGTERM)
    assert '"server stopped"' in cluster.log("gpu1")
    cluster.server("gpu1", 2)  # without NVML, and with no memory of it
    assert states(cluster) == ["faulty", ""]
    assert cluster.harp("uncordon", "gpu1/0").stdout == "gpu1/0: ready\n"
    assert states(cluster) == ["", ""]
    told = [
        (event["what"], event["reason"][:6])
        for event in cluster.get("event")
        if event["subject"] == "gpu1/0"
    ]
    assert told[-2:] == [("Faulty", "Xid 79"), ("Ready", "")]


def workers(cluster: Cluster) -> list[int]:
    """The processes of all sessions that have begun on the server, by its log."""
    lines = [json.loads(line) for line in cluster.log("gpu1").splitlines() if line[:1] == "{"]
    return [line["worker"] for line in lines if line["event"] == "session start"]


def crash(cluster: Cluster, user: str) -> None:
    """A program of a user whose worker dies."""
    before = workers(cluster)
    running: subprocess.Popen[str] = cluster.run("--gpus", "1", user=user)
    assert first_line(running) == "using 1"
    # The program may be told before the agent has its line in the log.
    cluster.wait(lambda: len(workers(cluster)) > len(before), "the session is in the log")
    os.kill(workers(cluster)[-1], signal.SIGABRT)
    assert running.wait(BOUND) == 3
    end(running)


def test_a_device_whose_workers_crash_for_several_users_is_taken_out(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    try:
        cluster.scheduler()
        cluster.server("gpu1")
        crash(cluster, "alice")
        crash(cluster, "alice")
        assert states(cluster) == [""]
        crash(cluster, "bob")
        cluster.wait(lambda: states(cluster) == ["faulty"], "it is taken out")
        fault = device(cluster, 0)["fault"]
        assert fault.startswith("3 sessions in a row have crashed, the last was killed by signal 6")
    finally:
        cluster.close()
