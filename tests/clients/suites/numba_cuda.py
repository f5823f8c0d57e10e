"""numba-cuda's own tests, which its wheel carries."""

from __future__ import annotations

from pathlib import Path

from clients.environment import clients_python
from clients.suites.suite import Sample, Suite
from clients.toolkit import HERE

INSIDE = HERE / "suites" / "inside"
TESTS = "numba_cuda/numba/cuda/tests"


def python() -> Path:
    """The client's Python at its real place: pytest compares modules' paths with resolved ones."""
    found = clients_python()
    return found.parent.resolve() / found.name


def site_packages() -> Path:
    """Where the client's packages are, and so its tests."""
    (found,) = python().parents[1].glob("lib/python3.*/site-packages")
    return found


SUITE = Suite(
    name="numba-cuda",
    title="numba-cuda 0.30.4 on CUDA 12.9, without nvJitLink",
    python=python,
    root=site_packages,
    paths=(TESTS,),
    sample=Sample(share=0.06, fewest=1, most=5),
    arguments=(
        *("-c", str(INSIDE / "numba.ini"), "--rootdir", "."),
        *("-p", "numba_fixture", "--ignore", f"{TESTS}/benchmarks"),
        *("--ignore", f"{TESTS}/cudasim"),
    ),
    seconds=180.0,
)
