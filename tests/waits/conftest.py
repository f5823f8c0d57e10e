"""A server with a soft GPU, and programs that say why they wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conformance.outcome import Outcome, finish
from pool.standins import ASKING_NOTHING, HARP_RUN, Pool, Server, environment
from waits.profile import Profile, profile_of


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("waits")
    cache = {"CUPY_CACHE_DIR": str(folder / "cupy"), "CUPY_COMPILE_WITH_PTX": "1"}
    return environment(folder) | ASKING_NOTHING | cache


@pytest.fixture(scope="module")
def server(environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("server")
    running = Server(Pool(folder), environ, folder / "server.log")
    yield running
    assert running.stop() == 0, running.log.read_text()


@pytest.fixture(scope="module")
def run(environ: dict[str, str], server: Server) -> Callable[..., Outcome]:
    """Runs a command in the pool, which must succeed, and has it say why its calls waited."""

    def run(*command: object, address: str = server.address, words: str = "--stats") -> Outcome:
        options = ["--server", address, "--credentials", str(server.pool.user), words]
        words = [*HARP_RUN, *options, "--", *(str(word) for word in command)]
        outcome = finish(words, environ)
        assert outcome.status == 0, outcome.told()
        return outcome

    return run


@pytest.fixture(scope="module")
def profile(run: Callable[..., Outcome]) -> Callable[..., Profile]:
    """Runs a command in the pool and says why its calls waited."""
    return lambda *command: profile_of(run(*command).stderr)
