"""What holds for all tests."""

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def _cache_of_this_run(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Embedded pools find nothing that another run of the tests has uploaded."""
    os.environ["HARP_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
