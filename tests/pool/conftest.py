"""A pool of stand-ins: the real agent and commands, with a gate and workers that speak real TLS but
execute nothing."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pool.standins import Pool, Server, environment, servers

FAKES = Path(__file__).parent / "fakes"


@pytest.fixture(scope="session")
def empty_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shared library without content, for the dynamic loader to preload."""
    folder = tmp_path_factory.mktemp("empty")
    source = folder / "empty.c"
    source.write_text("int harp_test_empty;\n")
    library = folder / "libcuda.so.1"
    command = ["cc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1"]
    subprocess.run([*command, "-o", str(library), str(source)], check=True)
    return library


@pytest.fixture
def native_dir(tmp_path: Path, empty_library: Path) -> Path:
    """A native layout of stand-ins. Its path is in the command line of everything started by it."""
    folder = tmp_path / "native"
    for part in ("interposer", "softgpu"):
        (folder / part).mkdir(parents=True)
        shutil.copy(empty_library, folder / part / "libcuda.so.1")
    shutil.copytree(FAKES, folder / "bin")
    return folder


@pytest.fixture
def environ(native_dir: Path, tmp_path: Path) -> dict[str, str]:
    """An environment that uses the stand-ins and touches nothing outside the test's folder."""
    return environment(tmp_path) | {"HARP_NATIVE_DIR": str(native_dir)}


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    return Pool(tmp_path)


@pytest.fixture
def start_server(
    pool: Pool, environ: dict[str, str], tmp_path: Path
) -> Iterator[Callable[..., Server]]:
    """Starts servers that do not outlive the test."""
    with servers(pool, environ, tmp_path) as start:
        yield start
