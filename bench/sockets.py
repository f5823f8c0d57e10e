"""The baseline of the wire: a raw TCP and a raw TLS socket, driven like the measuring client."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from driven import Driven
from link import link

from pool.standins import Pool


@contextmanager
def raw_sockets(
    baseline: Path, pool: Pool, folder: Path, round_trip_ms: float | None = None
) -> Iterator[tuple[Driven, int]]:
    """The baseline's two processes, with a certificate of the same authority: the one that is
    driven, and the number of the one that serves it. With a round trip TCP goes through a link."""
    chain, key = pool.authority.issue_server("baseline").issue("baseline")
    (folder / "chain.pem").write_text(chain)
    (folder / "key.pem").write_text(key)
    command = [baseline, "serve", folder / "chain.pem", folder / "key.pem"]
    with ExitStack() as stack:
        server = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        stack.callback(server.terminate)
        assert server.stdout is not None
        tcp, tls = server.stdout.readline().split()
        if round_trip_ms is not None:
            far = stack.enter_context(link(baseline, f"127.0.0.1:{tcp}", round_trip_ms))
            tcp = far.address.rpartition(":")[2]
        driven = Driven([baseline, "drive", tcp, tls, pool.user / "ca.pem"], os.environ)
        stack.callback(driven.close)
        yield driven, server.pid


def measured_round_trip_ms(baseline: Path, pool: Pool, folder: Path, round_trip_ms: float) -> float:
    """What a request and answer of 64 bytes take on a link with that round trip, which comes to
    more: both ends and the link sleep, and are woken."""
    with raw_sockets(baseline, pool, folder, round_trip_ms) as (driven, _):
        return median(driven.ask("ping", 64, 50)) / 1e3
