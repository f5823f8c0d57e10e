"""What the tests of the scheduler share: a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from scheduler.store.postgres import Postgres, binaries


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    programs = binaries()
    if programs is None:
        pytest.skip("there is no PostgreSQL here; apt-get install postgresql enables this")
    server = Postgres(programs)
    yield server
    server.remove()
