"""Virtual time: what is to happen, in order, from one seed."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable


class Clock:
    """Runs what was put off, in the order of its time; equal times in the order of their calls."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self._calls: list[tuple[float, int, str, Callable[[], None]]] = []
        self._count = 0
        self.story: list[str] = []
        """What happened, a line each: printed with a failing seed."""

    def later(self, delay: float, what: str, call: Callable[[], None]) -> None:
        """Has `call` made in `delay` seconds."""
        self._count += 1
        heapq.heappush(self._calls, (self.now + delay, self._count, what, call))

    def run(self, until: float, after_each: Callable[[], None]) -> None:
        """Makes all calls up to a time; `after_each` is called after every one."""
        while self._calls and self._calls[0][0] <= until:
            self.now, _, what, call = heapq.heappop(self._calls)
            if what:
                self.tell(what)
            call()
            after_each()
        self.now = until

    def tell(self, line: str) -> None:
        self.story.append(f"{self.now:9.3f} {line}")

    def spread(self, least: float, most: float) -> float:
        return self.random.uniform(least, most)

    def chance(self, share: float) -> bool:
        return self.random.random() < share
