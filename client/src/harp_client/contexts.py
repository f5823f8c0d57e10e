"""Changes the user's configuration file: contexts, each a pool and the credentials for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from harp_client import settings
from harp_client.errors import HarpError
from harp_client.target import config_folder


def configuration_file(environ: Mapping[str, str] = os.environ) -> Path:
    """HARP_CONFIG, else config.toml in the configuration folder."""
    chosen = settings.HARP_CONFIG.get(environ)
    return Path(chosen or os.path.join(config_folder(environ), "config.toml"))


def add_context(name: str, values: Mapping[str, str]) -> bool:
    """Makes a context or replaces it; says whether it is the current one. It becomes that where
    there was none. What else is in the file stays as it was written, comments too.

    Raises HarpError when the file cannot be read or written.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    path = configuration_file()
    try:
        document = tomlkit.parse(path.read_text()) if path.exists() else tomlkit.document()
        contexts = document.setdefault("contexts", tomlkit.table(is_super_table=True))
        table = tomlkit.table()
        table.update(values)
        contexts[name] = table
        if not document.get("current"):
            document["current"] = name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.touch(mode=0o600)
        partial.write_text(tomlkit.dumps(document))
        os.replace(partial, path)
    except (OSError, TOMLKitError) as error:
        raise HarpError(f"cannot change {path}: {error}", "correct or remove the file") from error
    return bool(document["current"] == name)
