"""The marks of a timeline as slices that a page can draw: bounded, the longest are kept."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Any

from harp_replay.timeline import Begin, Count, End, Instant, Mark, Named, Track

MOST = 12_000
"""So many slices a page has at most of threads, and as many of streams."""

SCATTER = 2_654_435_761
"""Which of many slices of one length are kept is scattered over the run: by multiples of this,
whose lower 32 bits are in no order."""

CATEGORIES = ("api", "wait", "device", "queued", "loss", "unended")


One = tuple[int, int, int, int, int, int]
"""Track, depth, begin and length in ns, name, category."""


class Slices:
    """Slices by track, with their depth there."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._tracks: dict[tuple[str, int, int], int] = {}
        self._titles: list[str] = []
        self._depths: list[int] = []
        self._open: dict[int, list[Begin]] = {}
        self._names: dict[str, int] = {}
        self._heaps: dict[str, list[tuple[int, int, One]]] = {}
        self._count = 0
        self._end = 0

    def add(self, marks: Iterable[Mark]) -> Slices:
        """Adds marks; itself."""
        for mark in marks:
            match mark:
                case Named():
                    if mark.track.kind == "thread":
                        self._titles[self._place(mark.track)] = mark.track.name
                case Begin():
                    self._end = max(self._end, mark.time)
                    self._open.setdefault(self._place(mark.track), []).append(mark)
                case End():
                    stack = self._open.get(self._place(mark.track))
                    if stack:
                        begun = stack.pop()
                        self._slice(begun, len(stack), mark.time - begun.time, begun.category)
                case Instant():
                    if mark.category != "call":
                        self._slice(mark, 0, 0, mark.category)
                case Count():
                    self._end = max(self._end, mark.time)
        return self

    def close(self) -> Slices:
        """Ends what has not ended, with the last mark; itself."""
        for stack in self._open.values():
            for depth, begun in enumerate(stack):
                self._slice(begun, depth, max(0, self._end - begun.time), "unended")
        return self

    def _place(self, track: Track) -> int:
        place = self._tracks.get(track.key)
        if place is None:
            place = self._tracks[track.key] = len(self._titles)
            self._titles.append(track.name)
            self._depths.append(1)
        return place

    def _slice(self, mark: Begin | Instant, depth: int, length: int, category: str) -> None:
        self._end = max(self._end, mark.time + length)
        self._count += 1
        rank = (length, self._count * SCATTER & 0xFFFF_FFFF)
        heap = self._heaps.setdefault(mark.track.kind, [])
        is_full = len(heap) >= self._most
        if is_full and rank <= heap[0][:2]:
            return
        place = self._place(mark.track)
        self._depths[place] = max(self._depths[place], depth + 1)
        name = self._names.setdefault(mark.name, len(self._names))
        one = (place, depth, mark.time, length, name, CATEGORIES.index(category))
        push = heapq.heappushpop if is_full else heapq.heappush
        push(heap, (*rank, one))

    @property
    def left_out(self) -> int:
        """The shortest slices, for which there was no room."""
        return self._count - sum(map(len, self._heaps.values()))

    def data(self) -> dict[str, Any]:
        """What the page's program draws."""
        return {
            "end": self._end,
            "tracks": [
                {"name": name, "depth": depth}
                for name, depth in zip(self._titles, self._depths, strict=True)
            ],
            "names": list(self._names),
            "categories": CATEGORIES,
            "slices": sorted(
                (one for heap in self._heaps.values() for _, _, one in heap),
                key=lambda one: one[1:3],
            ),
        }
