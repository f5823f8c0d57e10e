"""`harp-run --trace`: what a trace holds of a program, however that ends."""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from clients.environment import clients_python
from clients.toolkit import HERE as CLIENTS
from harp_client import native
from pool.standins import HARP_RUN, Server
from replay.recorded_program import COUNT, FILLS, MANY, VECTOR_ADD_CALLS
from replay.stage import LONGEST, lines_of
from waits.profile import tables_of

PROGRAM = Path(__file__).parent / "recorded_program.py"


@dataclass
class Recorded:
    """A run that has ended, and its trace."""

    status: int
    out: str
    told: str
    """What was said on stderr."""
    trace: Path

    def events(self, number: int = 1) -> list[dict]:
        """Of the first process that came, or the one of that number."""
        path = self.trace if number == 1 else self.trace.with_suffix(f".{number}.htrace")
        return lines_of("events", path)

    def blob(self, name: str) -> bytes:
        return (self.trace / "blobs" / name[:2] / name).read_bytes()


Record = Callable[..., Recorded]


@pytest.fixture
def record(environ: dict[str, str], server: Server, tmp_path: Path) -> Record:
    """Records a part of recorded_program.py, or a whole command."""
    variables = environ

    def run(
        *command: object,
        options: tuple[str, ...] = (),
        payload: str = "full",
        environ: Mapping[str, str] = {},
    ) -> Recorded:
        if len(command) == 1:
            command = (sys.executable, PROGRAM, *command)
        pool = ("--server", server.address, "--credentials", str(server.pool.user))
        out = tmp_path / "out.htrace"
        words = [*HARP_RUN, *(options or pool), "--trace", out, "--trace-payload", payload]
        done = subprocess.run(
            [str(word) for word in (*words, "--", *command)],
            env=variables | environ,
            capture_output=True,
            text=True,
            timeout=LONGEST,
        )
        return Recorded(done.returncode, done.stdout, done.stderr, out)

    return run


def of(events: list[dict], kind: str, **what: object) -> list[dict]:
    """The events of a type that say so of themselves."""
    wanted = {"type": kind, **what}.items()
    return [event for event in events if wanted <= event.items()]


def sequence(events: list[dict], kind: str) -> list[str]:
    return [event["name"] for event in of(events, kind)]


def assert_pairs(events: list[dict], without_end: int = 0) -> None:
    """Every call that began has ended, but for so many."""
    entered = {event["number"]: event for event in of(events, "enter")}
    for leave in of(events, "leave"):
        enter = entered.pop(leave["enter"])
        assert enter["thread"] == leave["thread"]
        assert enter["time"] <= leave["time"]
    assert len(entered) == without_end, entered


MIB = 1 << 20
FLOATS = f"{COUNT}f"
A, B = ([factor * i for i in range(COUNT)] for factor in (1.0, 0.5))


def test_a_trace_is_no_larger_than_it_may_be(record: Record) -> None:
    run = record("uploads", options=("--embedded", "--trace-max", "4MiB"))
    assert (run.status, run.out) == (0, "passed\n"), run.told
    assert "(size limit): more than --trace-max 4.0 MiB" in run.told
    uploads = [one["payload"] for one in of(run.events(), "call", name="cuMemcpyHtoD_v2")]
    kept = [one["policy"] for one in uploads if one["bytes"] == MIB]
    assert kept == ["full"] * 3 + ["hash"] * 13
    assert sum(path.stat().st_size for path in run.trace.rglob("*")) < 4 * MIB


def test_everything_that_passed_is_there(record: Record) -> None:
    run = record("vector_add", options=("--embedded", "--profile"))
    assert run.status == 0, run.told
    line = run.told.splitlines()[-1]
    assert line.startswith(f"harp-run: trace {run.trace}: "), run.told
    assert "it holds the program's data (images, uploads, downloads)" in line
    assert "lost" not in line
    events = run.events()
    assert_pairs(events)
    # The table counts the calls before the session too.
    profile = tables_of(run.told)["CUDA API Summary (cuda_api_sum)"]
    assert Counter(sequence(events, "enter")) == {name: row[2] for name, row in profile.items()}
    assert sequence(events, "call") == VECTOR_ADD_CALLS
    (end,) = of(events, "trace")
    assert (end["complete"], end["cut"]) == (True, False)
    replies = {reply["call"]: reply for reply in of(events, "reply")}
    asked = [call["number"] for call in of(events, "call") if call["ticket"] is not None]
    assert list(replies) == asked
    assert all(reply["status"] == 0 for reply in replies.values())

    uploads = of(events, "call", name="cuMemcpyHtoD_v2")
    sent = [run.blob(call["payload"]["hash"]) for call in uploads]
    assert [list(struct.unpack(FLOATS, each)) for each in sent] == [A, B]
    (download,) = of(events, "reply", name="cuMemcpyDtoH_v2")
    brought = struct.unpack(FLOATS, run.blob(download["payload"]["hash"]))
    assert list(brought) == [x + y for x, y in zip(A, B, strict=True)]
    (image,) = of(events, "call", name="harp_blob_append")
    assert b".entry add(" in run.blob(image["payload"]["hash"])

    (launch,) = of(events, "call", name="cuLaunchKernel")
    assert launch["kernel"] == "add"
    assert events[[e.get("number") for e in events].index(launch["enter"])]["type"] == "enter"
    allocations = of(events, "allocation")
    assert [each["bytes"] for each in allocations] == [4 * COUNT] * 3
    assert [each["allocation"] for each in of(events, "free")] == [0, 1, 2]
    targets = [call["args"]["dst"] for call in uploads]
    assert [(to["allocation"], to["offset"]) for to in targets] == [(0, 0), (1, 0)]
    waits = Counter(wait["because"] for wait in of(events, "wait"))
    assert waits.items() >= {("start_up", 1), ("data", 1), ("synchronise", 1)}
    (session,) = of(events, "session")
    assert session["snapshot"]["soft"] is True
    assert session["round_trip_ns"] > 0


