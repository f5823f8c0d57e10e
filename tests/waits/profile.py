"""What `HARP_STATS=1` says of a program's waits, and `HARP_PROFILE=1` of its calls, read back."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

HEAD = re.compile(r"(?:harp:)? waits: (\d+) that the program did not ask for, of (\d+)")
ROW = re.compile(r"(?:harp:)? +(\d+) x +[\d.]+ ms  (asked)? +(\w+) +(.+)")


@dataclass
class Profile:
    """Why calls of a program waited."""

    unasked: int
    all: int
    asked_for: Counter[str] = field(default_factory=Counter)
    """Waits that the program asked for, by call."""
    others: Counter[tuple[str, str]] = field(default_factory=Counter)
    """The others, by call and reason."""


def profile_of(stderr: str) -> Profile:
    """The profile in what a program with one session has said."""
    head = HEAD.search(stderr)
    assert head is not None, stderr
    found = Profile(int(head[1]), int(head[2]))
    for count, asked, call, reason in ROW.findall(stderr):
        if asked:
            found.asked_for[call] += int(count)
        else:
            found.others[call, reason] += int(count)
    assert found.others.total() == found.unasked, stderr
    assert found.others.total() + found.asked_for.total() == found.all, stderr
    return found


def tables_of(stderr: str) -> dict[str, dict[str, list[float]]]:
    """The tables of `HARP_PROFILE=1`: by title and last column, the numbers of the others."""
    found: dict[str, dict[str, list[float]]] = {}
    for title, body in re.findall(r" \*\* (.+):\n\n((?:.+\n)+)", stderr):
        lines = body.splitlines()
        rules = [index for index, line in enumerate(lines) if set(line) == {" ", "-"}]
        if not rules:
            continue
        columns = len(lines[rules[0]].split())
        rows = (line.split(maxsplit=columns - 1) for line in lines[rules[0] + 1 :])
        whole = (row for row in rows if len(row) == columns and row[0].replace(".", "").isdigit())
        found[title] = {row[-1]: [float(cell) for cell in row[:-1]] for row in whole}
    return found
