"""Holds the lease of one `harp-run`: asks for it, waits, renews it, and gives it back.

Started by harp_client.lease as an attendant, so that the lease is returned whatever happens to
`harp-run`: when the lifeline says goodbye or breaks, the lease is given back.
"""

import argparse
import contextlib
import json
import os
import select
import sys
import threading
import time
from collections.abc import Sequence

from harp_api.control.v1 import pool_pb2 as api
from harp_client.attached import Attached, LeftOut, attached, chosen, owner
from harp_client.errors import HarpError, printable, tell
from harp_client.renewing import keep_fresh
from harp_client.scheduler import USABLE, Scheduler, request_id

PROGRAM = "harp-run"
TTL = 30.0
"""Seconds that the lease lives without a renewal."""

GIVE_BACK_SECONDS = 5.0
FRESH_SECONDS = 60.0
"""Between looks at whether the user's certificate is to be renewed, while a program runs."""

SAY_AGAIN = 30.0
"""Seconds between lines about the same place in the queue."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="harp-run (lease)")
    parser.add_argument("--lifeline-fd", type=int, required=True)
    parser.add_argument("--ready-fd", type=int, required=True)
    parser.add_argument("--scheduler", action="append", required=True)
    parser.add_argument("--credentials", required=True)
    parser.add_argument("--queue-timeout", type=float)
    parser.add_argument("--request", help="AttachRequest in protobuf's JSON form")
    parser.add_argument("--host", help="in place of a request: use what is attached to this host")
    parser.add_argument("--lease", action="append", default=[], help="only this, of the host's")
    arguments = parser.parse_args()
    try:
        scheduler = Scheduler(arguments.scheduler, arguments.credentials)
        keep_fresh(scheduler)
        if arguments.host is not None:
            found = find_attached(scheduler, arguments.host, arguments.lease)
            tell_ready(arguments.ready_fd, found.usable, found.left_out)
            while not select.select([arguments.lifeline_fd], [], [], FRESH_SECONDS)[0]:
                stay_fresh(scheduler)
            return 0
        from google.protobuf import json_format

        request = json_format.Parse(arguments.request, api.AttachRequest())
        request.request_id, request.ttl = request_id(), TTL
        holder = Holder(scheduler, arguments.lifeline_fd)
        return holder.run(request, arguments.ready_fd, arguments.queue_timeout)
    except HarpError as error:
        return tell(PROGRAM, error)


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
            if self._is_over(0.05):
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

    def _is_over(self, seconds: float) -> bool:
        """Whether `harp-run` said goodbye or is gone, within a time."""
        return bool(select.select([self._lifeline], [], [], seconds)[0])


class Asked:
    """The wish for a lease, and what has become of it: a thread follows."""

    def __init__(self, scheduler: Scheduler, request: api.AttachRequest) -> None:
        self._scheduler = scheduler
        self.lease: api.Lease = scheduler.call("Attach", request)
        self.failed: HarpError | None = None
        self._follower = threading.Thread(target=self._follow, daemon=True)
        self._follower.start()

    def _follow(self) -> None:
        watcher = self._scheduler.again()
        try:
            for lease in watcher.watch("WatchLease", api.WatchLeaseRequest(lease=self.lease.id)):
                self.lease = lease
                if lease.state in USABLE:
                    return
        except HarpError as error:
            self.failed = error

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


if __name__ == "__main__":
    sys.exit(main())