def test_the_device_says_how_long_calls_took_where_that_is_asked_for(record: Record) -> None:
    run = record("vector_add", environ={"HARP_DEVICE_TIMES": "1"})
    events = run.events()
    calls = {call["number"]: call for call in of(events, "call")}
    times = of(events, "device_time")
    timed = [calls[each["call"]]["name"] for each in times]
    assert timed == ["cuMemcpyHtoD_v2", "cuMemcpyHtoD_v2", "cuLaunchKernel"]
    for each in times:
        # In the order in which they were called, on the clock of the trace.
        assert calls[each["call"]]["time"] < each["began"] <= each["ended"]
    assert sorted(times, key=lambda each: each["began"]) == times
    assert not [push for push in of(events, "push") if push["kind"] == "times"]


def test_times_of_many_calls_are_told_while_nobody_waits(record: Record) -> None:
    events = record("fills", environ={"HARP_DEVICE_TIMES": "1"}).events()
    fills = {call["number"] for call in of(events, "call", name="cuMemsetD32Async")}
    assert len(fills) == FILLS
    # A server has 16,384 that it has not told at most; a device that is so far behind misses some.
    timed = [each["call"] for each in of(events, "device_time")]
    assert len(timed) > 1 << 14
    assert fills.issuperset(timed)
    assert timed == sorted(timed)


def test_by_default_data_is_told_by_its_size(record: Record) -> None:
    run = record("uploads", payload="images=hash,uploads=shape,downloads=shape")
    assert (run.status, run.out) == (0, "passed\n"), run.told
    assert "the program's data" not in run.told
    events = run.events()
    sizes = [call["payload"] for call in of(events, "call", name="cuMemcpyHtoD_v2")]
    wanted = [1 << 20] * 16 + [1000]
    assert sizes == [{"policy": "shape", "bytes": size} for size in wanted]
    assert not list((run.trace / "blobs").rglob("?" * 64))


def test_a_program_that_is_killed_leaves_its_last_call(record: Record) -> None:
    run = record("killed")
    assert run.status == 128 + signal.SIGKILL
    assert "without a goodbye" in run.told
    events = run.events()
    assert_pairs(events)
    fills = of(events, "call", name="cuMemsetD32Async")
    assert [call["args"]["ui"] for call in fills] == list(range(MANY))
    assert sequence(events, "enter")[-1] == "cuMemsetD32Async"
    assert of(events, "end")[0]["reason"] == "gone"


def test_the_call_that_crashes_is_the_last_one_and_has_no_end(record: Record) -> None:
    run = record("crashes")
    assert run.status == 128 + signal.SIGSEGV
    events = run.events()
    assert_pairs(events, without_end=1)
    last = of(events, "enter")[-1]
    assert last["name"] == "cuMemcpyHtoD_v2"
    assert not of(events, "leave", enter=last["number"])
    assert sequence(events, "call")[-1] == "cuMemsetD8Async"


def test_a_child_has_no_part_in_its_parents_trace(record: Record) -> None:
    run = record("forks")
    assert run.status == 0, run.told
    parent, child = run.events(1), run.events(2)
    for events, fill in ((parent, "cuMemsetD8_v2"), (child, "cuMemsetD16_v2")):
        assert_pairs(events)
        calls = set(sequence(events, "enter"))
        assert calls & {"cuMemsetD8_v2", "cuMemsetD16_v2"} == {fill}
        assert of(events, "end")[0]["reason"] == "exit"
    assert run.told.count("harp-run: trace ") == 2, run.told


