"""Mutated calls inside authenticated sessions: each ends its own session at most."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostile.rogue import record, storm, under
from hostile.witness import Neighbour, Witness
from pool.standins import BOUND, Pool, Server, environment, processes_with, servers, wait_until
from programs import build

FRAMES = int(os.environ.get("HOSTILE_FRAMES", "100000"))
"""Mutated frames of a run."""

SEED = int(os.environ.get("HOSTILE_SEED", "1"))

RECORDED = (
    "streams_events",
    "memory_pool",
    "host_callback",
    "symbols",
    "driver_api",
    "device_reset",
    "per_thread_stream",
    "atomics",
)

UPLOADS = [sys.executable, Path(__file__).parents[1] / "pool" / "uploading_program.py"]

DEVICES = {"HARP_SOFT_DEVICES": "2", "HARP_SOFT_MEMORY": "256MiB"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with servers(Pool(tmp_path), environment(tmp_path) | DEVICES, tmp_path) as start:
        yield start("--idle-workers", "4")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_mutated_calls_end_their_own_session_at_most(server: Server, tmp_path: Path) -> None:
    environ = environment(tmp_path)
    streams = []
    for name in RECORDED:
        binary = build.build(name, build.programs()[name].variants[0])
        streams.append(record(server, tmp_path / "streams", name, [binary], environ))
    # The second time an image and a payload are named, and fetched, in place of being sent.
    uploads = [*UPLOADS, "1", str(600_000)]
    record(server, tmp_path / "streams", "first", uploads, environ)
    kept = server.pool.server / "state" / "cache" / "tenants"
    wait_until(lambda: any(f.stat().st_size == 600_000 for f in kept.glob("*/*")), "it is kept")
    again = record(server, tmp_path / "streams", "again", uploads, environ)
    streams.append(again)
    assert again.stat().st_size < 100_000, "nothing of it was kept"

    neighbour = Neighbour(server, environ)
    witness = Witness(server)
    storming = storm(server, streams, FRAMES, SEED)
    try:
        while storming.poll() is None:
            witness.look()
            neighbour.check()
    finally:
        storming.kill()
        stdout, stderr = storming.communicate()
    assert storming.returncode == 0, stderr
    told = json.loads(stdout)
    assert told["frames"] >= FRAMES
    assert told["sessions"] >= FRAMES / 400

    # No worker ended by a crash, a panic or a refused system call, and none is left.
    bad = [line for line in server.lines("session end") if not is_orderly(str(line["cause"]))]
    bad += server.lines("idle worker lost") + server.lines("gate lost")
    bad += server.lines("cache lost")
    bad += [line for line in server.lines("output") if "panicked" in str(line["text"])]
    assert not bad, json.dumps(bad[:5])
    neighbour.finish()
    witness.settle()
    # The server serves as before.
    binary = build.build("vector_add", build.programs()["vector_add"].variants[0])
    command = under(server.address, server.pool, [binary])
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=BOUND)
    assert done.returncode == 0, done.stderr
    mark = str(server.pool.server / "ca.pem")
    assert server.stop() == 0
    wait_until(lambda: not processes_with(mark), "no worker is left")


def is_orderly(cause: str) -> bool:
    """Whether a session ended as one may that sends nonsense and goes."""
    return cause.startswith(
        (
            "violation: ",
            "the client has finished",
            "the client is gone",
            "the session's stream has ended",
            "the connection was lost",
            "the peer broke ",
            "the peer ended ",
        )
    )
