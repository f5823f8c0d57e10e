"""Which steps of two sequences belong together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

WINDOW = 1_000
"""So far ahead is looked for where two sequences meet again."""


class Part(NamedTuple):
    """Steps of both sequences, [begin, end) each: as many of both if they belong together."""

    together: bool
    a: tuple[int, int]
    b: tuple[int, int]


def align(a: Sequence[int], b: Sequence[int], window: int = WINDOW) -> Iterator[Part]:
    """The parts of two sequences, in order.

    Time goes with the length, and with the square of the window for each difference.
    """
    i = j = 0
    while i < len(a) or j < len(b):
        run = 0
        while i + run < len(a) and j + run < len(b) and a[i + run] == b[j + run]:
            run += 1
        if run:
            yield Part(True, (i, i + run), (j, j + run))
            i, j = i + run, j + run
            continue
        skip_a, skip_b = _meeting(a[i : i + window], b[j : j + window])
        yield Part(False, (i, i + skip_a), (j, j + skip_b))
        i, j = i + skip_a, j + skip_b


def _meeting(a: Sequence[int], b: Sequence[int]) -> tuple[int, int]:
    """How many steps of both lie before the first that belong together again."""
    blocks = SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    first = blocks[0]
    return (first.a, first.b) if first.size else (len(a), len(b))
