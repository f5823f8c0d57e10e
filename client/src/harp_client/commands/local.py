"""`harp up` and `harp down`: a whole pool on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import click

from harp_client.contexts import add_context
from harp_client.errors import HarpError
from harp_client.state import kept

POOL = "local"
READY_SECONDS = 60.0
STOP_SECONDS = 15.0
SCHEDULER, SERVER = "scheduler", "server"


class Running(NamedTuple):
    """A process that was started here; the time of its start tells it from a later one."""

    pid: int
    started: str
    address: str

    @property
    def lives(self) -> bool:
        return start_time(self.pid) == self.started


@click.command()
@click.option(
    "--device", default="soft", show_default=True, help="soft, or the path of a libcuda.so.1."
)
@click.option("--devices", type=click.IntRange(1, 64), default=1, show_default=True, help="Soft.")
def up(device: str, devices: int) -> None:
    """Start a pool on this machine: a scheduler, and a server with this machine's devices.

    It goes on in the background until `harp down`; what it keeps is in HARP_STATE_DIR.

    \b
    Examples:
      harp up
      harp up --devices 4
      harp up --device /usr/lib/x86_64-linux-gnu/libcuda.so.1
    """
    from harp_server.ca import Authority, save_user

    place = folder()
    if any(running.lives for running in known(place).values()):
        raise HarpError("the pool already runs", "harp down, or harp get devices", 5)
    try:
        command = ["--state", str(place), "--pool", POOL]
        command += ["--listen", "127.0.0.1:0", "--join-listen", "127.0.0.1:0"]
        scheduler = start(place, SCHEDULER, command)
        if not (place / "user").exists():
            # They need not join: the authority's key is here.
            authority = Authority.load(place / "ca")
            authority.issue_server(POOL).save(place / "server")
            save_user(
                place / "user", authority.trusted_pem(), authority.issue_user("default", "me")
            )
        command = ["--credentials", str(place / "server"), "--listen", "127.0.0.1:0"]
        command += ["--device", device, "--scheduler", scheduler.address]
        start(place, SERVER, command, HARP_SOFT_DEVICES=str(devices))
    except BaseException:  # Ctrl-C too
        stop_all(place)
        raise
    values = {"scheduler": scheduler.address, "credentials": str(place / "user")}
    context = "" if add_context(POOL, values) else f" --context {POOL}"
    click.echo(f"the pool runs; its logs are in {place}")
    click.echo(f"  harp-run{context} --gpus 1 -- python train.py")
    click.echo(f"  harp get devices{context}")
    click.echo("  harp down")


@click.command()
def down() -> None:
    """Stop the pool that `harp up` started. Its leases and names are kept for the next time.

    \b
    Examples:
      harp down
    """
    stopped = stop_all(folder())
    click.echo(f"stopped: {', '.join(stopped)}" if stopped else "no pool runs here")


def folder() -> Path:
    """Where the pool of this machine keeps what it has."""
    place = Path(kept()) / "up"
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    return place


def known(place: Path) -> dict[str, Running]:
    """What was started last, whether or not it lives."""
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
        found = json.loads((place / "running.json").read_text())
        return {name: Running(*values) for name, values in found.items()}
    return {}


def start(place: Path, name: str, options: list[str], **environ: str) -> Running:
    """Starts a part of the pool, and waits until it is ready. Raises HarpError."""
    ready_read, ready_write = os.pipe()
    with (place / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "harp_client.cli", name, *options),
                *("--log-format", "json", "--ready-fd", str(ready_write)),
            ],
            env=os.environ | environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            pass_fds=[ready_write],
            start_new_session=True,
        )
    os.close(ready_write)
    try:
        address = ready_line(ready_read, READY_SECONDS)
        if not address:
            why = f"it was not ready after {READY_SECONDS:.0f} s"
            if address is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_SECONDS)
                lines = (place / f"{name}.log").read_text(errors="replace").strip().splitlines()
                why = lines[-1] if lines else "it said nothing"
            raise HarpError(f"the {name} did not start: {why}", f"see {place / f'{name}.log'}")
    except BaseException:
        process.kill()
        process.wait()
        raise
    running = Running(process.pid, start_time(process.pid), address)
    (place / "running.json").write_text(json.dumps(known(place) | {name: running}))
    return running


def ready_line(descriptor: int, seconds: float) -> str | None:
    """What a part says when it is ready; empty where it ends before, None where it is too slow."""
    deadline = time.monotonic() + seconds
    said = b""
    with os.fdopen(descriptor, "rb", buffering=0) as ready:
        while not said.endswith(b"\n"):
            left = max(0.0, deadline - time.monotonic())
            if not select.select([ready], [], [], left)[0]:
                return None
            part = ready.read(4096)
            if not part:
                return ""
            said += part
    return said.decode().strip()


def stop_all(place: Path) -> list[str]:
    """Ends what lives, the server first; says what that was."""
    stopped = []
    for name, running in reversed(known(place).items()):
        if not running.lives:
            continue
        stopped.append(name)
        os.kill(running.pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while running.lives:
            if time.monotonic() > deadline:
                os.kill(running.pid, signal.SIGKILL)
            time.sleep(0.05)
    (place / "running.json").unlink(missing_ok=True)
    return stopped


def start_time(pid: int) -> str:
    """When a process was started, in ticks since the machine was; empty where there is none."""
    with contextlib.suppress(OSError):
        fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
        if fields[0] != "Z":
            return fields[19]
    return ""
