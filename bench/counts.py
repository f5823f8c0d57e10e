"""Counts instructions of short pieces of work, and holds them against those that were committed.

    python bench/counts.py            # fails where a count is more than the tolerance above
    python bench/counts.py --write    # `make bench-counts`: commits to what is counted now

Times say little on a machine that others use; instructions in user space, which valgrind counts,
are the same to some per mille. They depend on compiler and processor, so `counts.json` says on
which they were counted, and elsewhere nothing is compared. Exit status 1: something has become
dearer; 77: nothing could be compared, and why is the last line.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from driven import CHECKOUT, HARP_RUN, build_client, target_folder

from pool.standins import ASKING_NOTHING, Pool, Server, environment

COMMITTED = CHECKOUT / "bench" / "counts.json"
TOLERANCE = 0.03
"""Above that part of a count more is a regression. Counts differ by 0.005 from run to run."""

TRIES = 5
SKIPPED = 77
BATCH = 200
"""Launches in a row: fewer bytes than make the calling thread send them itself."""


@dataclass(frozen=True)
class Counted:
    """A piece of work: `run(times)` is the command that does it so often, `input` what it reads.

    What one costs is the difference of two runs.
    """

    name: str
    run: Callable[[int], Sequence[object]]
    fewer: int
    more: int
    input: Callable[[int], str] = lambda times: ""


@contextmanager
def work(folder: Path) -> Iterator[list[Counted]]:
    """Everything that is counted. A server runs meanwhile, which is not."""
    client = build_client()
    ptx = CHECKOUT / "softgpu" / "engine" / "tests" / "ptx" / "matmul.ptx"
    pool = Pool(folder)
    chain, key = pool.authority.issue_server("counted").issue("counted")
    (folder / "server.pem").write_text(chain)
    (folder / "server.key").write_text(key)
    for name in ("ca.pem", "client.pem", "client.key"):
        shutil.copy(pool.user / name, folder)
    counted = target_folder() / "harp-counted"
    server = Server(pool, environment(folder), folder / "server.log")
    remote = [*HARP_RUN, "--server", server.address, "--credentials", pool.user, "--"]

    def launches(times: int) -> str:
        return f"start\noneway {BATCH} {times // BATCH}\n"

    def frames(size: int) -> Callable[[int], Sequence[object]]:
        return lambda times: (*VALGRIND, counted, "frames", folder, size, times)

    try:
        yield [
            Counted("frame_64", frames(64), 200, 1200),
            Counted("frame_16k", frames(16 << 10), 20, 120),
            Counted("frame_1m", frames(1 << 20), 4, 24),
            Counted(
                "worker_launch",
                lambda times: (*VALGRIND, counted, "launches", folder, times),
                400,
                2000,
            ),
            Counted(
                "interposer_launch",
                lambda _: (*remote, *VALGRIND, "--toggle-collect=cuLaunchKernel", *client),
                10 * BATCH,
                110 * BATCH,
                launches,
            ),
            Counted(
                "soft_launch",
                lambda _: (*HARP_RUN, "--direct", "--", *VALGRIND, *client),
                10 * BATCH,
                30 * BATCH,
                launches,
            ),
            Counted(
                "local_call",
                lambda _: (*HARP_RUN, "--local", "--libcuda", "soft", "--", *VALGRIND, *client),
                10 * BATCH,
                510 * BATCH,
                lambda times: f"start\ncurrent {BATCH} {times // BATCH}\n",
            ),
            Counted(
                "ptx_decode",
                lambda times: (*VALGRIND, counted, "decode", ptx, times),
                1,
                4,
            ),
        ]
    finally:
        server.stop()


VALGRIND = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")


def instructions(command: Sequence[object], given: str, folder: Path) -> int:
    """What one run of a command under valgrind executed."""
    log = folder / "valgrind.log"
    at = next(place for place, word in enumerate(command) if word == VALGRIND[0]) + 1
    words = [*command[:at], f"--log-file={log}", *command[at:]]
    environ = environment(folder) | ASKING_NOTHING | {"HARP_LOG": "quiet", "HARP_SOFT_SERIAL": "1"}
    done = subprocess.run(
        [str(word) for word in words],
        input=given,
        env=environ,
        capture_output=True,
        text=True,
    )
    collected = re.findall(r"Collected : (\d+)", log.read_text() if log.exists() else "")
    if done.returncode != 0 or not collected:
        raise RuntimeError(f"{words}: {done.stderr[-2000:]}")
    return int(collected[-1])


def count(piece: Counted, folder: Path, enough: float) -> int:
    """Instructions of one piece of work; counted anew, up to `TRIES` times, while above `enough`.

    A thread that waits for another executes more the longer it waits, so where a machine is busy
    a run counts more than where it is idle (`soft_launch` up to 5 %), and never less: the least
    of each of both runs is the work itself.
    """
    runs: dict[int, list[int]] = {piece.more: [], piece.fewer: []}
    for _ in range(TRIES):
        for times, counted in runs.items():
            counted.append(instructions(piece.run(times), piece.input(times), folder))
        apart = min(runs[piece.more]) - min(runs[piece.fewer])
        found = round(apart / (piece.more - piece.fewer))
        if found <= enough:
            break
    return found


def conditions() -> dict[str, str]:
    """What counts depend on beside the sources."""

    def version(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    known = flags[1].split() if flags else []
    return {
        "rustc": version("rustc", "--version"),
        "valgrind": version("valgrind", "--version"),
        "libc": version("getconf", "GNU_LIBC_VERSION"),
        "processor": " ".join(name for name in ("aes", "avx2", "bmi2") if name in known),
    }


def differences(then: dict[str, str], now: dict[str, str]) -> str:
    """In what the conditions of the committed counts are others than now; empty: in nothing."""
    differ = (name for name in now if then.get(name) != now[name])
    return ", ".join(f"{name} is {now[name]!r} and not {then.get(name)!r}" for name in differ)


def judged(found: float, committed: float | None) -> tuple[str, bool]:
    """What is said of a count, and whether it is one to complain of."""
    if committed is None:
        return "not committed yet", True
    ratio = found / committed
    if ratio > 1 + TOLERANCE:
        return f"{ratio:.3f} x dearer", True
    if ratio < 1 - TOLERANCE:
        return f"{ratio:.3f} x cheaper: `make bench-counts` keeps it so", False
    return f"{ratio:.3f} x", False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"write {COMMITTED.name}")
    parser.add_argument("--only", action="append", metavar="PIECE", help="count these alone")
    parser.add_argument("--against", type=Path, default=COMMITTED, help="other committed counts")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("nothing is counted: valgrind is missing (Debian, Ubuntu: apt-get install valgrind)")
        return SKIPPED
    now = conditions()
    committed = {"conditions": now, "counts": {}}
    if not options.write:
        committed = json.loads(options.against.read_text())
    if differ := differences(committed["conditions"], now):
        print(
            f"nothing is compared: {differ} as where {options.against.name} was written; "
            "`make bench-counts` writes one here"
        )
        return SKIPPED
    found: dict[str, int] = {}
    complaints = []
    with tempfile.TemporaryDirectory() as name, work(Path(name)) as pieces:
        for piece in pieces:
            if options.only and piece.name not in options.only:
                continue
            before = committed["counts"].get(piece.name)
            enough = -math.inf if before is None else before * (1 + TOLERANCE)
            found[piece.name] = count(piece, Path(name), enough)
            said, bad = judged(found[piece.name], before)
            complaints += [piece.name] if bad else []
            print(f"{piece.name:18} {found[piece.name]:12,} {said}", flush=True)
    if options.write:
        COMMITTED.write_text(json.dumps({"conditions": now, "counts": found}, indent=1) + "\n")
        return 0
    if complaints:
        print(
            f"more than {TOLERANCE:.0%} dearer, or new: {', '.join(complaints)}; find out why, or "
            "commit to what it costs now: `make bench-counts`"
        )
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
