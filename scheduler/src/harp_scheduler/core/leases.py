"""The life of a lease that has slices: what the servers' reports make of it.

                 grant                all servers admit it          a session begins
Pending, Starting ───▶ Attaching, Starting ───▶ Available ◀──────────▶ InUse
                               │                    │  ▲                 │
                 out of reach  ├────────────────────┤  │ back            │
                               ▼                    ▼  │                 ▼
                                     Unavailable ──────┘
   any of them: given back ───▶ Detaching ───▶ gone, Unavailable (stopped), Starting (queued)
   any of them: a server away for longer than the grace ───▶ Lost
"""

from __future__ import annotations

from harp_api.control.v1 import agent_pb2 as agent
from harp_scheduler.core.book import Book
from harp_scheduler.core.model import After, Closing, Lease, State

ADMITTED = agent.Held.STATE_ADMITTED
REFUSED = agent.Held.STATE_REFUSED


def withdraw(book: Book, lease: Lease, after: After, reason: str) -> None:
    """Takes a lease back from its servers, which end what uses it."""
    state = State.LOST if after is After.LOST else State.DETACHING
    book.change(lease.id, state=state, closing=Closing.FORCE, after=after, reason=reason)


def close(book: Book, lease: Lease, how: Closing, after: After, reason: str) -> None:
    """Has the servers begin no more sessions; `settle` goes on when they have said so."""
    book.change(lease.id, state=State.DETACHING, closing=how, after=after, reason=reason)


def settle(book: Book, name: str, now: float) -> None:
    """Brings a lease to the state that the last reports of its servers make of it."""
    lease = book.leases.get(name)
    if lease is None or not lease.slices:
        return
    if lease.closing in (Closing.IF_UNUSED, Closing.DRAIN) and is_closed_everywhere(book, lease):
        number = book.sessions(lease)
        if number == 0:
            withdraw(book, lease, lease.after, lease.reason)
        elif lease.closing is Closing.IF_UNUSED:
            what = "a program uses it" if number == 1 else f"{number} programs use it"
            lease = book.change(
                name, closing=None, after=After.GONE, reason=f"not detached: {what}"
            )
        lease = book.leases[name]
    if lease.closing is Closing.FORCE:
        if is_dead_everywhere(book, lease):
            _ended(book, lease, now)
        return
    if lease.closing is not None:
        return
    away = [server for server in lease.servers if not book.is_reachable(server)]
    if away:
        book.change(name, state=State.UNAVAILABLE, reason=f"out of reach: {', '.join(away)}")
    elif refusing := [s for s in lease.servers if has_said(book, s, lease, REFUSED)]:
        book.change(
            name,
            state=State.UNAVAILABLE,
            reason=f"refused by {', '.join(refusing)}, which had later leases: is the scheduler's "
            "database an old one?",
        )
    elif not all(is_admitted(book, server, lease) for server in lease.servers):
        if lease.state is not State.STARTING:
            book.change(name, state=State.ATTACHING, reason="")
    elif book.sessions(lease):
        reason = lease.reason if lease.reason.startswith("not detached") else ""
        book.change(name, state=State.IN_USE, reason=reason)
    else:
        book.change(name, state=State.AVAILABLE, reason="")


def _ended(book: Book, lease: Lease, now: float) -> None:
    """The slices are free on every server."""
    for server in lease.servers:
        if link := book.links.get(server):
            link.withdrawn.pop(lease.id, None)
    match lease.after:
        case After.GONE:
            book.drop(lease)
        case After.STOPPED:
            book.change(
                lease.id, state=State.UNAVAILABLE, slices=(), closing=None, reason="stopped"
            )
        case After.QUEUED:
            book.change(lease.id, state=State.STARTING, slices=(), closing=None, reason="")
            book.waiting_since[lease.id] = now
        case After.LOST:
            book.change(lease.id, state=State.LOST, slices=(), closing=None)


def is_admitted(book: Book, server: str, lease: Lease) -> bool:
    """Whether a server has said that sessions of this grant may begin."""
    return has_said(book, server, lease, ADMITTED)


def has_said(book: Book, server: str, lease: Lease, state: agent.Held.State) -> bool:
    """Whether a server's last report has this grant, in this state."""
    held = book.links[server].held.get(lease.epoch)
    return held is not None and held.state == state


def is_closed_everywhere(book: Book, lease: Lease) -> bool:
    """Whether every server's report was made after it had been told to begin no more sessions."""
    for server in lease.servers:
        link = book.links[server]
        if link.fenced:
            continue
        if server in book.reordered or not link.connected or link.taken < link.revision:
            return False
    return True


def is_dead_everywhere(book: Book, lease: Lease) -> bool:
    """Whether no server holds a lease any more that was taken back."""
    return all(is_dead(book, server, lease) for server in lease.servers)


def is_dead(book: Book, server: str, lease: Lease) -> bool:
    """Whether a server has said since that it does not hold it, or has fenced itself."""
    link = book.links.get(server)
    if link is None or link.fenced:
        return True
    since = link.withdrawn.get(lease.id)
    if since is None or link.taken < since or not link.connected:
        return False
    return lease.epoch not in link.held


def expire(book: Book, now: float) -> None:
    """Takes back the leases whose holder is gone, and those that were held for long enough."""
    for name in sorted(book.timed):
        lease = book.leases[name]
        if lease.ttl and now - book.renewed.setdefault(name, now) > lease.ttl:
            if not lease.slices:
                book.drop(lease)
            elif lease.closing is None and not book.sessions(lease):
                # A program that begins now, or uses it still, keeps it: its holder lives.
                reason = "its holder has not renewed it"
                close(book, lease, Closing.IF_UNUSED, After.GONE, reason)
                settle(book, name, now)
        elif (
            lease.longest
            and lease.slices
            and lease.closing is not Closing.FORCE
            and book.stored_time(now) - lease.granted > lease.longest
        ):
            withdraw(book, lease, After.GONE, "it was held for as long as it may be")
            settle(book, name, now)
