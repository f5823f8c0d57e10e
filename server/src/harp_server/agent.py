"""The server's agent: one port, one gate, one worker per session.

The agent never reads a byte of a client. The gate accepts connections and passes each socket here;
the agent gives it to an idle worker together with a certificate made for that session alone, and
from then on only hears what the worker reports.
"""

import asyncio
import contextlib
import dataclasses
import functools
import os
import re
import secrets
import socket
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from harp_client import endpoint
from harp_client.errors import HarpError, printable
from harp_client.native import NativeParts
from harp_client.target import SERVER_NAME
from harp_server.admission import Closed, Entry
from harp_server.ca import SessionIssuer
from harp_server.channel import Message
from harp_server.content_cache import ContentCache, Place
from harp_server.logs import Log
from harp_server.process import Process, end_all, how_it_ended
from harp_server.recordings import Recorders, Recording, normal_policy
from harp_server.session import Session, Totals
from harp_server.workers import IdleWorkers, WorkerCommand

GATE_RESTART_SECONDS = 0.5

STRANGER_SECONDS = 1.0
"""How long a connection without a user's certificate may keep others out of a full server."""

ROOM_SECONDS = 2.0
"""How long a client waits for room on a full server: a session whose program has just ended is
still on its way out, and with it what it holds of the device."""

WAITING_AT_ONCE = 64
"""Clients that may wait so; others are refused at once."""

LAST_WORD_SECONDS = 1.0
"""What a worker gets to tell its client why the session ends."""

STUCK_SECONDS = 2.0
"""What the other sessions get to be over when a worker cannot be killed."""

REFUSALS_AT_ONCE = 4
"""Clients that may be told at a time why there is no session for them; others are cut off."""

EXAMPLE = "127.0.0.1:7443"
"""Of an address to listen on."""

FILES = 1024
"""Files that the agent has open beside those of its sessions, with much to spare."""

SESSION_FILES = 8
"""Files that the agent has open for one session, at most."""

CORES = len(os.sched_getaffinity(0))
"""Cores that the workers have together."""


@dataclass(frozen=True, slots=True)
class Device:
    """What workers load, and the jail that leaves open what it needs."""

    libcuda: str
    jail: str

    @classmethod
    def resolve(cls, device: str, parts: NativeParts) -> "Device":
        """The device that `--device` names: `soft`, or the path of a libcuda."""
        if device == "soft":
            return cls(parts.softgpu, "soft")
        if not os.path.isfile(device):
            raise HarpError(
                f"--device {device}: no such library",
                "use --device soft, or the path of a libcuda.so.1 (ldconfig -p | grep libcuda)",
                2,
            )
        return cls(os.path.abspath(device), "nvidia")


@dataclass(frozen=True, slots=True)
class Offer:
    """What a server offers and how."""

    parts: NativeParts
    device: Device
    issuer: SessionIssuer
    root_certificate: str
    environ: dict[str, str]
    idle_workers: int = 1
    max_sessions: int = 64
    grace: float = 30.0
    """Seconds that a session is kept when its connection breaks."""
    cache: Place | None = None
    """Where what programs upload is kept for the next ones of their tenant; None: nowhere."""
    recording: Recording | None = None
    """Whose sessions are recorded, and where to; None: nobody's."""

    devices: tuple[int, ...] | None = None
    """Which of the driver's devices sessions get, in this order; None for all."""

    leases: "Leases | None" = None
    """What may begin here and what must end, by the scheduler's word; None: whoever is a user of
    the pool may use all devices."""


class Leases(Protocol):
    """What the agent asks about leases: `harp_server.scheduler_link` knows."""

    def enter(self, lease: str, session: str) -> Entry:
        """A session begins. Raises Closed with the reason why it may not."""
        ...

    def began(self, session: Session) -> None:
        """The program of a session has been let in."""
        ...

    def leave(self, session: str) -> None:
        """A session's worker is dead."""
        ...

    def ended(self, session: Session, ordinals: Sequence[int]) -> None:
        """A session in which a program was let in is over, and how is known."""
        ...

    def fault(self, cause: str) -> None:
        """The devices cannot be used, for this cause; "": they can again."""
        ...


