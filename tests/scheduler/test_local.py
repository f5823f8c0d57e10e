"""`harp up` and `harp down`: a pool on this machine, in one command each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harp_client.commands import local
from harp_client.errors import HarpError
from pool.standins import HARP, HARP_RUN, processes_with


class Machine:
    """Commands of one user, whose files are in a folder of the test's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HARP_", "XDG_"))}
        self.environ = kept | {
            "HARP_STATE_DIR": str(folder / "state"),
            "HARP_CACHE_DIR": str(folder / "cache"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "HARP_SOFT_MEMORY": "256MiB",
            "HARP_SOFT_THREADS": "1",
        }

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env=self.environ, capture_output=True, text=True, timeout=120
        )


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.run(*HARP, "down")


def test_a_pool_comes_up_runs_a_program_and_goes_down(machine: Machine) -> None:
    up = machine.run(*HARP, "up", "--devices", "2")
    assert up.returncode == 0, up.stderr
    assert "harp-run --gpus 1 -- python train.py" in up.stdout
    listed = machine.run(*HARP, "get", "devices", "-o", "name")
    assert listed.stdout.split() == ["device/local/0", "device/local/1"]
    probe = [sys.executable, "-m", "harp_client.probe"]
    done = machine.run(*HARP_RUN, "--gpus", "1", "--", *probe)
    assert done.returncode == 0, done.stderr
    assert "HARP Soft GPU" in done.stdout

    twice = machine.run(*HARP, "up")
    assert twice.returncode == 5
    assert "the pool already runs. Next: harp down" in twice.stderr
    assert machine.run(*HARP, "down").stdout.strip() == "stopped: server, scheduler"
    assert not processes_with(str(machine.folder / "state" / "up"))
    assert machine.run(*HARP, "down").stdout.strip() == "no pool runs here"


def test_a_device_that_is_not_there_is_said_to_be_and_nothing_is_left(machine: Machine) -> None:
    up = machine.run(*HARP, "up", "--device", "/nowhere/libcuda.so.1")
    assert up.returncode == 1
    assert "the server did not start: " in up.stderr
    assert "no such library" in up.stderr
    assert not processes_with(str(machine.folder / "state" / "up"))


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exec sleep 600", "it was not ready after 0 s"),
        ("printf half >/proc/self/fd/$READY; exec sleep 600", "it was not ready after 0 s"),
        ("echo the reason >&2", "the reason"),
    ],
)
def test_a_part_that_does_not_get_ready_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str
) -> None:
    part = tmp_path / "part"
    part.write_text(f"#!/bin/sh\neval READY=\\${{$#}}\n{script}\n")
    part.chmod(0o755)
    started: list[subprocess.Popen[bytes]] = []

    def popen(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(start_process(*arguments, **options))
        return started[-1]

    start_process = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setattr(sys, "executable", str(part))
    if why != "the reason":
        monkeypatch.setattr(local, "READY_SECONDS", 0.1)
    with pytest.raises(HarpError, match=f"the server did not start: {why}"):
        local.start(tmp_path, "server", [])
    assert [process.returncode is not None for process in started] == [True]


def test_the_users_configuration_keeps_what_was_in_it(machine: Machine) -> None:
    path = machine.folder / "config" / "harp" / "config.toml"
    path.parent.mkdir(parents=True)
    path.write_text('# mine\ncurrent = "lab"\n\n[contexts.lab]\nserver = "gpu1:7443"\n')
    up = machine.run(*HARP, "up")
    assert "harp get devices --context local" in up.stdout
    text = path.read_text()
    assert text.startswith('# mine\ncurrent = "lab"\n\n[contexts.lab]\nserver = "gpu1:7443"\n')
    assert "[contexts.local]" in text
