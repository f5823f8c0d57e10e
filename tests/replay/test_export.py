"""`harp-replay export`: the timeline, read back as viewers read it.

These tests read the file by the descriptors of the package `perfetto`, Perfetto's own ones, and
put it together as the trace processor does: packets in order of their times, slices that nest on
their track, flows by number. They need nothing else; `test_processor.py` asks the trace processor.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as proto

from replay.made import Made

Look = Callable[..., Any]
Event = proto.TrackEvent


@dataclass
class Slice:
    """What the trace processor's table `slice` has a row of."""

    track: str
    name: str
    category: str
    began: int
    ended: int | None
    parent: Slice | None
    args: dict[str, Any]


@dataclass
class Seen:
    """A Perfetto trace, put together."""

    process: str = ""
    threads: dict[str, int] = field(default_factory=dict)
    slices: list[Slice] = field(default_factory=list)
    flows: dict[int, tuple[list[Slice], list[Slice]]] = field(default_factory=dict)
    counters: dict[str, list[int]] = field(default_factory=dict)

    def named(self, name: str) -> list[Slice]:
        return [each for each in self.slices if each.name == name]


def seen(path: Path) -> Seen:
    trace = proto.Trace.FromString(path.read_bytes())
    # Nothing of it may be unknown to Perfetto.
    assert proto.Trace.FromString(trace.SerializeToString()) == trace
    found = Seen()
    tracks: dict[int, str] = {}
    stacks: dict[int, list[Slice]] = {}
    packets = sorted(trace.packet, key=lambda packet: packet.timestamp)
    for packet in packets:
        assert packet.trusted_packet_sequence_id, "without it the trace processor drops a packet"
        if packet.HasField("track_descriptor"):
            track = packet.track_descriptor
            tracks[track.uuid] = track.name or track.thread.thread_name
            if track.HasField("process"):
                found.process = track.process.process_name
            else:
                assert track.parent_uuid in tracks
            if track.HasField("thread"):
                found.threads[track.thread.thread_name] = track.thread.tid
            continue
        event = packet.track_event
        track_name = tracks[event.track_uuid]
        stack = stacks.setdefault(event.track_uuid, [])
        args = {each.name: each.string_value or each.int_value for each in event.debug_annotations}
        if event.type == Event.TYPE_COUNTER:
            found.counters.setdefault(track_name, []).append(event.counter_value)
        elif event.type == Event.TYPE_SLICE_END:
            ended = stack.pop()
            ended.ended = packet.timestamp
            ended.args |= args
        else:
            (category,) = event.categories
            parent = stack[-1] if stack else None
            began = packet.timestamp
            is_instant = event.type == Event.TYPE_INSTANT
            ended_at = began if is_instant else None
            one = Slice(track_name, event.name, category, began, ended_at, parent, args)
            found.slices.append(one)
            if not is_instant:
                stack.append(one)
            for number in event.flow_ids:
                found.flows.setdefault(number, ([], []))[0].append(one)
            for number in event.terminating_flow_ids:
                found.flows.setdefault(number, ([], []))[1].append(one)
    return found


@pytest.fixture
def exported(look: Look, tmp_path: Path) -> Callable[[Path], Seen]:
    def exported(trace: Path) -> Seen:
        file = tmp_path / "out.pftrace"
        ended = look("export", "--perfetto", trace, "-o", file)
        assert ended.status == 0, ended.err
        return seen(file)

    return exported


def test_threads_have_their_calls_and_in_them_waits_with_reasons(
    exported: Callable[[Path], Seen], untimed: Path
) -> None:
    found = exported(untimed)
    assert found.process == "hand_made"
    assert found.threads == {"main": 78}
    (wait,) = found.named("wait: memory is allocated")
    assert wait.category == "wait"
    assert wait.ended is not None
    assert wait.ended - wait.began == 200_000
    assert wait.parent is not None
    assert (wait.parent.name, wait.parent.track) == ("cuMemAlloc_v2", "main")
    assert wait.args["call"] == "cuMemAlloc_v2"
    assert all(each.ended is not None for each in found.slices)
    (refused,) = found.named("cuTexObjectCreate")
    assert refused.args == {"result": 801}


def test_streams_have_what_was_queued_where_no_times_are(
    exported: Callable[[Path], Seen], untimed: Path
) -> None:
    found = exported(untimed)
    queued = [each for each in found.slices if each.category == "queued"]
    assert [each.name for each in queued if each.track == "stream 1"] == ["vector_add"] * 3
    assert [each.name for each in queued if each.track == "default stream"] == [
        *["[CUDA memcpy Host-to-Device]"] * 3,
        "scale<float>",
        "[CUDA memcpy Device-to-Host]",
    ]
    assert found.flows == {}