def test_each_process_has_a_trace(record: Record) -> None:
    run = record("starts_others")
    assert run.status == 0, run.told
    launches = [
        sequence(run.events(number), "call").count("cuLaunchKernel") for number in (1, 2, 3)
    ]
    assert launches == [0, 1, 1]
    pids = {of(run.events(number), "process")[0]["pid"] for number in (1, 2, 3)}
    assert len(pids) == 3


def native_with_recorder(tmp_path: Path, script: str) -> dict[str, str]:
    """What has `harp-run` start a script as the recorder."""
    parts = native.find()
    folder = tmp_path / "native"
    for part in native.LAYOUT:
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        (folder / part).symlink_to(Path(parts.root, part))
    recorder = folder / "bin" / "harp-trace"
    recorder.unlink()
    recorder.write_text(f"#!/bin/bash\n{script}\n")
    recorder.chmod(0o755)
    return {"HARP_NATIVE_DIR": str(folder)}


@pytest.fixture
def recorder_with_little_disk(tmp_path: Path) -> dict[str, str]:
    """What has `harp-run` start a recorder that can write no file of more than 200 kB."""
    return native_with_recorder(tmp_path, f'ulimit -f 200\nexec {native.find().trace} "$@"')


def test_devices_of_two_servers_are_two_sessions_of_one_trace(
    record: Record, environ: dict[str, str], server: Server, tmp_path: Path
) -> None:
    second = Server(server.pool, environ, tmp_path / "second.log")
    try:
        pool = ("--server", server.address, "--server", second.address)
        user = ("--credentials", str(server.pool.user))
        run = record("two_devices", options=(*pool, *user))
    finally:
        second.stop()
    assert run.status == 0, run.told
    events = run.events()
    assert [each["server"] for each in of(events, "session")] == [server.address, second.address]
    fills = of(events, "call", name="cuMemsetD32Async")
    assert [(fill["session"], fill["args"]["ui"]) for fill in fills] == [(0, 0), (1, 1)]
    assert [fill["args"]["dstDevice"]["allocation"] for fill in fills] == [0, 1]
    assert [each["session"] for each in of(events, "allocation")] == [0, 1]


def test_a_full_disk_costs_the_trace_and_not_the_program(
    record: Record, recorder_with_little_disk: dict[str, str]
) -> None:
    run = record("uploads", environ=recorder_with_little_disk)
    assert (run.status, run.out) == (0, "passed\n"), run.told
    assert "; lost: " in run.told, run.told
    events = run.events()
    assert_pairs(events)
    assert len(of(events, "call", name="cuMemcpyHtoD_v2")) == 17
    kept = [call["payload"]["policy"] for call in of(events, "call", name="cuMemcpyHtoD_v2")]
    assert kept == ["hash"] * 16 + ["full"]


def test_a_recorder_that_is_killed_while_it_speaks_leaves_no_folder(
    record: Record, tmp_path: Path
) -> None:
    native_dir = native_with_recorder(
        tmp_path, "echo ready\ncat\nprintf '{\"type\"'\nkill -KILL $$"
    )
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    run = record("/bin/sh", "-c", ":", environ=native_dir | {"TMPDIR": str(temporary)})
    assert run.status == 0
    assert "the recorder was ended before it had said what it has recorded" in run.told
    assert not list(temporary.glob("harp-trace-*"))


def test_a_recorder_that_stands_still_is_not_waited_for(record: Record) -> None:
    """Data is lost, not that there was some; once the recorder has caught up it is kept again."""
    run = record("outlives_its_recorder")
    assert run.status == 0, run.told
    events = run.events()
    assert_pairs(events)
    assert not of(events, "loss")
    kept = [call["payload"]["policy"] for call in of(events, "call", name="cuMemcpyHtoD_v2")]
    assert len(kept) == 48 + 10
    first, lost = kept.index("lost"), kept.count("lost")
    assert first < 32
    assert first + lost >= 48
    assert kept == ["full"] * first + ["lost"] * lost + ["full"] * (58 - first - lost)
    assert kept[-1] == "full"


def test_local_mode_is_recorded_on_a_pool_over_its_driver(record: Record) -> None:
    run = record("vector_add", options=("--local", "--libcuda", "soft"))
    assert run.status == 0, run.told
    assert "harp-run: recording on a pool for this run alone, over the soft GPU" in run.told
    assert sequence(run.events(), "call").count("cuLaunchKernel") == 1


@pytest.mark.timeout(600)
def test_cupy(record: Record) -> None:
    run = record(clients_python(), CLIENTS / "cupy_steps.py", 2, payload="hash")
    assert run.status == 0, run.told
    events = run.events()
    assert_pairs(events)
    kernels = Counter(launch["kernel"] for launch in of(events, "call", name="cuLaunchKernel"))
    assert kernels["twice"] == 2
    assert None not in kernels
    assert all("hash" in call["payload"] for call in of(events, "call", name="harp_blob_append"))
    assert not of(events, "loss")
