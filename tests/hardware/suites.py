"""Runs CuPy's own tests on a real GPU, natively and pooled, and compares test by test.

    python tests/hardware/bundle.py FOLDER                     # where the toolchains are
    python FOLDER/suites.py --out FOLDER [--minutes M]         # where the GPU and CuPy are

The CuPy that runs is that of the machine; it must have the version of the tests. Tests run in
random parts, each natively first and then through a pool on the same GPU, so that what stops early
is a sample. A line per test goes to `OUT/cupy-gpu-COLUMN.jsonl`; the counts, and every test that
ends otherwise in one column than in the other, to `OUT/cupy-gpu.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE / "python")]

from run import environment, libcuda, machine  # noqa: E402

from clients.suites import cupy  # noqa: E402
from clients.suites.execute import INSIDE, Run, collect, harness  # noqa: E402
from clients.suites.results import Table  # noqa: E402
from clients.suites.run import Count, Journal  # noqa: E402
from clients.suites.suite import SEED, parts  # noqa: E402
from pool.standins import HARP_RUN, Pool, Server  # noqa: E402

PART = 1000
"""Tests that go through both columns before the next do."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder of the results")
    parser.add_argument("--minutes", type=float, default=60, help="stop after these")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="the tests with TEXT in their id"
    )
    options = parser.parse_args()
    ends = time.monotonic() + 60 * options.minutes
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ours = environment()
        # What the command needs is no other program's: both columns see the same packages.
        more = {
            "CUPY_CACHE_DIR": str(folder / "kernels"),
            "HARP_NATIVE_DIR": ours["HARP_NATIVE_DIR"],
            "PYTHONPATH": os.pathsep.join([str(harness()), str(INSIDE), ours["PYTHONPATH"]]),
        }
        suite = replace(
            cupy.CUDA_13, name="cupy-gpu", python=lambda: Path(sys.executable), environ=lambda: more
        )
        pool = Pool(folder)
        device = ("--device", libcuda(), "--max-sessions", str(4 * options.processes))
        server = Server(pool, ours, folder / "server.log", *device)
        stack.callback(server.stop)
        wrapper = [*HARP_RUN, "--server", server.address, "--credentials", str(pool.user), "--"]
        ways = {"native": [], "pool": wrapper}
        everything, _ = collect(suite, [])
        tests = [test for test in everything if options.only in test]
        if not options.only:
            tests = [test for test in tests if not re.search(suite.endless, test)]
        journals = {
            column: Journal(options.out / f"cupy-gpu-{column}.jsonl", "gpu", True)
            for column in ways
        }
        for number, part in enumerate(parts(tests, PART, SEED), 1):
            for column, way in ways.items():
                left = [test for test in part if test not in journals[column].results]
                if (seconds := ends - time.monotonic()) > 0 and left:
                    count = Count(f"{column}, part {number}", journals[column], len(left), False)
                    run = Run(suite, way, {}, count.take)
                    clock = threading.Timer(seconds, run.stopped.set)
                    clock.start()
                    run.all(left, options.processes, max(10, len(left) // (2 * options.processes)))
                    clock.cancel()
        ended = {column: journal.results for column, journal in journals.items()}
    table = Table(suite.name, suite.title, "full", SEED, len(everything), ended)
    print(table.summary())
    ran = set.intersection(*(set(found) for found in ended.values()))
    differing = {
        test: {column: [found[test].outcome, found[test].error] for column, found in ended.items()}
        for test in sorted(ran)
        if len({found[test].outcome for found in ended.values()}) > 1
    }
    for test, outcomes in list(differing.items())[:40]:
        print(test, json.dumps(outcomes)[:600])
    report = {"machine": machine(), "collected": len(everything), "both": len(ran)}
    report |= {"counts": table.as_data()["columns"], "differing": differing}
    (options.out / "cupy-gpu.json").write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
