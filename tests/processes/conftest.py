"""What the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pool.standins import environment
from processes.ways import Children, Programs, Ways


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return Programs(tmp_path_factory.mktemp("programs"))


@pytest.fixture(scope="session")
def plain_environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment without anything of HARP's or CUDA's."""
    folder = tmp_path_factory.mktemp("home")
    environ = environment(folder)
    environ["CUPY_CACHE_DIR"] = str(folder / "cupy")
    environ["HARP_SOFT_MEMORY"] = "1GiB"
    return environ


@pytest.fixture(scope="session")
def server_ways(
    tmp_path_factory: pytest.TempPathFactory, plain_environ: dict[str, str]
) -> Iterator[Ways]:
    ways = Ways(tmp_path_factory.mktemp("processes"), plain_environ)
    yield ways
    ways.close()


@pytest.fixture
def ways(server_ways: Ways) -> Iterator[Ways]:
    """The ways to run, one server for all tests; each test must leave it without a session."""
    with server_ways.leaving_nothing():
        yield server_ways


@pytest.fixture
def children() -> Iterator[Children]:
    children = Children()
    yield children
    children.close()
