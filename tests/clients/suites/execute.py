"""Runs tests of a suite in one column, in processes that may crash and hang without harm.

Tests go to processes in batches. What happens is read from the file that the recorder inside the
process writes: a test that has begun and whose process ended, or that takes longer than it may, is
the one to blame; the rest of its batch goes on in a new process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from clients.suites.suite import Suite, by_file, file_of
from clients.toolkit import CACHE, HERE, prepare_once, unpack

INSIDE = HERE / "suites" / "inside"
HARNESS = HERE / "requirements-suites.txt"

BATCH = 250
"""Tests that one process runs at most: new processes cost seconds, old ones grow."""

START_SECONDS = 300.0
"""Longest that a process may take to collect its tests before the first begins."""

DEVICES = {"HARP_SOFT_DEVICES": "2", "HARP_SOFT_MEMORY": "4GiB", "HARP_SOFT_THREADS": "2"}
"""What the soft GPU looks like to every suite."""


@dataclass
class Result:
    """How one test ended in one column."""

    outcome: str
    """passed, failed, crashed, hung, skipped or xfailed (the client itself expects a failure)."""

    seconds: float = 0.0
    error: str = ""
    """The error in one line, or why the test was skipped."""

    told: str = ""
    """All that pytest said about a failure; for the working files, not for the results."""

    @property
    def bad(self) -> bool:
        return self.outcome in ("failed", "crashed", "hung")


def harness() -> Path:
    """The folder with pytest, which goes before the client's own packages on the path."""
    wanted = HARNESS.read_bytes()
    name = f"harness-{hashlib.sha256(wanted).hexdigest()[:8]}"
    return prepare_once(CACHE / "suites" / name, wanted, lambda place: unpack(HARNESS, place))


def environ(suite: Suite) -> dict[str, str]:
    """The environment of every process of a suite, without what depends on its column."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("XDG_", "CUDA_", "CUPY_", "NUMBA_", "PYTEST_", "PYTHON"))
    }
    for name in ("HARP_SERVER", "HARP_CREDENTIALS", "HARP_CONTEXT", "HARP_CONFIG"):
        kept.pop(name, None)
    return {
        **kept,
        **DEVICES,
        "PYTHONPATH": f"{harness()}:{INSIDE}",
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OPENBLAS_NUM_THREADS": "1",
        **suite.environ(),
    }


def pytest_command(suite: Suite, paths: Sequence[str], *options: object) -> list[str]:
    """pytest in the client's Python, with the recorder."""
    command = [suite.python(), "-m", "pytest", "-p", "no:cacheprovider", "-p", "harp_recorder"]
    return [str(word) for word in [*command, "-q", *suite.arguments, *options, *paths]]