class Agent:
    """Runs the gate and the workers of one server."""

    def __init__(self, offer: Offer, listener: socket.socket, log: Log) -> None:
        self._offer = offer
        self._listener = listener
        self._log = log
        self._idle = IdleWorkers(
            WorkerCommand(
                program=offer.parts.worker,
                libcuda=offer.device.libcuda,
                root_certificate=offer.root_certificate,
                jail=offer.device.jail,
                environ=offer.environ,
            ),
            offer.idle_workers,
            log,
            self._health,
        )
        self._cache = (
            ContentCache(offer.parts.cache, offer.cache, offer.environ, log)
            if offer.cache is not None
            else None
        )
        self._recorders = (
            Recorders(offer.parts.trace, offer.recording, offer.environ, log)
            if offer.recording is not None
            else None
        )
        self._gate: Process | None = None
        self._sessions: dict[str, Session] = {}
        self.totals = Totals()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._waiting: set[asyncio.Task[Any]] = set()
        self._refusals: set[asyncio.Task[Any]] = set()
        self._revoked: frozenset[str] = frozenset()
        self._stopping = False
        self._ending = False

    def _health(self, fault: str) -> None:
        if self._offer.leases is not None:
            self._offer.leases.fault(fault)

    @property
    def address(self) -> str:
        """`HOST:PORT` that clients connect to."""
        host, port = self._listener.getsockname()[:2]
        return endpoint.joined(host, port)

    @property
    def running(self) -> int:
        """Sessions whose program has been let in."""
        return sum(session.started for session in self._sessions.values())

    @property
    def is_open(self) -> bool:
        """Whether clients are accepted."""
        return not self._stopping and self._gate is not None and self._gate.alive

    async def start(self) -> Message:
        """Starts the gate and the first worker; returns what the worker says about its devices.

        Raises HarpError when either fails.
        """
        self._idle.fill()
        try:
            self._start_gate()
        except OSError as error:
            raise HarpError(
                f"cannot execute {self._offer.parts.gate}: {error.strerror}", "harp doctor"
            ) from error
        try:
            offered = await self._idle.probe()
        except (HarpError, TimeoutError) as error:
            cause = error.cause if isinstance(error, HarpError) else "it was not ready in time"
            raise HarpError(
                f"no worker can offer {self._offer.device.libcuda}: {cause}", "harp doctor"
            ) from error
        count = int(str(offered.get("devices", 0)))
        if missing := [number for number in self._offer.devices or () if number >= count]:
            raise HarpError(
                f"there is no device {missing[0]}: the driver has {count}",
                f"choose among 0 to {count - 1}",
            )
        if self._cache is not None:
            # Not before whoever waits for this server has been told that it is there.
            asyncio.get_running_loop().call_soon(self._cache.start)
        return offered

    async def stop(self, drain_seconds: float) -> None:
        """Accepts nothing more, lets sessions end for `drain_seconds`, ends what is left."""
        self._stopping = True
        self._listener.close()
        await asyncio.gather(self._idle.close(), *([self._gate.end()] if self._gate else []))
        if self._tasks:
            if drain_seconds > 0:
                self._log.info("draining", sessions=len(self._sessions), seconds=drain_seconds)
            await asyncio.wait(self._tasks, timeout=drain_seconds)
        self._ending = True
        stuck = await end_all([session.worker.process for session in self._sessions.values()])
        if stuck:
            pids = [process.pid for process in stuck]
            self._log.error("workers do not end", workers=pids, cause="the driver holds them")
        # What waits for those is left as it is: their part of the device is not free.
        patience = STUCK_SECONDS if stuck else None
        for tasks in (self._tasks | self._waiting, self._refusals):
            if tasks:
                await asyncio.wait(tasks, timeout=patience)
        if self._cache is not None:
            await self._cache.end()
        if self._recorders is not None:
            await self._recorders.end(patience)

    def _start_gate(self) -> None:
        listener = self._listener.fileno()
        self._gate = Process(
            lambda control: [
                self._offer.parts.gate,
                "--control-fd",
                str(control),
                "--listen-fd",
                str(listener),
            ],
            self._offer.environ,
            self._from_gate,
            functools.partial(self._log.output, "gate"),
            inherit=[listener],
        )
        self._gate.exited.add_done_callback(self._gate_exited)

    def _gate_exited(self, exited: "asyncio.Future[int]") -> None:
        if self._stopping:
            return
        self._log.error("gate lost", cause=how_it_ended(exited.result()))
        asyncio.get_running_loop().call_later(GATE_RESTART_SECONDS, self._restart_gate)

    def _restart_gate(self) -> None:
        if self._stopping:
            return
        try:
            self._start_gate()
        except OSError as error:
            self._log.error("gate not started", cause=str(error))
            asyncio.get_running_loop().call_later(10 * GATE_RESTART_SECONDS, self._restart_gate)

    def _from_gate(self, message: Message, client: int | None) -> None:
        if client is None:
            if message.get("event") == "refused":
                self._log.warning(
                    "connection refused",
                    address=str(message.get("peer", "?")),
                    cause=str(message.get("reason", "?")),
                    unreported=message.get("unreported", 0),
                )
            elif "sni" in message:
                self._log.error(
                    "connection dropped",
                    address=str(message.get("peer", "?")),
                    cause="no more files can be opened here for its socket",
                    next="a higher limit of open files, or a lower --max-sessions",
                )
            return
        address = str(message.get("peer", "?"))
        name = str(message.get("sni") or "")
        session = self._sessions.get(session_of(name) or "")
        if session is not None:
            self._return(session, client, address)
            return
        # Any other server name is served: if it is wrong, the certificate's own name tells the
        # client; and a session that is not here is refused by a worker, in TLS.
        if self._stopping:
            self._cut_off(client, address, "the server is stopping")
        elif self._has_room():
            _keep(self._tasks, self._serve(client, address, name))
        elif session_of(name) is None and len(self._waiting) < WAITING_AT_ONCE:
            _keep(self._waiting, self._wait_for_room(client, address, name))
        else:
            self._refuse(client, address, name)

    def _cut_off(self, client: int, address: str, cause: str) -> None:
        """Closes a client's connection without telling it why."""
        os.close(client)
        self._log.warning("connection refused", address=address, cause=cause)

    def _refuse(self, client: int, address: str, name: str) -> None:
        """Has a worker tell the client that there is no room for it."""
        cause = f"all {self._offer.max_sessions} sessions of the server are in use"
        if len(self._refusals) >= REFUSALS_AT_ONCE:
            self._cut_off(client, address, cause)
        else:
            _keep(self._refusals, self._serve(client, address, name, cause))

    async def _wait_for_room(self, client: int, address: str, name: str) -> None:
        """Serves the client as soon as another session has ended, if one does in time."""
        deadline = time.monotonic() + ROOM_SECONDS
        while not self._stopping and not self._has_room():
            left = deadline - time.monotonic()
            if left <= 0:
                self._refuse(client, address, name)
                return
            await asyncio.wait(self._tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if self._stopping:
            self._cut_off(client, address, "the server is stopping")
        else:
            _keep(self._tasks, self._serve(client, address, name))

    def _has_room(self) -> bool:
        return len(self._tasks) < self._offer.max_sessions or self._make_room()

    def _make_room(self) -> bool:
        """Ends the connection that has waited longest without showing who it is, if any has for
        long: whoever can reach the port could otherwise keep all users out."""
        before = time.monotonic() - STRANGER_SECONDS
        for session in self._sessions.values():
            waits = not (session.started or session.refused or session.gives_way)
            if waits and session.began <= before:
                session.gives_way = True
                _keep(self._refusals, session.worker.process.end(0))
                return True
        return False

    def _return(self, session: Session, client: int, address: str) -> None:
        """Gives the worker of a live session the connection of a client that has come back."""
        try:
            certificate, key = self._offer.issuer.issue(session.id)
            message = {"cert_pem": certificate, "key_pem": key, "peer": address}
            session.worker.process.send(message, client)
        except OSError as error:
            cause = str(error)
            self._log.warning(
                "connection dropped", session=session.id, address=address, cause=cause
            )
        finally:
            os.close(client)

    async def _serve(
        self, client: int, address: str, name: str, refusal: str | None = None
    ) -> None:
        """Gives the client to a worker and waits for the session's end.

        With a refusal the worker tells the client so, in the protocol that only it speaks. If the
        client asked for the server by the `name` of a session or a lease, the certificate is for
        that too.
        """
        session_id = secrets.token_hex(8)
        try:
            worker = await self._idle.take()
        except HarpError as error:
            os.close(client)
            self._log.error("connection dropped", address=address, cause=error.cause)
            return
        if self._ending:
            os.close(client)
            await worker.process.end()
            return
        session = Session(session_id, address, worker, self._log, self.totals)
        self._sessions[session_id] = session
        entry = None
        if refusal is None and (leases := self._offer.leases) is not None:
            try:
                entry = leases.enter(lease_of(name) or "", session_id)
            except Closed as closed:
                refusal = str(closed)
            else:
                session.on_start = leases.began
        session.refused = refusal is not None
        try:
            names = [name] if session_of(name) or lease_of(name) else []
            certificate, key = self._offer.issuer.issue(session_id, names)
            assignment: Message = {
                "session": session_id,
                "pool": self._offer.issuer.pool,
                "peer": address,
                "cert_pem": certificate,
                "key_pem": key,
                "refuse": refusal,
                "grace_s": self._offer.grace,
                "devices": self._offer.devices,
                "cache": self._cache is not None,
                "record": self._recorders is not None and self._recorders.some_are_recorded,
            }
            if len(self._sessions) > CORES:
                # Who spins while it waits for its client takes a core from another session.
                assignment["spin_us"] = 0
            if entry is not None:
                session.owners = tuple(entry.owners)
                assignment["owners"] = list(entry.owners)
                assignment["devices"] = [ordinal for ordinal, _, _ in entry.parts]
            worker.serve(assignment, client, functools.partial(self._event, session))
        except OSError as error:
            self._log.error("connection dropped", address=address, cause=str(error))
            await worker.process.end()
        else:
            os.close(client)
            client = -1
            await session.run()
            if entry is not None and session.started and self._offer.leases is not None:
                self._offer.leases.ended(session, [ordinal for ordinal, _, _ in entry.parts])
        finally:
            if client >= 0:
                os.close(client)
            del self._sessions[session_id]
            if entry is not None and self._offer.leases is not None:
                self._offer.leases.leave(session_id)

    def _event(self, session: Session, message: Message) -> None:
        """What a worker says of its session."""
        is_first = not session.started
        session.event(message)
        if is_first and session.started:
            self._end_if_revoked(session)
            self._bind_recorder(session)
            self._bind_cache(session)

    def _bind_recorder(self, session: Session) -> None:
        """Tells the worker whether its session is recorded, where some are."""
        if self._recorders is None or not self._recorders.some_are_recorded:
            return
        payload = self._recorders.policy(session.user)
        if payload is None or not self._begin_recording(self._recorders, session, payload):
            with contextlib.suppress(OSError):
                session.worker.process.send({"record": None})

    def _begin_recording(self, recorders: Recorders, session: Session, payload: str) -> bool:
        over = session.worker.process.exited
        way = recorders.begin(session.id, session.user, payload, over)
        if way is None:
            return False
        with way, contextlib.suppress(OSError):
            session.worker.process.send({"record": payload}, way.fileno())
        session.recorded = True
        return True

    def record(self, name: str, payload: str) -> None:
        """Records a session from now on, as an admin asks. What stands in the way is logged."""
        session, cause = self._sessions.get(name), ""
        if session is None or not session.started:
            cause = "there is no such session"
        elif session.recorded:
            cause = "it is being recorded"
        elif self._recorders is None:
            cause = "this server records nothing"
        else:
            try:
                self._begin_recording(self._recorders, session, normal_policy(payload))
            except HarpError as error:
                cause = error.cause
        if cause:
            self._log.warning("session not recorded", session=printable(name), cause=cause)

    def _bind_cache(self, session: Session) -> None:
        """Gives the worker the way to its tenant's cache."""
        if self._cache is None:
            return
        is_owner = not session.owners or session.user in session.owners
        way = self._cache.bind(session.user) if is_owner else None
        with contextlib.suppress(OSError):
            session.worker.process.send({"cache": way is not None}, way.fileno() if way else None)
        if way is not None:
            way.close()

    def use(self, issuer: SessionIssuer) -> None:
        """Takes new certificates; sessions that there are go on."""
        trusted_before = self._offer.issuer.root_pem
        self._offer = dataclasses.replace(self._offer, issuer=issuer)
        if issuer.root_pem != trusted_before:
            self._idle.replace()

    def revoke(self, serials: frozenset[str]) -> None:
        """Ends the sessions that began with these certificates, and those that are to begin so."""
        self._revoked = serials
        for session in self._sessions.values():
            self._end_if_revoked(session)

    def _end_if_revoked(self, session: Session) -> None:
        if session.serial not in self._revoked:
            return
        reason = "the certificate of its user was revoked"
        _keep(self._refusals, self.end_session(session.id, reason))

    async def end_session(self, session_id: str, reason: str) -> None:
        """Ends a session whose lease is over; the program is told the reason."""
        session = self._sessions.get(session_id)
        if session is None:
            return
        self._log.warning("session is ended", session=session_id, cause=reason)
        process = session.worker.process
        with contextlib.suppress(OSError):
            process.send({"end": printable(reason)})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(process.exited), LAST_WORD_SECONDS)
        await process.end()


