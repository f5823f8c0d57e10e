"""`HOST:PORT`, as people write it and as sockets take it.

Standard library only: `harp-run` comes through here.
"""

from harp_client.errors import HarpError

PORT_MOST = 65535


def parse(address: str, example: str, exit_code: int = 2) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[V6]:PORT`. Raises HarpError, which shows an `example`."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdigit() or int(port) > PORT_MOST:
        raise HarpError(f"{address!r} is not HOST:PORT", f"write it like {example}", exit_code)
    return host, int(port)


def joined(host: str, port: int) -> str:
    """The text that `parse` takes apart."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
