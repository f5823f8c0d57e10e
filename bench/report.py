"""The rows of a run, with the budgets they are held against, as JSON and as a table."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass
class Row:
    """One measurement. `ratio` is value against baseline where there is one, `ok` is None where
    there is no budget."""

    name: str
    value: float
    unit: str
    baseline: float | None
    ratio: float | None
    budget: str | None
    ok: bool | None


def row(
    name: str,
    value: float,
    unit: str,
    baseline: float | None = None,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Row:
    """A row whose budget bounds the ratio where there is a baseline, else the value."""
    ratio = value / baseline if baseline else None
    judged = value if ratio is None else ratio
    shown = "" if ratio is None else " ×"
    budget = ok = None
    if at_most is not None:
        budget, ok = f"≤ {at_most:g}{shown}", judged <= at_most
    elif at_least is not None:
        budget, ok = f"≥ {at_least:g}{shown}", judged >= at_least
    return Row(name, value, unit, baseline, ratio, budget, ok)


def number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def markdown(found: list[Row]) -> str:
    """The rows as a table."""
    lines = ["| what | measured | baseline | ratio | budget | |", "|---|---|---|---|---|---|"]
    for each in found:
        baseline = f"{number(each.baseline)} {each.unit}" if each.baseline else ""
        ratio = "" if each.ratio is None else f"{each.ratio:.2f} ×"
        verdict = "" if each.ok is None else "ok" if each.ok else "**over**"
        measured = f"{number(each.value)} {each.unit}"
        cells = (f"`{each.name}`", measured, baseline, ratio, each.budget or "", verdict)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def save(found: list[Row], machine: str, out: Path, page: Path) -> None:
    """Writes `latest.json`, and the table between the page's marks."""
    out.write_text(json.dumps([asdict(each) for each in found], indent=1) + "\n")
    table = f"<!-- measured: make bench -->\n{machine}\n\n{markdown(found)}<!-- end -->"
    text = page.read_text()
    page.write_text(re.sub(r"<!-- measured.*?<!-- end -->", lambda _: table, text, flags=re.DOTALL))
