"""`make clients`: runs the tests that clients bring themselves, directly and through the pool.

    python tests/clients/suites/run.py                  # a sample of every suite, as the CI does
    python tests/clients/suites/run.py --full           # everything; goes on where it stopped
    python tests/clients/suites/run.py cupy-cuda12 --only test_sort --column direct --show
    python tests/clients/suites/run.py cupy-cuda12 --failed   # again what failed in the last run

Prints, per suite, how many tests passed directly, how many through the pool and how many differ.
Working files are `build/suites/SUITE-KIND-COLUMN.jsonl`, a line per test. A finished run writes
`tests/clients/suites/results/SUITE-KIND.json`, from which `docs/clients.md` is made (`report.py`).

To add a suite: write a module beside `cupy.py` that describes it as a `Suite` (which Python, where
the tests lie, what to collect, how large the sample is), and name it in `SUITES` below. Failures
that are understood go into `expected/SUITE.toml` with their reason (`expected.py`); `--accept`
lists those that fit a reason's pattern.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from clients.suites import cupy, expected, numba_cuda, report
from clients.suites.execute import BATCH, DEVICES, Result, Run, collect
from clients.suites.results import Table
from clients.suites.suite import SEED, Suite, draw, parts
from clients.toolkit import CHECKOUT
from harp_client import native
from pool.standins import HARP_RUN, Pool, Server

SUITES = {suite.name: suite for suite in (cupy.CUDA_12, cupy.CUDA_13, numba_cuda.SUITE)}

WORK = CHECKOUT / "build" / "suites"

PART = 500
"""Tests that go through all columns before the next do: what is done so far can be compared."""


def progress(text: str) -> None:
    print(f"[suites] {text}", file=sys.stderr, flush=True)


@contextmanager
def columns() -> Iterator[dict[str, list[str]]]:
    """What stands before a command line, by column; the pool's server runs as long as this."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harp-suites-")))
        pool = Pool(folder, "suites")
        environ = {k: v for k, v in os.environ.items() if not k.startswith("XDG_")} | DEVICES
        options = ("--device", "soft", "--max-sessions", "32")
        server = Server(pool, environ, folder / "server.log", *options)
        stack.callback(server.stop)
        yield {
            "direct": [*HARP_RUN, "--direct", "--"],
            "pool": [
                *[*HARP_RUN, "--ptx", "--server", server.address],
                *["--credentials", str(pool.user), "--"],
            ],
        }


def digest_of_build() -> str:
    """Names the native parts that a run used: results of different builds are not mixed."""
    built = native.find()
    digest = hashlib.sha256()
    for path in (built.interposer, built.softgpu, built.worker):
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()[:16]


class Journal:
    """The results of one suite in one column, kept in a file as they come."""

    def __init__(self, path: Path, key: str, keep: bool) -> None:
        self.path = path
        self.results: dict[str, Result] = {}
        self.lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        if lines and (keep or json.loads(lines[0]) == {"key": key}):
            for line in lines[1:]:
                if line.endswith("}"):
                    entry = json.loads(line)
                    test = entry.pop("test")
                    self.results[test] = Result(**entry)
        with path.open("w") as file:
            file.write(json.dumps({"key": key}) + "\n")
            for test, result in self.results.items():
                file.write(self._line(test, result))

    @staticmethod
    def _line(test: str, result: Result) -> str:
        return json.dumps({"test": test, **asdict(result)}) + "\n"

    def take(self, test: str, result: Result) -> None:
        """Keeps a result, in place of an older one of the same test."""
        with self.lock:
            self.results[test] = result
            with self.path.open("a") as file:
                file.write(self._line(test, result))


class Count:
    """Says every few seconds how far a column is."""

    def __init__(self, name: str, journal: Journal, total: int, show: bool) -> None:
        self.name, self.journal, self.total, self.show = name, journal, total, show
        self.done = self.bad = 0
        self.began = self.told = time.monotonic()

    def take(self, test: str, result: Result) -> None:
        self.journal.take(test, result)
        self.done += 1
        self.bad += result.bad
        now = time.monotonic()
        if self.show and result.bad:
            progress(f"{result.outcome} {test}: {result.error}")
        if now - self.told > 20 or self.done == self.total:
            self.told = now
            left = (self.total - self.done) * (now - self.began) / self.done
            progress(
                f"{self.name}: {self.done} of {self.total}, {self.bad} failed, "
                f"{(now - self.began) / 60:.1f} min, {left / 60:.1f} min left"
            )


