"""Tables as `nsys stats` prints them, and the same for other programs."""

from __future__ import annotations

import csv
import io
import json
import statistics
from array import array
from collections.abc import Sequence
from typing import NamedTuple

from harp_client.errors import printable
from harp_replay.files import utf8

NUMBERED = ("PID", "TID", "DevId")
"""Columns of numbers that are names."""

SPREAD = ("Avg", "Med", "Min", "Max", "StdDev")


Value = int | float | str | None
"""A number, a name, or nothing, where there is none to tell."""


class Table(NamedTuple):
    """Rows under a report's name. The last columns are names, the others numbers."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: list[tuple[Value, ...]]
    note: str = ""
    """What a reader has to know of it; for people only."""


def spread(values: array[int], unit: float = 1) -> tuple[float, ...]:
    """Average, median, least, greatest and standard deviation, in units of `unit`."""
    return (
        statistics.fmean(values) / unit,
        statistics.median(values) / unit,
        min(values) / unit,
        max(values) / unit,
        (statistics.stdev(values) if len(values) > 1 else 0.0) / unit,
    )


def spread_columns(unit: str, of: str = "") -> tuple[str, ...]:
    """The heads of `spread`; `of` stands before each."""
    return tuple(f"{of}{name} ({unit})" for name in SPREAD)


def as_text(table: Table) -> str:
    """For people: numbers to the right, names to the left, as wide as they are."""
    lines = [f" ** {table.title} ({table.name}):", ""]
    if table.rows:
        cells = [list(map(cell, row, table.columns)) for row in table.rows]
        widths = [max(map(len, column)) for column in zip(table.columns, *cells, strict=True)]
        numbers = [not isinstance(value, str) for value in table.rows[0]]
        for row in (table.columns, ["-" * width for width in widths], *cells):
            pairs = zip(row, widths, numbers, strict=True)
            padded = (
                one.rjust(width) if right else one.ljust(width) for one, width, right in pairs
            )
            lines.append(" " + "  ".join(padded).rstrip())
    if table.note or not table.rows:
        lines.append(f" {table.note or 'The trace has nothing for this report.'}")
    return "\n".join(lines) + "\n"


def cell(value: Value, column: str) -> str:
    """A value as people read it in a column of that head."""
    if value is None:
        return ""
    if column in NUMBERED:
        return str(value)
    if isinstance(value, str):
        return printable(value)
    digits = 0 if isinstance(value, int) else 3 if "(MB)" in column else 1
    return f"{value:,.{digits}f}"


def as_csv(table: Table) -> str:
    """As comma-separated values, with a line of heads."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([_rounded(value) for value in row] for row in table.rows)
    return utf8(text.getvalue())


def as_json(tables: Sequence[Table]) -> str:
    """As `nsys stats` does: a list of objects for one table; for several, those lists by name."""
    found = {
        table.name: [
            dict(zip(table.columns, map(_rounded, row), strict=True)) for row in table.rows
        ]
        for table in tables
    }
    return json.dumps(found[tables[0].name] if len(tables) == 1 else found, indent=2) + "\n"


def _rounded(value: Value) -> Value:
    return round(value, 3) if isinstance(value, float) else value
