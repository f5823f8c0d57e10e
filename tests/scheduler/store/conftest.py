"""Every test of a store runs on both dialects, with a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harp_scheduler.store.store import Store
from scheduler.store.postgres import Postgres


@pytest.fixture
def new_database(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Makes an empty database of a dialect; its URL."""
    made = iter(range(100))

    def new(dialect: str) -> str:
        if dialect == "sqlite":
            return f"sqlite:///{tmp_path}/pool{next(made)}.db"
        postgres: Postgres = request.getfixturevalue("postgres")
        return postgres.new_database()

    return new


@pytest.fixture(params=["sqlite", "postgresql"])
def dialect(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def url(dialect: str, new_database: Callable[[str], str]) -> str:
    return new_database(dialect)


@pytest.fixture
def open_store() -> Iterator[Callable[[str], Store]]:
    """Opens stores that are closed after the test."""
    opened: list[Store] = []

    def open_one(url: str) -> Store:
        store = Store.open(url)
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(url: str, open_store: Callable[[str], Store]) -> Store:
    return open_store(url)
