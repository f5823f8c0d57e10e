"""The misbehaving peer (tests/rogue) and what it is aimed at."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from harp_server.ca import SessionIssuer
from pool.standins import HARP_RUN, Pool, Server

ROOT = Path(__file__).parents[2]
SECONDS = 600.0


def program() -> str:
    """The built `harp-rogue`, which lies beside the native parts of the checkout."""
    path = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / "harp-rogue"
    assert path.exists(), "no harp-rogue: `make native` builds it"
    return str(path)


class Relay:
    """`harp-rogue relay` between programs and a server."""

    def __init__(self, server: Server, folder: Path, *options: object) -> None:
        self.pool = server.pool
        folder.mkdir(parents=True, exist_ok=True)
        certificate, key = SessionIssuer.load(self.pool.server).issue("rogue")
        for name, text in (("cert.pem", certificate), ("key.pem", key)):
            (folder / name).write_text(text)
        command = [program(), "relay", "--server", server.address, "--user", self.pool.user]
        command += ["--cert", folder / "cert.pem", "--key", folder / "key.pem", *options]
        self.log = folder / "relay.log"
        with self.log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        assert self.address, self.log.read_text()

    def end(self) -> dict[str, int]:
        """Ends it; what it counted."""
        stdout, _ = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, self.log.read_text()
        counts: dict[str, int] = json.loads(stdout)
        return counts


def under(address: str, pool: Pool, command: Sequence[object]) -> list[str]:
    """A command line that runs `command` at a server."""
    options = ["--ptx", "--server", address, "--credentials", str(pool.user)]
    return [*HARP_RUN, *options, "--", *(str(word) for word in command)]


def record(
    server: Server, folder: Path, name: str, command: Sequence[object], environ: Mapping[str, str]
) -> Path:
    """Runs a program through a relay and keeps the frames of its calls."""
    stream = folder / f"{name}.stream"
    relay = Relay(server, folder / name, "--record", stream)
    try:
        done = subprocess.run(
            under(relay.address, server.pool, command),
            env=environ,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        counts = relay.end()
    assert counts["sessions"] >= 1
    assert stream.stat().st_size > 0
    return stream


def storm(
    server: Server, streams: Sequence[Path], frames: int, seed: int, threads: int = 4
) -> subprocess.Popen[str]:
    """Starts a storm of mutated frames."""
    command: list[object] = [program(), "storm", "--server", server.address]
    command += ["--user", server.pool.user, "--frames", frames, "--seed", seed]
    command += ["--threads", threads, *streams]
    return subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
