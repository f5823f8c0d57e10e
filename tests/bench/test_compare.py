"""What `make bench-compare` says of rounds of paired ratios."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def compare():
    sys.path.insert(0, str(BENCH))
    try:
        import compare as module
    finally:
        sys.path.remove(str(BENCH))
    return module


def rounds(*ratios: float) -> list[float]:
    return [math.log(ratio) for ratio in ratios]


def test_a_row_is_slower_or_faster_only_beyond_its_noise(compare) -> None:
    said = lambda *ratios: compare.verdict(rounds(*ratios)).said  # noqa: E731
    assert said(1.10, 1.09, 1.11, 1.10) == "slower"
    assert said(0.90, 0.91, 0.89, 0.90) == "faster"
    assert said(1.30, 0.95, 1.20, 0.92) == "no difference"
    # Sure, and too little to matter.
    assert said(1.010, 1.011, 1.009, 1.010) == "no difference"


def test_the_interval_is_that_of_students_t(compare) -> None:
    # Mean 0.1, standard deviation 0.1 of 4: 5.84 * 0.1 / 2 on either side.
    of = compare.verdict([0.0, 0.1, 0.1, 0.2])
    spread = math.sqrt(0.02 / 3)
    assert of.ratio == pytest.approx(math.exp(0.1))
    assert of.high == pytest.approx(math.exp(0.1 + 5.84 * spread / 2))
    assert of.low == pytest.approx(math.exp(0.1 - 5.84 * spread / 2))


def test_a_drift_of_the_machine_is_no_difference(compare, monkeypatch) -> None:
    costs = iter([1.0, 1.1, 1.2, 1.3])
    row = compare.Compared("row", lambda side: [math.exp(next(costs))])
    assert compare.one_round(row, None, None) == pytest.approx(0)
