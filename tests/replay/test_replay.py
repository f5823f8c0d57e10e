"""`harp-replay run`: recorded programs run again without themselves, and what comes of that."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
from pathlib import Path

import pytest

from clients.environment import clients_python
from clients.toolkit import HERE as CLIENTS
from harp_client import native
from pool.standins import wait_until
from programs import build
from replay.stage import LONGEST, Stage, assert_same, calls_of


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("vector_add", 2),
        ("landing", 500),
        ("host_callback", 1),
        ("shared_memory_with_host", 20),
        ("memory_pool", 2),
        ("event_progress", 2),
        ("device_printf", 1),
    ],
)
def test_a_program_is_replayed_without_a_difference(stage: Stage, name: str, data: int) -> None:
    """`data` is how much is compared at least: copies, shared memory that changed, printed text."""
    trace = stage.record(build.build(name, build.programs()[name].variants[0]))
    done = stage.replay(trace, "--repeat", 2)
    assert_same(done)
    assert done.result["compared_data"] >= data
    assert done.result["identical"] is True
    assert done.result["relocated"]["addresses"] == 0


def test_a_cupy_program_is_replayed_on_a_pool_of_its_own(stage: Stage) -> None:
    trace = stage.record(clients_python(), CLIENTS / "cupy_steps.py", 2)
    assert_same(stage.replay(trace, here=False))
    moved = stage.replay(trace, "--first-window", "0x2c0000000000")
    assert_same(moved)
    assert moved.result["relocated"]["words"] > 0


def test_a_libcuda_of_ones_own_replays(stage: Stage) -> None:
    trace = stage.record("three", 3)
    own = stage.folder / "libcuda.so.1"
    shutil.copy(native.find().softgpu, own)
    done = stage.replay(trace, "--device", own, here=False)
    assert_same(done)
    assert done.result["compared_data"] == 3


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("no_library.so", "cannot load the libcuda: {}: "),
        ("library.so", "cannot load the libcuda: {} is none: it has no cuInit"),
        ("nothing.so", "--device {}: there is no such file"),
    ],
)
def test_what_is_no_libcuda_is_told(stage: Stage, path: str, told: str) -> None:
    trace = stage.record("three", 3)
    library = stage.folder / path
    if path == "library.so":
        words = ["gcc", "-shared", "-x", "c", os.devnull, "-o", str(library)]
        subprocess.run(words, check=True, timeout=LONGEST)
    elif path == "no_library.so":
        library.write_text("text")
    done = stage.replay(trace, "--device", library, here=False)
    assert (done.status, done.result) == (2, {})
    assert told.format(library) in done.told
    last = done.told.splitlines()[-1]
    assert last.startswith(f"harp-replay: --device {library}")
    assert ". Next: name " in last


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--server", "gpu1:7443/0"), "a replay uses all devices of its server, not some: "),
        (("--server", "gpu1:7443,gpu2:7443"), "a replay uses one server, and these are several: "),
        (("--server", "gpu1:7443", "--lease", "mine"), "--lease is for a pool with a scheduler. "),
        (("--lease", "mine", "--device", os.devnull), "/dev/null uses no running pool. "),
    ],
)
def test_what_is_not_one_place_is_told(stage: Stage, words: tuple[str, ...], told: str) -> None:
    done = stage.replay(Path(__file__), *stage.pool[2:], *words, here=False)
    assert (done.status, done.result) == (2, {})
    assert told in done.told
    assert " Next: " in done.told


@pytest.fixture
def changed(stage: Stage) -> Path:
    """What a program computed with one kernel, with another kernel in its place."""
    events = stage.events(stage.record("three", 3, name="three"))
    others = stage.events(stage.record("three", 4, name="four"))
    (image,), (other,) = (calls_of(each, "harp_blob_append") for each in (events, others))
    image.update({key: other[key] for key in ("args", "payload")})
    return stage.assemble(events)


def test_a_changed_kernel_is_named_and_no_other(stage: Stage, changed: Path) -> None:
    done = stage.replay(changed)
    assert done.status == 1
    assert done.result["different"] == 1
    (difference,) = done.result["differences"]
    launched = calls_of(stage.events(changed), "cuLaunchKernel")
    assert difference["kernel"] == "second"
    assert difference["kernel_call"] == launched[1]["number"]
    assert difference["name"] == "cuMemcpyDtoH_v2"
    # The numbers are 3 i, and 4 i with the other kernel: 0 alone is both.
    first = difference["first"]
    assert (first["offset"], first["unit"]) == (4, "bytes")
    assert (first["recorded"][:8], first["replayed"][:8]) == ("03000000", "04000000")

    done = stage.replay(changed, "--check", "returns")
    assert_same(done)
    done = stage.replay(changed, "--check", "final")
    assert done.status == 1
    assert (done.result["compared"], done.result["different"]) == (3, 1)
    after = difference["call"] + 1
    assert_same(stage.replay(changed, "--from", after))
    done = stage.replay(changed, "--to", difference["call"] - 1)
    assert (done.status, done.result["sent"]) == (0, difference["call"])


def test_numbers_may_differ_within_a_tolerance(stage: Stage, changed: Path) -> None:
    """The numbers are small integers, which as floats are next to nothing."""
    assert stage.replay(changed, "--tolerance", "1e-30").status == 0
    done = stage.replay(changed, "--tolerance", "0,0.1")
    assert done.status == 1
    first = done.result["differences"][0]["first"]
    assert (first["count"], first["of"], first["unit"]) == (255, 256, "elements")
    done = stage.replay(changed, "--tolerance", "nan")
    assert (done.status, done.result) == (2, {})
    assert done.told == 'harp-replay: --tolerance cannot be "nan". Next: see --help\n'


def test_memory_may_lie_elsewhere(stage: Stage) -> None:
    trace = stage.record("three", 3)
    done = stage.replay(trace, "--first-window", "0x280000000000")
    assert_same(done)
    relocated = done.result["relocated"]
    # The memory that was there from the beginning and three arrays; one upload and three copies;
    # three launches with two addresses each.
    assert (relocated["addresses"], relocated["arguments"], relocated["words"]) == (4, 4, 6)
    assert done.result["compared_data"] == 3


def test_people_are_told_in_a_few_lines(stage: Stage, changed: Path) -> None:
    words = stage.command(changed, *stage.pool)
    done = subprocess.run(words, env=stage.environ, capture_output=True, text=True, timeout=LONGEST)
    assert done.returncode == 1
    calls, compared, difference, verdict = done.stdout.splitlines()
    assert "calls replayed in" in calls
    assert compared.endswith("different 1")
    assert "made by kernel second" in difference
    then, now = (struct.pack("256I", *(by * i for i in range(256))) for by in (3, 4))
    count = sum(a != b for a, b in zip(then, now, strict=True))
    assert f"{count} of 1024 bytes differ, the first at byte 4" in difference
    assert verdict == "1 differ from the recording"


def test_a_trace_without_the_data_is_refused_or_made_up_for(stage: Stage) -> None:
    hashed = stage.record("three", 3, payload="images=full,uploads=hash,downloads=hash")
    done = stage.replay(hashed)
    assert (done.status, done.result) == (2, {})
    assert "does not hold the bytes of 1 uploads" in done.told
    assert "--trace-payload full, or replay with --synthesize" in done.told
    done = stage.replay(hashed, "--synthesize")
    assert done.status == 1
    # Of the kernels that were given zeros all three made something else.
    assert (done.result["synthesized"], done.result["different"]) == (1, 2 + 1)


def test_a_check_that_compares_nothing_fails(stage: Stage) -> None:
    trace = stage.record("three", 3, payload="images=full,uploads=full,downloads=shape")
    done = stage.replay(trace)
    assert done.status == 1
    assert done.result["different"] == 0
    assert "nothing of the data was compared" in done.result["verdict"]
    assert done.result["skipped_because"] == {"only the size was recorded": 3}
    assert_same(stage.replay(trace, "--check", "returns"))
    for check in ("returns", "final"):
        done = stage.replay(trace, "--check", check, "--from", 1000)
        assert (done.status, done.result["compared"]) == (1, 0)
        assert "--from and --to have left nothing" in done.result["verdict"]


def test_images_that_the_device_cannot_run_are_refused(stage: Stage) -> None:
    events = stage.events(stage.record("three", 3))
    (image,) = calls_of(events, "harp_blob_append")
    (code,) = calls_of(stage.events(stage.record("cubin", name="cubin")), "cuMemcpyHtoD_v2")
    image["payload"], image["args"]["piece"] = code["payload"], code["args"]["data"]
    done = stage.replay(stage.assemble(events))
    assert done.status == 2
    assert "cannot run what call" in done.told
    assert "holds machine code for sm_90" in done.told
    assert "a soft GPU executes PTX" in done.told


def test_a_handle_that_nothing_made_is_refused(stage: Stage) -> None:
    events = stage.events(stage.record("three", 3))
    launch = calls_of(events, "cuLaunchKernel")[1]
    launch["args"]["function"]["id"] += 16 << 10
    done = stage.replay(stage.assemble(events))
    assert done.status == 2
    assert f"call {launch['number']}: cuLaunchKernel uses the Function" in done.told
    assert "which no call of the trace has made" in done.told


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("cuLaunchHostFunc", "a host function is reached that no call has asked for"),
        ("harp_callback_done", "has returned before the host function of call"),
    ],
)
def test_what_would_be_waited_for_in_vain_is_refused(stage: Stage, name: str, told: str) -> None:
    """Host functions of which the trace lacks that they were queued, or that they have returned."""
    program = build.programs()["host_callback"]
    events = stage.events(stage.record(build.build(program.name, program.variants[0])))
    events.remove(calls_of(events, name)[0])
    done = stage.replay(stage.assemble(events))
    assert done.status == 2
    assert told in done.told


LOST = {"type": "loss", "reasons": [], "bits": 1, "bytes": 100}


def test_lost_times_are_noted_and_no_obstacle(stage: Stage) -> None:
    events = stage.events(stage.record("three", 3))
    leaves = [event for event in events if event["type"] == "leave"][3:7]
    loss = LOST | {"time": leaves[-1]["time"], "blocks": 4, "type_bits": 1 << 6}
    events[events.index(leaves[-1])] = loss
    events = [event for event in events if event not in leaves]
    trace = stage.assemble(events)
    done = stage.replay(trace)
    assert_same(done)
    assert done.result["lost"] == {"blocks": 4, "types": ["leave"], "uploads": 0}
    words = stage.command(trace, *stage.pool)
    said = subprocess.run(words, env=stage.environ, capture_output=True, text=True, timeout=LONGEST)
    assert "has lost 4 blocks (leave), but no call\n" in said.stdout


@pytest.mark.parametrize("types", [1 << 5 | 1 << 7, 1 << 9, None])
def test_a_trace_that_has_lost_calls_is_replayed_up_to_there_if_asked(
    stage: Stage, types: int | None
) -> None:
    """A reply, or what an older trace does not say, may be as good as a call."""
    events = stage.events(stage.record("three", 3))
    second = calls_of(events, "cuMemcpyDtoH_v2")[1]
    loss = LOST | {"time": second["time"], "blocks": 1, "type_bits": types}
    if types is None:
        del loss["type_bits"]
    events[events.index(second)] = loss
    trace = stage.assemble(events)
    done = stage.replay(trace)
    last = second["number"] - 1
    assert done.status == 2
    assert f"before call {second['number']}, and may lack calls. Next: replay" in done.told
    assert f"up to there with --to {last}, or record it again" in done.told
    done = stage.replay(trace, "--to", last)
    assert (done.status, done.result["sent"]) == (0, last + 1)
    assert done.result["compared_data"] == 1
    assert stage.replay(trace, "--to", last + 1).status == 2


def test_what_depends_on_lost_bytes_is_not_compared(stage: Stage) -> None:
    """Of the two results one was made together with what was lost, by way of the weights."""
    events = stage.events(stage.record("chain", 20))
    upload = calls_of(events, "cuMemcpyHtoD_v2")[3]
    upload["payload"] = {"policy": "lost", "bytes": upload["payload"]["bytes"], "hash": None}
    trace = stage.assemble(events)
    done = stage.replay(trace)
    assert_same(done)
    assert done.result["lost"]["uploads"] == 1
    assert done.result["compared_data"] == 1
    assert done.result["skipped_because"] == {"it depends on data that was lost": 1}
    events = stage.events(stage.record("three", 3, name="three"))
    (upload,) = calls_of(events, "cuMemcpyHtoD_v2")
    upload["payload"] = {"policy": "lost", "bytes": upload["payload"]["bytes"], "hash": None}
    done = stage.replay(stage.assemble(events, "all_of_it"))
    assert (done.status, done.result["different"], done.result["compared_data"]) == (1, 0, 0)
    assert "nothing of the data was compared" in done.result["verdict"]


def test_calls_of_another_version_are_told_by_name(stage: Stage) -> None:
    events = stage.events(stage.record("three", 3))
    (define,) = (event for event in events if event["type"] == "define")
    known = {call["name"]: call for call in define["calls"]}
    # Another number is no difference, as long as the trace says it.
    ids = {"cuLaunchKernel": 60000}
    known["cuLaunchKernel"]["id"] = ids["cuLaunchKernel"]
    for event in calls_of(events, "cuLaunchKernel"):
        event["id"] = ids["cuLaunchKernel"]
    assert_same(stage.replay(stage.assemble(events, "renumbered")))
    known["cuLaunchKernel"]["inputs"][3]["name"] = "other"
    for event in calls_of(events, "cuLaunchKernel"):
        event["args"]["other"] = event["args"].pop("shared_bytes")
    done = stage.replay(stage.assemble(events, "of_another_version"))
    assert done.status == 2
    assert "cuLaunchKernel takes or gives other values" in done.told
    assert " Next: replay it with the version of harp-pool that recorded it" in done.told
    # Nor has anybody heard yet of a call of a later version.
    known["cuLaunchKernel"]["name"] = "cuLaunchTomorrow"
    launches = calls_of(events, "cuLaunchKernel")
    for event in launches:
        event["name"] = "cuLaunchTomorrow"
    later = stage.assemble(events, "of_a_later_version")
    done = stage.replay(later)
    assert done.status == 2
    assert f"call {launches[0]['number']}: this version has no call cuLaunchTomorrow" in done.told
    assert stage.replay(later, "--to", launches[0]["number"] - 1).status == 0


def test_a_replay_can_be_interrupted(stage: Stage) -> None:
    trace = stage.record("three", 3)
    events = stage.events(trace)
    # An hour before the last call.
    for event in events[-40:]:
        if "time" in event:
            event["time"] += 3_600_000_000_000
    slow = stage.assemble(events, "slow")
    words = stage.command(slow, *stage.pool, "--timing", "as-recorded")
    running = subprocess.Popen(
        words, env=stage.environ, stderr=subprocess.PIPE, text=True, start_new_session=True
    )

    def children() -> list[str]:
        return Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()

    wait_until(lambda: len(children()) == 1, "harp-trace has not been started")
    (child,) = children()
    os.killpg(running.pid, signal.SIGINT)
    _, told = running.communicate(timeout=LONGEST)
    assert (running.returncode, told) == (130, "")
    wait_until(lambda: not Path(f"/proc/{child}").exists(), "harp-trace is still there")


def test_a_program_that_was_killed_is_replayed_up_to_there(stage: Stage) -> None:
    trace = stage.record("killed", status=128 + signal.SIGKILL)
    done = stage.replay(trace)
    assert_same(done)
    assert (done.result["complete"], done.result["compared_data"]) == (True, 1)
