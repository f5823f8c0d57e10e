"""The pool under faults, from many seeds; and that the simulation finds pools that are broken.

`SIMULATION_SEEDS=10000` runs more seeds than the usual 500. A failing seed is in the test's name
(`test_seed[17]`) and in the story that it prints: the same seed fails again in the same way.
"""

import os
from collections.abc import Callable
from dataclasses import replace

import pytest

from harp_scheduler.core import agents, book, granting, leases, requests
from harp_scheduler.core.book import Book
from harp_scheduler.core.events import Connected
from harp_server.admission import Admission
from scheduler.simulation import parts
from scheduler.simulation.world import World

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "500"))
GROUP = 25
"""Seeds in one test: a test of its own for each costs more than the seed."""

SEEDS_TO_FIND = 120
STORY = 80
"""Lines of what happened last that a failure prints."""


def run(seed: int) -> None:
    world = World(seed)
    try:
        world.run()
    except Exception as error:
        told = "\n".join(world.clock.story[-STORY:])
        raise AssertionError(f"seed {seed}, second {world.clock.now:.3f}\n{told}") from error


@pytest.mark.parametrize("first", range(0, SEEDS, GROUP))
def test_seeds(first: int) -> None:
    for seed in range(first, min(first + GROUP, SEEDS)):
        run(seed)


def test_a_seed_always_tells_the_same_story() -> None:
    first, second = World(7), World(7)
    first.run()
    second.run()
    assert first.clock.story == second.clock.story


def freed_before_dead(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(leases, "is_dead", lambda book, server, lease: True)


def never_fenced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Admission, "fence", lambda admission, now: False)


def given_up_too_early(patch: pytest.MonkeyPatch) -> None:
    original = agents.fence_silent
    patch.setattr(agents, "fence_silent", lambda book, limit, now: original(book, limit - 10, now))


def asked_twice_granted_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(requests, "repeated", lambda book, caller, request: None)


def no_quota(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(granting, "beyond_quota", lambda book, lease: "")


def two_leaders_write(patch: pytest.MonkeyPatch) -> None:
    original = parts.Database.commit
    patch.setattr(
        parts.Database, "commit", lambda base, term, outcome: original(base, base.term, outcome)
    )


def detached_while_used(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(leases, "is_closed_everywhere", lambda book, lease: True)


def faulty_devices_granted(patch: pytest.MonkeyPatch) -> None:
    original = book.unusable
    patch.setattr(
        book,
        "unusable",
        lambda server, link, device: original(server, link, replace(device, fault="", incident="")),
    )


def incidents_forgotten_at_restarts(patch: pytest.MonkeyPatch) -> None:
    original = agents.connect

    def connect(known: Book, event: Connected, now: float) -> None:
        for key in known.devices_of[event.server]:
            known.put(replace(known.accelerators[key], incident=""))
        original(known, event, now)

    patch.setattr(agents, "connect", connect)


@pytest.mark.parametrize(
    "broken",
    [
        freed_before_dead,
        never_fenced,
        given_up_too_early,
        asked_twice_granted_twice,
        no_quota,
        two_leaders_write,
        detached_while_used,
        faulty_devices_granted,
        incidents_forgotten_at_restarts,
    ],
)
def test_a_broken_pool_is_found(
    broken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    with pytest.raises(AssertionError):
        run_until_one_fails()


def run_until_one_fails() -> None:
    for seed in range(SEEDS_TO_FIND):
        run(seed)
