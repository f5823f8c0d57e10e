"""Changes the user's configuration file: contexts, each a pool and the credentials for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harp_client.credentials import write
from harp_client.errors import HarpError
from harp_client.target import configuration_file, contexts


def add_context(name: str, values: Mapping[str, str]) -> bool:
    """Makes a context or replaces it; says whether it is the current one. It becomes that where
    there was none. Raises HarpError when the file cannot be read or written."""
    import tomlkit

    with changing() as document:
        known = document.setdefault("contexts", tomlkit.table(is_super_table=True))
        table = tomlkit.table()
        table.update(values)
        known[name] = table
        if not document.get("current"):
            document["current"] = name
        return bool(document["current"] == name)


def use_context(name: str) -> None:
    """Makes a context the current one. Raises HarpError where there is none of this name."""
    _known(name)
    with changing() as document:
        document["current"] = name


def remove_context(name: str) -> None:
    """Forgets a context; none is current where it was. Raises HarpError as `use_context`."""
    _known(name)
    with changing() as document:
        del document["contexts"][name]
        if document.get("current") == name:
            del document["current"]


def _known(name: str) -> None:
    found = contexts()[1]
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise HarpError(f"there is no context {name}", f"known: {known}", 3)


@contextmanager
def changing() -> Iterator[Any]:
    """The configuration file's document, written back whole at the end. What is not changed stays
    as it was written, comments too. Raises HarpError when it cannot be read or written."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    path = Path(configuration_file())
    try:
        document = tomlkit.parse(path.read_text("utf-8")) if path.exists() else tomlkit.document()
        yield document
        write(path, tomlkit.dumps(document).encode())
    except (OSError, UnicodeDecodeError, TOMLKitError) as error:
        raise HarpError(f"cannot change {path}: {error}", "correct or remove the file") from error
