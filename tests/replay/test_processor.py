"""`harp-replay export`: what Perfetto's trace processor makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from replay.made import Made, small
from replay.processor import Processor

Look = Callable[..., Any]
Load = Callable[..., Processor]

GOLDEN = Path(__file__).parent / "golden" / "v1"

COMPLAINTS = "SELECT name, value FROM stats WHERE severity IN ('error', 'data_loss') AND value > 0"

FLOWS = """
    SELECT launch.name, call.name, kernel.name, track.name, kernel.ts >= launch.ts
    FROM flow
    JOIN slice launch ON launch.id = slice_out JOIN slice call ON call.id = launch.parent_id
    JOIN slice kernel ON kernel.id = slice_in JOIN track ON track.id = kernel.track_id
    ORDER BY kernel.ts
"""


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processor]:
    running = Processor(tmp_path_factory.mktemp("processor") / "log")
    yield running
    running.close()


@pytest.fixture
def load(look: Look, tmp_path: Path, processor: Processor) -> Load:
    def load(trace: Path, form: str = "--perfetto") -> Processor:
        """The trace exported and taken in, with nothing to complain of."""
        file = tmp_path / "exported"
        ended = look("export", form, trace, "-o", file)
        assert ended.status == 0, ended.err
        assert processor.load(file).query(COMPLAINTS) == []
        return processor

    return load


def test_threads_are_those_of_the_program(load: Load, untimed: Path) -> None:
    found = load(untimed).query(
        "SELECT process.name, process.pid, thread.name, tid FROM thread JOIN process USING (upid) "
        "WHERE upid > 0"
    )
    assert (("hand_made", 77, "main", 78)) in found
    # The process' own thread is all that the trace processor adds.
    assert {row[3] for row in found} <= {77, 78}


def test_slices_lie_in_their_threads_and_in_each_other(load: Load, untimed: Path) -> None:
    processor = load(untimed)
    calls = processor.query(
        "SELECT slice.name, dur, depth FROM slice JOIN thread_track track ON track.id = track_id "
        "JOIN thread USING (utid) WHERE category = 'api' AND thread.name = 'main' ORDER BY ts"
    )
    assert len(calls) == 10
    assert calls[0] == ("cuMemAlloc_v2", 210_000, 0)
    assert calls[1] == ("cuMemcpyHtoD_v2", 10_000, 0)
    waits = processor.query(
        "SELECT wait.name, wait.dur, call.name, extract_arg(wait.arg_set_id, 'debug.because') "
        "FROM slice wait JOIN slice call ON call.id = wait.parent_id WHERE wait.category = 'wait' "
        "ORDER BY wait.ts"
    )
    asked = "the program asked for data"
    assert waits == [
        ("wait: memory is allocated", 200_000, "cuMemAlloc_v2", "memory is allocated"),
        (f"wait: {asked}", 200_000, "cuMemcpyDtoH_v2", asked),
    ]


def test_arguments_can_be_asked_for(load: Load, untimed: Path) -> None:
    processor = load(untimed)
    (copied,) = processor.query(
        "SELECT DISTINCT extract_arg(arg_set_id, 'debug.bytes') FROM slice "
        "WHERE name = '[CUDA memcpy Host-to-Device]'"
    )
    assert copied == (1000,)
    shapes = processor.query(
        "SELECT DISTINCT extract_arg(arg_set_id, 'debug.grid'), extract_arg(arg_set_id, "
        "'debug.block') FROM slice WHERE name = 'vector_add'"
    )
    assert shapes == [("4 × 1 × 1", "128 × 1 × 1")]
    refused = processor.query(
        "SELECT name FROM slice WHERE extract_arg(arg_set_id, 'debug.result') = 801"
    )
    assert refused == [("cuTexObjectCreate",)]


def test_flows_lead_from_launches_to_kernels(load: Load, timed: Path) -> None:
    processor = load(timed)
    assert processor.query(FLOWS) == [
        *[("vector_add", "cuLaunchKernel", "vector_add", "stream 1", 1)] * 3,
        ("scale<float>", "cuLaunchKernel", "scale<float>", "default stream", 1),
    ]
    times = processor.query("SELECT name, sum(dur) FROM slice WHERE category = 'device' GROUP BY 1")
    assert sorted(times) == [("scale<float>", 2_000), ("vector_add", 3_000)]


def test_streams_of_two_devices_stay_apart(load: Load, tmp_path: Path) -> None:
    made = Made()
    for session in range(2):
        call = made.calls
        made.one_way("cuLaunchKernel", kernel=f"k{session}", session=session, args={"stream": 0})
        made.add("device_time", session=session, call=call, began=1_000, ended=9_000)
    made.end()
    found = load(made.write(tmp_path / "two.jsonl")).query(
        "SELECT track.name, slice.name FROM slice JOIN track ON track.id = track_id "
        "WHERE category = 'device' ORDER BY 2"
    )
    assert found == [("default stream", "k0"), ("default stream (session 1)", "k1")]


def test_threads_have_default_streams_of_their_own(load: Load, tmp_path: Path) -> None:
    """Kernels of two threads overlap; on one track they would end each other."""
    made = Made()
    for thread in (1, 2):
        made.call("cuLaunchKernel", kernel=f"k{thread}", thread=thread, args={"stream": 2})
    for call, (began, ended) in enumerate(((1_000, 9_000), (5_000, 20_000))):
        made.add("device_time", session=0, call=call, began=began, ended=ended)
    made.end()
    found = load(made.write(tmp_path / "threads.jsonl")).query(
        "SELECT track.name, slice.name, dur FROM slice JOIN track ON track.id = track_id "
        "WHERE category = 'device' ORDER BY 2"
    )
    assert found == [
        ("default stream of thread 1", "k1", 8_000),
        ("default stream of thread 2", "k2", 15_000),
    ]


def test_what_has_no_times_stands_where_it_was_queued(load: Load, timed: Path) -> None:
    """The device's times are those of kernels; of copies there are none."""
    found = load(timed).query("SELECT name, dur FROM slice WHERE category = 'queued' ORDER BY ts")
    copies = [("[CUDA memcpy Host-to-Device]", 0)] * 3
    assert found == [*copies, ("[CUDA memcpy Device-to-Host]", 0)]


