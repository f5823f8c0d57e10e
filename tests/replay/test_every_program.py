"""Every test program and client library: recorded through a server, and replayed as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.environment import clients_python
from clients.toolkit import HERE as CLIENTS
from pool.standins import Pool, Server, wait_until
from programs import build
from replay.stage import Stage, assert_same

CLIENT_PROGRAMS = (
    "cuda_bindings_basics",
    "cuda_core_basics",
    "cuda_core_objects",
    "cupy_basics",
    "numba_basics",
)
WITHOUT_DATA = {"device_properties", "machine_code_only"}
"""Programs to which nothing comes back from memory: one asks about devices, one is refused."""


@pytest.fixture(scope="module")
def two_devices(
    environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with two devices, which records all that it serves itself."""
    folder: Path = tmp_path_factory.mktemp("two")
    options = ("--record", "*=full", "--record-folder", str(folder / "traces"))
    variables = environ | {"HARP_SOFT_DEVICES": "2"}
    running = Server(Pool(folder), variables, folder / "server.log", *options)
    yield running
    assert running.stop() == 0, running.log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", [*build.programs(), *CLIENT_PROGRAMS])
def test_replays_without_a_difference(
    environ: dict[str, str], two_devices: Server, tmp_path: Path, name: str
) -> None:
    stage = Stage(environ, two_devices, tmp_path)
    if name in CLIENT_PROGRAMS:
        trace = stage.record(clients_python(), CLIENTS / f"{name}.py")
    else:
        trace = stage.record(build.build(name, build.programs()[name].variants[0]))
    done = stage.replay(trace, "--repeat", 2)
    assert_same(done)
    assert done.result["identical"] is True
    if name not in WITHOUT_DATA:
        assert done.result["compared_data"] > 0


@pytest.mark.parametrize("name", ["vector_add", "streams_events", "shared_memory_with_host"])
def test_what_a_server_has_recorded_replays_too(
    environ: dict[str, str], two_devices: Server, tmp_path: Path, name: str
) -> None:
    stage = Stage(environ, two_devices, tmp_path)
    before = len(two_devices.lines("session recorded"))
    stage.record(build.build(name, build.programs()[name].variants[0]))
    wait_until(lambda: len(two_devices.lines("session recorded")) > before, "it is recorded")
    trace = Path(str(two_devices.lines("session recorded")[-1]["path"]))
    done = stage.replay(trace)
    assert_same(done)
    assert done.result["compared_data"] > 0
