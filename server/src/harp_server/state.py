"""The private folder of an embedded pool, and the removal of those that a killed pool left behind.

    BASE/lock              held while a folder is made or stale ones are removed
    BASE/pool-PID-RANDOM/  one running pool: `lock`, held as long as it lives, and `credentials/`

Whoever can take a folder's lock knows that its owner is dead.
"""

import fcntl
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from harp_client import state


class StateFolder:
    """A folder of this process alone, mode 0700, gone when closed."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        base = Path(state.folder(environ))
        with _Locked(base / "lock"):
            for stale in base.glob("pool-*"):
                _remove_if_stale(stale)
            self.path = base / f"pool-{os.getpid()}-{secrets.token_hex(4)}"
            self.path.mkdir(mode=0o700)
            self._lock = _lock(self.path / "lock", fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        """Removes the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _remove_if_stale(folder: Path) -> None:
    try:
        lock = _lock(folder / "lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return  # in use, or just being removed by its owner
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)


def _lock(path: Path, operation: int) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, operation)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class _Locked:
    """Holds the lock file at `path` for the length of a `with` block."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._descriptor = _lock(self._path, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
