"""What CuPy makes of faults: its own exceptions, with CUDA's names in them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.stage import Stage
from pool.standins import BOUND, HARP_RUN

PYTHON = Path(__file__).parents[2] / ".cache/clients-venv/bin/python"

MEMORY_AND_KERNELS = """
import cupy
from cupy.cuda.memory import OutOfMemoryError
from cupy_backends.cuda.api.runtime import CUDARuntimeError

most = cupy.zeros(96 << 20, dtype=cupy.uint8)
try:
    cupy.zeros(96 << 20, dtype=cupy.uint8)
    raise SystemExit("there was room")
except OutOfMemoryError as error:
    print("memory", type(error).__name__)
del most
cupy.get_default_memory_pool().free_all_blocks()
again = cupy.zeros(96 << 20, dtype=cupy.uint8)
again[-1] = 7
print("again", int(again[-1]))
write = cupy.RawKernel('extern "C" __global__ void write(int *p) { *p = 1; }', "write")
write((1,), (1,), (cupy.uint64(0x123450),))
for what in ("wait", "later"):
    try:
        cupy.cuda.runtime.deviceSynchronize() if what == "wait" else cupy.zeros(3)
        raise SystemExit("no error")
    except Exception as error:
        print(what, str(error).split(":")[0])
"""

UNTIL_LOST = """
import time
import cupy
from cupy_backends.cuda.api.runtime import CUDARuntimeError

numbers = cupy.arange(100)
print("working", flush=True)
try:
    while int(numbers.sum()) == 4950:
        time.sleep(0.02)
except CUDARuntimeError as error:
    print("lost", str(error).split(":")[0], flush=True)
    raise SystemExit(3)
"""


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    if not PYTHON.exists():
        pytest.skip("no CuPy: `make clients` brings it")
    stage = Stage(tmp_path, "driver")
    stage.environ["CUPY_CACHE_DIR"] = str(tmp_path / "cupy")
    yield stage
    stage.close()


def command(stage: Stage, address: str, script: str) -> list[str]:
    at = ["--ptx", "--server", address, "--credentials", str(stage.pool.user)]
    return [*HARP_RUN, *at, "--", str(PYTHON), "-c", script]


def test_memory_and_kernels(stage: Stage) -> None:
    server = stage.server(HARP_SOFT_MEMORY="160MiB")
    done = subprocess.run(
        command(stage, server.address, MEMORY_AND_KERNELS),
        env=stage.environ,
        capture_output=True,
        text=True,
        timeout=8 * BOUND,
    )
    assert done.stdout.splitlines() == [
        "memory OutOfMemoryError",
        "again 7",
        "wait cudaErrorIllegalAddress",
        "later cudaErrorIllegalAddress",
    ], done.stdout + done.stderr
    assert not [line for line in done.stderr.splitlines() if line.startswith("harp")]


def test_a_lost_session(stage: Stage) -> None:
    server = stage.server()
    process = subprocess.Popen(
        command(stage, server.address, UNTIL_LOST),
        env=stage.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == "working\n", (line, process.communicate())
    server.process.kill()
    stdout, stderr = process.communicate(timeout=8 * BOUND)
    assert stdout == "lost cudaErrorDevicesUnavailable\n", stdout + stderr
    assert process.returncode == 3
    told = [line for line in stderr.splitlines() if line.startswith("harp")]
    assert len(told) == 1, stderr
