"""`harp join`: become a member of a pool."""

from __future__ import annotations

import getpass
import socket
import sys
from pathlib import Path

import click

from harp_client import credentials, endpoint
from harp_client.contexts import add_context
from harp_client.errors import HarpError
from harp_client.joining import EXAMPLE, PORT, TOKEN_MAX, Door, JoinToken
from harp_client.state import kept
from harp_client.target import config_folder


@click.command()
@click.argument("scheduler", metavar="SCHEDULER")
@click.option("--token-file", metavar="FILE", help="File with the token; - is standard input.")
@click.option("--name", help="Name in the pool (default: the token's, the machine's, or yours).")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the credentials (default: where the pool's commands look for them).",
)
@click.option(
    "--replace",
    is_flag=True,
    help="Take the place of one of the same name, with a token made for that name; also replaces "
    "credentials in --into.",
)
def join(
    scheduler: str, token_file: str | None, name: str | None, into: Path | None, replace: bool
) -> None:
    """Become a server, a host or a user of a pool, with a token of its admin (harp token create).

    SCHEDULER is HOST[:PORT] of the port where members join. The token's secret is sent only to the
    pool that the token names; private keys are made here and stay here. Without --token-file the
    token is asked for.

    \b
    Examples:
      harp join pool.example:7441
      harp join pool.example:7441 --token-file /run/secrets/harp-token
    """
    address = with_port(scheduler)
    door = Door(address, JoinToken.parse(read_token(token_file)))
    try:
        allowed = door.look()
        role = allowed.role
        folder = (into or default_folder(role)).absolute()
        if not replace and (folder / f"{credentials.CLIENT[role]}.key").exists():
            raise HarpError(
                f"{folder} holds credentials already", "another --into DIR, or --replace", 5
            )
        keys = credentials.Keys.new(role)
        chosen = name or allowed.name or default_name(role)
        # A token may be good for one member alone: it is used when the keys are written.
        with credentials.prepared(folder) as partial:
            keys.save(partial, role)
            signed = door.join(chosen, keys.requests(), replace)
            credentials.save(partial, role, signed)
    except OSError as error:
        raise HarpError(f"cannot write into {folder}: {error.strerror}", "--into DIR") from error
    finally:
        door.close()
    click.echo(f"{signed.identity}: credentials in {folder}")
    main = f"{address.rpartition(':')[0]}:{signed.port}"
    click.echo(following(role, allowed.pool, main, folder))


def following(role: str, pool: str, scheduler: str, folder: Path) -> str:
    """What to do next; for a user, the pool becomes a context of the configuration file."""
    if role == "server":
        here = f"--listen 0.0.0.0:7443 --advertise {socket.gethostname()}:7443"
        return f"  harp server --scheduler {scheduler} {here} --credentials {folder}"
    if role == "host":
        return f"  harp host --scheduler {scheduler} --credentials {folder}"
    values = {"scheduler": scheduler, "credentials": str(folder)}
    context = "" if add_context(pool, values) else f" --context {pool}"
    return f"  harp-run{context} --gpus 1 -- python train.py"


def with_port(address: str) -> str:
    """`HOST:PORT` of HOST[:PORT]. Raises HarpError."""
    if ":" not in address or address.endswith("]"):
        return f"{address}:{PORT}"
    endpoint.parse(address, EXAMPLE)
    return address


def read_token(file: str | None) -> str:
    """From a file, standard input, or a person at a terminal. Raises HarpError."""
    try:
        if file == "-":
            return sys.stdin.read(TOKEN_MAX)
        if file is not None:
            with open(file) as opened:
                return opened.read(TOKEN_MAX)
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is no text"
        raise HarpError(
            f"cannot read the token from {file}: {cause}", "--token-file FILE"
        ) from error
    if not sys.stdin.isatty():
        raise HarpError("there is no token", "--token-file FILE, or - for standard input", 2)
    return str(click.prompt("Join token", hide_input=True))


def default_folder(role: str) -> Path:
    """Where commands look for the credentials of a role."""
    if role == "user":
        return Path(config_folder(), "credentials")
    return Path(kept(), role)


def default_name(role: str) -> str:
    """The user's name, or the machine's."""
    if role == "user":
        return getpass.getuser().lower()
    return socket.gethostname().lower()
