"""What the subjects of a run compare: one server, and the same program in the pool, on the soft GPU
directly, and beside raw sockets."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cores import apart
from driven import HARP_RUN, Driven
from sockets import raw_sockets

from pool.standins import ASKING_NOTHING, Pool, Server


@dataclass
class Sides:
    """The programs of one run. `pool`, `direct` and `raw` live as long as the run; a subject that
    needs a session, a server or a program of its own starts it and ends it."""

    folder: Path
    environ: dict[str, str]
    credentials: Pool
    server: Server
    client: list[Path]
    """The measuring client's command line."""
    pool: Driven
    direct: Driven
    raw: Driven
    raw_server: int
    """The process at the other end of `raw`."""

    def remote(self, *options: object, server: Server | None = None) -> list[object]:
        """`harp-run` in front of a program that is to use the server, or another one."""
        address, user = (server or self.server).address, self.credentials.user
        return [*HARP_RUN, "--server", address, "--credentials", user, *options, "--"]

    def in_pool(self, server: Server | None = None) -> Driven:
        """Another measuring client, with a session of its own."""
        return Driven([*self.remote(server=server), *self.client], self.environ)

    def in_program(self) -> Driven:
        """Another measuring client with the soft GPU in its own process."""
        return Driven([*HARP_RUN, "--direct", "--", *self.client], self.environ)

    def ends_apart(self) -> AbstractContextManager[None]:
        """For the block, the two ends of a session and of the raw sockets on cores of their own."""
        near = (self.pool.process.pid, self.raw.process.pid)
        return apart(near, (self.first_worker(), self.raw_server))

    def first_worker(self) -> int:
        """The process of the session of `pool`."""
        return int(str(self.server.lines("session start")[0]["worker"]))

    def last_worker(self) -> int:
        """The process of the session that began last."""
        return int(str(self.server.lines("session start")[-1]["worker"]))


@contextmanager
def sides(client: list[Path], baseline: Path) -> Iterator[Sides]:
    """Starts everything that is compared, and ends it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environ = dict(os.environ) | ASKING_NOTHING
        pool = Pool(folder)
        server = Server(pool, environ, folder / "server.log", "--idle-workers", "2")
        stack.callback(server.stop)
        direct = Driven([*HARP_RUN, "--direct", "--", *client], environ)
        stack.callback(direct.close)
        raw, raw_server = stack.enter_context(raw_sockets(baseline, pool, folder))
        compared = Sides(folder, environ, pool, server, client, direct, direct, raw, raw_server)
        compared.pool = compared.in_pool()
        stack.callback(compared.pool.close)
        for side in (compared.pool, direct):
            side.ask("start")
        yield compared
