"""Denied calls in the audit: as what they are recorded, and how many of one caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from harp_scheduler.service import denials
from harp_scheduler.service.access import Denied
from harp_scheduler.service.denials import ROOM, TEXT_MOST, WINDOW, Denials, verb
from harp_scheduler.store.audit import AuditEntry
from harp_scheduler.store.errors import StoreUnavailable
from scheduler.test_api import ALICE, BOB, Context


class Members:
    """A pool whose audit is a list."""

    pool = "lab"

    def __init__(self) -> None:
        self.store = self
        self.rows: list[AuditEntry] = []

    async def in_store(self, call: Callable[[], None]) -> None:
        call()

    def record(self, entries: Sequence[AuditEntry]) -> None:
        self.rows += entries


def deny(recorder: Denials, identity: str, cause: str = "he may not") -> None:
    async def call() -> None:
        denials.CALL.set((recorder, "/harp.control.v1.Access/CreateToken"))
        await denials.record(Context(identity), Denied(cause))  # type: ignore[arg-type]

    asyncio.run(call())


def test_a_caller_fills_no_more_of_the_audit_than_his_room(monkeypatch: pytest.MonkeyPatch) -> None:
    members = Members()
    recorder = Denials(members)  # type: ignore[arg-type]
    for _ in range(2 * ROOM):
        deny(recorder, ALICE)
    assert [row.caller for row in members.rows] == [ALICE] * ROOM
    assert (members.rows[0].verb, members.rows[0].tenant) == ("create token", "research")
    assert members.rows[0].outcome == "refused: he may not"
    assert members.rows[-1].outcome.startswith("refused: he may not (the last of this caller's")
    deny(recorder, BOB)
    assert members.rows[-1].caller == BOB
    later = denials.time.monotonic() + WINDOW
    monkeypatch.setattr("harp_scheduler.service.denials.time.monotonic", lambda: later)
    deny(recorder, ALICE)
    assert members.rows[-1].caller == ALICE


def test_strangers_and_what_callers_wrote_are_cut_short() -> None:
    members = Members()
    deny(Denials(members), "harp-" + "x" * 1000, "y" * 1_000_000)  # type: ignore[arg-type]
    (row,) = members.rows
    assert row.caller == "harp-" + "x" * (TEXT_MOST - 5)
    assert row.outcome == "refused: " + "y" * TEXT_MOST


def test_a_store_that_is_away_changes_nothing_for_the_caller() -> None:
    class Away(Members):
        def record(self, entries: Sequence[AuditEntry]) -> None:
            raise StoreUnavailable("the database", "is away")

    deny(Denials(Away()), ALICE)  # type: ignore[arg-type]


def test_a_call_that_nobody_records_is_denied_all_the_same() -> None:
    asyncio.run(denials.record(Context(ALICE), Denied("no")))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "said"), [("/p.Pool/Attach", "attach"), ("X/SetTenant", "set tenant")]
)
def test_verbs_are_those_of_the_audit(method: str, said: str) -> None:
    assert verb(method) == said
