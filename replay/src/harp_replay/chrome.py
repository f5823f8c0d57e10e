"""Marks as JSON that Chrome's tracing and Perfetto read (the Trace Event Format)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import IO, Any

from harp_replay.timeline import Begin, Count, End, Instant, Mark, Named, Track

STREAMS = 1 << 30
"""Streams have thread numbers from here on: no thread of Linux has one as high."""


class Writer:
    """Writes one file."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._pid = 1
        self._numbers: dict[tuple[str, int, int], int] = {}
        self._separator = "\n"

    def write(self, marks: Iterable[Mark]) -> int:
        """Writes all marks; how many events they were."""
        self._file.write('{"displayTimeUnit":"ns","traceEvents":[')
        count = 0
        for mark in marks:
            for event in self._events(mark):
                self._put(event)
                count += 1
        self._file.write("\n]}\n")
        return count

    def _put(self, event: dict[str, Any]) -> None:
        self._file.write(self._separator + json.dumps(event, separators=(",", ":")))
        self._separator = ",\n"

    def _events(self, mark: Mark) -> Iterable[dict[str, Any]]:
        if isinstance(mark, Named):
            return self._named(mark)
        place = self._place(mark.track, mark.time)
        match mark:
            case Begin():
                event = {"ph": "B", "name": mark.name, "cat": mark.category, "args": {**mark.args}}
                return [place | event, *self._arrow(mark, "f", place)]
            case End():
                return [place | {"ph": "E", "args": {**mark.args}}]
            case Instant():
                event = {"ph": "i", "s": "t", "name": mark.name, "cat": mark.category}
                return [place | event | {"args": {**mark.args}}, *self._arrow(mark, "s", place)]
            case Count():
                args = {mark.track.unit: mark.value}
                return [place | {"ph": "C", "name": mark.track.name, "args": args}]

    def _named(self, named: Named) -> list[dict[str, Any]]:
        if named.track.kind == "process":
            self._pid = named.pid
            return [self._metadata("process_name", named.track.name)]
        self._numbers[named.track.key] = named.tid
        return [self._metadata("thread_name", named.track.name) | {"tid": named.tid}]

    def _metadata(self, what: str, name: str) -> dict[str, Any]:
        return {"ph": "M", "pid": self._pid, "name": what, "args": {"name": name}}

    def _place(self, track: Track, time: int) -> dict[str, Any]:
        """Where and when: times are microseconds in this format."""
        return {"pid": self._pid, "tid": self._number(track), "ts": time / 1e3}

    def _number(self, track: Track) -> int:
        if track.kind in ("process", "counter"):
            return self._pid
        number = self._numbers.get(track.key)
        if number is None:
            number = track.number + 1
            if track.kind == "stream":
                number = STREAMS + len(self._numbers)
            self._numbers[track.key] = number
            self._put(self._metadata("thread_name", track.name) | {"tid": number})
        return number

    def _arrow(
        self, mark: Begin | Instant, phase: str, place: dict[str, Any]
    ) -> Iterable[dict[str, Any]]:
        if mark.arrow is None:
            return ()
        end = {"bp": "e"} if phase == "f" else {}
        return (place | {"ph": phase, "id": mark.arrow, "name": "launch", "cat": "launch"} | end,)
