"""How many attempts of strangers may be refused, by address and as a whole."""

from __future__ import annotations

import re

import pytest

from harp_scheduler.service import failures
from harp_scheduler.service.answers import TooMany
from harp_scheduler.service.failures import Failures, network


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def attempts(refusing: Failures, peer: str, most: int = 1000) -> int:
    """How many attempts a peer may make that are refused, one after the other."""
    for number in range(most):
        try:
            refusing.check(peer)
        except TooMany:
            return number
        refusing.add(peer)
    return most


def test_an_address_has_room_for_some_failures_and_gets_it_back(clock: Clock) -> None:
    refusing = Failures(clock)
    room, rate = Failures.ONE
    assert attempts(refusing, "ipv4:10.0.0.1:1000") == room
    with pytest.raises(TooMany, match=re.escape("too many refused joins, try again in 2 s")):
        refusing.check("ipv4:10.0.0.1:2000")
    refusing.check("ipv4:10.0.0.2:1000")
    clock.now += 1 / rate
    assert attempts(refusing, "ipv4:10.0.0.1:3000") == 1
    clock.now += 3600
    assert attempts(refusing, "ipv4:10.0.0.1:3000") == room


def test_all_addresses_together_have_room_for_some(clock: Clock) -> None:
    refusing = Failures(clock)
    together = sum(attempts(refusing, f"ipv4:10.0.1.{n}:1") for n in range(200))
    assert together == Failures.ALL[0]
    with pytest.raises(TooMany, match="try again in 1 s"):
        refusing.check("ipv4:192.0.2.1:1")
    clock.now += 1.0
    refusing.check("ipv4:192.0.2.1:1")


def test_no_more_addresses_are_kept_than_there_is_room_for(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "ADDRESSES_MOST", 8)
    refusing = Failures(clock)
    for number in range(100):
        refusing.add(f"ipv4:10.0.2.{number}:1")
    assert len(refusing._of) == 8
    assert attempts(refusing, "ipv4:10.0.2.99:1") == Failures.ONE[0] - 1


@pytest.mark.parametrize(
    ("peer", "name"),
    [
        ("ipv4:10.0.0.7:51234", "10.0.0.7"),
        ("ipv6:[2001:db8:1:2:3::4]:51234", "2001:db8:1:2::/64"),
        ("ipv6:%5B2001:db8:1:2:ffff::%5D:1", "2001:db8:1:2::/64"),
        ("ipv6:[fe80::1%25eth0]:1", "fe80::/64"),
        ("ipv6:[::ffff:10.0.0.7]:1", "10.0.0.7"),
        ("unix:/run/harp", "unix:/run/harp"),
        ("ipv4:nonsense:1", "ipv4:nonsense:1"),
    ],
)
def test_machines_of_one_network_are_one(peer: str, name: str) -> None:
    assert network(peer) == name
