"""How far the clocks of devices are from the program's."""

from __future__ import annotations

from array import array

from harp_replay.events import Call, DeviceTime, Event

LAST = (1 << 63) - 1
"""No time is later, in ns."""


class Clocks:
    """Learns of calls and of their times on devices; 8 bytes for each call.

    What is added to a session's device times is the least that has nothing begin before it was
    asked for. So all of a trace has to be taken in before a time is asked for.
    """

    def __init__(self) -> None:
        self._asked: array[int] = array("Q")
        self._ahead: dict[int, int] = {}

    def take(self, event: Event) -> None:
        """Takes in the next event."""
        if isinstance(event, Call):
            self._asked.append(min(event.time, LAST))
        elif isinstance(event, DeviceTime) and event.call < len(self._asked):
            least = self._asked[event.call] - event.began
            self._ahead[event.session] = max(least, self._ahead.get(event.session, least))

    def span(self, session: int, began: int, ended: int) -> tuple[int, int]:
        """Two times of a session's device as the program's clock has them, in bounds."""
        ahead = self._ahead.get(session, 0)
        start = min(max(0, began + ahead), LAST)
        return start, min(max(start, ended + ahead), LAST)
