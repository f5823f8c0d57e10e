"""The tests that clients bring themselves: a sample of each, directly and through the pool."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from clients.suites import expected, report, run
from clients.suites.execute import Result
from clients.suites.results import Table
from clients.suites.suite import Sample, draw, parts
from clients.toolkit import CHECKOUT


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", run.SUITES)
def test_sample(name: str, tmp_path: Path) -> None:
    """What fails is explained, in both columns alike, and what is explained still fails."""
    options = run.parse([name])
    with run.columns() as ways:
        table, everything = run.run(run.SUITES[name], ways, options, tmp_path)
    problems = expected.load(name).problems(table, everything)
    assert not problems, "\n".join([table.summary(), *problems])


def test_page_is_up_to_date() -> None:
    """docs/clients.md is what the kept results make."""
    assert report.PAGE.read_text() == report.markdown(), "run tests/clients/suites/report.py"


TESTS = [f"a.py::test[{number}]" for number in range(300)] + ["b.py::test", "c.py::test"]


def test_a_sample_covers_every_file_and_stays() -> None:
    """Which tests are drawn depends on the seed and the ids, not on the tests around them."""
    sample = Sample(share=0.1, fewest=2, most=20)
    drawn = draw(TESTS, sample, 1)
    assert len(drawn) == 22
    assert {"b.py::test", "c.py::test"} <= set(drawn)
    assert drawn == draw(TESTS, sample, 1) != draw(TESTS, sample, 2)
    without = [test for test in TESTS if test != drawn[0]]
    assert set(drawn[1:]) <= set(draw(without, sample, 1))


def test_random_parts_hold_every_test_once() -> None:
    """Each part is in the order of collection, and no part is a stretch of it."""
    cut = parts(TESTS, 100, 1)
    assert sorted(test for part in cut for test in part) == sorted(TESTS)
    for part in cut:
        places = [TESTS.index(test) for test in part]
        assert places == sorted(places)
    assert TESTS.index(cut[0][-1]) > 200


def table(direct: dict[str, Result], pool: dict[str, Result]) -> Table:
    return Table("none", "None", "sample", 1, 3, {"direct": direct, "pool": pool})


def test_results_name_no_folder_of_the_machine_that_they_are_from() -> None:
    told = f"cannot run {CHECKOUT}/.cache/python, see {tempfile.gettempdir()}/harp-suite-x9/y"
    ended = {"direct": {"a": Result("failed", error=told)}}
    table = Table("suite", "Suite", "full", 0, 1, ended)
    assert table.as_data()["failures"]["a"]["direct"]["error"] == (
        "cannot run .cache/python, see TMPDIR/y"
    )


def test_problems_of_a_run() -> None:
    """Failures without a reason, differences, and reasons that are no longer true are told."""
    passed, failed = Result("passed"), Result("failed", error="E: libx is missing")
    mixed = table({"a": passed, "b": failed, "c": passed}, {"a": failed, "b": failed, "c": passed})
    known = expected.Expected("none", [expected.Group("needs x", "libx", ["b", "c", "gone"])])
    problems = "\n".join(known.problems(mixed, {"a", "b", "c"}))
    assert "without an explanation: a" in problems
    assert "differs between direct and pool: a" in problems
    assert 'passes, though listed as "needs x": c' in problems
    assert 'is no test, though listed as "needs x": gone' in problems
    assert ": b" not in problems

    slow = expected.Expected("none", [expected.Group("slow", None, ["c"], steady=False)])
    assert "c" not in [problem[-1] for problem in slow.problems(mixed, {"a", "b", "c"})]

    assert known.accept(mixed) == []
    assert known.groups[0].tests == ["b", "gone", "a"]
