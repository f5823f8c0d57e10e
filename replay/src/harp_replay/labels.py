"""What each call of a trace is, remembered in four bytes for each."""

from __future__ import annotations

from array import array
from collections.abc import Hashable
from typing import Generic, TypeVar

Label = TypeVar("Label", bound=Hashable)


class Labels(Generic[Label]):
    """A label of each call, or none, by the call's number; each different label is kept once."""

    def __init__(self) -> None:
        self._places: array[int] = array("I")
        """Of each call the place of its label plus one, or 0."""
        self._labels: list[Label] = []
        self._known: dict[Label, int] = {}

    def append(self, label: Label | None) -> None:
        """Labels the next call."""
        place = 0
        if label is not None:
            place = self._known.setdefault(label, len(self._labels) + 1)
            if place > len(self._labels):
                self._labels.append(label)
        self._places.append(place)

    def get(self, number: int) -> Label | None:
        """The label of the call of that number; None too for a call that there is not."""
        place = self._places[number] if number < len(self._places) else 0
        return self._labels[place - 1] if place else None
