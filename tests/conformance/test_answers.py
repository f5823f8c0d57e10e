"""What the driver answers at the edges, against what a real one did.

The record is of a real GPU's driver; where the soft GPU answers otherwise, directly or through the
pool, a list beside it says so and why. Neither may be wrong.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from conformance.columns import Columns

HARDWARE = Path(__file__).resolve().parents[1] / "hardware"
RECORD = HARDWARE / "results" / "answers-580.159.04.txt"
DIFFERENCES = HARDWARE / "results" / "differences-580.159.04.toml"
NUMBERED = ("streams: id of ",)
"""How questions begin whose answers hold numbers that every process gets anew."""


def answers(text: str) -> dict[str, str]:
    """Answers by question; one that comes again in its section has its count behind it."""
    counts: Counter[str] = Counter()
    found = {}
    for line in text.splitlines():
        *question, answer = line.split(": ", 2) if line.count(": ") > 1 else (line, "")
        asked = ": ".join(question)
        counts[asked] += 1
        if counts[asked] > 1:
            asked += f" ({counts[asked]})"
        answer = answer.strip()
        if asked.startswith(NUMBERED):
            answer = answer.partition("=")[0] + "=ID"
        found[asked] = answer
    return found


def listed(column: str) -> dict[str, str]:
    """The answers that are known to be others in this column."""
    groups = tomllib.loads(DIFFERENCES.read_text())["difference"]
    assert all(group["reason"] for group in groups)
    return {
        question: answer
        for group in groups
        if {"local": "direct"}.get(column, column) in group["columns"]
        for question, answer in group["answers"].items()
    }


@pytest.mark.parametrize("column", ["direct", "local", "pool"])
def test_answers_are_a_real_drivers(columns: Columns, column: str) -> None:
    path = os.pathsep.join(filter(None, [str(HARDWARE), os.environ.get("PYTHONPATH")]))
    outcome = columns.run(column, [sys.executable, "-m", "probe"], {"PYTHONPATH": path})
    assert outcome.status == 0, outcome.told()
    recorded, given, differences = (
        answers(RECORD.read_text()),
        answers(outcome.stdout),
        listed(column),
    )
    needless = [q for q, answer in differences.items() if recorded.get(q) == answer]
    assert not needless, f"listed as different and recorded so: {needless}"
    assert differences.keys() <= recorded.keys()
    assert given.keys() == recorded.keys()
    expected = recorded | differences
    wrong = {q: (given[q], expected[q]) for q in expected if given[q] != expected[q]}
    assert not wrong, "\n".join(
        f"{q}: {answer}, expected {wanted}" for q, (answer, wanted) in wrong.items()
    )
