"""What numba-cuda's tests expect from the conftest.py of its repository; its wheel has none."""

import pytest


@pytest.fixture(scope="class")
def initialize_from_pytest_config(request):
    """Whether a failed comparison of compiler output is dumped to files: it is not."""
    request.cls._dump_failed_filechecks = False
