"""What `harp doctor` checks of a host whose pool has a scheduler."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harp_client import settings
from harp_client.errors import HarpError
from harp_client.finding import Finding, certificate, failed, reachable
from harp_client.target import Schedulers

if TYPE_CHECKING:
    from harp_client.attached import Attached

SKEW = 60.0
"""Seconds that two clocks may differ by: certificates are valid from some minutes before they are
made, and times in tables and logs are to be comparable."""

RENEW = "harp join, or harp ca user CA_DIR NAME"


def host(pool: Schedulers) -> Iterator[Finding]:
    """The host's certificate, the schedulers, the clocks, and what is attached here."""
    certified = list(certificate("certificate", Path(pool.credentials), "client", how=RENEW))
    yield from certified
    tried = [reachable("scheduler", address) for address in pool.addresses]
    yield from (finding for finding in tried if not finding.ok)
    if any(finding.ok for finding in tried) and all(finding.ok for finding in certified):
        yield from scheduler(pool)


def scheduler(pool: Schedulers) -> Iterator[Finding]:
    """What the scheduler that leads says."""
    from harp_api.control.v1 import pool_pb2 as api
    from harp_client.attached import attached, owner
    from harp_client.scheduler import Scheduler

    name = settings.HARP_HOST.get() or socket.gethostname()
    asked = api.GetRequest(kinds=["servers", "devices", "leases"])
    try:
        connection = Scheduler(pool.addresses, pool.credentials)
        connection.call("Get", asked)
        before = time.time()
        things = connection.call("Get", asked)
        after = time.time()
    except HarpError as error:
        yield failed("scheduler", error)
        return
    there = sum(server.connected for server in things.servers)
    ready = sum(not device.unusable for device in things.devices)
    yield Finding(
        "scheduler",
        ready > 0,
        f"it leads; {there} of {len(things.servers)} servers are connected, {ready} of "
        f"{len(things.devices)} devices ready",
        "" if ready else "harp get servers; harp get devices",
    )
    yield clock(things.now, before, after)
    yield from attachments(attached(things.leases, name, owner(pool.credentials)), name)


def clock(theirs: float, before: float, after: float) -> Finding:
    """Compares the scheduler's clock with the time here before it was asked and after."""
    ahead = max(theirs - after, 0.0) + min(theirs - before, 0.0)
    if abs(ahead) > SKEW:
        word = "behind" if ahead > 0 else "ahead of"
        text = f"this clock is {abs(ahead):.0f} s {word} the scheduler's"
        return Finding("clock", False, text, "set both by NTP (timedatectl set-ntp true)")
    return Finding("clock", True, "as the scheduler's")


def attachments(found: Attached, name: str) -> Iterator[Finding]:
    """What is attached here: the devices as a program numbers them, and what is left out."""
    numbers = itertools.count()
    for lease in found.usable:
        devices = ", ".join(
            f"{next(numbers)} is {target.device} ({target.model})" for target in lease.targets
        )
        yield Finding("attachment", True, f"{lease.name}: {lease.state}, device {devices}")
    for one in found.left_out:
        following = f"harp describe lease {one.lease.id}"
        yield Finding("attachment", one.is_of_others, one.line, following)
    if not any(found):
        text = f"nothing is attached to host {name}"
        following = f"harp attach {name}, or harp-run --gpus 1 for a run's own lease"
        yield Finding("attachment", True, text, following)
