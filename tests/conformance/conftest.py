"""The columns that every case of this folder runs in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from conformance.columns import Columns
from conformance.known import KNOWN


@pytest.fixture(scope="session")
def columns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Columns]:
    columns = Columns(tmp_path_factory.mktemp("conformance"))
    yield columns
    columns.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the known failures, each with its reason; one that passes after all fails the run."""
    for item in items:
        case = getattr(item, "callspec", None)
        if case is None or "column" not in case.params:
            continue
        if case.params["column"].startswith("native"):
            item.add_marker(pytest.mark.gpu)
        for name, column, reason in KNOWN:
            if case.params.get("name") == name and case.params["column"] in column.split():
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
