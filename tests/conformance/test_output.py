"""Text that kernels print: where it appears, what is lost, and that the pool changes none of it."""

from __future__ import annotations

import pytest

from conformance.columns import SOFT, Columns, Outcome
from programs import build

SERIAL = "HARP_SOFT_SERIAL"
RUNS = 3
"""How often a serial run is repeated: a different order would show in one of them."""


def run(columns: Columns, column: str, what: str) -> Outcome:
    program = build.programs()["device_output"]
    return columns.run(column, [build.build(program.name, program.variants[0]), what])


def line(number: int) -> str:
    return f"line {number:6} of text that a kernel prints\n"


def lines(first: int, count: int) -> str:
    return "".join(map(line, range(first, first + count)))


BEFORE, AFTER = "the program before\n", "the program after\n"
EXPECTED = {
    "large": lines(0, 16000),
    # CUDA: "the buffer is not flushed automatically when the program exits".
    "unsynchronized": lines(0, 2),
    # The text shares the fate of the program's own, which lies in the same buffer.
    "unflushed": "",
    "forked": 2 * (BEFORE + lines(0, 2) + AFTER),
    "closed": "",
    "closed-stream": "",
}


@pytest.mark.parametrize("column", SOFT)
@pytest.mark.parametrize("what", EXPECTED)
def test_text_appears_as_a_local_device_shows_it(columns: Columns, what: str, column: str) -> None:
    outcome = run(columns, column, what)
    assert outcome.status == 0, outcome.told()
    shown = outcome.stdout.replace("the child\n", "").replace("the parent\n", "")
    assert shown == EXPECTED[what], outcome.told()
    if what.startswith("closed"):
        assert "still here" in outcome.stderr


@pytest.mark.parametrize("column", SOFT)
def test_newer_text_takes_the_place_of_older(columns: Columns, column: str) -> None:
    """A kernel that prints more than the buffer holds costs the buffer's size and no more."""
    outcome = run(columns, column, "overflow")
    assert outcome.status == 0, outcome.told()
    shown = outcome.stdout.splitlines(keepends=True)
    assert 100 < len(shown) < 20000
    assert outcome.stdout == lines(20000 - len(shown), len(shown))
    assert outcome.stdout == run(columns, "direct", "overflow").stdout


@pytest.mark.parametrize("column", SOFT)
def test_a_thread_may_wait_while_it_holds_the_stream(columns: Columns, column: str) -> None:
    outcome = run(columns, column, "locked")
    assert outcome.status == 0, outcome.told()
    assert sorted(outcome.stdout.splitlines(keepends=True)) == [line(n) for n in range(7)]


@pytest.mark.parametrize("column", SOFT)
def test_serial_runs_do_everything_in_one_order(columns: Columns, column: str) -> None:
    """Sums of floats and text of many blocks are equal in every run and column."""
    program = build.programs()["device_output"]
    command = [build.build(program.name, program.variants[0]), "order"]
    first = columns.run("direct", command, serial=True)
    numbers = [int(text.split()[1]) for text in first.stdout.splitlines()[:-1]]
    assert numbers == 6 * list(range(24)), first.told()
    for number in range(RUNS):
        outcome = columns.run(column, command, {"RUN": str(number)}, serial=True)
        assert outcome.status == 0, outcome.told()
        assert outcome.stdout == first.stdout
