"""Where programs are recorded and replayed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from harp_client import native
from pool.standins import HARP_RUN, Server

PROGRAM = Path(__file__).parent / "replayed_program.py"
LONGEST = 120.0
"""Seconds; a run or a replay takes less than one of them, but for CuPy's."""


class Replayed(NamedTuple):
    """A replay that has ended."""

    status: int
    result: dict[str, Any]
    told: str


class Stage:
    """Where programs are recorded and replayed."""

    def __init__(self, environ: dict[str, str], server: Server, folder: Path) -> None:
        self.environ = environ
        self.pool = ("--server", server.address, "--credentials", str(server.pool.user))
        self.folder = folder

    def record(
        self, *command: object, payload: str = "full", name: str = "out", status: int = 0
    ) -> Path:
        """The trace of a program, which ends so; a part of `replayed_program` by its words."""
        out = self.folder / f"{name}.htrace"
        words = [*HARP_RUN, *self.pool, "--trace", out, "--trace-payload", payload, "--"]
        if not Path(str(command[0])).is_absolute():
            words += [sys.executable, PROGRAM]
        done = subprocess.run(
            [str(word) for word in (*words, *command)],
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=LONGEST,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return out

    def command(self, *words: object, command: str = "run") -> list[str]:
        program = "from harp_replay.cli import main; main()"
        return [sys.executable, "-c", program, command, *map(str, words)]

    def replay(self, trace: Path, *words: object, here: bool = True) -> Replayed:
        """Replays on the tests' server, or as the words say."""
        done = subprocess.run(
            self.command(trace, "--json", *(self.pool if here else ()), *words),
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=LONGEST,
        )
        result = json.loads(done.stdout) if done.stdout else {}
        return Replayed(done.returncode, result, done.stderr)

    def events(self, trace: Path) -> list[dict[str, Any]]:
        return lines_of("events", trace, "--full")

    def assemble(self, events: list[dict[str, Any]], name: str = "changed") -> Path:
        """The trace that these events are."""
        lines, out = self.folder / f"{name}.jsonl", self.folder / f"{name}.htrace"
        lines.write_text("".join(json.dumps(event) + "\n" for event in events))
        words = [native.find().trace, "assemble", lines, "--out", out]
        subprocess.run(words, check=True, timeout=LONGEST)
        return out


def lines_of(*words: object) -> list[dict[str, Any]]:
    """What `harp-trace WORDS` prints, which succeeds."""
    command = [native.find().trace, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def calls_of(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == "call" and event["name"] == name]


def assert_same(done: Replayed) -> None:
    assert done.status == 0, (done.told, done.result.get("differences"))
    assert done.result["different"] == 0
    assert done.result["passed"] is True
    assert done.result["sent"] == done.result["calls"] > 0
