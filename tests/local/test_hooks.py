"""Local mode: what is said of the calls, and how a limit on memory is kept."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from local.evaluated import HERE, Calls, answers
from pool.standins import BOUND, HARP_RUN
from waits.profile import tables_of

MIB = 1 << 20
OUT_OF_MEMORY = 2


def test_calls_and_waits_are_counted(calls: Calls, driver: Path) -> None:
    """Also those by addresses that cuGetProcAddress gave. What the driver lacks is no call."""
    synchronise = "cuda.cuStreamSynchronize(c_void_p({}))"
    done = calls(
        "cuda.cuInit(0)",
        "at(proc('cuInit')[2], c_int(0))",
        "cuda.cuCtxSynchronize()",
        *(synchronise.format(stream) for stream in (0, 1)),
        options=("--stats",),
    )
    assert answers(done) == [0, 0, 801, 0, 400]
    (line,) = (line for line in done.stderr.splitlines() if " calls to " in line)
    found = re.fullmatch(
        r"harp: (\d+) calls to (.*), (\d+) of them waits; "
        r"[\d.]+ s in the driver, [\d.]+ s of it in waits; [\d.]+ s",
        line,
    )
    assert found is not None, line
    assert found.groups() == ("5", str(driver), "2")


def test_calls_and_copies_are_told_in_tables(calls: Calls) -> None:
    synchronise = "cuda.cuStreamSynchronize(c_void_p({}))"
    expressions = ["cuda.cuInit(0)", *(synchronise.format(stream) for stream in (0, 1))]
    told = calls(*expressions, options=("--profile",)).stderr
    assert " calls to " not in told
    (table,) = tables_of(told).values()
    assert {name: row[2] for name, row in table.items()} == {
        "cuInit": 1,
        "cuStreamSynchronize": 2,
    }
    assert re.search(r"Why It Waited:\n\n +2 x +[\d.]+ ms  asked  cuStreamSynchronize\n", told)


def test_a_forked_child_does_not_tell_its_parents_calls(calls: Calls) -> None:
    done = calls(
        "cuda.cuInit(0)", "os.wait()[1] if os.fork() else sys.exit()", options=("--stats",)
    )
    assert answers(done) == [0, 0]
    assert done.stderr.count(" calls to ") == 1, done.stderr


def test_nothing_is_said_unasked(calls: Calls) -> None:
    assert calls("cuda.cuInit(0)").stderr == ""


def test_failing_calls_are_named_for_debugging(calls: Calls, environ: dict[str, str]) -> None:
    environ["HARP_LOG"] = "debug"
    done = calls("cuda.cuInit(1)", "cuda.cuInit(0)", "cuda.cuStreamSynchronize(c_void_p(1))")
    assert done.stderr.splitlines() == [
        "harp: cuInit answers CUDA_ERROR_INVALID_VALUE",
        "harp: cuStreamSynchronize answers CUDA_ERROR_INVALID_HANDLE",
    ]


def test_every_way_to_take_memory_is_limited(environ: dict[str, str]) -> None:
    command = [*HARP_RUN, "--local", "--libcuda", "soft", "--memory", "64MiB", "--"]
    command += [sys.executable, str(HERE / "holdings.py"), str(64 * MIB)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=BOUND)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


def test_arrays_are_limited(calls: Calls) -> None:
    done = calls(
        "array(512, 256)[0]",
        "array(512, 257)[0]",
        "(kept := array(512, 256))[0]",
        "array(1, 0)[0]",
        "cuda.cuArrayDestroy(c_void_p(kept[1]))",
        "array(1, 0)[0]",
        options=("--memory", "1MiB"),
    )
    assert answers(done) == [0, OUT_OF_MEMORY, 0, OUT_OF_MEMORY, 0, 0]


def test_a_limit_that_is_none(calls: Calls) -> None:
    done = calls("cuda.cuInit(0)", options=("--memory", "lots"))
    assert done.returncode == 125
    assert "'lots' is no size of memory" in done.stderr
