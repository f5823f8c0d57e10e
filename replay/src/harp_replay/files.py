"""Files that commands write."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import IO, Any

from harp_client.errors import HarpError

OPEN_FILES = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/")
"""Names of files that are open, and that somebody goes on writing into."""


def utf8(text: str) -> str:
    """`text` without halves of characters, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


@contextlib.contextmanager
def written(path: str, mode: str = "w") -> Iterator[IO[Any]]:
    """A file to write into. It has its name once it is whole; what fails before leaves none.

    A link leads to it as before. A device or pipe of that name is written into as it stands.
    Raises HarpError where the file cannot be written.
    """
    is_in_place = _is_in_place(path)
    place = path if is_in_place else os.path.realpath(path)
    part = place if is_in_place else f"{place}.part"
    encoding = None if "b" in mode else "utf-8"
    try:
        with open(part, mode, encoding=encoding, errors=encoding and "replace") as file:
            yield file
        if not is_in_place:
            os.replace(part, place)
    except BaseException as error:
        if not is_in_place:
            with contextlib.suppress(OSError):
                os.unlink(part)
        if isinstance(error, OSError) and error.filename in (part, place, None):
            raise HarpError(
                f"cannot write {path}: {error.strerror}", "name another file"
            ) from error
        raise


def _is_in_place(path: str) -> bool:
    """Whether a file beside it, renamed, would not do in its place."""
    if os.path.abspath(path).startswith(OPEN_FILES):
        return True
    return os.path.exists(path) and not os.path.isfile(path)
