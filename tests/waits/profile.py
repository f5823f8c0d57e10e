"""What `HARP_STATS=1` says of a program's waits, read back."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

HEAD = re.compile(r"harp: waits: (\d+) that the program did not ask for, of (\d+)")
ROW = re.compile(r"harp: +(\d+) x +[\d.]+ ms  (asked)? +(\w+) +(.+)")


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
