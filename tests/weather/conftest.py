"""A running server, and the proxy through which programs reach it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pool.standins import Pool, Server


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment that touches nothing outside the test's folder."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HARP_", "XDG_", "CUPY_"))}
    kept["HARP_STATE_DIR"] = str(tmp_path / "state")
    kept["XDG_CONFIG_HOME"] = str(tmp_path / "config")
    # Said, so that harp-run opens no session of its own to ask for it.
    kept["HARP_PTX"] = "0"
    return kept


@pytest.fixture
def start_server(environ: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers that do not outlive the test."""
    started: list[Server] = []
    pool = Pool(tmp_path)

    def start(*options: str) -> Server:
        server = Server(pool, environ, tmp_path / f"server-{len(started)}.log", *options)
        started.append(server)
        return server

    yield start
    for server in started:
        server.process.kill()
        server.process.communicate()
