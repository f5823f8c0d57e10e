"""Measures this tree beside another state of it, and says what has become faster or slower.

    python bench/compare.py BASE [--rounds N]     # `make bench-compare BASE=v0.1`; BASE: a git ref

Both are built for release, each in a target folder of its own; BASE in a work tree that is removed
in the end. Both run at once, each with its server, driven by this tree's measuring client in turn:
base, this, this, base. A round gives each row one ratio, which neither a drift of the machine nor
what comes first moves; the mean of their logarithms and its spread (Student's t) give the interval.
Exit status 1: a row is slower beyond it.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from driven import CHECKOUT, HARP_RUN, Driven, build_client
from measure import KIB, MIB, timed

from pool.standins import ASKING_NOTHING, Pool, Server, environment

CONFIDENCE = 0.99
"""Of each interval."""
LEAST = 0.02
"""A difference below it is none, however sure."""

# fmt: off
STUDENT = (
    63.66, 9.92, 5.84, 4.60, 4.03, 3.71, 3.50, 3.36, 3.25, 3.17, 3.11, 3.05, 3.01, 2.98, 2.95,
)
# fmt: on
"""Student's t for that confidence, by degrees of freedom from 1; the last one serves beyond."""


class Side:
    """One state of the tree: its server, the measuring client in its pool and on its soft GPU."""

    def __init__(self, tree: Path, folder: Path, client: list[Path], stack: ExitStack) -> None:
        parts = ("client", "server", "scheduler", "proto")
        path = os.pathsep.join(str(tree / part / "src") for part in parts)
        folder.mkdir()
        self.environ = environment(folder) | ASKING_NOTHING | {"PYTHONPATH": path}
        self.client = client
        credentials = Pool(folder)
        server = Server(credentials, self.environ, folder / "log", "--idle-workers", "2")
        stack.callback(server.stop)
        self.harp_run = [*HARP_RUN, "--server", server.address, "--credentials", credentials.user]
        self.pool = self._start([*self.harp_run, "--"])
        stack.callback(self.pool.close)
        self.direct = self._start([*HARP_RUN, "--direct", "--"])
        stack.callback(self.direct.close)
        for program in (self.pool, self.direct):
            program.ask("start")

    def _start(self, before: list[object]) -> Driven:
        return Driven([*before, *self.client], self.environ)

    def first_call(self) -> list[float]:
        """Milliseconds of a fresh program's first call."""
        fresh = self._start([*self.harp_run, "--"])
        found = fresh.ask("start")
        fresh.close()
        return found

    def nothing(self) -> list[float]:
        """Milliseconds of `harp-run true`."""
        words = [str(word) for word in (*self.harp_run, "--", "true")]
        return timed(lambda: subprocess.run(words, env=self.environ, check=True))


@dataclass(frozen=True)
class Compared:
    """A row: how a side measures it once, and whether more is better."""

    name: str
    measure: Callable[[Side], list[float]]
    more_is_better: bool = False


ROWS = (
    Compared("oneway_call", lambda side: side.pool.ask("oneway", 200, 100)),
    Compared("launches", lambda side: side.pool.ask("launches", 100_000), True),
    Compared("launches_direct", lambda side: side.direct.ask("launches", 100_000), True),
    Compared("waiting_call", lambda side: side.pool.ask("wait", 2000)),
    Compared("synchronize", lambda side: side.pool.ask("synchronize", 2000)),
    Compared("copy_64k_h2d", lambda side: side.pool.ask("h2d", 64 * KIB, 100), True),
    Compared("copy_64k_d2h", lambda side: side.pool.ask("d2h", 64 * KIB, 100), True),
    Compared("copy_1m_h2d", lambda side: side.pool.ask("h2d", MIB, 30), True),
    Compared("copy_1m_d2h", lambda side: side.pool.ask("d2h", MIB, 30), True),
    Compared("copy_64m_h2d", lambda side: side.pool.ask("h2d", 64 * MIB, 2), True),
    Compared("copy_64m_d2h", lambda side: side.pool.ask("d2h", 64 * MIB, 2), True),
    Compared("first_call", Side.first_call),
    Compared("harp_run_true", Side.nothing),
    Compared("soft_saxpy", lambda side: side.direct.ask("saxpy", 4 * MIB, 3)),
    Compared("soft_matmul", lambda side: side.direct.ask("matmul", 512, 3)),
)


