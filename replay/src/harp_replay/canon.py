"""Calls without what differs from run to run: two runs of one program have equal ones.

Times, tickets and capture ids do not count, nor do raw addresses: handles and allocations are
numbered in the order in which a thread first names them, and pointers in the parameters of kernels
are found among the ranges that live. Of polling only the last of a run of equal questions is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from bisect import bisect_right, insort
from collections.abc import Mapping
from typing import Any, NamedTuple

from harp_replay.events import Allocation, Call, Free, Payload, Reply

POLLS = frozenset(("cuStreamQuery", "cuEventQuery"))
"""Asked again and again until the answer is another."""

VOLATILE = POLLS | {"cuEventElapsedTime_v2", "cuMemGetInfo_v2", "harp_jit_logs"}
"""Calls whose answers are of the moment."""

NOBODYS = frozenset(("harp_thread_ended", "harp_cache_list", "harp_cache_fetch"))
"""Calls that are not the program's doing."""

ADDRESSES_FROM = 1 << 32
"""Numbers that a server answers from here on are taken for addresses."""

WORD = 16
"""Hexadecimal digits of a pointer."""


class Step(NamedTuple):
    """A call of one thread, as it counts."""

    number: int
    kind: str
    """What it is aligned by: its name and kernel."""
    content: Mapping[str, Any]
    """What has to be equal beside that."""

    def digest(self) -> bytes:
        """64 bits of the content."""
        return digest(self.content)


def digest(content: object) -> bytes:
    """64 bits that say of two contents whether they are equal."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest()


class Lane:
    """The numbering of one thread's handles and allocations."""

    def __init__(self) -> None:
        self._numbers: dict[str, dict[int, int]] = {}

    def number(self, kind: str, known_as: int) -> int:
        """The number among its kind of what the trace knows under this id."""
        numbers = self._numbers.setdefault(kind, {})
        return numbers.setdefault(known_as, len(numbers))


class Memory:
    """The ranges of device memory that live, by address."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._live: dict[int, Allocation] = {}
        self._addresses: dict[int, int] = {}

    def allocate(self, allocation: Allocation) -> None:
        """Takes a range in."""
        if allocation.address not in self._live:
            insort(self._starts, allocation.address)
        self._live[allocation.address] = allocation
        self._addresses[allocation.number] = allocation.address

    def free(self, free: Free) -> None:
        """Drops a range."""
        if free.allocation is None:
            return
        address = self._addresses.pop(free.allocation, None)
        held = None if address is None else self._live.get(address)
        if address is not None and held is not None and held.number == free.allocation:
            del self._live[address]
            self._starts.pop(bisect_right(self._starts, address) - 1)

    def place(self, address: int) -> tuple[int, int] | None:
        """The number of the allocation that `address` lies in, and the offset there."""
        found = bisect_right(self._starts, address) - 1
        if found < 0:
            return None
        allocation = self._live[self._starts[found]]
        offset = address - allocation.address
        return (allocation.number, offset) if offset < allocation.bytes else None


class Canon:
    """Makes steps of the calls of one trace."""

    def __init__(self, by_hash: bool) -> None:
        """`by_hash`: whether the content of data counts, where its hash is known."""
        self.memory = Memory()
        self._by_hash = by_hash
        self._lanes: dict[tuple[int, int], tuple[int, Lane]] = {}

    def lane(self, session: int, thread: int) -> tuple[int, Lane]:
        """A session's thread: which it is by its first call, and its numbering."""
        key = (session, thread)
        if key not in self._lanes:
            self._lanes[key] = (len(self._lanes), Lane())
        return self._lanes[key]

    def step(self, call: Call) -> tuple[int, Step]:
        """The lane of a call, and the call as it counts."""
        place, lane = self.lane(call.session, call.thread)
        content: dict[str, Any] = {
            name: self._value(lane, name, value) for name, value in call.args.items()
        }
        if call.payload is not None:
            content["payload"] = self._payload(call.payload)
        kind = call.name if call.kernel is None else f"{call.name} {call.kernel}"
        return place, Step(call.number, kind, content)

    def answer(self, reply: Reply) -> Mapping[str, Any]:
        """What has to be equal of an answer."""
        content: dict[str, Any] = {}
        if reply.name not in VOLATILE:
            content = {name: _answered(value) for name, value in reply.outs.items()}
            content |= {"status": reply.status, "deferred": reply.deferred}
        if reply.payload is not None:
            content["payload"] = self._payload(reply.payload)
        return content

    def _payload(self, payload: Payload) -> Mapping[str, Any]:
        return {"bytes": payload.bytes, "hash": payload.hash if self._by_hash else None}

    def _value(self, lane: Lane, name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [self._value(lane, name, each) for each in value]
        if not isinstance(value, Mapping):
            return value
        if "kind" in value and type(value.get("id")) is int:
            kind = str(value["kind"])
            return {"kind": kind, "number": lane.number(kind, value["id"])}
        if "address" in value:
            allocation = value.get("allocation")
            if type(allocation) is not int:
                return {"pointer": "unknown"}
            return {"in": lane.number("memory", allocation), "offset": value.get("offset")}
        if name == "params" and isinstance(value.get("hex"), str):
            with contextlib.suppress(ValueError):  # no hexadecimal digits
                return self._params(lane, value["hex"])
        return value

    def _params(self, lane: Lane, text: str) -> list[Any]:
        words: list[Any] = []
        for at in range(0, len(text), WORD):
            word = text[at : at + WORD]
            place = None
            if len(word) == WORD:
                place = self.memory.place(int.from_bytes(bytes.fromhex(word), "little"))
            if place is None:
                words.append(word)
            else:
                words.append({"in": lane.number("memory", place[0]), "offset": place[1]})
        return words


def _answered(value: Any) -> Any:
    if isinstance(value, float):
        return "time"
    if type(value) is int and value >= ADDRESSES_FROM:
        return "address"
    return value
