"""What a second start need not send: the bytes of a CuPy program, a model over 1 Gbit/s. And that
finding out costs fresh bytes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from driven import CHECKOUT, HARP_RUN, Driven, build_baseline
from link import link
from measure import MIB, Samples
from report import Row, row
from sides import Sides

from clients.environment import clients_python
from pool.standins import Pool, Server, wait_until

MODEL_BYTES = 1_000_000_000
RATE = 1_000_000_000
"""Bits per second."""
ROUND_TRIP_MS = 0.2


def once(sides: Sides, samples: Samples) -> None:
    """Both starts of each program, with a server that knows nothing before the first."""
    with fresh_server(sides, "again") as server:
        demo = [clients_python(), CHECKOUT / "examples" / "cupy_demo.py"]
        asking = sides.environ | {"HARP_PTX": "1"}
        for name in ("first start bytes", "second start bytes"):
            run(server, server.address, demo, asking)
            samples.add(name, [float(str(ended(server)[-1]["bytes_in"]))])
            settled(server)
    weights = sides.folder / "weights"
    with weights.open("wb") as file:
        for _ in range(MODEL_BYTES // MIB + 1):
            file.write(os.urandom(MIB))
        file.truncate(MODEL_BYTES)
    load = [sys.executable, CHECKOUT / "bench" / "model.py", weights]
    with (
        fresh_server(sides, "model") as server,
        link(build_baseline(), server.address, ROUND_TRIP_MS, RATE) as way,
    ):
        for name in ("first load s", "second load s"):
            samples.add(name, [float(run(server, way.address, load, sides.environ))])
            settled(server)
    weights.unlink()


@contextmanager
def fresh_server(sides: Sides, name: str) -> Iterator[Server]:
    """A server of a pool of its own."""
    server = Server(Pool(sides.folder, name), sides.environ, sides.folder / f"{name}.log")
    try:
        yield server
    finally:
        server.stop()


def ended(server: Server) -> list[dict[str, object]]:
    return server.lines("session end")


def run(server: Server, address: str, command: list[object], environ: Mapping[str, str]) -> str:
    """Runs a program to the end of its session; what it printed."""
    before = len(ended(server))
    words = [*HARP_RUN, "--server", address, "--credentials", server.pool.user, "--", *command]
    done = subprocess.run(
        [str(word) for word in words], env=environ, check=True, capture_output=True, text=True
    )
    wait_until(lambda: len(ended(server)) > before, "the session's end")
    return done.stdout


def settled(server: Server) -> None:
    """Waits until the cache has written what it was handed over."""
    folder = server.pool.server / "state" / "cache"
    seen = [-1]

    def is_quiet() -> bool:
        files = [file for file in folder.rglob("*") if not file.name.startswith("new-")]
        seen.append(len(files))
        return len(seen) > 10 and len(set(seen[-10:])) == 1

    wait_until(is_quiet, "nothing more is written")


def measure(sides: Sides, samples: Samples, scale: int) -> None:
    """CPU time of copies of fresh bytes, with a cache and without, one after the other."""
    for name, switch in (("cached", "1"), ("uncached", "0")):
        client = Driven([*sides.remote(), *sides.client], sides.environ | {"HARP_DEDUP": switch})
        client.ask("start")
        begun = sides.server.lines("session start")[-1]
        both = [int(str(begun[which])) for which in ("pid", "worker")]
        client.ask("h2d", 256 * MIB, 1)
        before = sum(map(cpu_seconds, both))
        client.ask("h2d", 256 * MIB, max(1, 3 // scale))
        spent = sum(map(cpu_seconds, both)) - before
        samples.add(f"{name} cpu s", [spent])
        client.close()


def cpu_seconds(process: int) -> float:
    """User and system time of all threads of a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rows(samples: Samples) -> list[Row]:
    of = samples.median
    first, second = of("first start bytes"), of("second start bytes")
    return [
        row("second_start_bytes", second, "B", first, at_most=0.01),
        row(
            "model_load_1gb_second_vs_first",
            of("second load s"),
            "s",
            of("first load s"),
            at_most=0.3,
        ),
        row("copy_256m_h2d_cpu_cached", of("cached cpu s"), "s", of("uncached cpu s"), at_most=1.1),
    ]
