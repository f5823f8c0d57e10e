"""What happens to the pool: the inputs of its core.

Each is a plain value; who sent it, and that he may, has been checked before.
"""

from __future__ import annotations

from dataclasses import dataclass

from harp_api.control.v1 import agent_pb2 as agent
from harp_scheduler.core.model import After, Closing, Profile, Quota
from harp_scheduler.core.placement.model import Demand


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody wants slices: for a host (an attachment), or for one run."""

    caller: str
    """Identity (SPIFFE URI) of the one who called."""

    request: str
    """Chosen by the caller: the same call again has the same one, and does nothing more."""

    lease: str
    """The lease's id, new and random."""

    tenant: str
    demand: Demand
    name: str = ""
    owner: str = ""
    """Who may use it; the caller where empty."""

    host: str = ""
    users: tuple[str, ...] = ()
    priority: int = 0
    ttl: float = 0.0
    longest: float = 0.0


@dataclass(frozen=True, slots=True)
class GivenBack:
    """A lease is to be detached, or stopped."""

    caller: str
    request: str
    lease: str
    how: Closing = Closing.IF_UNUSED
    after: After = After.GONE


@dataclass(frozen=True, slots=True)
class Started:
    """A stopped or lost lease is to have slices again."""

    caller: str
    request: str
    lease: str


@dataclass(frozen=True, slots=True)
class Renewed:
    """The holder of a run's lease is still there."""

    lease: str


@dataclass(frozen=True, slots=True)
class RecordingAsked:
    """A running program's session is to be recorded on its server."""

    session: str


@dataclass(frozen=True, slots=True)
class Cordoned:
    """No new leases (or again new leases) on a server, or on one device of it."""

    subject: str
    """A server's name or a device's id."""

    on: bool
    drain: bool = False
    """Leases there also end as soon as no program uses them."""


@dataclass(frozen=True, slots=True)
class ServerRemoved:
    """A server is not part of the pool any more."""

    server: str


@dataclass(frozen=True, slots=True)
class ServerRevoked:
    """A server is not trusted any more: its agent is let in no more, and was told to end all."""

    server: str


@dataclass(frozen=True, slots=True)
class TenantSet:
    """A tenant is new, or has another quota."""

    tenant: str
    quota: Quota


@dataclass(frozen=True, slots=True)
class ProfileSet:
    """A named size is new, or changed."""

    profile: Profile


@dataclass(frozen=True, slots=True)
class ProfileRemoved:
    """A named size is not offered any more; leases that used it stay."""

    name: str


@dataclass(frozen=True, slots=True)
class Connected:
    """The agent of a server has come: for the first time, or again."""

    server: str
    register: agent.Register


@dataclass(frozen=True, slots=True)
class Reported:
    """A connected agent says what it holds."""

    server: str
    report: agent.Report


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection to an agent is gone."""

    server: str


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time has passed."""


Event = (
    Asked
    | GivenBack
    | Started
    | Renewed
    | RecordingAsked
    | Cordoned
    | ServerRemoved
    | ServerRevoked
    | TenantSet
    | ProfileSet
    | ProfileRemoved
    | Connected
    | Reported
    | Disconnected
    | Ticked
)
