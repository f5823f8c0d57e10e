"""A running server, and the proxy through which programs reach it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pool.standins import ASKING_NOTHING, Pool, Server, environment, servers


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path) | ASKING_NOTHING


@pytest.fixture
def start_server(environ: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers that do not outlive the test."""
    with servers(Pool(tmp_path), environ, tmp_path) as start:
        yield start
