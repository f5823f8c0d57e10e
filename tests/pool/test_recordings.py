"""Sessions that are recorded on their server: those of some tenants from their first call."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harp_client.errors import HarpError
from harp_client.native import find
from harp_server.logs import Log
from harp_server.recordings import Recorders, Recording, make_room, rules
from pool.standins import ASKING_NOTHING, BOUND, HARP_RUN, Server, wait_until

PROGRAM = [sys.executable, str(Path(__file__).with_name("uploading_program.py"))]
SIZE = (3 << 20) + 70_000
ALICE = "spiffe://lab/tenant/research/user/alice"


@pytest.fixture
def environ(environ: dict[str, str]) -> dict[str, str]:
    """The stand-ins' environment with the real parts in their place."""
    return {k: v for k, v in environ.items() if k != "HARP_NATIVE_DIR"} | ASKING_NOTHING


def run(server: Server, environ: dict[str, str]) -> dict[str, object]:
    """Runs the program that uploads, and returns the log's line about its end."""
    before = len(server.lines("session end"))
    command = [*HARP_RUN, "-s", server.address, "-c", str(server.pool.user), "--"]
    done = subprocess.run(
        [*command, *PROGRAM, "7", str(SIZE)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=BOUND,
    )
    assert done.returncode == 0, done.stderr
    wait_until(lambda: len(server.lines("session end")) > before, "the session's end is logged")
    return server.lines("session end")[-1]


def events(trace: Path) -> list[dict[str, object]]:
    done = subprocess.run(
        [find({}).trace, "events", str(trace)], capture_output=True, text=True, timeout=BOUND
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_sessions_of_a_tenant_are_recorded_from_their_first_call(
    start_server: Callable[..., Server], environ: dict[str, str], tmp_path: Path
) -> None:
    traces = tmp_path / "traces"
    options = ("--record", "research=full", "--record-folder", str(traces))
    server = start_server(*options)
    ended = run(server, environ)
    wait_until(lambda: bool(server.lines("session recorded")), "the trace is finished")
    told = server.lines("session recorded")[-1]
    trace = traces / "research" / f"{ended['session']}.htrace"
    assert (told["path"], told["lost"]) == (str(trace), 0)
    found = events(trace)
    calls = [each for each in found if each["type"] == "call"]
    assert len(calls) == told["calls"] == ended["calls"]
    process = next(each for each in found if each["type"] == "process")
    assert (process["recorded_by"], process["from_start"]) == ("server", True)
    uploads = [each for each in calls if each["name"] == "cuMemcpyHtoD_v2"]
    payloads = [each["payload"] for each in uploads]
    assert all(isinstance(each, dict) and each["policy"] == "full" for each in payloads)
    assert sum(each["bytes"] for each in payloads if isinstance(each, dict)) == SIZE
    last = found[-1]
    assert (last["type"], last["complete"], last["cut"]) == ("trace", True, False)
    done = subprocess.run(
        [find({}).trace, "verify", str(trace)], capture_output=True, timeout=BOUND
    )
    assert done.returncode == 0, done.stdout


def test_the_sessions_of_another_tenant_are_not(
    start_server: Callable[..., Server], environ: dict[str, str], tmp_path: Path
) -> None:
    traces = tmp_path / "traces"
    server = start_server("--record", "sales=full", "--record-folder", str(traces))
    run(server, environ)
    assert not traces.exists()
    assert not server.lines("session not recorded")


def test_a_recorder_that_cannot_start_leaves_the_session_alone(
    start_server: Callable[..., Server], environ: dict[str, str], tmp_path: Path
) -> None:
    in_the_way = tmp_path / "traces"
    in_the_way.write_text("no folder")
    server = start_server("--record", "*=shape", "--record-folder", str(in_the_way))
    run(server, environ)
    assert server.lines("session not recorded")


def test_rules_name_tenants_or_everybody() -> None:
    recording = Recording(Path(), rules(("research=hash", "*=downloads=full")))
    assert recording.of(ALICE) == "images=hash,uploads=hash,downloads=hash"
    assert (
        recording.of(ALICE.replace("research", "sales"))
        == "images=hash,uploads=shape,downloads=full"
    )
    assert Recording(Path(), rules(("sales=full",))).of(ALICE) is None
    for wrong in ("research", "=full", "research=everything"):
        with pytest.raises(HarpError):
            rules((wrong,))


def test_the_oldest_traces_that_nobody_writes_make_room(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "older", "oldest", "of-a-dead-recorder", "written")):
        trace = tmp_path / "research" / f"{name}.htrace"
        trace.mkdir(parents=True)
        (trace / "calls.zst").write_bytes(bytes(100))
        (trace / ("MANIFEST.json" if age < 3 else "MANIFEST.json.incomplete")).touch()
        os.utime(trace, (1000 - age, 1000 - age))
    written = {tmp_path / "research" / "written.htrace"}
    for most, left in (
        (400, ["new", "of-a-dead-recorder", "older", "oldest", "written"]),
        (350, ["new", "older", "oldest", "written"]),
        (150, ["new", "written"]),
        (0, ["written"]),
    ):
        make_room(tmp_path, most, written)
        assert sorted(path.stem for path in tmp_path.glob("*/*")) == left


def test_a_recorder_that_is_killed_in_the_middle_of_a_line_is_logged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = tmp_path / "recorder"
    recorder.write_text("""#!/bin/sh
printf '{"type":"ready"}\\n{"type":"tra'
kill -9 $$
""")
    recorder.chmod(0o755)

    async def run() -> None:
        recorders = Recorders(str(recorder), Recording(tmp_path / "traces"), {}, Log("json"))
        over: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        way = recorders.begin("s", ALICE, "shape", over)
        assert way is not None
        with way:
            over.set_result(0)
            async with asyncio.timeout(BOUND):
                await recorders.end()

    asyncio.run(run())
    assert "session not recorded" in capsys.readouterr().err
