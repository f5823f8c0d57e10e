"""What a suite of a client's own tests is, and which of its tests a sample holds."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

SEED = 3
"""Which sample is drawn where nobody says otherwise: the CI's."""


@dataclass(frozen=True)
class Sample:
    """How many tests of each file a sample holds: a share, but not fewer and not more than this."""

    share: float
    fewest: int = 1
    most: int = 1000

    def size(self, tests: int) -> int:
        """Of a file with so many tests."""
        return min(tests, max(self.fewest, min(self.most, ceil(self.share * tests))))


@dataclass(frozen=True)
class Suite:
    """The tests that a client brings itself, and what they need to run under pytest."""

    name: str
    """As on the command line and in the names of its data."""

    title: str
    """As in a heading: the client with its version, and CUDA's."""

    python: Callable[[], Path]
    """Makes the client's environment where it is missing; the path of its Python."""

    root: Callable[[], Path]
    """Makes the folder with the tests where it is missing. They run there, and the ids of tests are
    relative to it."""

    paths: tuple[str, ...]
    """What to collect, relative to `root`."""

    sample: Sample
    """What the CI runs."""

    environ: Callable[[], Mapping[str, str]] = dict
    """Variables that the tests need beside those of every suite."""

    arguments: tuple[str, ...] = ()
    """More arguments for pytest."""

    seconds: float = 120.0
    """Longest that one test may take; one that takes longer counts as hanging."""

    columns: tuple[str, ...] = ("direct", "pool")
    """The ways to run it (see `conformance.columns`); results are compared between them."""

    endless: str = ""
    """A pattern: tests with it in their ids take longer than `seconds` wherever there is no GPU.
    They count as hung without being run, except where `--only` names them."""

    excluded: Mapping[str, str] = field(default_factory=dict)
    """Prefixes of ids that are not collected at all, each with its reason."""


def file_of(test: str) -> str:
    """The file part of a test's id."""
    return test.partition("::")[0]


def by_file(tests: Iterable[str]) -> dict[str, list[str]]:
    """The tests of each file, both in the order of collection."""
    found: dict[str, list[str]] = defaultdict(list)
    for test in tests:
        found[file_of(test)].append(test)
    return dict(found)


def draw(tests: Iterable[str], sample: Sample, seed: int = SEED) -> list[str]:
    """The sample that `seed` draws, in the order of collection: some tests of every file.

    Each test's rank depends on its own id and the seed alone, so a test that is added or removed
    changes nothing for the others of its file but one place.
    """
    chosen: list[str] = []
    for found in by_file(tests).values():
        drawn = set(shuffled(found, seed)[: sample.size(len(found))])
        chosen += [test for test in found if test in drawn]
    return chosen


def shuffled(tests: Iterable[str], seed: int = SEED) -> list[str]:
    """All tests in the order that `seed` gives each of them by its id alone."""
    return sorted(tests, key=lambda test: hashlib.sha256(f"{seed} {test}".encode()).digest())


def parts(tests: Sequence[str], size: int, seed: int = SEED) -> list[list[str]]:
    """The tests in random parts, each in the order of collection: what stops early was a sample."""
    place = {test: index for index, test in enumerate(tests)}
    mixed = shuffled(tests, seed)
    cut = [mixed[start : start + size] for start in range(0, len(mixed), size)]
    return [sorted(part, key=place.__getitem__) for part in cut]
