"""Attempts of strangers that were refused: how many more an address may make, and all of them.

A stranger's attempt costs a look into the database and a line in the log. Nobody guesses a token;
this bounds what trying costs. Attempts that succeed count nothing.
"""

from __future__ import annotations

import ipaddress
import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from harp_scheduler.service.answers import TooMany

ADDRESSES_MOST = 4096
"""Addresses that are told apart; of more the one that was refused longest ago is forgotten."""

IPV6_PREFIX = 64
"""Bits that one network of IPv6 has in common; its machines choose the others as they like."""

PEER = re.compile(r"ipv[46]:\[?(.+?)\]?:\d+")


@dataclass(slots=True)
class Bucket:
    """Failures flow in and leak out."""

    room: float
    """As many may follow each other at once."""

    rate: float
    """As many leak out in a second."""

    level: float = 0.0
    at: float = 0.0

    def wait(self, now: float) -> float:
        """Seconds until there is room for one more."""
        return max(0.0, self._level(now) + 1 - self.room) / self.rate

    def add(self, now: float) -> None:
        """One more failure."""
        self.level, self.at = self._level(now) + 1, now

    def _level(self, now: float) -> float:
        return max(0.0, self.level - (now - self.at) * self.rate)


class Failures:
    """Refused attempts, by address and as a whole."""

    ONE = (30.0, 0.5)
    """Room and rate of one address. Many machines may be behind it."""

    ALL = (300.0, 5.0)

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._all = Bucket(*self.ALL)
        self._of: OrderedDict[str, Bucket] = OrderedDict()

    def check(self, peer: str) -> None:
        """Raises TooMany where there were too many from this peer (as gRPC names it), or at all."""
        now = self._clock()
        known = self._of.get(network(peer))
        wait = max(self._all.wait(now), known.wait(now) if known else 0.0)
        if wait:
            raise TooMany(
                f"too many refused joins, try again in {math.ceil(wait)} s",
                "is it the right token? harp token create makes another",
            )

    def add(self, peer: str) -> None:
        """One more was refused."""
        now, name = self._clock(), network(peer)
        known = self._of.pop(name, None) or Bucket(*self.ONE)
        for bucket in (known, self._all):
            bucket.add(now)
        self._of[name] = known
        if len(self._of) > ADDRESSES_MOST:
            self._of.popitem(last=False)


def network(peer: str) -> str:
    """The machine, or with IPv6 the network, that a peer of gRPC is in: `ipv4:10.0.0.7:51234`."""
    found = PEER.fullmatch(unquote(peer))
    if found is None:
        return peer
    try:
        address = ipaddress.ip_address(found[1].partition("%")[0])
    except ValueError:
        return peer
    if isinstance(address, ipaddress.IPv6Address):
        if (inside := address.ipv4_mapped) is not None:
            return str(inside)
        return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))
    return str(address)
