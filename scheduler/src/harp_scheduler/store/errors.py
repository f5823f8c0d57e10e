"""What a store refuses or cannot do, as lines for a person."""

from __future__ import annotations

from harp_client.errors import HarpError


class StoreUnavailable(HarpError):
    """The database cannot be reached or cannot write. Whether the last write was stored is unknown:
    the caller steps down, and reads again what is stored when it leads again."""

    def __init__(self, database: str, cause: str) -> None:
        super().__init__(
            f"the database {database} cannot be used: {cause}",
            "see that it runs, is reached from here and has space",
            exit_code=6,
        )


class LeaderLost(HarpError):
    """This scheduler does not lead: nothing was written."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause, "none: the scheduler that leads goes on", exit_code=6)


class WrongDatabase(HarpError):
    """The database is not one that this version can work with."""


class NoBackup(HarpError):
    """A backup cannot be written, read, or restored where that was asked."""


class TokenRefused(HarpError):
    """A join token does not let its bearer in."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause, "ask an admin of the pool for a new one: harp token create", 4)
