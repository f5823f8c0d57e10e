"""`harp-replay trim`: a kernel or some calls of a trace, which still run and are still checked."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from programs import build
from replay.stage import LONGEST, Stage, assert_same, calls_of

ELSEWHERE = ("--first-window", "0x280000000000")
"""Has all addresses of a device be others."""


def size_of(trace: Path) -> int:
    """Of what it holds, told in full: on disk thousands of like launches are small."""
    counts = json.loads((trace / "MANIFEST.json").read_text())["counts"]
    return counts["bytes"] + counts["blob_bytes"]


class Trim:
    """Trims traces; the newest one is `out`."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.number = 0

    def run(self, trace: Path, *words: object) -> subprocess.CompletedProcess[str]:
        self.number += 1
        self.out = self.stage.folder / f"trimmed{self.number}.htrace"
        return subprocess.run(
            self.stage.command(trace, "-o", self.out, *self.stage.pool, *words, command="trim"),
            env=self.stage.environ,
            capture_output=True,
            text=True,
            timeout=LONGEST,
        )

    def __call__(self, trace: Path, *words: object) -> str:
        """What is said of it."""
        done = self.run(trace, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def trim(stage: Stage) -> Trim:
    return Trim(stage)


def test_one_kernel_of_ten_thousand_calls(stage: Stage, trim: Trim) -> None:
    """What the kernel reads was made by thousands before it: the trace is replayed up to there."""
    trace = stage.record("chain", 9990)
    assert trim(trace, "--kernel", "target").endswith("replayed up to there\n")
    assert size_of(trim.out) <= 0.05 * size_of(trace)
    events = stage.events(trim.out)
    assert [launch["kernel"] for launch in calls_of(events, "cuLaunchKernel")] == ["target"]
    done = stage.replay(trim.out, "--repeat", 2)
    assert_same(done)
    # What it has written, and what it was given.
    assert done.result["compared_data"] == 2
    assert_same(stage.replay(trim.out, *ELSEWHERE))

    # The same numbers have come to the program in the end.
    whole, few = ([e for e in stage.events(t) if e["type"] == "reply"] for t in (trace, trim.out))
    fetched = {event["payload"]["hash"] for event in whole if event["name"] == "cuMemcpyDtoH_v2"}
    left = [event["payload"]["hash"] for event in few if event["name"] == "cuMemcpyDtoH_v2"]
    assert fetched & set(left)


def test_a_trimmed_trace_shows_a_changed_kernel(stage: Stage, trim: Trim) -> None:
    traces = [stage.record("three", factor, name=f"by{factor}") for factor in (3, 4)]
    trim(traces[0], "--kernel", "second")
    events = stage.events(trim.out)
    (image,), (other,) = (
        calls_of(each, "harp_blob_append") for each in (events, stage.events(traces[1]))
    )
    image.update({key: other[key] for key in ("args", "payload")})
    done = stage.replay(stage.assemble(events))
    assert done.status == 1
    assert [found["kernel"] for found in done.result["differences"]] == ["second"]


def test_what_the_program_has_put_there_is_kept_without_a_device(stage: Stage, trim: Trim) -> None:
    """The kernel's numbers come from the program, and what it makes goes there."""
    trace = stage.record("three", 3)
    said = trim(trace, "--kernel", "first", "--device", "/nowhere")
    assert said.endswith("without a device\n")
    events = stage.events(trim.out)
    assert [launch["kernel"] for launch in calls_of(events, "cuLaunchKernel")] == ["first"]
    assert len(calls_of(events, "cuMemcpyHtoD_v2")) == 1
    assert not [event for event in events if event["type"] == "snapshot"]
    done = stage.replay(trim.out)
    assert_same(done)
    assert done.result["compared_data"] == 1


def test_calls_from_one_to_another(stage: Stage, trim: Trim) -> None:
    trace = stage.record("chain", 20)
    launches = [event["number"] for event in calls_of(stage.events(trace), "cuLaunchKernel")]
    trim(trace, "--calls", f"{launches[4]}..{launches[9]}")
    launched = calls_of(stage.events(trim.out), "cuLaunchKernel")
    assert [launch["kernel"] for launch in launched] == ["step", "aside"] * 3
    assert_same(stage.replay(trim.out))
    trim(trace, "--kernel", "step", "--launch", 0)
    assert len(calls_of(stage.events(trim.out), "cuLaunchKernel")) == 1
    assert_same(stage.replay(trim.out))


@pytest.mark.parametrize("name", ["symbols", "memory_pool", "streams_events", "managed_memory"])
def test_programs_with_variables_pools_streams_and_shared_memory(
    stage: Stage, trim: Trim, name: str
) -> None:
    trace = stage.record(build.build(name, build.programs()[name].variants[0]))
    launches = calls_of(stage.events(trace), "cuLaunchKernel")
    assert any("demangled" in launch for launch in launches)
    for kernel in sorted({launch.get("demangled", launch["kernel"]) for launch in launches}):
        trim(trace, "--kernel", kernel)
        done = stage.replay(trim.out)
        assert_same(done)
        assert done.result["compared_data"] > 0


def test_a_table_of_addresses_is_followed_without_a_device(stage: Stage, trim: Trim) -> None:
    """The program has uploaded all that the kernel finds: the table, and the arrays in it."""
    trace = stage.record("pointers", 5)
    assert trim(trace, "--kernel", "follow").endswith("without a device\n")
    assert len(calls_of(stage.events(trim.out), "cuMemcpyHtoD_v2")) == 1 + 5
    assert_same(stage.replay(trim.out))
    # What the program uploads is left as it is, so elsewhere the addresses are wrong.
    moved = stage.replay(trim.out, *ELSEWHERE)
    assert moved.status == 1
    assert moved.result["relocated"]["left_in_data"] == 5
    moved = stage.replay(trim.out, *ELSEWHERE, "--relocate-uploads")
    assert_same(moved)
    assert moved.result["relocated"]["in_uploads"] == 5


def test_addresses_that_kernels_have_stored_are_followed(stage: Stage, trim: Trim) -> None:
    trace = stage.record("linked")
    assert trim(trace, "--kernel", "follow").endswith("replayed up to there\n")
    events = stage.events(trim.out)
    # The result, and the three of the chain.
    snapshots = [event for event in events if event["type"] == "snapshot"]
    assert len(snapshots) == 4
    assert {event["bytes"] for event in snapshots} == {4 * 256}
    assert [launch["kernel"] for launch in calls_of(events, "cuLaunchKernel")] == ["follow"]
    done = stage.replay(trim.out)
    assert_same(done)
    assert done.result["compared_data"] == 4
    moved = stage.replay(trim.out, *ELSEWHERE)
    assert_same(moved)
    assert moved.result["relocated"]["in_snapshots"] == 2


def test_memory_that_both_sides_write_is_kept(stage: Stage, trim: Trim) -> None:
    """Shared memory leads to the device's own, and what kernels change of it is checked."""
    trace = stage.record("managed")
    launches = calls_of(stage.events(trace), "cuLaunchKernel")
    assert trim(trace, "--kernel", "follow").endswith("replayed up to there\n")
    events = stage.events(trim.out)
    assert len([event for event in events if event["type"] == "snapshot"]) == 3
    done = stage.replay(trim.out)
    assert_same(done)
    # The two arrays of the device, and what has changed of the shared one.
    assert done.result["compared_data"] == 3
    assert_same(stage.replay(trim.out, *ELSEWHERE))
    (launch,) = calls_of(events, "cuLaunchKernel")
    launch["args"]["params"]["hex"] = launch["args"]["params"]["hex"][:32] + "02000000"
    assert stage.replay(stage.assemble(events)).status == 1

    # From the first launch on, to the end of the program.
    trim(trace, "--calls", f"{launches[0]['number']}..1000000")
    done = stage.replay(trim.out)
    assert_same(done)
    assert len(calls_of(stage.events(trim.out), "harp_twin_write")) > 1


def test_what_is_not_there_is_told(stage: Stage, trim: Trim) -> None:
    trace = stage.record("three", 3)
    for words, told in (
        (("--kernel", "fourth"), "launches no kernel fourth. Next: name one of these: first, seco"),
        (("--kernel", "first", "--launch", 1), "launches first 1 times. Next: name one of 0 to 0"),
        (("--calls", "1000..1001"), "calls, numbered from 0. Next: choose some of them"),
        (("--calls", "5..4"), "--calls is A..B"),
        ((), "either --kernel or --calls is wanted"),
    ):
        done = trim.run(trace, *words)
        assert done.returncode == 2
        assert told in done.stderr
        assert not trim.out.exists()