def test_counters_end_with_what_was_moved(load: Load, untimed: Path) -> None:
    found = load(untimed).query(
        "SELECT track.name, track.unit, max(counter.value) FROM counter JOIN counter_track track "
        "ON track.id = track_id GROUP BY track.id ORDER BY 1"
    )
    assert found == [
        ("device memory", "bytes", 1000),
        ("received from servers", "bytes", 16 + 1016),
        ("sent to servers", "bytes", 6 * 100 + 3 * 1048),
    ]


def test_a_call_that_never_ended_has_no_length(load: Load, tmp_path: Path) -> None:
    made = Made()
    made.enter("cuCtxSynchronize")
    made.end(cut=True)
    found = load(made.write(tmp_path / "cut.jsonl")).query("SELECT name, dur FROM slice")
    assert found == [("cuCtxSynchronize", -1)]


def test_chromes_json_is_the_same_timeline(load: Load, timed: Path) -> None:
    slices = "SELECT category, name, dur FROM slice ORDER BY ts, name, category"
    native = load(timed).query(slices)
    processor = load(timed, "--chrome")
    assert processor.query(slices) == native
    arrows = processor.query(
        "SELECT kernel.name FROM flow JOIN slice kernel ON kernel.id = slice_in ORDER BY ts"
    )
    assert arrows == [*[("vector_add",)] * 3, ("scale<float>",)]


@pytest.mark.parametrize("name", ["recorded.htrace", "vector_add.htrace"])
def test_what_was_recorded_is_taken_in_whole(load: Load, look: Look, name: str) -> None:
    counts = "SELECT count(*) FROM slice WHERE category = 'api'"
    tables = look("stats", GOLDEN / name, "-r", "cuda_api_sum", "-f", "csv").out.splitlines()
    calls = sum(int(line.split(",")[2]) for line in tables[1:])
    assert load(GOLDEN / name).query(counts) == [(calls,)]


def test_the_trace_processor_would_complain(processor: Processor, tmp_path: Path) -> None:
    # An end without a beginning: were the timeline wrong, these tests would see it.
    broken = tmp_path / "broken.json"
    broken.write_text('{"traceEvents":[{"ph":"X","pid":1,"tid":1,"name":"k"}]}')
    assert processor.load(broken).query(COMPLAINTS) != []


def test_small_traces_are_taken_in_one_after_the_other(load: Load, tmp_path: Path) -> None:
    for took in (1_000, 5_000):
        trace = small(took=took).write(tmp_path / "again.jsonl")
        longest = load(trace).query("SELECT max(dur) FROM slice WHERE category = 'device'")
        assert longest == [(2 * took,)]
