"""What the tests of this folder share: a small driver, and a program that calls it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from local.evaluated import HERE, Calls
from pool.standins import BOUND, HARP_RUN, environment


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    command = ["cc", "-std=gnu17", "-O1", "-Wall", "-Werror", "-shared", "-fPIC"]
    command += ["-Wl,-soname,libcuda.so.1", "-o", str(library), str(HERE / "driver.c")]
    subprocess.run(command, check=True)
    return library


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path)


@pytest.fixture
def calls(driver: Path, environ: dict[str, str]) -> Calls:
    """Evaluates expressions of calls.py over a driver, the small one unless another is named."""

    def run(
        *expressions: str,
        libcuda: object = driver,
        options: tuple[str, ...] = (),
        way: str = "local",
    ) -> subprocess.CompletedProcess[str]:
        which = ["--local", "--libcuda", str(libcuda)] if way == "local" else ["--direct"]
        command = [*HARP_RUN, *which, *options, "--"]
        command += [sys.executable, str(HERE / "calls.py"), *expressions]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=BOUND)

    return run