def is_left(test: str, journal: Journal, options: argparse.Namespace) -> bool:
    """Whether a test is to be run: it was not yet, or with `--failed`, it failed."""
    result = journal.results.get(test)
    return bool(result and result.bad) if options.failed else result is None


def run(
    suite: Suite, ways: dict[str, list[str]], options: argparse.Namespace, work: Path = WORK
) -> tuple[Table, list[str]]:
    """Runs what is not yet run of a suite, in all columns. Also gives all tests of the suite."""
    began = time.monotonic()
    progress(f"{suite.name}: collecting")
    everything, quick = collect(suite, ways["direct"])
    tests = everything if options.full else draw(quick, suite.sample, options.seed)
    if options.only:
        tests = [test for test in everything if options.only in test]
    kind = "full" if options.full else "sample"
    key = digest_of_build() + ("" if options.full else f" seed {options.seed}")
    names = options.column or suite.columns
    journals = {
        column: Journal(work / f"{suite.name}-{kind}-{column}.jsonl", key, options.keep)
        for column in names
    }
    cut = parts(tests, PART, options.seed)
    for number, part in enumerate(cut, 1):
        if options.minutes and time.monotonic() > began + 60 * options.minutes:
            progress(f"{suite.name}: stopping after part {number - 1} of {len(cut)}")
            break
        for column in names:
            left = [test for test in part if is_left(test, journals[column], options)]
            if suite.endless and not options.only:
                endless = [test for test in left if re.search(suite.endless, test)]
                for test in endless:
                    journals[column].take(test, Result("hung", error="not run: it takes too long"))
                left = [test for test in left if test not in endless]
            if left:
                name = f"{suite.name} {column}, part {number} of {len(cut)}"
                count = Count(name, journals[column], len(left), options.show)
                size = max(20, min(BATCH, len(left) // (4 * options.processes)))
                Run(suite, ways[column], {}, count.take).all(left, options.processes, size)
    ended = {
        column: {test: journal.results[test] for test in tests if test in journal.results}
        for column, journal in journals.items()
    }
    table = Table(suite.name, suite.title, kind, options.seed, len(everything), ended)
    return table, everything


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Runs the tests that clients bring themselves.")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("--full", action="store_true", help="every test, not a sample")
    parser.add_argument("--seed", type=int, default=SEED, help="which sample (%(default)s)")
    parser.add_argument("--column", action="append", help="direct or pool (default: both)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--minutes", type=float, help="begin no further part of a suite after these"
    )
    parser.add_argument("--only", metavar="TEXT", help="the tests with TEXT in their id")
    parser.add_argument("--failed", action="store_true", help="again what failed before")
    parser.add_argument("--accept", action="store_true", help="list failures of known reasons")
    parser.add_argument("--keep", action="store_true", help="go on after the native parts changed")
    parser.add_argument("--show", action="store_true", help="print each failure as it comes")
    options = parser.parse_args(arguments)
    unknown = set(options.suites) - set(SUITES)
    if unknown:
        parser.error(f"no suite {', '.join(sorted(unknown))}: choose of {', '.join(SUITES)}")
    return options


def conclude(
    suite: Suite, table: Table, everything: list[str], options: argparse.Namespace
) -> bool:
    """Keeps and judges the results of all columns; says whether all is as it should be."""
    known = expected.load(suite.name)
    if options.accept:
        for test in known.accept(table):
            print(f"  fits no group: {test}")
        known.save()
    problems = known.problems(table, everything)
    for problem in problems:
        print(f"  {problem}")
    if not options.only:
        table.save()
        report.write()
    return not problems


def main() -> int:
    options = parse()
    # Everything that was started goes also where only this process is told to end.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    right = True
    with columns() as ways:
        for suite in [SUITES[name] for name in options.suites] or SUITES.values():
            table, everything = run(suite, ways, options)
            print(table.summary(), flush=True)
            if not (options.column or options.failed):
                right = conclude(suite, table, everything, options) and right
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
