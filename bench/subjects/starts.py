"""How soon a program can work."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from driven import HARP_RUN
from measure import Samples, timed
from report import Row, row
from sides import Sides

from scheduler.cluster import Cluster

ROUNDS, RUNS = 3, 2


def measure(sides: Sides, samples: Samples, scale: int) -> None:
    fresh = sides.in_pool()
    samples.add("first_call_ms", fresh.ask("start"))
    fresh.close()

    def run(command: Sequence[object], environ: dict[str, str] = sides.environ) -> list[float]:
        words = [str(word) for word in command]
        # A package is compiled when it is installed, a checkout by whoever runs it first.
        compiled = {name: environ[name] for name in environ if name != "PYTHONDONTWRITEBYTECODE"}
        return timed(lambda: subprocess.run(words, env=compiled, check=True), RUNS)

    with tempfile.TemporaryDirectory() as folder:
        pool = Cluster(Path(folder))
        try:
            pool.scheduler()
            pool.server("gpu1")
            pool.harp(*["attach", "web1", "--tenant", "default", "--user", "alice", "--wait"])
            leased = pool.environ_of("alice") | {"HARP_HOST": "web1"}
            for _ in range(ROUNDS):
                samples.add("true ms", run(["true"]))
                samples.add("harp-run true ms", run([*sides.remote(), "true"]))
                samples.add("harp-run true with a lease ms", run([*HARP_RUN, "true"], leased))
        finally:
            pool.close()


def rows(samples: Samples) -> list[Row]:
    of = samples.median
    bare = of("true ms")
    leased = of("harp-run true with a lease ms") - bare
    return [
        row("first_call_ms", of("first_call_ms"), "ms", at_most=20),
        row("harp_run_true_ms", of("harp-run true ms") - bare, "ms", at_most=120),
        row("start_run_true_with_lease", leased, "ms", at_most=120),
    ]
