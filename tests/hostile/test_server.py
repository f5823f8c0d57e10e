"""A server that lies: it holds the pool's certificates and mutates its replies."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostile.rogue import Relay, under
from pool.standins import BOUND, Pool, Server, environment, servers
from programs import build

RUNS = int(os.environ.get("HOSTILE_RUNS", "24"))
SEED = int(os.environ.get("HOSTILE_SEED", "1"))
GUARDED = [sys.executable, str(Path(__file__).with_name("guarded.py"))]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with servers(Pool(tmp_path), environment(tmp_path), tmp_path) as start:
        yield start("--idle-workers", "2")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_lying_server_harms_no_program(server: Server, tmp_path: Path) -> None:
    """The program ends by itself, with at most one line on a lost session, and nothing was written
    but where it asked for it."""
    environ = environment(tmp_path)
    binaries = [
        [str(build.build(name, build.programs()[name].variants[0]))]
        for name in ("streams_events", "host_callback")
    ]
    commands = [GUARDED, GUARDED, GUARDED, *binaries]
    endings: Counter[int] = Counter()
    mutated = 0
    for run in range(RUNS):
        options = ("--mutate", 1 + run % 7 * 6, "--seed", SEED + run)
        relay = Relay(server, tmp_path / f"relay-{run}", *options)
        try:
            done = subprocess.run(
                under(relay.address, server.pool, commands[run % len(commands)]),
                env=environ,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=6 * BOUND,
            )
        finally:
            mutated += relay.end()["mutated"]
        told = f"run {run}: status {done.returncode}\n{done.stdout}{done.stderr}"
        assert 0 <= done.returncode < 125, told
        assert done.returncode != 9, told
        assert "panicked" not in done.stderr, told
        assert "Traceback" not in done.stderr, told
        assert done.stderr.count("is lost") <= 1, told
        endings[done.returncode] += 1
    assert mutated >= RUNS / 3
    assert len(endings) > 1, "some were disturbed, some were not"
