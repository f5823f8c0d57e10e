"""A seat for any number: only the term keeps them apart, as where a lock was lost unseen."""

from __future__ import annotations

from collections.abc import Callable


class OpenSeat:
    """Never refuses anybody."""

    is_held = True

    def take(self, lost: Callable[[], None]) -> bool:
        return True

    def leave(self) -> None:
        pass
