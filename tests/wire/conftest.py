"""What the tests of this folder share."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pool.standins import Pool, Server, environment, servers

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def stubs(tmp_path_factory):
    """The Python messages and stubs of the data path, made from its .proto."""
    out = tmp_path_factory.mktemp("stubs")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{ROOT / 'proto'}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            "harp/data/v1/session.proto",
        ],
        check=True,
    )
    sys.path.insert(0, str(out))
    try:
        yield (
            importlib.import_module("harp.data.v1.session_pb2"),
            importlib.import_module("harp.data.v1.session_pb2_grpc"),
        )
    finally:
        sys.path.remove(str(out))


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers with real workers, that do not outlive the test."""
    with servers(Pool(tmp_path), environment(tmp_path), tmp_path) as start:
        yield start
