"""The command `harp-replay`, run in the tests' own process, and traces made by hand."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from harp_client.cli import status_of
from harp_replay.cli import harp_replay
from pool.standins import ASKING_NOTHING, Pool, Server, environment
from replay.made import small
from replay.stage import Stage


class Ended(NamedTuple):
    """A command that has ended."""

    status: int
    out: str
    err: str


@pytest.fixture
def look(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Runs `harp-replay WORDS`."""

    def look(*words: object) -> Ended:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["harp-replay", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "200")
        status = status_of(harp_replay, "harp-replay")
        return Ended(status, *capsys.readouterr())

    return look


@pytest.fixture
def untimed(tmp_path: Path) -> Path:
    """A trace without times of the device."""
    return small().write(tmp_path / "untimed.jsonl")


@pytest.fixture
def timed(tmp_path: Path) -> Path:
    """The same trace with times: 1 µs for each vector_add, 2 for scale."""
    return small(took=1_000).write(tmp_path / "timed.jsonl")


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What programs that are recorded or replayed find in their environment."""
    folder = tmp_path_factory.mktemp("environ")
    more = {"CUPY_CACHE_DIR": str(folder / "cupy"), "CUPY_COMPILE_WITH_PTX": "1"}
    return environment(folder) | ASKING_NOTHING | more


@pytest.fixture(scope="module")
def server(environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    running = Server(Pool(folder), environ, folder / "server.log")
    yield running
    assert running.stop() == 0, running.log.read_text()


@pytest.fixture
def stage(environ: dict[str, str], server: Server, tmp_path: Path) -> Stage:
    return Stage(environ, server, tmp_path)
