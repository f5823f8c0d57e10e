"""Many sessions on one server: whether equal ones get equal shares, and what they do together."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from statistics import fmean

from driven import Driven, ask_all
from measure import MIB, Samples
from report import Row, row
from sides import Sides

from pool.standins import Server

EQUAL = 64
SECONDS = 10
TIMES = 3
KERNELS = 8
"""Sessions that multiply matrices at once, on the cores of one server."""

CONNECTIONS = 4
COPIES, COPY = 8, 64 * MIB
CORES_TO_SPARE = 2 * CONNECTIONS
"""Where each end of each connection has a core, several carry more than one."""


def once(sides: Sides, samples: Samples) -> None:
    with ExitStack() as stack:
        options = ("--max-sessions", str(EQUAL), "--idle-workers", "8")
        log = sides.folder / "many.log"
        server = Server(sides.credentials, sides.environ, log, *options)
        stack.callback(server.stop)

        def start() -> Driven:
            program = sides.in_pool(server)
            stack.callback(program.close)
            return program

        programs = [start() for _ in range(EQUAL)]
        for program in programs:
            program.ask("start")
            program.ask("oneway", 1, 1)
        for _ in range(TIMES):
            # All begin and end at the same time, however long it takes to tell them.
            begin = round(1000 * time.monotonic()) + 2000
            done = ask_all(programs, "fair", 1000 * SECONDS, begin)
            samples.add("fairness", [max(done) / min(done)])
        alone = sum(programs[0].ask("matmul", 256, 16))
        together = ask_all(programs[:KERNELS], "matmul", 256, 16)
        # What all of them have done in the time of the slowest, by what one does alone.
        samples.add("together", [KERNELS * alone / max(together)])
        for copy in ("h2d", "d2h"):
            one = fmean(programs[0].ask(copy, COPY, COPIES))
            rates = ask_all(programs[:CONNECTIONS], copy, COPY, COPIES)
            samples.add(f"connections {copy}", [sum(rates) / COPIES / one])


def rows(samples: Samples) -> list[Row]:
    return [
        row("fairness_64_sessions", samples.median("fairness"), "×", at_most=1.5),
        row("soft_8_sessions_vs_one", samples.median("together"), "×", at_least=0.8),
        *(
            row(
                f"copy_64m_{copy}_{CONNECTIONS}_connections_vs_one",
                samples.median(f"connections {copy}"),
                "×",
                at_least=2 if len(os.sched_getaffinity(0)) >= CORES_TO_SPARE else None,
            )
            for copy in ("h2d", "d2h")
        ),
    ]
