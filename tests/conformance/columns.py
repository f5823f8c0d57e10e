"""The ways a program can be run, which must not differ in what it prints and how it ends.

direct       the soft GPU inside the program's own process
local        the same behind the interposer in local mode
pool         through a running `harp server` with the soft GPU
pool-sync    the same with every call waiting for its reply
pool2        through two running servers with a soft GPU each: the program sees two devices
embedded     through the pool that `harp-run` starts when none is configured
native       the machine's own NVIDIA driver, where there is one
native-local the same behind the interposer in local mode
native-pool  through a running `harp server` on that driver
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from conformance.outcome import Outcome, finish
from pool.standins import HARP_RUN, Pool, Server

SOFT = ("direct", "local", "pool", "pool-sync")
NATIVE = ("native", "native-local", "native-pool")

DEVICES = {"HARP_SOFT_DEVICES": "2", "HARP_SOFT_MEMORY": "1GiB"}
"""What the soft GPU looks like in every column, so that answers about it are equal."""

ONE_DEVICE = {"HARP_SOFT_DEVICES": "1"}
"""What the soft GPU looks like on each of two servers."""

SERIAL = {"HARP_SOFT_SERIAL": "1"}
"""Has the soft GPU do everything in one order."""

SERIAL_SOFT = "serial-soft"
"""The name of the server whose soft GPU does."""


def native_driver() -> str | None:
    """Path of NVIDIA's own libcuda.so.1, or None where this machine has no GPU of theirs."""
    if not Path("/dev/nvidiactl").exists():
        return None
    probe = "import ctypes; ctypes.CDLL('libcuda.so.1'); print(open('/proc/self/maps').read())"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    paths = {line.split()[-1] for line in done.stdout.splitlines() if "libcuda.so" in line}
    return min(paths, default=None)


class Columns:
    """Runs programs in any column; servers are started when the first program needs them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers: dict[str, tuple[Pool, Server]] = {}
        self.outcomes: dict[tuple[str, ...], Outcome] = {}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "CUDA_"))}
        self.environ = {**kept, **DEVICES, "XDG_CONFIG_HOME": str(folder / "config")}
        self.environ["HARP_STATE_DIR"] = str(folder / "state")
        self.environ["CUPY_CACHE_DIR"] = str(folder / "cupy")
        for name in ("HARP_SERVER", "HARP_CREDENTIALS", "HARP_CONTEXT", "HARP_CONFIG"):
            self.environ.pop(name, None)

    def run(
        self,
        column: str,
        command: Sequence[object],
        environ: Mapping[str, str] | None = None,
        *,
        serial: bool = False,
    ) -> Outcome:
        """Runs `command` in a column. The same command is run in the same column only once.

        With `serial` the soft GPU does everything in the same order in every run.
        """
        words = [str(word) for word in command]
        own = {**(SERIAL if serial else {}), **(environ or {})}
        key = (column, *words, *(f"{name}={value}" for name, value in own.items()))
        if key not in self.outcomes:
            self.outcomes[key] = finish(
                [*self.wrapper(column, serial), *words], {**self.environ, **own}
            )
        return self.outcomes[key]

    def wrapper(self, column: str, serial: bool = False) -> list[str]:
        """What stands before a program's command line in this column."""
        soft = SERIAL_SOFT if serial else "soft"
        match column:
            case "direct":
                return [*HARP_RUN, "--direct", "--"]
            case "local":
                return [*HARP_RUN, "--local", "--libcuda", "soft", "--"]
            case "embedded":
                return [*HARP_RUN, "--embedded", "--"]
            case "pool":
                return [*HARP_RUN, *self.server_options(soft), "--"]
            case "pool2":
                return [*HARP_RUN, *self.two_servers(), "--"]
            case "pool-sync":
                return [*HARP_RUN, "--sync", *self.server_options(soft), "--"]
            case "native":
                needs_native_driver()
                return []
            case "native-local":
                return [*HARP_RUN, "--local", "--libcuda", needs_native_driver(), "--"]
            case "native-pool":
                return [*HARP_RUN, *self.server_options(needs_native_driver()), "--"]
        raise ValueError(f"no column {column}")

    def server_options(self, device: str) -> list[str]:
        """The options that send `harp-run` to a server for this device."""
        if device not in self.servers:
            name = device if device in ("soft", SERIAL_SOFT) else "native"
            environ = {**self.environ, **(SERIAL if device == SERIAL_SOFT else {})}
            device_option = "soft" if device == SERIAL_SOFT else device
            pool = Pool(self.folder, name)
            log = self.folder / f"{name}-server.log"
            server = Server(pool, environ, log, "--device", device_option, "--max-sessions", "16")
            self.servers[device] = (pool, server)
        pool, server = self.servers[device]
        return ["--server", server.address, "--credentials", str(pool.user)]

    def two_servers(self) -> list[str]:
        """The options that send `harp-run` to two servers of one pool, with a soft GPU each."""
        options = []
        for number in range(2):
            name = f"soft-{number}"
            if name not in self.servers:
                first = self.servers.get("soft-0")
                pool = first[0] if first else Pool(self.folder, "two")
                log = self.folder / f"{name}-server.log"
                self.servers[name] = (pool, Server(pool, {**self.environ, **ONE_DEVICE}, log))
            pool, server = self.servers[name]
            options += ["--server", server.address, "--credentials", str(pool.user)]
        return options

    def close(self) -> None:
        """Stops the servers, which must end in good order."""
        for _, server in self.servers.values():
            assert server.stop() == 0, server.log.read_text()


def needs_native_driver() -> str:
    """The path of NVIDIA's driver; skips the test where there is none."""
    path = native_driver()
    if path is None:
        pytest.skip("no NVIDIA driver here (no /dev/nvidiactl): this column needs a real GPU")
    return path
