"""CuPy's own tests, out of its source distribution; the wheel of the same version is what runs."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from clients.environment import CUPY_CUDA_13, clients_python
from clients.suites.suite import Sample, Suite
from clients.toolkit import CACHE, HERE, prepare_once, progress, toolkit

REQUIREMENT = HERE / "requirements-cupy-source.txt"
STAND_IN = HERE / "suites" / "metadata"

FOLDERS = ("core", "creation", "indexing", "manipulation", "math", "sorting", "statistics")


def _make_source(place: Path) -> None:
    """Fetches the archive by pip, which checks its hash, and unpacks the tests alone.

    pip prepares metadata of every source archive that it downloads. CuPy's build would want a CUDA
    installation for that, so a stand-in for its build backend writes them.
    """
    progress("CuPy's source distribution: downloading its tests (once)")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
    command += ["--require-hashes", "--requirement", str(REQUIREMENT), "--dest", str(place)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(STAND_IN)})
    (archive,) = place.glob("cupy-*.tar.gz")
    with tarfile.open(archive) as file:
        for member in file:
            _, _, name = member.name.partition("/")
            if member.isfile() and name.startswith(("tests/", "pyproject.toml")):
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(file.extractfile(member).read())
    archive.unlink()


def source() -> Path:
    """The folder that holds CuPy's `tests`."""
    return prepare_once(CACHE / "suites" / "cupy", REQUIREMENT.read_bytes(), _make_source)


def environ() -> dict[str, str]:
    """A compiler for the tests that run nvcc, and one kernel cache for all runs and columns."""
    return {
        "NVCC": str(toolkit() / "bin" / "nvcc"),
        "CUPY_CACHE_DIR": str(CACHE / "suites" / "cupy-kernels"),
    }


def suite(cuda: str, python: Callable[[], Path], sample: Sample) -> Suite:
    """CuPy's tests of array operations, with the wheel for a CUDA release."""
    return Suite(
        name=f"cupy-cuda{cuda.partition('.')[0]}",
        title=f"CuPy 14.2.0 on CUDA {cuda}",
        python=python,
        root=source,
        paths=tuple(f"tests/cupy_tests/{folder}_tests" for folder in FOLDERS),
        sample=sample,
        environ=environ,
        seconds=300.0,
        # Before a first kernel jitify finds the headers that CCCL needs by compiling without them:
        # 693 times NVRTC, each time with one header more, 36 minutes on two cores. CuPy keeps what
        # it has found in the kernel cache (jitify_*.json), and with that `--only "jitify)"` takes
        # four. CuPy means to remove it.
        endless=r"[\[( ]jitify[\])]",
    )


CUDA_12 = suite("12.9", clients_python, Sample(share=0.02, fewest=2, most=60))
CUDA_13 = suite("13.0", partial(clients_python, CUPY_CUDA_13), Sample(share=0.002, fewest=1))
