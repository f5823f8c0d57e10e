"""Where a trace is replayed: a server of this run's own, or one of a pool."""

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import click

from harp_client import native
from harp_client.errors import HarpError
from harp_client.target import Flags, Target, choose, schedulers


class Where(NamedTuple):
    """What the command line says about it."""

    device: str
    """`soft`, `pool`, or the path of a libcuda.so.1."""
    flags: Flags
    """Any of them makes `soft` mean `pool`."""
    lease: str | None = None
    """Of what is attached to this host. So does this."""

    @contextmanager
    def target(self) -> Iterator[Target]:
        """The server that replays; one of this process's own ends with the block.

        Raises HarpError where there is none.
        """
        from harp_client.attendant import NotReady

        environ = native.without_preload(os.environ)
        is_told = any((*self.flags, self.lease))
        is_pool = self.device == "pool" or (self.device == "soft" and is_told)
        if not is_pool:
            if is_told:
                cause = f"--device {self.device} uses no running pool"
                raise HarpError(cause, "use --device pool", 2)
            from harp_client.pool import EmbeddedPool

            if self.device != "soft" and not os.path.isfile(self.device):
                next_step = "name the path of a libcuda.so.1 (ldconfig -p | grep libcuda), or soft"
                raise HarpError(f"--device {self.device}: there is no such file", next_step, 2)
            try:
                pool = EmbeddedPool(self.device, verbose=False, environ=environ)
            except NotReady as error:
                cause = f"--device {self.device} cannot be used, as is said above"
                raise HarpError(cause, "name another libcuda.so.1, or --device soft", 2) from error
            try:
                yield pool.target
            finally:
                pool.close()
            return
        scheduled = schedulers(self.flags, environ)
        if scheduled is not None:
            from harp_client.lease import RunLease, Wish

            try:
                lease = RunLease(
                    scheduled, Wish(), [] if self.lease is None else [self.lease], environ
                )
            except NotReady as error:
                cause = "the pool has no device for the replay, as is said above"
                raise HarpError(
                    cause, "attach one to this host, or drop --device pool", 2
                ) from error
            try:
                yield lease.target
            finally:
                lease.close()
            return
        if self.lease is not None:
            raise HarpError("--lease is for a pool with a scheduler", "add --scheduler", 2)
        target = choose(self.flags, environ)
        if target is None:
            raise HarpError("no pool is configured", "add --server HOST:PORT, or drop --device", 2)
        yield target


def where_options(help_of_device: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds --device and the options that name a pool's server: the command is given `where`."""
    options = (
        click.option("--device", default="soft", metavar="soft|pool|PATH", help=help_of_device),
        click.option("-s", "--server", metavar="HOST:PORT", help="This pool server."),
        click.option("-c", "--credentials", metavar="DIR", help="Credentials for it."),
        click.option(
            "--server-name", metavar="NAME", help="The name that its certificate must carry."
        ),
        click.option("--context", metavar="NAME", help="A context of the configuration file."),
        click.option(
            "--scheduler",
            metavar="HOST:PORT",
            help="What this pool's scheduler has attached to this host.",
        ),
        click.option("--lease", metavar="NAME", help="Of that, the devices of this lease."),
    )

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def placed(device: str, lease: str | None, **rest: Any) -> Any:
            flags = Flags(**{name: rest.pop(name) for name in Flags._fields})
            return command(where=Where(device, flags, lease), **rest)

        for option in reversed(options):
            placed = option(placed)
        return placed

    return add


def arguments_of(target: Target) -> list[str]:
    """How `harp-trace` is told of the server.

    Raises HarpError where the target is not all devices of one server.
    """
    if "," in target.server:
        cause = f"a replay uses one server, and these are several: {target.server}"
        raise HarpError(cause, "name one with --server, or one lease with --lease", 2)
    lease, _, address = target.server.rpartition("@")
    if "/" in address:
        cause = f"a replay uses all devices of its server, not some: {address}"
        raise HarpError(cause, "name the server without the slash", 2)
    return [
        *("--server", address),
        *("--credentials", target.credentials),
        *("--server-name", f"{lease}.lease.{target.server_name}" if lease else target.server_name),
    ]
