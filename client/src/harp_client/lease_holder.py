"""Holds the lease of one `harp-run`: asks for it, waits, renews it, and gives it back.

The work of an attendant of harp_client.lease, so that the lease is returned whatever happens to
`harp-run`: when the lifeline says goodbye or breaks, the lease is given back.
"""

import contextlib
import json
import os
import select
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from harp_api.control.v1 import pool_pb2 as api
from harp_client.attached import Attached, LeftOut, attached, chosen, owner
from harp_client.errors import HarpError, printable, tell
from harp_client.renewing import keep_fresh
from harp_client.scheduler import USABLE, Scheduler, request_id
from harp_client.target import Schedulers

PROGRAM = "harp-run"
TTL = 30.0
"""Seconds that the lease lives without a renewal."""

GIVE_BACK_SECONDS = 5.0
FRESH_SECONDS = 60.0
"""Between looks at whether the user's certificate is to be renewed, while a program runs."""

SAY_AGAIN = 30.0
"""Seconds between lines about the same place in the queue."""


def hold(
    lifeline: int,
    ready: int,
    pool: Schedulers,
    fields: Mapping[str, Any],
    queue_timeout: float | None,
) -> int:
    """Asks for a lease and has it until `harp-run` is gone; the exit status. `fields`: of the
    AttachRequest; `queue_timeout`: seconds, None waits for ever."""
    try:
        scheduler = connect(pool)
        request = api.AttachRequest(request_id=request_id(), ttl=TTL, **fields)
        return Holder(scheduler, lifeline).run(request, ready, queue_timeout)
    except HarpError as error:
        return tell(PROGRAM, error)


def use_attached(
    lifeline: int, ready: int, pool: Schedulers, host: str, names: Sequence[str]
) -> int:
    """Says what is attached to a host, of which only the leases of these names or ids if there are
    any, and keeps the certificate fresh until `harp-run` is gone; the exit status."""
    try:
        scheduler = connect(pool)
        found = find_attached(scheduler, host, names)
        tell_ready(ready, found.usable, found.left_out)
        while not select.select([lifeline], [], [], FRESH_SECONDS)[0]:
            stay_fresh(scheduler)
        return 0
    except HarpError as error:
        return tell(PROGRAM, error)


def connect(pool: Schedulers) -> Scheduler:
    """The pool's scheduler, with a certificate that is fresh. Raises HarpError."""
    scheduler = Scheduler(pool.addresses, pool.credentials)
    keep_fresh(scheduler)
    return scheduler


class Holder:
    """One lease, from the wish to its return."""

    def __init__(self, scheduler: Scheduler, lifeline: int) -> None:
        self._scheduler = scheduler
        self._lifeline = lifeline
        self._renewed = time.monotonic()

    def run(self, request: api.AttachRequest, ready: int, queue_timeout: float | None) -> int:
        """Until `harp-run` is gone. Raises HarpError where there is no lease to be had."""
        asked = Asked(self._scheduler, request)
        try:
            lease = self._wait(asked, queue_timeout)
            if lease is None:
                return 0
            tell_ready(ready, [lease])
            self._keep(lease)
            return 0
        finally:
            asked.give_back()

    def _wait(self, asked: "Asked", queue_timeout: float | None) -> api.Lease | None:
        """The lease when it can be used; None: nobody waits for it any more."""
        deadline = None if queue_timeout is None else time.monotonic() + queue_timeout
        said, said_at = "", 0.0
        while True:
            lease, now = asked.lease, time.monotonic()
            if asked.failed is not None:
                raise asked.failed
            if lease.state in USABLE:
                return lease
            if lease.state in ("", "Lost"):
                raise HarpError(f"the lease is gone: {lease.reason or 'it was taken back'}")
            line = waiting(lease)
            if line and (line != said or now - said_at > SAY_AGAIN):
                print(f"{PROGRAM}: {printable(line)}", file=sys.stderr, flush=True)
                said, said_at = line, now
            if deadline is not None and now > deadline:
                raise HarpError(
                    f"no device after {queue_timeout:.0f} s in the queue: {lease.reason}",
                    "wait longer (--queue-timeout), or ask for less; harp get queue",
                    5,
                )
            left = 1.0 if deadline is None else min(1.0, max(0.0, deadline - now))
            if self._is_over(left, asked.news):
                return None
            self._renew(lease)

    def _keep(self, lease: api.Lease) -> None:
        looked = time.monotonic()
        while not self._is_over(1.0):
            if not self._renew(lease):
                return
            if time.monotonic() - looked > FRESH_SECONDS:
                looked = time.monotonic()
                stay_fresh(self._scheduler)

    def _renew(self, lease: api.Lease) -> bool:
        """Renews it when it is time; says whether there still is a lease."""
        if time.monotonic() - self._renewed < TTL / 3:
            return True
        self._renewed = time.monotonic()
        try:
            now = self._scheduler.call("Renew", api.RenewRequest(lease=lease.id), TTL / 6)
        except HarpError as error:
            # The program goes on as long as its servers let it, whether or not a scheduler leads.
            if error.exit_code == 3:
                print(f"{PROGRAM}: the lease was taken back", file=sys.stderr, flush=True)
                return False
            return True
        if now.state == "Lost":
            reason = printable(now.reason)
            print(f"{PROGRAM}: the lease is lost: {reason}", file=sys.stderr, flush=True)
            return False
        return True

    def _is_over(self, seconds: float, news: int | None = None) -> bool:
        """Whether `harp-run` said goodbye or is gone, within a time or until there are news."""
        waited = [self._lifeline] if news is None else [self._lifeline, news]
        ready = select.select(waited, [], [], seconds)[0]
        if news in ready:
            os.read(news, 4096)
        return self._lifeline in ready