def collect(suite: Suite, wrapper: Sequence[str]) -> tuple[list[str], list[str]]:
    """The ids of all of a suite's tests, and of those that are not marked as slow."""
    with tempfile.TemporaryDirectory(prefix="harp-suite-") as folder:
        record = Path(folder, "record")
        done = subprocess.run(
            [
                *wrapper,
                *pytest_command(suite, suite.paths, "--record-to", record, "--record-collection"),
            ],
            cwd=suite.root(),
            env=environ(suite),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        lines = [json.loads(line) for line in record.read_text().splitlines()]
    broken = [f"{line['uncollected']}: {line['error']}" for line in lines if "uncollected" in line]
    tests = [test for line in lines for test in line.get("collected", ())]
    if broken or not tests:
        said = "\n".join(broken) or f"{done.stdout}\n{done.stderr}"
        raise SystemExit(f"{suite.name}: pytest could not collect its tests:\n{said[-4000:]}")
    tests = [test for test in tests if not test.startswith(tuple(suite.excluded))]
    slow = {test for line in lines for test in line.get("slow", ())}
    return tests, [test for test in tests if test not in slow]


def batches(tests: Sequence[str], size: int = BATCH) -> Iterator[list[str]]:
    """The tests in the order of collection, cut so that a process imports few files."""
    batch: list[str] = []
    for found in by_file(tests).values():
        if batch and len(batch) + len(found) > size:
            yield batch
            batch = []
        for start in range(0, len(found), size):
            part = found[start : start + size]
            if len(batch) + len(part) > size:
                yield batch
                batch = []
            batch = batch + part
    if batch:
        yield batch


class Run:
    """Runs batches of one suite in one column and hands each result on as it comes."""

    def __init__(
        self,
        suite: Suite,
        wrapper: Sequence[str],
        more: Mapping[str, str],
        take: Callable[[str, Result], None],
    ) -> None:
        self.suite = suite
        self.wrapper = list(wrapper)
        self.environ = {**environ(suite), **more}
        self.root = suite.root()
        self.take = take
        self.stopped = threading.Event()

    def all(self, tests: Sequence[str], processes: int, size: int = BATCH) -> None:
        """Runs all tests in so many processes at a time."""
        with ThreadPoolExecutor(processes) as threads:
            try:
                for _ in threads.map(self.batch, batches(tests, size)):
                    pass
            except BaseException:
                self.stopped.set()
                threads.shutdown(cancel_futures=True)
                raise

    def batch(self, tests: list[str]) -> None:
        """Runs tests in as many processes as it takes, one after another."""
        left = tests
        while left and not self.stopped.is_set():
            with tempfile.TemporaryDirectory(prefix="harp-suite-") as folder:
                ended = self._process(left, Path(folder))
            left = [test for test in left if test not in ended]

    def _process(self, tests: list[str], folder: Path) -> set[str]:
        """Runs tests in one process until it ends; says which of them are over."""
        chosen, record, output = folder / "tests", folder / "record", folder / "output"
        chosen.write_text("\n".join(tests))
        record.touch()
        paths = list(dict.fromkeys(file_of(test) for test in tests))
        options = ["--record-to", record, "--record-tests", chosen]
        with output.open("wb") as stream:
            process = subprocess.Popen(
                [*self.wrapper, *pytest_command(self.suite, paths, *options)],
                cwd=self.root,
                env={**self.environ, "TMPDIR": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        watch = Watch(record, self.take)
        hung = False
        try:
            while process.poll() is None:
                watch.read()
                limit = self.suite.seconds if watch.running else START_SECONDS
                if self.stopped.is_set() or (hung := time.monotonic() - watch.since > limit):
                    break
                time.sleep(0.05)
        finally:
            kill(process)
            watch.close()
        if self.stopped.is_set():
            return watch.ended
        said = last_line(output.read_text(errors="replace"))
        if watch.running:
            outcome = "hung" if hung else "crashed"
            how = f"no end after {limit:.0f} s" if hung else ending(process.returncode)
            watch.end(watch.running, Result(outcome, error=f"{how}: {said}"))
        elif not watch.ended:
            for test in tests:
                error = f"the process ended before any test began: {said}"
                watch.end(test, Result("crashed", error=error))
        return watch.ended


class Watch:
    """Follows what a recorder writes."""

    def __init__(self, record: Path, take: Callable[[str, Result], None]) -> None:
        self.file = record.open()
        self.take = take
        self.rest = ""
        self.running: str | None = None
        self.ended: set[str] = set()
        self.since = time.monotonic()

    def read(self) -> None:
        """Takes note of all whole lines that are new."""
        *lines, self.rest = (self.rest + self.file.read()).split("\n")
        for line in map(json.loads, lines):
            self.since = time.monotonic()
            if "start" in line:
                self.running = line["start"]
            elif "end" in line:
                test = line.pop("end")
                self.end(test, Result(**line))

    def close(self) -> None:
        """Takes the last lines, and no more."""
        self.read()
        self.file.close()

    def end(self, test: str, result: Result) -> None:
        self.running = None
        if test not in self.ended:
            self.ended.add(test)
            self.take(test, result)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Ends a process with all that it started in its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def ending(status: int) -> str:
    """An exit status in words; `harp-run` ends with 128 and the signal that ended its program."""
    number = -status if status < 0 else status - 128
    try:
        return f"ended by {signal.Signals(number).name}"
    except ValueError:
        return f"ended with status {status}"


def last_line(output: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in output.splitlines() if re.search(r"\w", line)]
    return lines[-1][:200] if lines else "it said nothing"
