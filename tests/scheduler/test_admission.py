"""What a server admits, whatever it is ordered."""

import os
from pathlib import Path
from unittest.mock import Mock

import pytest

from harp_api.control.v1 import agent_pb2 as agent
from harp_server.admission import (
    ADMITTED,
    ENDING,
    REFUSED,
    REVOKED,
    RUNNING_TOLD,
    WAITING,
    Admission,
    Closed,
)
from harp_server.ca import Authority
from harp_server.scheduler_link import SchedulerLink

GIB = 1 << 30


def orders(revision: int, *leases: agent.Order, term: int = 1) -> agent.Orders:
    return agent.Orders(term=term, revision=revision, leases=leases, grace_ms=20_000)


def order(
    lease: str, epoch: int, *, ordinal: int = 0, compute: int = 1000, closed: bool = False
) -> agent.Order:
    part = agent.Part(ordinal=ordinal, memory=GIB * compute // 1000, compute=compute)
    return agent.Order(lease=lease, epoch=epoch, parts=[part], owners=["me"], closed=closed)


@pytest.fixture
def admission() -> Admission:
    return Admission({0: GIB, 1: GIB}, now=0.0)


def states(admission: Admission) -> dict[int, int]:
    return {held.epoch: held.state for held in admission.report(0.0).leases}


def test_a_lease_waits_until_all_before_it_on_its_device_is_dead(admission: Admission) -> None:
    admission.take_orders(orders(1, order("old", 1)))
    assert admission.enter("old", "session").owners == ("me",)
    # The scheduler believes that the old one is gone, and is wrong.
    admission.take_orders(orders(2, order("new", 2)))
    assert states(admission) == {1: ENDING, 2: WAITING}
    assert list(admission.to_end) == ["session"]
    with pytest.raises(Closed, match="waits for what used its device"):
        admission.enter("new", "another")
    admission.leave("session")
    assert states(admission) == {2: ADMITTED}


def test_shares_of_one_device_are_admitted_up_to_the_whole(admission: Admission) -> None:
    thirds = [order(f"lease{n}", n, compute=400) for n in (1, 2, 3)]
    admission.take_orders(orders(1, *thirds))
    assert states(admission) == {1: ADMITTED, 2: ADMITTED, 3: WAITING}
    admission.take_orders(orders(2, *thirds[1:]))
    assert states(admission) == {2: ADMITTED, 3: ADMITTED}


def test_two_parts_of_one_lease_on_one_device_count_together(admission: Admission) -> None:
    twice = order("lease", 1, compute=600)
    twice.parts.append(twice.parts[0])
    admission.take_orders(orders(1, twice))
    assert states(admission) == {1: WAITING}


def test_orders_of_an_earlier_scheduler_or_revision_are_ignored(admission: Admission) -> None:
    assert admission.take_orders(orders(5, order("lease", 1), term=3))
    assert not admission.take_orders(orders(6, term=2))
    assert not admission.take_orders(orders(5, term=3))
    assert not admission.take_orders(orders(4, term=3))
    assert states(admission) == {1: ADMITTED}


def test_what_was_taken_back_never_returns(admission: Admission) -> None:
    admission.take_orders(orders(1, order("lease", 4)))
    admission.take_orders(orders(2))
    admission.take_orders(orders(3, order("lease", 4), order("older", 3)))
    assert states(admission) == {3: REFUSED, 4: REFUSED}
    admission.take_orders(orders(4, order("lease", 5)))
    assert states(admission) == {5: ADMITTED}


def test_a_closed_lease_keeps_its_sessions_and_takes_no_more(admission: Admission) -> None:
    admission.take_orders(orders(1, order("lease", 1)))
    admission.enter("lease", "session")
    admission.take_orders(orders(2, order("lease", 1, closed=True)))
    with pytest.raises(Closed, match="no new programs"):
        admission.enter("lease", "another")
    assert not admission.to_end
    assert admission.report(0.0).leases[0].sessions == 1


def test_sessions_without_a_lease_and_of_unknown_leases_are_refused(admission: Admission) -> None:
    with pytest.raises(Closed, match="take a lease"):
        admission.enter("", "session")
    with pytest.raises(Closed, match="holds no lease l-1"):
        admission.enter("l-1", "session")


def test_the_grace_counts_from_when_the_answered_report_was_made(admission: Admission) -> None:
    admission.register(100.0)
    admission.take_orders(orders(1, order("lease", 1)))
    admission.enter("lease", "session")
    assert not admission.fence(120.0)
    number = admission.report(110.0).number
    admission.report(119.0)  # never answered
    admission.heard(agent.Heard(number=number, term=1))
    assert not admission.fence(130.0)
    assert admission.fence(130.1)
    assert list(admission.to_end) == ["session"]


def test_what_a_fenced_server_held_comes_back_if_the_scheduler_still_wants_it(
    admission: Admission,
) -> None:
    admission.register(0.0)
    admission.take_orders(orders(1, order("lease", 1)))
    admission.enter("lease", "session")
    assert admission.fence(21.0)
    admission.register(22.0)
    admission.take_orders(orders(2, order("lease", 1)))
    assert states(admission) == {1: ENDING}
    admission.leave("session")
    assert states(admission) == {1: ADMITTED}


def test_a_revoked_server_ends_all_and_begins_nothing_until_it_has_other_certificates(
    admission: Admission,
) -> None:
    admission.take_orders(orders(1, order("lease", 1), order("other", 2, ordinal=1)))
    admission.enter("lease", "session")
    admission.revoke()
    assert admission.to_end == {"session": REVOKED}
    assert not admission.take_orders(orders(2, order("lease", 1), order("new", 3, ordinal=1)))
    for lease in ("lease", "other", "new", ""):
        with pytest.raises(Closed, match="its certificate was revoked"):
            admission.enter(lease, "another")
    admission.leave("session")
    assert states(admission) == {}
    # Joined again: what it held may come back, if that is still wanted.
    again = Admission({0: GIB, 1: GIB}, now=0.0)
    again.restore(admission.stored())
    again.take_orders(orders(3, order("lease", 1)))
    assert states(again) == {1: ADMITTED}


def test_a_restarted_agent_takes_its_own_leases_and_no_older_ones(admission: Admission) -> None:
    admission.take_orders(orders(7, order("lease", 5), term=2))
    again = Admission({0: GIB, 1: GIB}, now=0.0)
    again.restore(admission.stored())
    assert not again.take_orders(orders(9, term=1))
    assert again.take_orders(orders(1, order("older", 4), order("lease", 5), term=3))
    assert states(again) == {4: REFUSED, 5: ADMITTED}


@pytest.mark.parametrize(
    "stored",
    [
        {},
        [],
        None,
        {"term": 2, "highest": {"0": 5}},
        {"term": "2", "highest": {"0": 5}, "held": [5]},
        {"term": -1, "highest": {"0": 5}, "held": [5]},
        {"term": 1 << 64, "highest": {"0": 5}, "held": [5]},
        {"term": 2, "highest": [5], "held": [5]},
        {"term": 2, "highest": {"first": 5}, "held": [5]},
        {"term": 2, "highest": {"0": 5.0}, "held": [5]},
        {"term": 2, "highest": {"0": 5}, "held": [True]},
    ],
)
def test_what_was_stored_is_taken_as_a_whole_or_not_at_all(
    admission: Admission, stored: object
) -> None:
    before = admission.stored()
    with pytest.raises(ValueError, match=r"no |invalid literal"):
        admission.restore(stored)
    assert admission.stored() == before


def test_orders_are_on_the_disk_before_they_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, synced = tmp_path / "leases.json", []
    monkeypatch.setattr(
        os, "fsync", lambda file: synced.append(Path(f"/proc/self/fd/{file}").readlink())
    )

    def start() -> SchedulerLink:
        issuer = Authority.create("lab").issue_server("gpu1")
        return SchedulerLink((), issuer, state, Mock(), Mock(), Mock(), Mock())

    start()._take(agent.ToAgent(orders=orders(7, order("lease", 5), term=2)))
    assert synced == [tmp_path / ".leases.json.new", tmp_path]
    link = start()
    link._take(agent.ToAgent(orders=orders(9, order("older", 4), term=1)))
    assert link.admission.term == 2
    # No session begins under what was ordered before: only under what is ordered now.
    with pytest.raises(Closed, match="holds no lease"):
        link.enter("lease", "session")


def test_a_report_tells_of_so_many_programs_and_counts_them_all(
    admission: Admission,
) -> None:
    admission.take_orders(orders(1, order("lease", 1)))
    for number in range(RUNNING_TOLD + 5):
        admission.enter("lease", f"s{number}")
        admission.began(agent.Running(session=f"s{number}", program="a.out"))
    (held,) = admission.report(1.0).leases
    assert (held.sessions, len(held.running)) == (RUNNING_TOLD + 5, RUNNING_TOLD)
    admission.leave("s0")
    (held,) = admission.report(2.0).leases
    assert "s0" not in {running.session for running in held.running}


def test_what_orders_ask_to_be_stored_is_known_before_they_are_taken(admission: Admission) -> None:
    admission.take_orders(orders(1, order("lease", 1)))
    admission.enter("lease", "session")
    before = (admission.stored(), states(admission), admission.revision)
    following = orders(2, order("new", 2), order("other", 3, ordinal=1), term=2)
    stored = admission.stored_with(following)
    assert (admission.stored(), states(admission), admission.revision) == before
    assert not admission.to_end
    admission.take_orders(following)
    assert (
        admission.stored() == stored == {"term": 2, "highest": {"0": 2, "1": 3}, "held": [1, 2, 3]}
    )
    assert admission.stored_with(following) is None