class Asked:
    """The wish for a lease, and what has become of it: a thread follows."""

    def __init__(self, scheduler: Scheduler, request: api.AttachRequest) -> None:
        self._scheduler = scheduler
        self.lease: api.Lease = scheduler.call("Attach", request)
        self.failed: HarpError | None = None
        self.news, self._tell = os.pipe()
        """Has a byte to read for each change of the two above."""

        self._follower = threading.Thread(target=self._follow, daemon=True)
        self._follower.start()

    def _follow(self) -> None:
        watcher = self._scheduler.again()
        try:
            request = api.WatchLeaseRequest(lease=self.lease.id)
            for lease in watcher.watch("WatchLease", request, may_repeat=True):
                self.lease = lease
                os.write(self._tell, b".")
                if lease.state in USABLE:
                    return
        except HarpError as error:
            self.failed = error
            os.write(self._tell, b".")

    def give_back(self) -> None:
        """Returns it, or leaves the queue; a server that cannot be told is told by the expiry."""
        request = api.DetachRequest(
            request_id=request_id(), lease=self.lease.id, how=api.DetachRequest.HOW_FORCE
        )
        try:
            self._scheduler.call("Detach", request, GIVE_BACK_SECONDS)
        except HarpError as error:
            if error.exit_code != 3:
                print(f"{PROGRAM}: the lease will expire: {error.cause}", file=sys.stderr)


def stay_fresh(scheduler: Scheduler) -> None:
    """Renews the user's certificate if it is time. A program that runs is not ended for it."""
    with contextlib.suppress(HarpError):
        keep_fresh(scheduler)


def find_attached(scheduler: Scheduler, host: str, names: Sequence[str]) -> Attached:
    """The leases of a host that a run uses: all that it can, or those named. Raises HarpError."""
    things: api.Things = scheduler.call("Get", api.GetRequest(kinds=["leases"]))
    return chosen(attached(things.leases, host, owner(scheduler.credentials)), host, names)


def tell_ready(ready: int, leases: Sequence[api.Lease], left_out: Sequence[LeftOut] = ()) -> None:
    """Says to `harp-run` where the program is to run, and which leases it does not use."""
    answer = {
        "targets": [target for lease in leases for target in described(lease)],
        "left_out": [one.line for one in left_out],
    }
    with os.fdopen(ready, "w") as pipe:
        pipe.write(json.dumps(answer) + "\n")


def waiting(lease: api.Lease) -> str:
    """What to say of a lease that cannot be used yet."""
    if lease.place:
        reason = f" ({lease.reason})" if lease.reason else ""
        return f"waits for a device: place {lease.place} in the queue{reason}"
    if lease.state == "Unavailable":
        return f"waits: {lease.reason}"
    return ""


def described(lease: api.Lease) -> list[dict[str, str]]:
    """What `harp-run` needs to know of its devices, in the order in which they are numbered."""
    return [
        {"lease": lease.id, "address": target.address, "model": target.model}
        for target in lease.targets
    ]
