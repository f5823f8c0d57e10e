"""Events of a small program, made by hand: what `harp-trace events` would print of its trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

REASONS = {"data": "the program asked for data", "allocation": "memory is allocated"}


class Made:
    """Lines of events. Each call takes 10 µs in the program; an answer comes after 200 µs."""

    def __init__(self, program: str = "hand_made") -> None:
        self.lines: list[dict[str, Any]] = []
        self.now = 0
        self.calls = self.enters = self.allocations = 0
        self.add("define", reasons=list(REASONS), reason_texts=list(REASONS.values()))
        self.add("process", program=program, pid=77, started="2026-01-02T03:04:05Z", harp="0.1.0")
        self.add("thread", thread=1, tid=78, name="main")
        self.add(
            "session",
            number=0,
            server="gpu1:7443",
            round_trip_ns=100_000,
            snapshot={"devices": [{"name": "HARP Soft GPU"}]},
        )

    def add(self, kind: str, /, **fields: Any) -> None:
        self.lines.append({"type": kind, **fields})

    def enter(self, name: str) -> int:
        self.add("enter", number=self.enters, time=self.now, thread=1, name=name)
        self.enters += 1
        self.now += 4_000
        return self.enters - 1

    def leave(self, enter: int, result: int = 0) -> None:
        self.now += 4_000
        self.add("leave", enter=enter, time=self.now, thread=1, result=result)
        self.now += 2_000

    def call(self, name: str, answered: bool = False, **fields: Any) -> int:
        number = self.calls
        self.calls += 1
        self.add(
            "call",
            number=number,
            time=self.now,
            name=name,
            enter=self.enters - 1 if self.enters else None,
            **{"session": 0, "thread": 1, "size": 100, "args": {}, **fields},
            **({"ticket": number} if answered else {}),
        )
        self.now += 2_000
        return number

    def one_way(self, name: str, **fields: Any) -> None:
        enter = self.enter(name)
        self.call(name, **fields)
        self.leave(enter)

    def waiting(self, name: str, because: str, payload: Any = None, **fields: Any) -> None:
        enter = self.enter(name)
        number = self.call(name, answered=True, **fields)
        began = self.now
        self.now += 200_000
        more = {} if payload is None else {"payload": payload}
        size = 16 + (payload["bytes"] if payload else 0)
        self.add(
            "reply", call=number, time=self.now, session=0, name=name, status=0, size=size, **more
        )
        self.add(
            "wait",
            call=number,
            name=name,
            thread=1,
            session=0,
            began=began,
            ended=self.now,
            because=because,
        )
        self.leave(enter)

    def allocate(self, size: int) -> None:
        self.waiting("cuMemAlloc_v2", "allocation", args={"bytesize": size})
        address = 0x7000_0000 + 0x10_0000 * self.allocations
        self.add(
            "allocation",
            number=self.allocations,
            time=self.now,
            session=0,
            device=0,
            address=address,
            bytes=size,
        )
        self.allocations += 1

    def launch(self, kernel: str, stream: int = 0, took: int | None = None, **fields: Any) -> None:
        number = self.calls
        args = {
            "grid": [4, 1, 1],
            "block": [128, 1, 1],
            "stream": {"kind": "Stream", "id": stream} if stream else 0,
            "params": {"bytes": 8, "hex": "0011223344556677"},
        }
        self.one_way("cuLaunchKernel", kernel=kernel, args=args, **fields)
        if took is not None:
            began = 5_000_000_000 + self.now
            self.add("device_time", session=0, call=number, began=began, ended=began + took)

    def upload(self, content: str, size: int = 1000) -> None:
        payload = {"policy": "hash", "bytes": size, "hash": content * 64}
        args = {"dst": {"address": 0x7000_0000}, "stream": None, "data": {"bytes": size}}
        self.one_way("cuMemcpyHtoD_v2", payload=payload, args=args, size=size + 48)

    def download(self, content: str, size: int = 1000) -> None:
        payload = {"policy": "hash", "bytes": size, "hash": content * 64}
        args = {"src": {"address": 0x7000_0000}, "bytes": size, "stream": None}
        self.waiting("cuMemcpyDtoH_v2", "data", payload, args=args)

    def end(self, cut: bool = False) -> None:
        if not cut:
            self.add("end", reason="exit", time=self.now)
        self.add("trace", complete=not cut, cut=cut, calls=self.calls, manifest={})

    def write(self, path: Path) -> Path:
        path.write_text("".join(json.dumps(line) + "\n" for line in self.lines))
        return path


def small(took: int | None = None) -> Made:
    """A program that adds two vectors thrice, with one upload sent twice."""
    made = Made()
    made.allocate(1000)
    made.upload("a")
    made.upload("a")
    made.upload("b")
    for _ in range(3):
        made.launch("vector_add", stream=3, took=took)
    made.launch("scale<float>", took=None if took is None else 2 * took)
    made.download("c")
    enter = made.enter("cuTexObjectCreate")
    made.leave(enter, 801)
    made.end()
    return made
