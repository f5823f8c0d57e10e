"""Files that commands write."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import IO, Any

from harp_client.errors import HarpError


def utf8(text: str) -> str:
    """`text` without halves of characters, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


@contextlib.contextmanager
def written(path: str, mode: str = "w") -> Iterator[IO[Any]]:
    """A file to write into. It has its name once it is whole; what fails before leaves none.

    Raises HarpError where the file cannot be written.
    """
    part = f"{path}.part"
    encoding = None if "b" in mode else "utf-8"
    try:
        with open(part, mode, encoding=encoding, errors=encoding and "replace") as file:
            yield file
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(part)
        if isinstance(error, OSError) and error.filename in (part, path, None):
            raise HarpError(
                f"cannot write {path}: {error.strerror}", "name another file"
            ) from error
        raise
