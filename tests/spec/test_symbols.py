"""Both libcuda.so.1 have every symbol of the API, and the name that loaders look for."""

import os
import subprocess
from pathlib import Path

import pytest

from harp_spec import facts
from harp_spec.outputs.exports import all_functions, interop_names

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", facts.ROOT / "target")) / "release"


@pytest.fixture(params=["libharp_interposer.so", "libharp_softgpu.so"])
def library(request: pytest.FixtureRequest) -> Path:
    path = TARGET / request.param
    assert path.exists(), "run `make build`"
    return path


def output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_every_symbol_is_exported(library: Path) -> None:
    lines = output("nm", "--dynamic", "--defined-only", library).splitlines()
    exported = {line.split()[-1] for line in lines}
    assert (set(all_functions()) | interop_names()) - exported == set()


def test_the_library_is_called_libcuda(library: Path) -> None:
    assert "Library soname: [libcuda.so.1]" in output("readelf", "--dynamic", library)
