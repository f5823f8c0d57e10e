"""CUDA programs built by nvcc, in every way users build and run them."""

from __future__ import annotations

import pytest

from conformance.columns import NATIVE, SOFT, Columns
from programs import build
from programs.two_servers import TWO_SERVERS

STARTS = ("vector_add", "symbols", "streams_events", "device_reset", "separate_compilation")
"""Programs that are enough to show that a runtime of another release starts and ends well."""


def cases() -> list[object]:
    """(program, variant, column): the first variant of each in all columns, the others in two or
    three."""
    found = []
    for program in build.programs().values():
        for variant in program.variants:
            first = variant == program.variants[0]
            newest = variant.endswith("-13.5")
            slow = newest and program.name not in STARTS
            columns = (*SOFT, *NATIVE) if first else ("direct", "pool")
            if not first and program.name in STARTS:
                columns += ("local",)
            if program.name in TWO_SERVERS and (first or program.name == "two_devices"):
                columns += ("pool2",)
            for column in columns:
                marks = [pytest.mark.slow] if slow else []
                case = f"{program.name}-{variant}-{column}"
                found.append(pytest.param(program.name, variant, column, id=case, marks=marks))
    return found


@pytest.mark.parametrize(("name", "variant", "column"), cases())
def test_program(columns: Columns, name: str, variant: str, column: str) -> None:
    """The program finds its numbers right, and prints the same as it does directly."""
    binary = build.build(name, variant)
    outcome = columns.run(column, [binary])
    assert outcome.status == 0, outcome.told()
    reference = None if column in ("direct", "native") else "direct"
    if column in ("native-local", "native-pool"):
        reference = "native"
    if reference is not None:
        expected = columns.run(reference, [binary])
        assert outcome.stdout == expected.stdout, outcome.told()
        assert outcome.complaints == expected.complaints, outcome.told()


@pytest.mark.parametrize("column", ["direct", "pool", *NATIVE])
def test_a_million_events_leave_no_memory_behind(columns: Columns, column: str) -> None:
    binary = build.build("come_and_go", build.programs()["come_and_go"].variants[0])
    outcome = columns.run(column, [binary, "1000000"])
    assert outcome.status == 0, outcome.told()


@pytest.mark.parametrize("name", ["vector_add", "host_callback", "driver_api"])
def test_embedded_pool(columns: Columns, name: str) -> None:
    """With no pool configured, harp-run brings its own: the same output again."""
    binary = build.build(name, build.programs()[name].variants[0])
    outcome = columns.run("embedded", [binary])
    assert outcome.status == 0, outcome.told()
    assert outcome.stdout == columns.run("direct", [binary]).stdout
