"""What the core hands over comes back exactly, whatever it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harp_scheduler.core.book import Number, Record
from harp_scheduler.core.model import Request
from harp_scheduler.store.records import KINDS
from harp_scheduler.store.store import Store
from scheduler.store.samples import DEVICE, POOL, RECORDS, any_of, changes, key_of


def stored(store: Store) -> dict[tuple[str, str], Record]:
    records, _ = store.load()
    return {key_of(record): record for record in records}


def test_every_type_of_record_has_a_table_and_every_field_a_column() -> None:
    assert {kind.type for kind in KINDS.values()} == set(RECORDS)
    for kind in KINDS.values():
        missing = {field.name for field in fields(kind.type)} - set(kind.table.c.keys())
        assert not missing, f"{kind.table.name} has no column for {missing}"


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_any_record_comes_back(kind: type, store: Store) -> None:
    term = store.lead("test")
    assert term is not None

    @settings(
        max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
    )
    @given(st.lists(any_of(kind), min_size=1, max_size=5))
    def comes_back(records: list[Record]) -> None:
        before = stored(store)
        new = changes(*records)
        store.commit(term, new)
        assert stored(store) == before | new
        store.commit(term, dict.fromkeys(new))
        assert stored(store) == {key: record for key, record in before.items() if key not in new}

    comes_back()


def test_everything_comes_back_to_the_next_one(
    url: str, open_store: Callable[[str], Store]
) -> None:
    first = open_store(url)
    term = first.lead("one")
    assert term is not None
    first.commit(term, changes(*POOL), [Number("epoch", 5), Number("order", 1)])
    first.commit(term, {}, [Number("epoch", 6)])
    first.close()
    records, numbers = open_store(url).load()
    assert {key_of(record): record for record in records} == changes(*POOL)
    assert sorted(numbers) == [("epoch", 6), ("order", 1)]


def test_requests_come_back_in_the_order_in_which_they_came(
    url: str, open_store: Callable[[str], Store]
) -> None:
    asked = [Request(f"user{n % 3}", f"{n * 7919 % 100}", "") for n in range(60)]
    for part in (asked[:20], asked[20:]):
        store = open_store(url)
        term = store.lead("test")
        assert term is not None
        for request in part:
            store.commit(term, changes(request))
        store.close()
    records, _ = open_store(url).load()
    assert records == asked


def test_a_transaction_is_stored_whole_or_not_at_all(store: Store) -> None:
    term = store.lead("test")
    assert term is not None
    store.commit(term, changes(DEVICE), [Number("epoch", 1)])
    broken = replace(DEVICE, memory=object())  # type: ignore[arg-type]
    with pytest.raises(Exception, match="object"):
        store.commit(term, changes(*POOL[2:], broken), [Number("epoch", 2)])
    assert store.load() == ([DEVICE], [Number("epoch", 1)])
    assert not store.leads, "what the caller believes and what is stored may differ now"