LEASE_NAME = re.compile(rf"(?:[0-9a-f]{{16}}\.)?(l-[0-9a-z]{{1,32}})\.lease\.{SERVER_NAME}")


def _keep(tasks: set[asyncio.Task[Any]], work: Coroutine[Any, Any, Any]) -> None:
    """Starts work as one of `tasks`, until it is done."""
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def session_of(name: str) -> str | None:
    """The session that a TLS server name asks to resume, or None: it asks for a new one."""
    session, _, server = name.partition(".")
    known = server == SERVER_NAME or LEASE_NAME.fullmatch(server)
    return session if known and re.fullmatch("[0-9a-f]{16}", session) else None


def lease_of(name: str) -> str | None:
    """The lease that a TLS server name asks to use, or None."""
    found = LEASE_NAME.fullmatch(name)
    return found[1] if found else None


def listen(address: str) -> socket.socket:
    """A listening socket for `HOST:PORT` (`[V6]:PORT`; port 0 picks a free one). Raises
    HarpError."""
    host, port = endpoint.parse(address, EXAMPLE)
    try:
        family, kind, proto, _name, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(128)
    except OSError as error:
        raise HarpError(
            f"cannot listen on {address}: {error.strerror or error}",
            "choose another --listen HOST:PORT",
        ) from error
    return listener


def worker_environ(environ: dict[str, str]) -> dict[str, str]:
    """What gate and workers see: nothing of the agent's environment that they do not read.

    CUDA_VISIBLE_DEVICES is the program's choice among the devices it is given; a worker sees all.
    """
    kept: Sequence[str] = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "RUST_BACKTRACE")
    prefixes = ("HARP_SOFT_", "HARP_LOG", "CUDA_", "NVIDIA_")
    return {
        name: value
        for name, value in environ.items()
        if name in kept or (name.startswith(prefixes) and name != "CUDA_VISIBLE_DEVICES")
    }
