"""Files that are there whole or not at all, also after the power has failed; and whose they are."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def put_in_place(partial: Path, target: Path) -> None:
    """Gives a file that was written whole its name, in the place of one that has it. Raises
    OSError."""
    _store(partial)
    partial.replace(target)
    _store(target.parent)


def open_private(path: Path) -> int:
    """Opens a file to read and write; one that is made for it only its owner reads. Raises
    OSError."""
    try:
        # Never through a link that the folder's owner has put there.
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    give_to_owner_of(path.parent, file)
    return file


def give_to_owner_of(folder: Path, made: int) -> None:
    """Where root has made something, which is open, in a folder that is a service's: it is the
    service's too."""
    if os.geteuid() == 0:
        owner = folder.stat()
        with contextlib.suppress(PermissionError):  # a container's root may not
            os.fchown(made, owner.st_uid, owner.st_gid)


def _store(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
