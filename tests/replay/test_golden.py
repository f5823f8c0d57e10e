"""Traces of every version of the format, committed once: later versions read and replay them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from replay.stage import Stage, assert_same, calls_of, lines_of

Look = Callable[..., Any]

GOLDEN = Path(__file__).parent / "golden"


class Recorded(NamedTuple):
    """What a trace has always said."""

    numbers: int
    """In each of two arrays, and in their sum."""
    calls: list[str]


LOADED = [
    "cuMemcpyHtoD_v2",
    "cuMemcpyHtoD_v2",
    "harp_blob_append",
    "cuModuleLoadData",
    "harp_describe",
    "cuModuleGetFunction",
]
"""Two arrays and a kernel. Said here, not taken from the programs of today: these never change."""

VECTOR_ADD = Recorded(
    1000,
    [
        "cuDevicePrimaryCtxRetain",
        "harp_set_current",
        *LOADED,
        "cuLaunchKernel",
        "cuCtxSynchronize",
        "cuMemcpyDtoH_v2",
        # Each of the three frees waited then.
        *["cuCtxSynchronize"] * 3,
        "harp_thread_ended",
    ],
)

TIMED_ADD = Recorded(
    64,
    [
        "cuDevicePrimaryCtxRetain",
        "harp_set_current",
        "cuEventCreate",
        "cuEventCreate",
        *LOADED,
        "cuEventRecord",
        "cuLaunchKernel",
        "cuEventRecord",
        "cuCtxSynchronize",
        "cuMemcpyDtoH_v2",
        "cuEventElapsedTime_v2",
        "cuEventDestroy_v2",
        "cuEventDestroy_v2",
        "cuCtxSynchronize",
        "harp_thread_ended",
    ],
)

RECORDED = {
    "v1/vector_add.htrace": VECTOR_ADD,
    "v1/vector_add.tar.htrace": VECTOR_ADD,
    "v1.1/timed_add.htrace": TIMED_ADD,
    "v1.2/timed_add.htrace": TIMED_ADD,
}

ALL = sorted(str(path.relative_to(GOLDEN)) for path in GOLDEN.glob("*/*.htrace"))


@pytest.mark.parametrize("name", RECORDED)
def test_a_trace_says_what_it_always_said(name: str) -> None:
    (verified,) = lines_of("verify", GOLDEN / name)
    assert (verified["problems"], verified["complete"]) == ([], True)
    events = lines_of("events", GOLDEN / name, "--full")
    calls = [event["name"] for event in events if event["type"] == "call"]
    assert calls == RECORDED[name].calls
    (launch,) = calls_of(events, "cuLaunchKernel")
    assert launch["kernel"] == "add"
    assert launch["args"]["grid"] == [4, 1, 1]
    a, b, image, c = (
        bytes.fromhex(event["payload"]["hex"])
        for event in events
        if event["type"] in ("call", "reply") and event.get("payload")
    )
    assert b".entry add(" in image
    a, b, c = (struct.unpack(f"{RECORDED[name].numbers}f", each) for each in (a, b, c))
    assert list(c) == [x + y for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize("name", [name for name in RECORDED if "timed_add" in name])
def test_times_of_the_device_are_told(name: str) -> None:
    events = lines_of("events", GOLDEN / name)
    calls = TIMED_ADD.calls
    timed = [calls[event["call"]] for event in events if event["type"] == "device_time"]
    assert timed == ["cuMemcpyHtoD_v2", "cuMemcpyHtoD_v2", "cuLaunchKernel"]


@pytest.mark.parametrize("name", ALL)
def test_it_is_converted_to_lines_and_back(look: Look, tmp_path: Path, name: str) -> None:
    lines, again = tmp_path / "lines.jsonl", tmp_path / "again.htrace"
    assert look("convert", GOLDEN / name, "-o", lines).status == 0
    assert look("convert", lines, "-o", again).status == 0
    assert look("diff", GOLDEN / name, again).out == "no difference\n"


@pytest.mark.parametrize("name", [name for name in ALL if "synthetic" not in name])
def test_it_is_replayed_without_a_difference(stage: Stage, name: str) -> None:
    done = stage.replay(GOLDEN / name)
    assert_same(done)
    assert done.result["compared_data"] > 0
