"""Why the core does not do what it was asked; nothing has changed then."""

from __future__ import annotations


class Refused(Exception):
    """A cause, and what to do next."""

    def __init__(self, cause: str, next_step: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.next_step = next_step


class NotFound(Refused):
    """What was named is not there."""


class Conflict(Refused):
    """It is there, in a state that does not allow this."""


class OverQuota(Refused):
    """More than the tenant may have, whatever is free."""
