"""The simulated pool over the real store: what must be true after every event is true here too."""

from __future__ import annotations

from pathlib import Path

import pytest

from harp_scheduler.core.book import Key, Number, Record
from harp_scheduler.core.pool import Outcome
from harp_scheduler.store import errors
from harp_scheduler.store.database import Database
from harp_scheduler.store.store import Store
from scheduler.simulation import parts
from scheduler.simulation.world import World
from scheduler.store.samples import key_of
from scheduler.store.seats import OpenSeat


class Stored(parts.Database):
    """The simulation's database, in a file. Each leader has a store of its own, as its process has.

    `records` and `numbers` are what was committed; at each change of the leader, and at the end,
    they are held against what the file says."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.url = f"sqlite:///{path}"
        Store.open(self.url).close()
        self.stores: dict[int, Store] = {}

    def lead(self) -> int:
        store = Store(Database(self.url), OpenSeat())
        term = store.lead("simulated")
        assert term == super().lead()
        self.stores[term] = store
        self.compare(store)
        return term

    def compare(self, store: Store) -> None:
        records, numbers = store.load()
        stored: dict[Key, Record] = {key_of(record): record for record in records}
        assert stored == self.records
        assert {number.name: number for number in numbers} == self.numbers
        # A new leader reads the requests in the order in which they came.
        self.records = stored

    def commit(self, term: int, outcome: Outcome) -> None:
        try:
            self.stores[term].commit(term, outcome.changes, outcome.numbers)
        except errors.LeaderLost:
            assert term != self.term, "only who leads no more is refused"
            raise parts.LeaderLost from None
        super().commit(term, outcome)

    def close(self) -> None:
        self.compare(self.stores[self.term])
        for store in self.stores.values():
            store.close()


@pytest.mark.parametrize("seed", range(3))
def test_a_simulated_pool_over_the_store(seed: int, tmp_path: Path) -> None:
    world = World(seed)
    stored = Stored(tmp_path / "pool.db")
    world.database = stored
    for scheduler in world.schedulers:
        scheduler.database = stored
    try:
        world.run()
    except AssertionError:
        print("\n".join(world.clock.story[-200:]))
        raise
    finally:
        stored.close()
    assert stored.term > 1, "no scheduler was ever replaced"
    assert isinstance(stored.numbers["epoch"], Number)
