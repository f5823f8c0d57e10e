"""What `harp doctor --server` checks of a machine that is to offer devices."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from harp_client import native
from harp_client.errors import HarpError
from harp_client.finding import Finding, certificate, failed, reachable

if TYPE_CHECKING:
    from harp_server.nvml import Gpu, Nvml

DISK = 100 << 20
"""Bytes that must be free where the agent keeps its state."""

JOIN = "harp join with a server's token, or harp ca server CA_DIR NAME"

Value = TypeVar("Value")


def server(
    credentials: Path, device: str, schedulers: Sequence[str], seconds: float = 0
) -> Iterator[Finding]:
    """The server's certificates, its devices through a jailed worker and as the driver's management
    library sees them (for `seconds` also their events), its disk, its schedulers."""
    yield from certificate("certificate", credentials, "server", how=JOIN)
    if (credentials / "agent.key").exists():
        yield from certificate("agent", credentials, "agent", how=JOIN)
    elif schedulers:
        yield Finding("agent", False, f"{credentials} has no agent.key", JOIN)
    yield worker(credentials, device)
    if device != "soft":
        yield from devices(seconds)
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


def devices(seconds: float) -> Iterator[Finding]:
    """What NVML says of each device: who it is, where, how it is, and what happens to it in the
    next seconds. Numbers are NVML's. Where a call does not come back it is not asked further."""
    from harp_server.nvml import NoAnswer, Nvml
    from harp_server.topology import topology

    name = "nvml"
    try:
        nvml = in_time(Nvml.open)
        gpus = in_time(nvml.all)
        yield in_time(partial(library, nvml))
        for gpu, labels in zip(gpus, in_time(partial(topology, nvml, gpus)), strict=True):
            name = f"device {gpu.ordinal}"
            yield from in_time(partial(device, nvml, gpu, labels))
        name = "events"
        if seconds:
            yield from events(nvml, gpus, seconds)
    except NoAnswer as error:
        yield failed(name, error)
    except HarpError as error:
        cause = f"nothing watches the devices: {error.cause}"
        yield Finding("nvml", True, cause, error.next_step)


def in_time(call: Callable[[], Value]) -> Value:
    """What a call into the driver returns. Raises what that raises, and NoAnswer."""
    from harp_server.nvml import answered

    return asyncio.run(answered(call))


def library(nvml: Nvml) -> Finding:
    """Which NVML of which driver it is."""
    from harp_server.nvml import text

    version = text(nvml.asked("nvmlSystemGetNVMLVersion"))
    return Finding("nvml", True, f"driver {nvml.driver()}, NVML {version}")


def device(nvml: Nvml, gpu: Gpu, labels: Mapping[str, str]) -> list[Finding]:
    """Who a device is, where, and how it is."""
    from harp_server.nvml import text

    name = f"device {gpu.ordinal}"
    said = " ".join(f"{key}={value}" for key, value in sorted(labels.items()))
    model = text(nvml.asked("nvmlDeviceGetName", gpu.handle))
    faults = nvml.faults(gpu)
    return [
        Finding(name, True, f"{model}, {gpu.uuid}, {gpu.bus}, {said}"),
        *(Finding(name, False, *fault) for fault in faults),
        *([] if faults else [Finding(name, True, "no faults")]),
    ]


def events(nvml: Nvml, gpus: Sequence[Gpu], seconds: float) -> Iterator[Finding]:
    """The events of the devices in the next seconds. Raises NoAnswer."""
    from harp_server.nvml import Events
    from harp_server.xids import xid

    try:
        reported = in_time(partial(Events, nvml, gpus))
    except nvml.api.NVMLError as error:
        yield Finding("events", True, f"the driver has none: {error}")
        return
    watched = [str(gpu.ordinal) for gpu in reported.watched]
    yield Finding("events", True, f"of devices {', '.join(watched)}" if watched else "none")
    ends = time.monotonic() + seconds
    try:
        while watched and (left := ends - time.monotonic()) > 0:
            if (event := in_time(partial(reported.wait, min(left, 1.0)))) is None:
                continue
            gpu, number = event
            name = "some device" if gpu is None else f"device {gpu.ordinal}"
            cause, action = xid(number) if number else ("memory error", None)
            takes_out = action is not None and action.takes_out
            yield Finding(name, not takes_out, cause, action.value if action and takes_out else "")
    except nvml.api.NVMLError as error:
        yield Finding("events", False, f"NVML: {error}", "nvidia-smi -q")
    in_time(reported.close)


def disk(name: str, folder: Path) -> Finding:
    """Whether the folder can be written and has room."""
    if not os.access(folder, os.W_OK):
        return Finding(name, False, f"{folder} cannot be written", f"chown or chmod {folder}")
    free = shutil.disk_usage(folder).free
    text = f"{free >> 20} MiB are free at {folder}"
    return Finding(name, free >= DISK, text, "" if free >= DISK else "make room")
