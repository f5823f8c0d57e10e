"""Sizes, shares, times and labels as people write them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harp_client.errors import HarpError
from harp_client.quantities import (
    as_labels,
    bit_rate,
    nanoseconds,
    per_mille,
    readable,
    seconds,
    size,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [("8GiB", 8 << 30), ("512M", 512 << 20), ("1.5 g", 3 << 29), ("1073741824", 1 << 30)],
)
def test_sizes(text: str, value: int) -> None:
    assert size(text) == value


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (3 << 29, "1.5 GiB"),
        ((1 << 20) - 1, "1,024.0 KiB"),
        (5 << 50, "5,120.0 TiB"),
    ],
)
def test_bytes_are_told_with_a_unit(count: int, text: str) -> None:
    assert readable(count) == text


@pytest.mark.parametrize(("text", "value"), [("50%", 500), ("0.5", 500), ("0.1%", 1), ("1", 1000)])
def test_shares(text: str, value: int) -> None:
    assert per_mille(text) == value


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("90s", 90), ("5m", 300), ("1.5h", 5400), ("7d", 604_800)]
)
def test_times(text: str, value: float) -> None:
    assert seconds(text) == value


def test_labels() -> None:
    assert as_labels(["rack=r1", "note=a=b", "empty="]) == {
        "rack": "r1",
        "note": "a=b",
        "empty": "",
    }


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (size, "8 apples"),
        (size, "-1"),
        (per_mille, "0"),
        (per_mille, "101%"),
        (size, "9" * 400),
        (size, "8388608T"),
        (per_mille, "nan"),
        (per_mille, "inf"),
        (nanoseconds, "9" * 400 + "s"),
        (bit_rate, "9" * 400 + "bit"),
        (seconds, "soon"),
        (seconds, "-5s"),
        (seconds, "9" * 400),
        (seconds, "36501d"),
        (lambda text: as_labels([text]), "rack"),
        (lambda text: as_labels([text]), "=r1"),
    ],
)
def test_what_is_none_is_a_mistake_of_usage(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(HarpError) as error:
        parse(text)
    assert error.value.exit_code == 2
    assert error.value.next_step
