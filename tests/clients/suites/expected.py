"""Failures that are understood: data with a reason each, held against what a run found.

`expected/SUITE.toml` holds groups:

    [[group]]
    reason = "why these tests do not pass, and what would make them"
    error = "regular expression"   # optional: `run.py --accept` lists such failures here
    steady = false                 # optional: whether they fail depends on the machine's speed
    tests = ["id", ...]

A run of a suite is as it should be if every test that failed is listed, no test differs between
columns, and no listed test passed: an explanation that has become untrue must go. Only a test of a
group that is not steady may pass.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from clients.suites.results import Table

FOLDER = Path(__file__).resolve().parent / "expected"


@dataclass
class Group:
    """Tests that fail for one reason."""

    reason: str
    error: str | None = None
    tests: list[str] = field(default_factory=list)
    steady: bool = True


@dataclass
class Expected:
    """The groups of one suite."""

    suite: str
    groups: list[Group]

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.suite}.toml"

    def reason(self, test: str) -> str | None:
        """Why a test is known to fail; None where it is not."""
        return next((group.reason for group in self.groups if test in group.tests), None)

    def problems(self, table: Table, everything: Collection[str]) -> list[str]:
        """What is wrong with a run, a line each: nothing if all is explained."""
        found = []
        for test, columns in table.failures().items():
            if self.reason(test) is None:
                said = "; ".join(
                    f"{column} {result.outcome}: {result.error}"
                    for column, result in columns.items()
                )
                found.append(f"fails without an explanation: {test} ({said})")
        for test in table.differing():
            found.append(f"differs between {' and '.join(table.ended)}: {test}")
        passed = set.intersection(*(table.passed(column) for column in table.ended))
        for group in self.groups:
            for test in group.tests:
                if test in passed and group.steady:
                    found.append(f'passes, though listed as "{group.reason}": {test}')
                elif test not in everything:
                    found.append(f'is no test, though listed as "{group.reason}": {test}')
        return found

    def accept(self, table: Table) -> list[str]:
        """Lists each new failure in the first group whose pattern its errors match, and forgets
        tests that passed; says which failures fit no group."""
        passed = set.intersection(*(table.passed(column) for column in table.ended))
        for group in self.groups:
            if group.steady:
                group.tests = [test for test in group.tests if test not in passed]
        rest = []
        for test, columns in table.failures().items():
            if self.reason(test) is not None:
                continue
            for group in self.groups:
                pattern = group.error
                if pattern and all(re.search(pattern, one.error) for one in columns.values()):
                    group.tests.append(test)
                    break
            else:
                rest.append(test)
        return rest

    def save(self) -> None:
        lines = ["# Tests that fail, with the reason of each group; see expected.py.", ""]
        for group in self.groups:
            lines.append("[[group]]")
            lines.append(f"reason = {json.dumps(group.reason, ensure_ascii=False)}")
            if group.error:
                lines.append(f"error = {json.dumps(group.error, ensure_ascii=False)}")
            if not group.steady:
                lines.append("steady = false")
            lines.append("tests = [")
            lines += [f"  {json.dumps(test, ensure_ascii=False)}," for test in sorted(group.tests)]
            lines += ["]", ""]
        FOLDER.mkdir(exist_ok=True)
        self.path.write_text("\n".join(lines))


def load(suite: str) -> Expected:
    """The groups of a suite; none where it has no file."""
    path = FOLDER / f"{suite}.toml"
    data = tomllib.loads(path.read_text()) if path.exists() else {}
    return Expected(suite, [Group(**group) for group in data.get("group", [])])
