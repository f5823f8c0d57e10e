"""What `harp doctor --server` checks of a machine that is to offer devices."""

import asyncio
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from harp_client import native
from harp_client.errors import HarpError
from harp_client.finding import Finding, certificate, failed, reachable

DISK = 100 << 20
"""Bytes that must be free where the agent keeps its state."""

JOIN = "harp join with a server's token, or harp ca server CA_DIR NAME"


def server(credentials: Path, device: str, schedulers: Sequence[str]) -> Iterator[Finding]:
    """The server's certificates, its devices through a jailed worker, its disk, its schedulers."""
    yield from certificate("certificate", credentials, "server", how=JOIN)
    if (credentials / "agent.key").exists():
        yield from certificate("agent", credentials, "agent", how=JOIN)
    elif schedulers:
        yield Finding("agent", False, f"{credentials} has no agent.key", JOIN)
    yield worker(credentials, device)
    if (state := credentials / "state").is_dir():
        yield disk("disk", state)
    for address in schedulers:
        yield reachable("scheduler", address)


def worker(credentials: Path, device: str) -> Finding:
    """Starts a worker as a session would have it: jailed, with the device's libcuda."""
    from harp_server.agent import Device, worker_environ
    from harp_server.channel import Message
    from harp_server.logs import Log
    from harp_server.workers import IdleWorkers, WorkerCommand

    environ = native.without_preload(os.environ)

    async def probe(chosen: Device, program: str) -> Message:
        root = str((credentials / "ca.pem").absolute())
        command = WorkerCommand(program, chosen.libcuda, root, chosen.jail, worker_environ(environ))
        workers = IdleWorkers(command, 1, Log("plain", "error"))
        try:
            return await workers.probe()
        finally:
            await workers.close()

    try:
        parts = native.find(environ)
        said = asyncio.run(probe(Device.resolve(device, parts), parts.worker))
    except HarpError as error:
        return failed("worker", error)
    except TimeoutError:
        return Finding("worker", False, "it was not ready in time", "is the driver well?")
    jail = said.get("landlock")
    text = f"{said.get('devices')} devices of {device}, jail: landlock {jail}, seccomp"
    if jail != "full":
        return Finding("worker", True, text, "Linux 5.13 or newer with Landlock jails it wholly")
    return Finding("worker", True, text)


def disk(name: str, folder: Path) -> Finding:
    """Whether the folder can be written and has room."""
    if not os.access(folder, os.W_OK):
        return Finding(name, False, f"{folder} cannot be written", f"chown or chmod {folder}")
    free = shutil.disk_usage(folder).free
    text = f"{free >> 20} MiB are free at {folder}"
    return Finding(name, free >= DISK, text, "" if free >= DISK else "make room")
