"""The ways that the programs of this folder run: directly on the soft GPU, behind the
interposer in the same process, and through a pool."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from harp_client import native
from pool.standins import Pool, Server, wait_until

HERE = Path(__file__).parent
COLUMNS = ("direct", "local", "pool")

SECONDS = 120.0
"""Longest that one program may run before it counts as hanging, on a machine with much to do."""

SETTLING_SECONDS = 60.0
"""Longest that the end of a program may take to be the end of its worker."""


class Programs:
    """The C programs of this folder, each compiled when a test first asks for it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getitem__(self, name: str) -> str:
        binary = self._folder / name
        if not binary.exists():
            command = ["cc", "-std=gnu17", "-O1", "-Wall", "-Werror"]
            command += ["-o", str(binary), str(HERE / f"{name}.c"), "-ldl", "-lpthread"]
            subprocess.run(command, check=True)
        return str(binary)

    def library(self, name: str) -> str:
        """The same for a library to preload."""
        binary = self._folder / f"{name}.so"
        if not binary.exists():
            command = ["cc", "-std=gnu17", "-O1", "-Wall", "-Werror", "-shared", "-fPIC"]
            subprocess.run([*command, "-o", str(binary), str(HERE / f"{name}.c")], check=True)
        return str(binary)


class Children:
    """Started programs. They lead process groups, which are killed when the test ends."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[str]] = []

    def start(
        self, command: Sequence[object], environ: Mapping[str, str], **options: object
    ) -> subprocess.Popen[str]:
        """Starts a program whose three streams are pipes unless `options` say otherwise."""
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        child = subprocess.Popen(  # type: ignore[call-overload]
            [str(word) for word in command],
            env=dict(environ),
            text=True,
            start_new_session=True,
            **{**pipes, **options},
        )
        self._started.append(child)
        return child

    def close(self) -> None:
        for child in self._started:
            for stream in (child.stdin, child.stdout, child.stderr):
                if stream is not None:
                    stream.close()
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


class Ways:
    """One server with one soft device, and the environments that programs run in."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self.plain = dict(environ)
        self._server: Server | None = None

    @property
    def server(self) -> Server:
        if self._server is None:
            pool = Pool(self._folder)
            self._server = Server(pool, self.plain, self._folder / "server.log")
        return self._server

    def environ(self, column: str) -> dict[str, str]:
        """What a program finds in its environment, as `harp-run` would set it."""
        environ = dict(self.plain)
        parts = native.find(environ)
        native.preload(parts.softgpu if column == "direct" else parts.interposer, environ)
        if column == "local":
            environ["HARP_LIBCUDA"] = parts.softgpu
        if column == "pool":
            environ["HARP_SERVER"] = self.server.address
            environ["HARP_CREDENTIALS"] = str(self.server.pool.user)
        environ["CUPY_COMPILE_WITH_PTX"] = "1"
        return environ

    def options(self, column: str) -> list[str]:
        """What makes `harp-run` run a program so."""
        if column == "direct":
            return ["--direct"]
        if column == "local":
            return ["--local", "--libcuda", "soft"]
        server = self.server
        return ["--ptx", "--server", server.address, "--credentials", str(server.pool.user)]

    def settled(self) -> bool:
        """Whether every session has ended and its worker with it."""
        if self._server is None:
            return True
        started = self._server.lines("session start")
        ended = {line["session"] for line in self._server.lines("session end")}
        return all(
            line["session"] in ended and not os.path.exists(f"/proc/{line['worker']}")
            for line in started
        )

    @contextmanager
    def leaving_nothing(self) -> Iterator[None]:
        """What runs inside leaves no worker behind."""
        yield
        wait_until(self.settled, "every session ends with its program", SETTLING_SECONDS)

    def close(self) -> None:
        """Stops the server, which must end in good order."""
        if self._server is not None:
            assert self._server.stop() == 0, self._server.log.read_text()
