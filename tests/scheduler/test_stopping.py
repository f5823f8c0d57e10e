"""A scheduler that is asked to stop, whatever it is at."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from harp_scheduler.service import process
from harp_scheduler.store.store import Store
from harp_server.ca import Authority
from harp_server.logs import Log

BOUND = 30.0


class SlowLeader:
    """A leader whose work takes until `may_end` to end."""

    ending, may_end = asyncio.Event(), asyncio.Event()

    def __init__(self, *_: object) -> None:
        self.history = SimpleNamespace(leads=lambda *_: None)

    async def run(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.ending.set()
            await self.may_end.wait()

    async def handle(self, _: object) -> None:
        """Nothing changes."""


def test_who_is_to_stop_while_a_lost_lead_is_put_away_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(f"sqlite:///{tmp_path / 'pool.db'}")

    async def read(_: process.Scheduler, term: int) -> SimpleNamespace:
        return SimpleNamespace(book=SimpleNamespace(tenants={"default": term}, leases={}))

    monkeypatch.setattr(process, "Leader", SlowLeader)
    monkeypatch.setattr(process.Scheduler, "_read", read)

    async def run() -> None:
        settings = process.Settings("127.0.0.1:0", Authority.create("lab"))
        scheduler = process.Scheduler(settings, store, Log("plain", "critical"))
        lost = asyncio.Event()
        leading = asyncio.create_task(scheduler._lead(1, lost))
        async with asyncio.timeout(BOUND):
            lost.set()
            await SlowLeader.ending.wait()
            leading.cancel()
            await asyncio.sleep(0)
            SlowLeader.may_end.set()
            await asyncio.wait({leading})
        assert leading.cancelled()

    asyncio.run(run())
    store.close()
