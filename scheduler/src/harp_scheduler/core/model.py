"""What the pool knows, as plain values: servers, accelerators, leases, tenants, profiles.

Every record is frozen: a change is a new record in place of the old one, so that what a transaction
writes is exactly what the core decided. Times are seconds of a clock that never goes back
(`time.monotonic` of the scheduler that leads) and are not stored, but for the time of a grant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from harp_scheduler.core.placement.model import Demand, Slice

WORDS_MOST, WORD_MOST = 64, 256
"""Models or labels of one thing, and the letters of each."""

MEMORY_MOST = 1 << 50
"""Bytes of one device, or of what is asked of it."""


class State(StrEnum):
    """States of a lease: those of EAIS, and PENDING and LOST."""

    PENDING = "Pending"
    """Waits in the queue for its first grant."""

    ATTACHING = "Attaching"
    """Has its slices; not all of their servers have said that they admit it."""

    AVAILABLE = "Available"
    """Can be used, and no program uses it."""

    IN_USE = "InUse"
    """A program uses it."""

    DETACHING = "Detaching"
    """Is being given back; a server may still have to end a program."""

    STARTING = "Starting"
    """Was stopped, and waits for slices again, or for the servers to admit it again."""

    UNAVAILABLE = "Unavailable"
    """Keeps its reservation and cannot be used: stopped, or a server of it is out of reach."""

    LOST = "Lost"
    """Its slices are gone: a server was away for longer than the grace."""


class Closing(StrEnum):
    """How a lease is given back while programs may use it."""

    IF_UNUSED = "if unused"
    """Only where no program uses it; else it stays as it was."""

    DRAIN = "drain"
    """Lets the programs end; no new ones begin."""

    FORCE = "force"
    """Ends the programs."""


class After(StrEnum):
    """What becomes of a lease once its slices are free."""

    GONE = "gone"
    STOPPED = "stopped"
    QUEUED = "queued"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One device of a server."""

    id: str
    """The server's name, a slash and the device's number there."""

    server: str
    ordinal: int
    kind: str
    model: str
    memory: int
    """Bytes."""

    labels: tuple[tuple[str, str], ...] = ()
    """Compute capability, driver, UUID, NVLink group and whatever else its server says."""

    cordoned: bool = False
    fault: str = ""
    """Why no lease may begin on it, in the server's words; empty while it is healthy."""

    incident: str = ""
    """What has happened to it that an admin has not seen to yet, in the server's words: until then
    no lease may begin on it either, whatever the server says of it now."""

    incident_number: int = 0
    """Of the last incident that is known, seen to or not; 0: there was none."""

    present: bool = True
    """Whether its server still has it."""

    version: int = 0
    """Counts the grants that touched it: a grant made on an older version is refused."""


@dataclass(frozen=True, slots=True)
class Server:
    """A machine that offers accelerators."""

    name: str
    address: str = ""
    """Where programs reach its sessions: `HOST:PORT`."""

    labels: tuple[tuple[str, str], ...] = ()
    cordoned: bool = False
    """No lease begins on it."""

    draining: bool = False
    """Leases on it end as soon as no program uses them."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A grant of slices to a host or to one run, or the wish for one."""

    id: str
    tenant: str
    owner: str
    """The identity (SPIFFE URI) that asked for it, and that may use it."""

    demand: Demand
    order: int
    """Counts the requests of the pool: who came first."""

    name: str = ""
    """Chosen by the user; unique among the leases of a tenant. The id where nothing was chosen."""

    host: str = ""
    """The host that it is attached to; empty for the lease of one run."""

    users: tuple[str, ...] = ()
    """Identities, beside the owner, that may use it."""

    priority: int = 0
    ttl: float = 0.0
    """Seconds that it lives without a renewal by its holder; 0: needs none (attachments)."""

    longest: float = 0.0
    """Seconds that it may be held at all, counted from its grant, whoever leads; 0: no limit."""

    state: State = State.PENDING
    reason: str = ""
    slices: tuple[Slice, ...] = ()
    epoch: int = 0
    """Fencing number of the grant: unique, and higher than that of every earlier grant."""

    granted: float = 0.0
    """When that was: seconds since 1970, UTC, by the database's clock; 0: it is not known."""

    closing: Closing | None = None
    after: After = After.GONE
    """Read while `closing` is set."""

    @property
    def waits(self) -> bool:
        """Whether it is in the queue."""
        return not self.slices and self.state in (State.PENDING, State.STARTING)

    @property
    def servers(self) -> tuple[str, ...]:
        """The servers of its slices, each once, in the order of the slices."""
        return tuple(dict.fromkeys(server_of(part.device) for part in self.slices))


@dataclass(frozen=True, slots=True)
class Quota:
    """The most that the leases of a tenant may hold at one time; None: no limit."""

    devices: int | None = None
    memory: int | None = None
    """Bytes."""

    compute: int | None = None
    """Per mille of a device, over all slices."""

    leases: int | None = None
    """Leases, those that wait included."""

    longest: float | None = None
    """Seconds that one lease may be held."""

    sessions: int | None = None
    """Programs that use them; one that uses several servers counts on each. Between programs that
    begin at one moment on several servers there may be a few more: servers learn of each other's
    through the scheduler."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who is accountable for leases."""

    name: str
    quota: Quota = field(default_factory=Quota)


@dataclass(frozen=True, slots=True)
class Profile:
    """A named size, defined by admins."""

    name: str
    demand: Demand


@dataclass(frozen=True, slots=True)
class Request:
    """An answered mutating call, kept so that the same call again does nothing more."""

    caller: str
    id: str
    subject: str
    """The lease that it was about."""


def server_of(device: str) -> str:
    """The server's name within a device's id."""
    return device.rpartition("/")[0]
