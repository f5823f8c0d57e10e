"""`make bench`: measures HARP beside its baselines in one interleaved run, and prints a table.

    python bench/run.py [--rounds N] [--quick]

Rows {name, value, unit, baseline, ratio, budget, ok} go to `bench/out/latest.json`, the table into
`docs/performance.md`. Absolute numbers belong to the machine; ratios are of one run.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import report
from driven import CHECKOUT, HARP_RUN, OUT, Driven, build_baseline, build_client
from measure import Samples, Sides, memory, one_round
from sockets import raw_sockets

from pool.standins import ASKING_NOTHING, Pool, Server


def progress(text: str) -> None:
    print(f"[bench] {text}", file=sys.stderr, flush=True)


def worker_rss(server: Server) -> float:
    """Resident MiB of the worker of the first session."""
    worker = server.lines("session start")[0]["worker"]
    for line in Path(f"/proc/{worker}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no memory of worker {worker}")


@contextmanager
def sides(client: list[Path], baseline: Path) -> Iterator[Sides]:
    """Starts everything that is compared."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environ = dict(os.environ) | ASKING_NOTHING
        pool = Pool(folder)
        server = Server(pool, environ, folder / "server.log", "--idle-workers", "2")
        stack.callback(server.stop)
        remote = [*HARP_RUN, "--server", server.address, "--credentials", pool.user, "--"]

        def in_pool() -> Driven:
            return Driven([*remote, *client], environ)

        measured, direct = in_pool(), Driven([*HARP_RUN, "--direct", "--", *client], environ)
        stack.callback(direct.close)
        stack.callback(measured.close)
        raw = stack.enter_context(raw_sockets(baseline, pool, folder))
        for side in (measured, direct):
            side.ask("start")
        yield Sides(measured, direct, raw, in_pool, lambda: worker_rss(server))


def machine() -> str:
    """What was measured on, in a line."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    today = datetime.date.today().isoformat()
    where = f"Measured on {today} on {cores} cores of {model}, Linux {platform.release()}"
    return f"{where}, at a load average of {load:.1f} before the start."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="fewer samples, one round")
    options = parser.parse_args()
    rounds = 1 if options.quick else options.rounds
    progress("building the measuring client and the baselines")
    client, baseline = build_client(), build_baseline()
    samples, on = Samples(), machine()
    with sides(client, baseline) as compared:
        memory(compared, samples)
        for number in range(1, rounds + 1):
            progress(f"round {number} of {rounds}")
            one_round(compared, samples, options.quick)
    found = report.rows(samples)
    report.save(found, on, OUT / "latest.json", CHECKOUT / "docs" / "performance.md")
    (OUT / "samples.json").write_text(json.dumps(samples.found))
    print(f"{on}\n\n{report.markdown(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