def cost(row: Compared, side: Side) -> float:
    """The logarithm of what a row costs now: more is slower."""
    found = math.log(statistics.median(row.measure(side)))
    return -found if row.more_is_better else found


def one_round(row: Compared, base: Side, this: Side) -> float:
    """The logarithm of this side's cost by the base's."""
    first, second, third, fourth = (cost(row, side) for side in (base, this, this, base))
    return (second + third - first - fourth) / 2


@dataclass(frozen=True)
class Verdict:
    """The cost of this tree by the base's: below 1 is faster."""

    ratio: float
    low: float
    high: float

    @property
    def said(self) -> str:
        if self.low > 1 and self.ratio > 1 + LEAST:
            return "slower"
        if self.high < 1 and self.ratio < 1 - LEAST:
            return "faster"
        return "no difference"


def verdict(logarithms: list[float]) -> Verdict:
    """The mean of paired ratios, with its interval of confidence. There must be two at least."""
    mean = statistics.fmean(logarithms)
    student = STUDENT[min(len(logarithms) - 1, len(STUDENT)) - 1]
    margin = student * statistics.stdev(logarithms) / math.sqrt(len(logarithms))
    return Verdict(math.exp(mean), math.exp(mean - margin), math.exp(mean + margin))


def progress(text: str) -> None:
    print(f"[compare] {text}", file=sys.stderr, flush=True)


@contextmanager
def base_tree(ref: str) -> Iterator[Path]:
    """A work tree of a git ref, built; it is removed in the end."""
    commit = git("rev-parse", "--verify", f"{ref}^{{commit}}")
    above = CHECKOUT / "build"
    above.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="base-", dir=above))
    try:
        git("worktree", "add", "--detach", str(folder / "tree"), commit)
        progress(f"building {ref} ({commit[:10]})")
        build(folder / "tree")
        yield folder / "tree"
    finally:
        shutil.rmtree(folder)
        git("worktree", "prune")


def git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=CHECKOUT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"git {words[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def build(tree: Path) -> None:
    """Into the tree's own target folder, where its commands look for what was built."""
    environ = {name: value for name, value in os.environ.items() if name != "CARGO_TARGET_DIR"}
    command = ["cargo", "build", "--release", "--locked", "--quiet"]
    subprocess.run(command, cwd=tree, env=environ, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", help="the git ref to compare with")
    parser.add_argument("--rounds", type=int, default=10)
    names = [row.name for row in ROWS]
    parser.add_argument("--only", action="append", choices=names, metavar="ROW")
    options = parser.parse_args()
    rounds = max(2, options.rounds)
    rows = [row for row in ROWS if not options.only or row.name in options.only]
    progress("building this tree")
    build(CHECKOUT)
    client = build_client()
    found: dict[str, list[float]] = {row.name: [] for row in rows}
    with base_tree(options.base) as tree, ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        base = Side(tree, folder / "base", client, stack)
        this = Side(CHECKOUT, folder / "this", client, stack)
        for number in range(1, rounds + 1):
            progress(f"round {number} of {rounds}")
            for row in rows:
                found[row.name].append(one_round(row, base, this))
    slower = []
    print(f"cost by that of {options.base}, and where it lies with {CONFIDENCE:.0%} confidence")
    for name, logarithms in found.items():
        of = verdict(logarithms)
        print(f"{name:18} {of.ratio:6.3f} x   {of.low:6.3f} … {of.high:6.3f}   {of.said}")
        if of.said == "slower":
            slower.append(name)
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
