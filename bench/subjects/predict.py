"""How well `harp-replay predict` foretells a run over another network: programs that are recorded
near the server, and then run, recorded again, through links."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

from driven import CHECKOUT, HARP_RUN, build_baseline
from link import Link, link
from measure import Samples
from report import Row, row
from sides import Sides
from sockets import measured_round_trip_ms

from clients import environment
from harp_replay.events import events
from harp_replay.network import Model, Network, Recorded
from programs import build

RUNS = 7
"""How often a program is recorded, and run through each link."""

NETWORKS = {"1ms": (1, 0), "10ms": (10, 0), "10ms_100mbit": (10, 100_000_000)}
"""Round trip (ms) and bits a second, 0 for no limit. Predictions are told the round trip that a raw
socket has there."""

SAMPLES = ("vector_add", "training_loop")
WITHIN = 0.15


def programs() -> dict[str, list[object]]:
    """Two samples of CUDA's kind, and CuPy."""
    cupy = [environment.clients_python(), CHECKOUT / "tests/clients/cupy_steps.py", 6]
    return {name: [build.build(name, "static-13.0")] for name in SAMPLES} | {"cupy": cupy}


def once(sides: Sides, samples: Samples) -> None:
    baseline = build_baseline()
    with ExitStack() as stack:
        far = {
            name: stack.enter_context(link(baseline, sides.server.address, round_trip, rate))
            for name, (round_trip, rate) in NETWORKS.items()
        }
        trips = {
            name: measured_round_trip_ms(baseline, sides.credentials, sides.folder, round_trip)
            for name, (round_trip, _) in NETWORKS.items()
        }
        for name, command in programs().items():
            ratios = _ratios(sides, command, far, trips)
            for network, ratio in ratios.items():
                samples.add(f"predict {name} {network}", [abs(ratio - 1)])


def _ratios(
    sides: Sides, command: list[object], far: dict[str, Link], trips: dict[str, float]
) -> dict[str, float]:
    """How long a program is said to take through each link, by how long it takes there.

    Near and far take turns: a machine that others use is slower in one minute than in the next.
    """
    told: dict[str, list[float]] = {network: [] for network in far}
    taken: dict[str, list[float]] = {network: [] for network in far}
    for run in range(1 + RUNS):
        near = _recorded(sides, command, sides.server.address)
        for network, (_, rate) in NETWORKS.items():
            # The link accepts connections itself, so TCP's round trip is not seen behind it.
            trip = trips[network]
            told[network].append(_predicted(near, trip, rate) - trip / 1e3)
            trace = _recorded(sides, command, far[network].address)
            recorded = Model(Network(0), Network(0)).run(events(str(trace))).recorded
            taken[network].append(recorded / 1e9)
            shutil.rmtree(trace.parent)
        shutil.rmtree(near.parent)
        if run == 0:  # what is compiled once, is, and a link has carried something
            for found in (*told.values(), *taken.values()):
                found.clear()
    return {name: statistics.median(told[name]) / statistics.median(taken[name]) for name in far}


def _recorded(sides: Sides, command: list[object], address: str) -> Path:
    """Runs a program and records it; the trace."""
    trace = Path(tempfile.mkdtemp(dir=sides.folder)) / "out.htrace"
    words = [*HARP_RUN, "--server", address, "--credentials", sides.credentials.user]
    words += ["--trace", trace, "--", *command]
    environ = sides.environ | {"CUPY_COMPILE_WITH_PTX": "1"}
    subprocess.run([str(word) for word in words], env=environ, check=True, capture_output=True)
    return trace


def _predicted(trace: Path, round_trip_ms: float, bits_per_s: int) -> float:
    """How long the run would take, in seconds."""
    recorded = Recorded().count(events(str(trace)))
    network = Network(round_trip_ms * 1e6, bits_per_s / 8e9 if bits_per_s else float("inf"))
    model = Model(network, Network(recorded.round_trip), recorded.pace)
    return model.run(events(str(trace))).time / 1e9


def rows(samples: Samples) -> list[Row]:
    return [
        row(
            f"predict_error_{name}_{network}",
            samples.median(f"predict {name} {network}"),
            "",
            at_most=WITHIN,
        )
        for name in (*SAMPLES, "cupy")
        for network in NETWORKS
    ]
