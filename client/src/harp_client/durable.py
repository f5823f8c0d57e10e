"""Files that are there whole or not at all, also after the power has failed."""

from __future__ import annotations

import os
from pathlib import Path


def put_in_place(partial: Path, target: Path) -> None:
    """Gives a file that was written whole its name, in the place of one that has it. Raises
    OSError."""
    _store(partial)
    partial.replace(target)
    _store(target.parent)


def _store(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
