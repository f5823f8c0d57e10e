"""Measures the scheduler's store: durable grants a second, and how long a new leader reads.

    python bench/store.py

A grant is what the core changes for one: a lease, its accelerator's version, the answered request,
two numbers, and a row of the audit. The leader stores what has come while the last transaction was
written by one transaction: `grouped` is how many grants that was.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from harp_scheduler.core.book import Key, Number, Record
from harp_scheduler.core.model import (
    Accelerator,
    Lease,
    Request,
    Server,
    State,
)
from harp_scheduler.core.placement.model import Demand, Slice
from harp_scheduler.store.audit import AuditEntry
from harp_scheduler.store.store import Store
from scheduler.store.postgres import Postgres, binaries

SECONDS = 4.0
GROUPS = (1, 16, 256)
DEVICES = 20_000
GIB = 1 << 30
ALICE = "spiffe://lab/tenant/research/user/alice"


def accelerator(number: int) -> Accelerator:
    server = f"server{number // 8}"
    labels = (("cc", "9.0"), ("driver", "580.1"), ("uuid", f"GPU-{number:032x}"))
    return Accelerator(
        f"{server}/{number % 8}", server, number % 8, "gpu", "h100", 80 * GIB, labels
    )


def lease(number: int, device: Accelerator) -> Lease:
    return Lease(
        f"lease-{number:016x}",
        "research",
        ALICE,
        Demand(memory=10 * GIB, compute=125),
        number,
        name=f"run-{number}",
        ttl=30.0,
        state=State.ATTACHING,
        slices=(Slice(device.id, 10 * GIB, 125),),
        epoch=number,
    )


def fill(store: Store, term: int) -> list[Accelerator]:
    """A pool of many devices, each with a lease."""
    devices = [accelerator(number) for number in range(DEVICES)]
    for first in range(0, DEVICES, 2000):
        part = devices[first : first + 2000]
        changes: dict[Key, Record | None] = {("Accelerator", d.id): d for d in part}
        changes |= {("Server", d.server): Server(d.server) for d in part}
        for number, device in enumerate(part, first + 1):
            changes["Lease", f"lease-{number:016x}"] = lease(number, device)
        store.commit(term, changes, [Number("epoch", first + len(part))])
    return devices


def grants(store: Store, term: int, devices: list[Accelerator], grouped: int) -> float:
    """Grants a second, each stored before the next group begins."""
    done, number = 0, store.load()[1][0].value
    began = time.perf_counter()
    while (spent := time.perf_counter() - began) < SECONDS:
        changes: dict[Key, Record | None] = {}
        audit = []
        for _ in range(grouped):
            number += 1
            place = number % len(devices)
            device = devices[place] = replace(devices[place], version=devices[place].version + 1)
            granted = lease(number, device)
            request = Request(ALICE, f"request-{number}", granted.id)
            changes["Accelerator", device.id] = device
            changes["Lease", granted.id] = granted
            changes["Request", f"{ALICE} {request.id}"] = request
            audit.append(
                AuditEntry(ALICE, "attach", granted.id, "research", request.id, after=granted)
            )
        numbers = [Number("epoch", number), Number("order", number)]
        store.commit(term, changes, numbers, audit)
        done += grouped
    return done / spent


def measure(name: str, url: str) -> None:
    """One dialect's lines of the table."""
    store = Store.open(url)
    term = store.lead("bench")
    assert term is not None
    devices = fill(store, term)
    for grouped in GROUPS:
        rate = grants(store, term, devices, grouped)
        print(f"| {name} | grants/s, {grouped} grouped | {rate:,.0f} |", flush=True)
    began = time.perf_counter()
    records, _ = store.load()
    rate = len(records) / (time.perf_counter() - began)
    print(f"| {name} | records/s read by a new leader | {rate:,.0f} |", flush=True)
    began = time.perf_counter()
    assert store.verify_audit() is None
    rate = sum(1 for _ in store.audit()) / (time.perf_counter() - began)
    print(f"| {name} | rows/s of the audit verified and read | {rate:,.0f} |", flush=True)
    store.close()


def main() -> None:
    print("| database | what | measured |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        measure("SQLite", f"sqlite:///{folder}/pool.db")
    programs = binaries()
    if programs is None:
        print("| PostgreSQL | not here: apt-get install postgresql | |")
        return
    server = Postgres(programs, durable=True)
    try:
        measure("PostgreSQL", server.new_database())
    finally:
        server.remove()


if __name__ == "__main__":
    main()
