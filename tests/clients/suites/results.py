"""What a run of a suite came to: counts, and every test that did not pass."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients.suites.execute import Result
from clients.toolkit import CHECKOUT

FOLDER = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Table:
    """The results of one suite in its columns."""

    suite: str
    title: str
    kind: str
    """"sample" or "full": what was really run."""

    seed: int
    collected: int
    """Tests that the suite has."""

    ended: dict[str, dict[str, Result]]
    """By column, by test."""

    def passed(self, column: str) -> set[str]:
        return {test for test, result in self.ended[column].items() if result.outcome == "passed"}

    def failures(self) -> dict[str, dict[str, Result]]:
        """By test, by column: the tests that failed anywhere."""
        found: dict[str, dict[str, Result]] = {}
        for column, ended in self.ended.items():
            for test, result in ended.items():
                if result.bad:
                    found.setdefault(test, {})[column] = result
        return found

    def differing(self) -> list[str]:
        """Tests that pass in one column and not in another that ran them too."""
        ran = set.intersection(*(set(ended) for ended in self.ended.values()))
        passed = [self.passed(column) & ran for column in self.ended]
        return sorted(set.union(*passed) - set.intersection(*passed))

    def summary(self) -> str:
        """One line."""
        parts = []
        for column, ended in self.ended.items():
            count = Counter(result.outcome for result in ended.values())
            share = 100 * count["passed"] / max(1, len(ended))
            rest = ", ".join(f"{n} {outcome}" for outcome, n in count.most_common())
            parts.append(f"{column} {count['passed']} of {len(ended)} ({share:.1f} %: {rest})")
        what = f"{self.kind} of {self.collected}"
        return f"{self.suite} ({what}): {'; '.join(parts)}; differing {len(self.differing())}"

    def as_data(self) -> dict[str, Any]:
        """For the file."""
        counts = {
            column: {
                "run": len(ended),
                **Counter(result.outcome for result in ended.values()),
                "seconds": round(sum(result.seconds for result in ended.values())),
            }
            for column, ended in self.ended.items()
        }
        return {
            "suite": self.suite,
            "title": self.title,
            "kind": self.kind,
            "seed": self.seed if self.kind == "sample" else None,
            "collected": self.collected,
            "columns": counts,
            "differing": self.differing(),
            "failures": {
                test: {
                    column: {"outcome": result.outcome, "error": without_places(result.error)}
                    for column, result in columns.items()
                }
                for test, columns in sorted(self.failures().items())
            },
        }

    def save(self) -> Path:
        FOLDER.mkdir(exist_ok=True)
        path = FOLDER / f"{self.suite}-{self.kind}.json"
        path.write_text(json.dumps(self.as_data(), indent=1, ensure_ascii=False) + "\n")
        return path


def without_places(error: str) -> str:
    """An error without the folders of the machine that it was found on."""
    temporary = rf"{re.escape(tempfile.gettempdir())}/harp-suite-\w+"
    return re.sub(temporary, "TMPDIR", error.replace(f"{CHECKOUT}/", ""))
