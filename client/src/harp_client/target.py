"""Which pool a program is to use: flag, then environment, then configuration file, or embedded."""

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from harp_client import endpoint, settings
from harp_client.errors import HarpError

CREDENTIAL_FILES = ("ca.pem", "client.pem", "client.key")
SERVER_NAME = "harp-server"
"""DNS name in every session certificate: what clients check, wherever the server runs. A session's
own name before it and a dot is what its client asks for to resume it."""

SCHEDULER_NAME = "harp-scheduler"
"""DNS name in every scheduler's certificate: what agents and people check, wherever it runs."""

EXAMPLE = "gpu1.example:7443"
"""Of `HOST:PORT`."""

ONE_SERVER = re.compile(r"([^/,@]+@)?[^/,@]+:\d+(/\d+(\+\d+)*)?")
"""`HOST:PORT`, after a slash the numbers of the devices wanted there: `gpu1:7443/0+2`; before an @
the lease that it is used under, which `harp-run` takes from the scheduler."""


TEXTS = ("server", "credentials", "server_name", "scheduler")
"""What a context may say in words; of servers also a list of them."""


class Target(NamedTuple):
    """Running servers of a pool and how to be let in."""

    server: str
    """One, or several with commas between them: the program numbers their devices in this order."""
    credentials: str
    server_name: str = SERVER_NAME
    ptx: bool | None = None
    """Whether to ask client libraries for PTX, where that is known before the server is asked."""
    embedded: bool = False

    def environment(self) -> dict[str, str]:
        """What the interposer reads."""
        return {
            settings.HARP_SERVER.name: self.server,
            settings.HARP_CREDENTIALS.name: self.credentials,
            settings.HARP_SERVER_NAME.name: self.server_name,
            settings.HARP_EMBEDDED.name: str(int(self.embedded)),
        }


class Flags(NamedTuple):
    """What the command line says about the target; None where it says nothing."""

    server: str | None = None
    credentials: str | None = None
    server_name: str | None = None
    context: str | None = None
    scheduler: str | None = None


class Schedulers(NamedTuple):
    """A pool with a scheduler, and how to be let in."""

    addresses: list[str]
    credentials: str


def choose(flags: Flags, environ: Mapping[str, str] = os.environ) -> Target | None:
    """The running server to use, or None for an embedded pool.

    Raises HarpError when a server is named but the way to it is not complete.
    """
    context = _context(flags.context or settings.HARP_CONTEXT.get(environ), environ)
    configured = context.get("server")
    if isinstance(configured, list):
        configured = ",".join(map(str, configured))
    server = flags.server or settings.HARP_SERVER.get(environ) or configured
    if not server:
        if flags.credentials:
            raise HarpError("--credentials needs a server", "add --server HOST:PORT", 125)
        return None
    _check_servers(server)
    credentials = _credentials(flags, context, environ)
    _check_credentials(credentials, server)
    ptx = context.get("ptx")
    return Target(
        server,
        credentials,
        flags.server_name
        or settings.HARP_SERVER_NAME.get(environ)
        or context.get("server_name")
        or SERVER_NAME,
        # What the file says of its own server says nothing of one that a flag names.
        ptx if server == configured and isinstance(ptx, bool) else None,
    )


def schedulers(flags: Flags, environ: Mapping[str, str] = os.environ) -> Schedulers | None:
    """The pool's schedulers, or None where none is named, or a flag names a server itself.

    Raises HarpError (125) when one is named but the way to it is not complete."""
    if flags.server:
        return None
    context = _context(flags.context or settings.HARP_CONTEXT.get(environ), environ)
    named = flags.scheduler or settings.HARP_SCHEDULER.get(environ)
    if not named and settings.HARP_SERVER.get(environ):
        return None
    found = named or context.get("scheduler")
    if not found:
        return None
    addresses = [address.strip() for address in str(found).split(",")]
    for address in addresses:
        endpoint.parse(address, EXAMPLE, 125)
    credentials = _credentials(flags, context, environ)
    _check_credentials(credentials, addresses[0])
    return Schedulers(addresses, credentials)


def _credentials(flags: Flags, context: dict[str, Any], environ: Mapping[str, str]) -> str:
    chosen = (
        flags.credentials or settings.HARP_CREDENTIALS.get(environ) or context.get("credentials")
    )
    return os.path.abspath(
        os.path.expanduser(chosen or os.path.join(config_folder(environ), "credentials"))
    )


def _check_servers(servers: str) -> None:
    for one in servers.split(","):
        if not ONE_SERVER.fullmatch(one.strip()):
            raise HarpError(
                f"server {one!r} is not HOST:PORT",
                f"write it like {EXAMPLE}, or {EXAMPLE}/0+2 for two of its devices",
                125,
            )


def config_folder(environ: Mapping[str, str] = os.environ) -> str:
    """$XDG_CONFIG_HOME/harp."""
    home = environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(home, "harp")


def configuration_file(environ: Mapping[str, str] = os.environ) -> str:
    """HARP_CONFIG, else config.toml in the configuration folder."""
    chosen = settings.HARP_CONFIG.get(environ)
    return chosen or os.path.join(config_folder(environ), "config.toml")


def contexts(environ: Mapping[str, str] = os.environ) -> tuple[str | None, dict[str, Any]]:
    """The configuration file's current context's name and its contexts; empty without a file.
    Raises HarpError (125) where it cannot be read or makes no sense."""
    path = configuration_file(environ)
    try:
        with open(path, "rb") as file:
            import tomllib

            content = tomllib.load(file)
    except FileNotFoundError:
        return None, {}
    except (OSError, ValueError) as error:
        raise HarpError(
            f"cannot read {path}: {error}", "correct or remove the file", 125
        ) from error
    found = content.get("contexts", {})
    current = content.get("current")
    if not isinstance(found, dict) or not all(isinstance(c, dict) for c in found.values()):
        raise HarpError(
            f"{path}: every context is a table [contexts.NAME]", "correct the file", 125
        )
    return (current if isinstance(current, str) else None), found


def _context(name: str | None, environ: Mapping[str, str]) -> dict[str, Any]:
    current, found = contexts(environ)
    name = name or current
    if name is None:
        return {}
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise HarpError(f"no context {name!r} in the configuration file", f"known: {known}", 125)
    context: dict[str, Any] = found[name]
    for key in TEXTS:
        value = context.get(key, "")
        is_list = key == "server" and isinstance(value, list)
        if not is_list and not isinstance(value, str):
            path = configuration_file(environ)
            raise HarpError(
                f"{path}: {key} = {value} of context {name} is no text", "put it in quotes", 125
            )
    return context


def _check_credentials(folder: str, server: str) -> None:
    how = "`harp ca user CA_DIR NAME` makes such a folder; name it with --credentials"
    for name in CREDENTIAL_FILES:
        path = os.path.join(folder, name)
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise HarpError(
                f"no credentials for {server}: {path}: {error.strerror}", how, 125
            ) from error


def open_key(folder: str, name: str = "client.key") -> HarpError | None:
    """What to say, without ending anything, about a private key that others can read."""
    path = os.path.join(folder, name)
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return None
    others = "every user of this machine" if mode & 0o004 else "the file's group"
    return HarpError(f"{others} can read {path}", f"chmod 600 {path}") if mode & 0o044 else None
