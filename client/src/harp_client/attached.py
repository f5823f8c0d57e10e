"""What is attached to a host: which leases a program there uses, and in which order.

All that can be used are used together. The scheduler lists leases in the order in which they were
asked for, and so a program numbers their devices; what is attached later comes after.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from harp_api.control.v1 import pool_pb2 as api
from harp_client import leaf
from harp_client.errors import HarpError
from harp_client.scheduler import USABLE


class LeftOut(NamedTuple):
    """A lease that is attached to the host, and that a program cannot use now."""

    lease: api.Lease
    reason: str
    is_of_others: bool = False
    """Whether it is for other users: then its state does not matter here."""

    @property
    def line(self) -> str:
        """What to tell of it: its name, and why."""
        return f"{self.lease.name}: {self.reason}"


class Attached(NamedTuple):
    """The leases that are attached to one host."""

    usable: list[api.Lease]
    left_out: list[LeftOut]


def owner(folder: str) -> str:
    """The identity (SPIFFE URI) that a folder of credentials shows. Raises HarpError."""
    return leaf.read(Path(folder, "client.pem")).identity


def attached(leases: Iterable[api.Lease], host: str, user: str) -> Attached:
    """What of the `leases` is attached to a host, for programs of a user (SPIFFE URI)."""
    found = Attached([], [])
    for lease in leases:
        if lease.host != host:
            continue
        if user not in (lease.owner, *lease.users):
            whose = ", ".join(name.rpartition("/")[2] for name in lease.users) or lease.owner
            found.left_out.append(LeftOut(lease, f"is for {whose}", is_of_others=True))
        elif lease.state in USABLE:
            found.usable.append(lease)
        else:
            reason = f", {lease.reason}" if lease.reason else ""
            found.left_out.append(LeftOut(lease, f"{lease.state}{reason}"))
    return found


def chosen(found: Attached, host: str, names: Sequence[str] = ()) -> Attached:
    """What a run uses: all that it can, or the leases of these names or ids, in their order.

    Raises HarpError where that is nothing, or one that was named cannot be used.
    """
    attach = f"harp attach {host}, or a lease for this run alone: harp-run --gpus 1"
    if not names:
        if found.usable:
            return found
        if found.left_out:
            why = "; ".join(one.line for one in found.left_out)
            raise HarpError(f"nothing that is attached to host {host} can be used: {why}", attach)
        raise HarpError(f"nothing is attached to host {host}", attach)
    usable = []
    for name in dict.fromkeys(names):
        for one in found.left_out:
            if name in (one.lease.name, one.lease.id):
                raise HarpError(f"lease {one.line}", f"harp describe lease {one.lease.id}")
        here = [lease for lease in found.usable if name in (lease.name, lease.id)]
        if not here:
            known = ", ".join(lease.name for lease in found.usable) or "nothing"
            raise HarpError(f"no lease {name} is attached to host {host}", f"there is {known}")
        usable.append(here[0])
    return Attached(usable, [])
