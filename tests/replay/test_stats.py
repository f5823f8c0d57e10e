"""`harp-replay info` and `stats` add up what a trace holds."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from replay.made import Made, small

Look = Callable[..., Any]

OF_TIMES = "Avg (ns),Med (ns),Min (ns),Max (ns),StdDev (ns)"


def test_info_says_what_a_trace_holds(look: Look, untimed: Path) -> None:
    found = json.loads(look("info", untimed, "--json").out)
    assert found["program"] == "hand_made"
    assert found["sessions"] == [
        {"server": "gpu1:7443", "round_trip_ns": 100_000, "devices": ["HARP Soft GPU"]}
    ]
    assert (found["api_calls"], found["calls"], found["answered_calls"]) == (10, 9, 2)
    assert (found["waits"], found["waits_not_asked_for"]) == (2, 1)
    assert found["waited_seconds"] == pytest.approx(400e-6)
    assert found["kernels"] == {"vector_add": 3, "scale<float>": 1}
    assert found["unsupported"] == {"cuTexObjectCreate": 1}
    assert found["sent_bytes"] == 6 * 100 + 3 * 1048
    assert found["received_bytes"] == 16 + 1016
    assert found["moved_bytes"]["[CUDA memcpy Host-to-Device]"] == 3000
    # Four payloads of a kilobyte, one of them twice.
    assert found["payloads"]["dedupe_ratio"] == pytest.approx(4 / 3)
    assert (found["complete"], found["cut"], found["ended"]) == (True, False, "exit")
    assert found["peak_device_bytes"] == 1000


def test_info_tells_people_the_same(look: Look, untimed: Path) -> None:
    page = look("info", untimed).out
    for words in (
        "hand_made, process 77",
        "gpu1:7443, 0.100 ms away: HARP Soft GPU",
        "cuTexObjectCreate × 1",
        "vector_add × 3, scale<float> × 1",
        "whole",
    ):
        assert words in page


def test_failures_are_told_by_their_names(look: Look, tmp_path: Path) -> None:
    made = Made()
    for name, result in (("cuMemAlloc_v2", 2), ("cuMemAlloc_v2", 2), ("cuMemFree_v2", 98765)):
        made.leave(made.enter(name), result)
    made.end()
    path = made.write(tmp_path / "failed.jsonl")
    assert json.loads(look("info", path, "--json").out)["failed"] == [
        {"name": "cuMemAlloc_v2", "result": 2, "error": "CUDA_ERROR_OUT_OF_MEMORY", "count": 2},
        {"name": "cuMemFree_v2", "result": 98765, "error": "98765", "count": 1},
    ]
    told = "cuMemAlloc_v2 → CUDA_ERROR_OUT_OF_MEMORY × 2, cuMemFree_v2 → 98765 × 1"
    assert told in look("info", path).out


def test_info_says_how_a_trace_was_cut_off_and_what_was_lost(look: Look, tmp_path: Path) -> None:
    made = Made()
    made.add("loss", time=5, reasons=["no room"], blocks=7, bytes=4096)
    made.enter("cuCtxSynchronize")
    made.end(cut=True)
    path = made.write(tmp_path / "cut.jsonl")
    found = json.loads(look("info", path, "--json").out)
    assert found["cut"]
    assert found["unended"] == ["cuCtxSynchronize"]
    assert found["lost"] == {"blocks": 7, "bytes": 4096, "because": ["no room"]}
    page = look("info", path).out
    assert "cut off" in page
    assert "7 blocks, 4.0 KiB: no room" in page


def test_a_name_with_terminal_escapes_is_shown_without_them(look: Look, tmp_path: Path) -> None:
    made = Made(program="evil\x1b]0;x\x07[red]\nname")
    made.launch("k\x1b[2J")
    made.end()
    path = made.write(tmp_path / "evil.jsonl")
    for words in (("info", path), ("stats", path)):
        shown = look(*words).out
        assert "\x1b" not in shown
        assert "\x07" not in shown
    assert "[red]" in look("info", path).out


def rows(look: Look, path: Path, report: str) -> list[dict[str, str]]:
    text = look("stats", path, "--report", report, "--format", "csv").out
    return list(csv.DictReader(io.StringIO(text)))


def test_columns_are_those_of_nsys(look: Look, timed: Path) -> None:
    heads = {
        "cuda_api_sum": f"Time (%),Total Time (ns),Num Calls,{OF_TIMES},Name",
        "cuda_gpu_kern_sum": f"Time (%),Total Time (ns),Instances,{OF_TIMES},Name",
        "cuda_gpu_mem_time_sum": f"Time (%),Total Time (ns),Count,{OF_TIMES},Operation",
        "cuda_gpu_mem_size_sum": "Total (MB),Count,Avg (MB),Med (MB),Min (MB),Max (MB),"
        "StdDev (MB),Operation",
        "cuda_gpu_sum": f"Time (%),Total Time (ns),Instances,{OF_TIMES},Category,Operation",
        "cuda_kern_exec_sum": ",".join(
            ["PID,TID,DevId,Count,QCount"]
            + [f"{phase}{name}" for phase in "TAQK" for name in OF_TIMES.split(",")]
            + ["API Name,Kernel Name"]
        ),
    }
    for report, expected in heads.items():
        text = look("stats", timed, "-r", report, "-f", "csv").out
        assert text.splitlines()[0] == expected


def test_calls_are_summed_by_name(look: Look, untimed: Path) -> None:
    found = {row["Name"]: row for row in rows(look, untimed, "cuda_api_sum")}
    # One call to allocate and one to copy back wait 200 µs each; a one-way call takes 10.
    assert found["cuMemcpyDtoH_v2"]["Total Time (ns)"] == "210000"
    launches = found["cuLaunchKernel"]
    assert (launches["Num Calls"], launches["Total Time (ns)"]) == ("4", "40000")
    assert (launches["Med (ns)"], launches["StdDev (ns)"]) == ("10000.0", "0.0")
    shares = sum(float(row["Time (%)"]) for row in found.values())
    assert shares == pytest.approx(100, abs=0.01)


def test_kernels_have_times_of_the_device_where_the_trace_does(look: Look, timed: Path) -> None:
    found = {row["Name"]: row for row in rows(look, timed, "cuda_gpu_kern_sum")}
    assert found["vector_add"]["Total Time (ns)"] == "3000"
    assert found["vector_add"]["Instances"] == "3"
    assert found["scale<float>"]["Avg (ns)"] == "2000.0"
    assert found["scale<float>"]["Time (%)"] == "40.0"


def test_launches_are_summed_by_their_phases(look: Look, tmp_path: Path) -> None:
    made = Made()
    made.add("session", number=1, snapshot={"devices": [{"name": "a"}, {"name": "b"}]})
    made.one_way("cuCtxCreate_v2", session=1, args={"pctx": {"kind": "Context", "id": 7}, "dev": 1})
    made.call("harp_set_current", session=1, args={"context": {"kind": "Context", "id": 7}})
    begun = []
    for session in (0, 0, 1):
        begun.append((session, made.calls, made.now))
        made.launch("k", session=session)
    # The devices' clock is a second ahead. The kernels begin as they are asked for, 4 µs after the
    # API call has begun; 40 µs after it has ended; and so again.
    for (session, call, time), late in zip(begun, (4_000, 50_000, 4_000), strict=True):
        began = 1_000_000_000 + time + late
        made.add("device_time", session=session, call=call, began=began, ended=began + 500)
    made.end()
    found = rows(look, made.write(tmp_path / "launches.jsonl"), "cuda_kern_exec_sum")
    names = {"PID": "77", "TID": "78", "API Name": "cuLaunchKernel", "Kernel Name": "k"}
    assert all(names.items() <= row.items() for row in found)
    first, second = found
    assert [row["DevId"] for row in found] == ["0", "2"]
    assert (first["Count"], first["QCount"], first["QAvg (ns)"]) == ("2", "1", "40000.0")
    assert (first["TMin (ns)"], first["TMax (ns)"]) == ("10000.0", "50500.0")
    assert (first["AAvg (ns)"], first["KAvg (ns)"]) == ("10000.0", "500.0")
    # No launch of it was in the queue when its call ended.
    assert (second["Count"], second["QCount"], second["QAvg (ns)"]) == ("1", "0", "")
    shown = look("stats", tmp_path / "launches.jsonl", "-r", "cuda_kern_exec_sum").out
    assert "CUDA Kernel Launch & Exec Time Summary (cuda_kern_exec_sum)" in shown


def test_kernels_and_copies_are_summed_together(look: Look, tmp_path: Path) -> None:
    made = Made()
    made.launch("k", took=1_000)
    made.upload("a")
    made.add("device_time", session=0, call=made.calls - 1, began=made.now, ended=made.now + 3_000)
    made.end()
    found = rows(look, made.write(tmp_path / "both.jsonl"), "cuda_gpu_sum")
    assert [(row["Time (%)"], row["Category"], row["Operation"]) for row in found] == [
        ("75.0", "MEMORY_OPER", "[CUDA memcpy Host-to-Device]"),
        ("25.0", "CUDA_KERNEL", "k"),
    ]


def test_times_of_some_kernels_are_said_to_be_of_some(look: Look, tmp_path: Path) -> None:
    made = Made()
    made.launch("k", took=1_000)
    made.launch("k")
    made.end()
    path = made.write(tmp_path / "some.jsonl")
    (row,) = rows(look, path, "cuda_gpu_kern_sum")
    assert row["Instances"] == "1"
    assert "of 1 of 2 launches are known" in look("stats", path, "-r", "cuda_gpu_kern_sum").out


def test_kernels_without_times_are_counted_with_their_shapes(look: Look, untimed: Path) -> None:
    (first, _) = rows(look, untimed, "cuda_gpu_kern_sum")
    assert first["Instances"] == "3"
    assert first["GridXYZ × BlockXYZ"] == "4 1 1 × 128 1 1"
    shown = look("stats", untimed, "-r", "cuda_gpu_kern_sum").out
    assert "The trace has no times of the device" in shown


def test_kernels_are_shown_by_their_names_in_cpp(look: Look, tmp_path: Path) -> None:
    made, name = Made(), "vector_add(float const*, float const*, float*, int)"
    made.launch("_Z10vector_addPKfS0_Pfi", demangled=name)
    made.end()
    path = made.write(tmp_path / "mangled.jsonl")
    (row,) = rows(look, path, "cuda_gpu_kern_sum")
    assert row["Name"] == name
    assert json.loads(look("info", path, "--json").out)["kernels"] == {name: 1}


def test_copies_are_summed_by_direction(look: Look, untimed: Path) -> None:
    found = {row["Operation"]: row for row in rows(look, untimed, "cuda_gpu_mem_size_sum")}
    up = found["[CUDA memcpy Host-to-Device]"]
    assert (up["Total (MB)"], up["Count"]) == ("0.003", "3")
    assert found["[CUDA memcpy Device-to-Host]"]["Count"] == "1"


def test_waits_are_told_with_their_reasons(look: Look, untimed: Path) -> None:
    found = {row["Name"]: row for row in rows(look, untimed, "waits_sum")}
    assert found["cuMemAlloc_v2"]["Because"] == "memory is allocated"
    assert found["cuMemAlloc_v2"]["Asked"] == ""
    assert found["cuMemcpyDtoH_v2"]["Asked"] == "asked"
    assert found["cuMemcpyDtoH_v2"]["Total Time (ns)"] == "200000"


def test_tables_for_programs_go_into_a_file(look: Look, timed: Path, tmp_path: Path) -> None:
    file = tmp_path / "tables.json"
    assert look("stats", timed, "-f", "json", "-o", file).status == 0
    found = json.loads(file.read_text())
    assert found["cuda_gpu_kern_sum"][0]["Name"] == "vector_add"
    one = json.loads(look("stats", timed, "-f", "json", "-r", "waits_sum").out)
    assert [row["Num Waits"] for row in one] == [1, 1]


def test_lines_that_are_no_events_are_refused_with_their_number(look: Look, tmp_path: Path) -> None:
    made = small()
    path = made.write(tmp_path / "broken.jsonl")
    good = path.read_text().splitlines()
    for broken in ('{"type": "enter", "number": "x"}', "[]", "{", '{"no": 1}'):
        path.write_text("\n".join([*good[:3], broken, ""]))
        ended = look("info", path)
        assert ended.status == 2
        assert ended.err.startswith("harp-replay: line 4 of the events of")
        assert "Traceback" not in ended.err


def test_events_of_kinds_that_are_not_known_are_passed_over(look: Look, untimed: Path) -> None:
    before = look("info", untimed, "--json").out
    untimed.write_text('{"type": "from_the_future", "time": 1}\n' + untimed.read_text())
    assert look("info", untimed, "--json").out == before
