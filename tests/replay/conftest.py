"""The command `harp-replay`, run in the tests' own process, and traces made by hand."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from harp_client.cli import status_of
from harp_replay.cli import harp_replay
from replay.made import small


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
