"""Events in the store: the newest of them come back to the next scheduler."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harp_scheduler.store import events
from harp_scheduler.store.errors import LeaderLost
from harp_scheduler.store.events import Happening
from harp_scheduler.store.store import Store


def happened(number: int, reason: str = "") -> Happening:
    return Happening(number, 1.795e9 + number, "lease", "l-1", "work", "Lost", reason, "research")


def test_events_come_back_in_order_whatever_their_words(
    url: str, open_store: Callable[[str], Store]
) -> None:
    store = open_store(url)
    term = store.lead("one")
    assert term is not None
    said = [happened(1, "a\0b"), happened(2, "\ufdd0 \N{GREEK SMALL LETTER ALPHA}")]
    store.commit(term, {}, happened=said[:1])
    store.commit(term, {}, happened=said[1:])
    with pytest.raises(LeaderLost):
        store.commit(term - 1, {}, happened=[happened(3)])
    store.close()
    assert open_store(url).events() == said


def test_the_oldest_events_are_removed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEPT", 10)
    monkeypatch.setattr(events, "PRUNE", 4)
    term = store.lead("one")
    assert term is not None
    for first in range(1, 40, 3):
        store.commit(term, {}, happened=[happened(first + n) for n in range(3)])
        with store._database.reading() as connection:
            rows = connection.execute(events.events.select()).all()
        assert len(rows) <= 10 + 4 + 3
    assert [one.number for one in store.events()] == list(range(30, 40))


def test_they_are_removed_too_where_not_every_number_is_stored(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "KEPT", 10)
    monkeypatch.setattr(events, "PRUNE", 4)
    term = store.lead("one")
    assert term is not None
    for number in range(1, 200, 2):  # none is a multiple of PRUNE
        store.commit(term, {}, happened=[happened(number)])
    with store._database.reading() as connection:
        assert len(connection.execute(events.events.select()).all()) <= 10 + 4
