"""The embedded pool: an agent for one `harp-run`, with a certificate authority that lives as long.

Started by harp_client.pool. The only files are the one user's credentials (the authority's and the
server's keys stay in memory). It ends when its lifeline, a pipe that only `harp-run` holds, says so
or breaks; if it breaks, `harp-run` was killed, and what it had started is killed too.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path

from harp_client import native, settings
from harp_client.attendant import GOODBYE
from harp_client.errors import HarpError, tell
from harp_client.state import cache
from harp_server.agent import Agent, Device, Offer, listen, worker_environ
from harp_server.ca import Authority, save_user
from harp_server.content_cache import Place
from harp_server.logs import Log
from harp_server.state import StateFolder

DRAIN_SECONDS = 2.0

CACHE_BYTES = 4 << 30
"""What is kept of what a user's programs upload to embedded pools."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="harp-run (embedded pool)")
    parser.add_argument("--lifeline-fd", type=int, required=True)
    parser.add_argument("--ready-fd", type=int, required=True)
    parser.add_argument("--device", default="soft")
    parser.add_argument("--log-level", default="error")
    arguments = parser.parse_args()
    try:
        return asyncio.run(_run(arguments))
    except HarpError as error:
        return tell("harp-run: embedded pool", error)


async def _run(arguments: argparse.Namespace) -> int:
    environ = native.without_preload(os.environ)
    parts = native.find(environ)
    log = Log("plain", arguments.log_level)
    state = StateFolder(environ)
    try:
        authority = Authority.create(f"embedded-{os.getpid()}")
        issuer = authority.issue_server("embedded")
        user = authority.issue_user("local", "local")
        credentials = state.path / "credentials"
        save_user(credentials, issuer.root_pem, user, lasts=False)
        offer = Offer(
            parts=parts,
            device=Device.resolve(arguments.device, parts),
            issuer=issuer,
            root_certificate=str(credentials / "ca.pem"),
            environ=worker_environ(environ),
            cache=_cache(environ),
        )
        agent = Agent(offer, listen("127.0.0.1:0"), log)
        orderly = _watch(arguments.lifeline_fd)
        await agent.start()
        _announce(arguments.ready_fd, agent.address, credentials)
        if await orderly:
            await agent.stop(DRAIN_SECONDS)
        else:
            kill_users_of(str(credentials))
            await agent.stop(0)
    finally:
        state.close()
    return 0


def _cache(environ: dict[str, str]) -> Place | None:
    """Where the runs of this user keep what they upload: the pool of each is another one, so it
    cannot be told by the tenant."""
    if settings.HARP_DEDUP.get(environ) == "0":
        return None
    return Place(cache(environ), CACHE_BYTES, CACHE_BYTES, "local")


def _announce(ready_fd: int, address: str, credentials: Path) -> None:
    with os.fdopen(ready_fd, "w") as ready, contextlib.suppress(BrokenPipeError):
        ready.write(json.dumps({"address": address, "credentials": str(credentials)}) + "\n")


def _watch(lifeline: int) -> "asyncio.Future[bool]":
    """Becomes True when harp-run says goodbye (or this process is asked to end), False when it is
    gone without a word."""
    loop = asyncio.get_running_loop()
    orderly: asyncio.Future[bool] = loop.create_future()

    def readable() -> None:
        loop.remove_reader(lifeline)
        said = os.read(lifeline, 1)
        if not orderly.done():
            orderly.set_result(said == GOODBYE)

    def asked() -> None:
        if not orderly.done():
            orderly.set_result(True)

    loop.add_reader(lifeline, readable)
    loop.add_signal_handler(signal.SIGTERM, asked)
    return orderly


def kill_users_of(credentials: str) -> None:
    """Kills every process that was started with this pool's credentials folder in its environment.

    The folder's name is random, so only what a killed `harp-run` had started can carry it.
    """
    mark = f"{settings.HARP_CREDENTIALS.name}={credentials}".encode()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            variables = Path("/proc", entry, "environ").read_bytes().split(b"\0")
            if mark in variables:
                os.kill(int(entry), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
