"""The baseline of the wire: a raw TCP and a raw TLS socket, driven like the measuring client."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from driven import Driven

from pool.standins import Pool


@contextmanager
def raw_sockets(baseline: Path, pool: Pool, folder: Path) -> Iterator[tuple[Driven, int]]:
    """The baseline's two processes, with a certificate of the same authority: the one that is
    driven, and the number of the one that serves it."""
    chain, key = pool.authority.issue_server("baseline").issue("baseline")
    (folder / "chain.pem").write_text(chain)
    (folder / "key.pem").write_text(key)
    command = [baseline, "serve", folder / "chain.pem", folder / "key.pem"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        ports = server.stdout.readline().split()
        driven = Driven([baseline, "drive", *ports, pool.user / "ca.pem"], os.environ)
        try:
            yield driven, server.pid
        finally:
            driven.close()
            server.terminate()
