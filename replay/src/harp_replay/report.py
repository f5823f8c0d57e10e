"""`harp-replay report`: a trace as one page of HTML that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterator, Sequence
from importlib import resources

import click

from harp_client.errors import printable
from harp_replay.events import events
from harp_replay.files import written
from harp_replay.info import page_of, shortened, summary
from harp_replay.network import Model, Network, Recorded
from harp_replay.slices import Slices
from harp_replay.stats import cuda_api_sum, cuda_gpu_kern_sum, cuda_gpu_mem_size_sum
from harp_replay.tables import Table, cell
from harp_replay.tally import ASKED, Tally
from harp_replay.timeline import Calls, Timeline

ROUND_TRIPS_MS = (0.1, 1, 10, 30)
"""For which the page says what the waits would cost."""

ROWS = 30
"""So many rows a table of the page has."""

NAME = 120
"""So many characters of a name."""


@click.command()
@click.argument("trace", type=click.Path(exists=True))
@click.option("-o", "--output", metavar="FILE", default="report.html", show_default=True)
def report(trace: str, output: str) -> None:
    """Write a page about TRACE: its timeline, its kernels and calls, and where it waited.

    The page is one file of HTML and loads nothing from anywhere.

    \b
    Examples:
      harp-replay report out.htrace
      harp-replay report out.htrace -o monday.html
    """
    tally, recorded, calls = Tally(), Recorded(), Calls()
    for event in events(trace):
        tally.take(event)
        recorded.take(event)
        calls.take(event)
    here = Network(recorded.round_trip)
    models = [Model(Network(trip * 1e6), here, recorded.pace) for trip in ROUND_TRIPS_MS]
    timeline, slices = Timeline(calls), Slices()
    for event in events(trace):
        slices.add(timeline.draw(event))
        for model in models:
            model.take(event)
    slices.close()
    with written(output) as file:
        file.writelines(page(tally, slices, recorded, models))
    click.echo(f"{output}: open it in a browser")


def page(
    tally: Tally, slices: Slices, recorded: Recorded, models: Sequence[Model]
) -> Iterator[str]:
    """The page, piece by piece."""
    style, script = _file("page.css"), _file("page.js")
    found = summary(tally)
    title = printable(f"{found['program'] or 'a program'}: trace")
    # Even if a name of the trace got out of its place here, the browser would run nothing of it.
    policy = f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    yield "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n"
    yield f'<meta http-equiv=Content-Security-Policy content="{policy}">\n'
    yield "<meta name=viewport content='width=device-width'>\n"
    yield f"<title>{text(title)}</title>\n<style>{style}</style>\n<body>\n"
    yield f"<h1>{text(title)}</h1>\n<dl>\n"
    for name, words in page_of(found):
        kind = " class=bad" if name in ("lost", "not supported") else ""
        yield f"<dt>{text(name)}</dt><dd{kind}>{text(words)}</dd>\n"
    yield "</dl>\n"
    yield from _timeline(slices)
    yield from _waits(tally, recorded, models)
    for heading, table in (
        ("Kernels", cuda_gpu_kern_sum(tally)),
        ("Driver API calls", cuda_api_sum(tally)),
        ("Copies and fills", cuda_gpu_mem_size_sum(tally)),
    ):
        yield f"<h2>{heading}</h2>\n"
        yield from _table(table)
    data = json.dumps(slices.data(), separators=(",", ":")).replace("<", "\\u003c")
    yield f'<script type="application/json" id=data>{data}</script>\n'
    yield f"<script>{script}</script>\n</html>\n"


def _file(name: str) -> str:
    return resources.files("harp_replay").joinpath(name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def text(words: str) -> str:
    """Words of a trace, as text of HTML."""
    return html.escape(printable(words))


def _timeline(slices: Slices) -> Iterator[str]:
    yield "<h2>Timeline</h2>\n<p class='soft key'><span>driver API call</span>"
    yield "<span class=wait>wait for the server</span><span class=device>device</span>"
    yield "<span class=queued>queued</span></p>\n"
    yield "<div id=timeline><canvas tabindex=0 role=img aria-label='Timeline of calls, waits and "
    yield "kernels'></canvas><div id=tip hidden></div></div>\n"
    yield "<p class=soft>Wheel or + and − zoom, dragging or arrows move, a double click or 0 "
    yield "shows all."
    if slices.left_out:
        yield f" The {slices.left_out:,} shortest marks are left out."
    yield "</p>\n"


def _waits(tally: Tally, found: Recorded, models: Sequence[Model]) -> Iterator[str]:
    """Where the program waited, and what that would cost elsewhere."""
    yield "<h2>Where it waited</h2>\n"
    recorded = found.round_trip / 1e6
    heads = ["Waits", "Total (ms)", *(f"at {trip} ms" for trip in ROUND_TRIPS_MS), "", "Because"]
    yield f"<p class=soft>The round trip is taken for {recorded:.3f} ms, "
    yield (
        "as the session was told. "
        if found.told == found.round_trip
        else ("in which the soonest answer came. ")
    )
    yield "Columns “at … ms” say what the same waits would take there: one round trip each.</p>\n"
    rows: list[list[str]] = []
    total_ms = 0.0
    by_reason: dict[str, list[int]] = {}
    for (because, _), times in tally.waits.items():
        counted = by_reason.setdefault(because, [0, 0])
        counted[0] += len(times)
        counted[1] += sum(times)
    for because, (count, total) in sorted(by_reason.items(), key=lambda item: -item[1][1]):
        numbers = [float(count), total / 1e6, *elsewhere(count, total / 1e6, recorded)]
        total_ms += total / 1e6
        asked = "asked for" if because in ASKED else ""
        rows.append([*_numbers(numbers), asked, tally.reason(because)])
    yield from _grid(heads, rows, 2)
    if rows:
        runs = [
            f"{model.time / 1e6:,.1f} ms at {trip} ms"
            for trip, model in zip(ROUND_TRIPS_MS, models, strict=True)
        ]
        yield f"<p>All waits together: {total_ms:,.1f} ms of the run's {tally.last / 1e6:,.1f} ms. "
        yield f"The run would take {', '.join(runs)} (harp-replay predict).</p>\n"


def elsewhere(count: int, total_ms: float, recorded_ms: float) -> list[float]:
    """What so many waits would take at each of `ROUND_TRIPS_MS`: none less than the round trip."""
    return [
        max(total_ms + count * (trip - recorded_ms), count * trip if trip > recorded_ms else 0.0)
        for trip in ROUND_TRIPS_MS
    ]


def _numbers(numbers: Sequence[float]) -> list[str]:
    return [f"{numbers[0]:,.0f}", *(f"{number:,.2f}" for number in numbers[1:])]


def _table(table: Table) -> Iterator[str]:
    shown: list[list[str]] = []
    names = sum(isinstance(value, str) for value in table.rows[0]) if table.rows else 1
    for row in table.rows[:ROWS]:
        shown.append(list(map(cell, row, table.columns)))
    yield from _grid(table.columns, shown, names)
    if len(table.rows) > ROWS:
        yield f"<p class=soft>… and {len(table.rows) - ROWS:,} more: harp-replay stats.</p>\n"
    if table.note:
        yield f"<p class=soft>{text(table.note)}</p>\n"


def _name(words: str) -> str:
    """A name; of a long one what it begins with, which opens to all of it."""
    if len(words) <= NAME:
        return text(words)
    begin = text(shortened(words, NAME))
    return f"<details><summary>{begin}</summary>{text(words)}</details>"


def _grid(heads: Sequence[str], rows: Sequence[Sequence[str]], names: int) -> Iterator[str]:
    """A table whose last `names` columns are words."""
    if not rows:
        yield "<p>None.</p>\n"
        return
    first = len(heads) - names
    yield "<div class=scroll><table>\n<tr>"
    for place, head in enumerate(heads):
        yield f"<th{' class=name' if place >= first else ''}>{text(head)}"
    yield "\n"
    for row in rows:
        yield "<tr>"
        for place, words in enumerate(row):
            yield f"<td class=name>{_name(words)}" if place >= first else f"<td>{text(words)}"
        yield "\n"
    yield "</table></div>\n"
