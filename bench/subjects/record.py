"""What recording a program costs it: a one-way call, a launch-bound loop, and memory. Of what is
written its size against the bytes that moved: of launches, and of copies of random bytes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from driven import Driven
from measure import MIB, Samples, undisturbed
from report import Row, row
from sides import Sides

from harp_replay.events import events
from harp_replay.tally import Tally

from .memory import resident

TURNS = 8
"""How often the sides take turns in a round."""

BUDGET_NS = 150
COPIES, COPY = 8, 4 * MIB


def measure(sides: Sides, samples: Samples, scale: int) -> None:
    out = sides.folder / "record.htrace"
    plain, recorded = sides.in_pool(), _recorded(sides, out, "shape")
    for side in (plain, recorded):
        side.ask("start")
    for _ in range(TURNS):
        one_way = [undisturbed(side.ask("oneway", 200, 50 // scale)) for side in (plain, recorded)]
        samples.add("record one way", [one_way[1] - one_way[0]])
        for side, name in ((plain, "plain"), (recorded, "recorded")):
            samples.add(f"launches {name}", side.ask("launches", 100_000 // scale))
    samples.add("recorder_rss_mb", [_recorder_memory(out)])
    samples.add("client_rss_mb recorded", recorded.ask("memory"))
    for side in (plain, recorded):
        side.close()
    samples.add("record lost", [_manifest(out)["counts"]["lost_blocks"]])
    samples.add("record size launches", [_size(out)])
    shutil.rmtree(out)
    for payload in ("shape", "full"):
        copying = _recorded(sides, out, payload)
        copying.ask("start")
        copying.ask("h2d", COPY, COPIES)
        copying.close()
        samples.add(f"record size {payload}", [_size(out)])
        shutil.rmtree(out)


def _recorded(sides: Sides, out: Path, payload: str) -> Driven:
    options = ["--trace", out, "--trace-payload", payload]
    return Driven([*sides.remote(*options), *sides.client], sides.environ)


def _manifest(out: Path) -> dict:
    return json.loads((out / "MANIFEST.json").read_text())


def _size(out: Path) -> float:
    """A trace's bytes on disk by those that its calls and their replies had on the wire."""
    written = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    tally = Tally().count(events(str(out)))
    return written / (tally.sent + tally.received)


def _recorder_memory(out: Path) -> float:
    """Of the recorder that writes `out`."""
    for process in Path("/proc").iterdir():
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[1:2] == [b"record"] and str(out).encode() in words:
            return resident(int(process.name))
    raise RuntimeError("no recorder is running")


def rows(samples: Samples) -> list[Row]:
    of = samples.median
    added = of("record one way")
    return [
        row("record_shape_one_way_added_ns", added, "ns", at_most=BUDGET_NS),
        row(
            "record_shape_throughput",
            of("launches recorded"),
            "1/s",
            of("launches plain"),
            at_least=0.9,
        ),
        row("record_lost_blocks", max(samples.found["record lost"]), "blocks", at_most=0),
        row("record_client_rss_mb", of("client_rss_mb recorded"), "MiB", at_most=80),
        row("record_recorder_rss_mb", of("recorder_rss_mb"), "MiB", at_most=80),
        row("record_full_size_vs_moved", of("record size full"), "×", at_most=1.1),
        row("record_shape_size_vs_moved", of("record size shape"), "×"),
        row("record_launches_size_vs_moved", of("record size launches"), "×"),
    ]