def test_arrows_lead_from_launches_to_kernels(
    exported: Callable[[Path], Seen], timed: Path
) -> None:
    found = exported(timed)
    kernels = [each for each in found.slices if each.category == "device"]
    assert [(each.name, each.track) for each in kernels] == [
        *[("vector_add", "stream 1")] * 3,
        ("scale<float>", "default stream"),
    ]
    for kernel in kernels:
        assert kernel.ended is not None
        length = 2_000 if kernel.name == "scale<float>" else 1_000
        assert kernel.ended - kernel.began == length
    joined = [flow for flow in found.flows.values() if flow[1]]
    assert len(joined) == 4
    for (launch,), (kernel,) in joined:
        assert launch.name == kernel.name
        assert launch.parent is not None
        assert launch.parent.name == "cuLaunchKernel"
        # The device's clock is five seconds ahead; nothing begins before it is asked for.
        assert 0 <= kernel.began - launch.began < 1_000_000


def test_counters_go_on_with_each_call(exported: Callable[[Path], Seen], untimed: Path) -> None:
    counters = exported(untimed).counters
    assert counters["sent to servers"][-1] == 6 * 100 + 3 * 1048
    assert counters["received from servers"] == [16, 16 + 1016]
    assert counters["device memory"] == [1000]


def test_a_call_that_never_ended_stays_open(
    exported: Callable[[Path], Seen], tmp_path: Path
) -> None:
    made = Made()
    made.enter("cuCtxSynchronize")
    made.end(cut=True)
    (last,) = exported(made.write(tmp_path / "cut.jsonl")).slices
    assert (last.name, last.ended) == ("cuCtxSynchronize", None)


def test_numbers_and_names_out_of_all_bounds_are_written(
    exported: Callable[[Path], Seen], tmp_path: Path
) -> None:
    made = Made(program="half \ud800 a character")
    made.one_way("cuMemsetD32Async", args={"N": 1 << 62, "hStream": 0}, size=(1 << 64) - 1)
    made.add("loss", time=1, reasons=["no room"], blocks=1 << 63, bytes=(1 << 64) - 1)
    made.add("device_time", session=0, call=0, began=(1 << 64) - 1, ended=0)
    made.add("device_time", session=0, call=1 << 40, began=0, ended=0)
    made.end()
    path = made.write(tmp_path / "bounds.jsonl")
    found = exported(path)
    assert found.process == "half ? a character"
    assert len(found.named("lost: no room")) == 1


def test_chrome_json_has_the_same(look: Look, timed: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    assert look("export", "--chrome", timed, "-o", file).status == 0
    events = json.loads(file.read_text())["traceEvents"]
    names = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in events
        if event.get("name") == "thread_name"
    }
    assert names[77, 78] == "main"
    begun = [event for event in events if event["ph"] == "B"]
    assert len(begun) == sum(event["ph"] == "E" for event in events)
    kernels = [event for event in begun if event["cat"] == "device"]
    assert {names[event["pid"], event["tid"]] for event in kernels} == {
        "stream 1",
        "default stream",
    }
    starts = {event["id"]: event for event in events if event["ph"] == "s"}
    ends = {event["id"]: event for event in events if event["ph"] == "f"}
    assert len(ends) == 4
    for number, end in ends.items():
        assert end["bp"] == "e"
        assert starts[number]["ts"] <= end["ts"]
    waits = [event for event in begun if event["cat"] == "wait"]
    assert {event["args"]["because"] for event in waits} == {
        "memory is allocated",
        "the program asked for data",
    }
    counts = [event for event in events if event["ph"] == "C" and "device" in event["name"]]
    assert [event["args"] for event in counts] == [{"bytes": 1000}]


def test_a_file_that_cannot_be_written_is_told(look: Look, untimed: Path, tmp_path: Path) -> None:
    ended = look("export", untimed, "-o", tmp_path / "no" / "out")
    assert ended.status == 1
    assert ended.err.startswith(f"harp-replay: cannot write {tmp_path}/no/out: No such file")
    assert ended.err.count("\n") == 1


def test_a_pipe_or_link_that_is_named_stays_one(look: Look, timed: Path, tmp_path: Path) -> None:
    plain, pipe, link = (tmp_path / name for name in ("plain", "pipe", "link"))
    assert look("export", timed, "-o", plain).status == 0
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "linked")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        for out in (pipe, link):
            assert look("export", timed, "-o", out).status == 0
        content = plain.read_bytes()
        assert os.read(reader, len(content) + 1) == content
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert (tmp_path / "linked").read_bytes() == content
    assert not list(tmp_path.glob("*.part"))
