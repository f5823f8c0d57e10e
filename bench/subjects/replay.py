"""How fast a recorded program is replayed: launches that a program has made through a server are
sent to that server again, in turn with the program, which nobody records then."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from driven import HARP_RUN, Driven
from measure import Samples
from report import Row, row
from sides import Sides

LAUNCHES = 400_000
"""So many that what comes before them, which is replayed too, takes next to nothing of the time."""

TURNS = 3
"""How often the sides take turns in a round."""

HARP_REPLAY = Path(HARP_RUN[0]).with_name("harp-replay")


def once(sides: Sides, samples: Samples) -> None:
    out = _trace(sides)
    shutil.rmtree(out, ignore_errors=True)
    options = ["--trace", out, "--trace-payload", "images=full"]
    recorded = Driven([*sides.remote(*options), *sides.client], sides.environ)
    recorded.ask("start")
    recorded.ask("launches", LAUNCHES)
    recorded.close()


def measure(sides: Sides, samples: Samples, scale: int) -> None:
    program = sides.in_pool()
    program.ask("start")
    for _ in range(TURNS):
        rate, replayed = program.ask("launches", LAUNCHES)[0], _replayed(sides)
        samples.add("replay program", [LAUNCHES / rate * 1e3])
        samples.add("replay", [replayed["seconds"] * 1e3])
    program.close()


def _trace(sides: Sides) -> Path:
    return sides.folder / "replay.htrace"


def _replayed(sides: Sides) -> dict:
    """The result of a replay in which something was compared and nothing differed."""
    address, user = sides.server.address, sides.credentials.user
    words = [HARP_REPLAY, "run", "--server", address, "--credentials", user]
    words += ["--timing", "fast", "--json", _trace(sides)]
    told = subprocess.run(
        [str(word) for word in words], env=sides.environ, check=True, capture_output=True
    )
    return json.loads(told.stdout)


def rows(samples: Samples) -> list[Row]:
    of = samples.median
    return [row("replay_vs_program", of("replay"), "ms", of("replay program"))]
