"""A scheduler's process: its ports, its certificates, and the wish to lead.

It answers from the start. While another one leads (or nobody does) every call is refused with
UNAVAILABLE, so that agents and people go on to the next address that they know.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import grpc

from harp_api.control.v1 import (
    access_pb2_grpc,
    agent_pb2_grpc,
    history_pb2_grpc,
    join_pb2_grpc,
    pool_pb2_grpc,
)
from harp_client import endpoint, joining
from harp_client.credentials import CLOCK_SKEW
from harp_client.errors import HarpError
from harp_scheduler.core.events import TenantSet, Ticked
from harp_scheduler.core.model import Quota
from harp_scheduler.core.pool import GRACE, Pool
from harp_scheduler.metrics import PoolCollector, Snapshot, Timings, snapshot
from harp_scheduler.service.agents import Agents
from harp_scheduler.service.api import PoolApi
from harp_scheduler.service.denials import Denials
from harp_scheduler.service.history_api import HistoryApi
from harp_scheduler.service.identities import AccessApi
from harp_scheduler.service.join import JoinApi
from harp_scheduler.service.leader import Leader, NotLeading
from harp_scheduler.service.members import Lives, Members
from harp_scheduler.service.renewal import RenewalApi
from harp_scheduler.store.errors import LeaderLost, StoreUnavailable
from harp_scheduler.store.store import Store
from harp_scheduler.workload_trace import WorkloadFile
from harp_server.ca import Authority
from harp_server.exposition import Exposition, Health, called, registry
from harp_server.logs import Log

LEAD_AGAIN = 0.5
"""Seconds between attempts to lead."""

AUTHORITY_AGAIN = 2.0
"""Seconds between looks at the authority's folder."""

AUTHORITY_FAILS = 5
"""Looks one after the other that fail before it is said."""

COMING_SECONDS = 6.0
"""Longest that an agent is kept waiting without a word: less than it takes for silence."""

STOP_SECONDS = 3.0
"""What calls that are being answered get when the scheduler stops."""

DATABASE_SECONDS = 3.0
"""What the database gets to answer when somebody asks for this scheduler's health."""

OPTIONS = [
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.so_reuseport", 0),
]

JOIN_OPTIONS = [
    ("grpc.max_receive_message_length", 64 << 10),
    ("grpc.max_concurrent_streams", 4),
    # A call that never says what it wants has a place until its connection ends.
    ("grpc.max_connection_age_ms", 30_000),
    ("grpc.max_connection_age_grace_ms", 5_000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.so_reuseport", 0),
]
JOINING_AT_ONCE = 32
"""Calls of strangers that are answered at one time; more are refused."""

EXAMPLE = "0.0.0.0:7440"
"""Of `HOST:PORT`."""

FIRST_TENANT = "default"


@dataclass(frozen=True, slots=True)
class Settings:
    """How a scheduler is started."""

    listen: str
    authority: Authority
    name: str = ""
    grace: float = GRACE
    metrics: str = ""
    """`HOST:PORT` for Prometheus; empty: none."""

    join_listen: str = ""
    """Empty: the port after that of `listen`."""

    ca: Path | None = None
    """The authority's folder, which is read again when it changes; None: it does not."""

    lives: Lives = field(default_factory=Lives)


class Certificate:
    """The scheduler's own certificate, renewed without a restart."""

    LIFE = datetime.timedelta(days=1)

    JOIN_AGE = datetime.timedelta(minutes=1)
    """Age of a certificate at the join port at most: who joins reads the scheduler's clock off it
    before either can trust the other's."""

    def __init__(
        self,
        authority: Authority,
        name: str,
        age: datetime.timedelta = LIFE / 2,
        skew: datetime.timedelta = CLOCK_SKEW,
    ) -> None:
        """`age`: at which it is renewed. `skew`: how long before it is made it is valid."""
        self._authority, self._name, self._age, self._skew = authority, name, age, skew
        self._lock = threading.Lock()
        self._made: datetime.datetime | None = None

    def use(self, authority: Authority) -> None:
        """From the next handshake on."""
        with self._lock:
            self._authority, self._made = authority, None

    def another(self) -> grpc.ServerCertificateConfiguration | None:
        """For gRPC, at each handshake, in a thread of its own: None while the one that it has is
        good.

        What gRPC had is freed by the next one that it is given, also under handshakes that have
        just begun, and the process crashes (grpc/grpc#36693). So it gets none without need.
        """
        with self._lock:
            now = datetime.datetime.now(datetime.UTC)
            # Also after the clock was set back.
            if self._made and datetime.timedelta() <= now - self._made < self._age:
                return None
            return self._issued(now)

    def _issued(self, now: datetime.datetime) -> grpc.ServerCertificateConfiguration:
        pair = self._authority.issue_scheduler(self._name, self.LIFE, self._skew)
        chain = pair.certificate_pem() + self._authority.root.certificate_pem()
        trusted = self._authority.trusted_pem()
        made = grpc.ssl_server_certificate_configuration([(pair.key_pem(), chain)], trusted)
        self._made = now
        return made

    def credentials(self, mutual: bool) -> grpc.ServerCredentials:
        """TLS, for one port; mutual: with whoever has a certificate of the pool."""
        first = self._issued(datetime.datetime.now(datetime.UTC))
        # gRPC takes None, of which its types do not know.
        another = cast(Callable[[], grpc.ServerCertificateConfiguration], self.another)
        return grpc.dynamic_ssl_server_credentials(first, another, mutual)


class Scheduler:
    """One scheduler process."""

    def __init__(self, settings: Settings, store: Store, log: Log) -> None:
        self._settings = settings
        self._store = store
        self._log = log
        self._thread = ThreadPoolExecutor(1, "store")
        self._leader: Leader | None = None
        self._workload: WorkloadFile | None = None
        self._settled = asyncio.Event()
        """Unset while what a new leader has to know is read."""

        self._settled.set()
        self._name = settings.name or socket.gethostname().lower()
        self._members = Members(settings.authority, store, self._thread, settings.lives)
        self._servers: list[grpc.aio.Server] = []
        self._certificates: list[Certificate] = []
        self._timings = Timings()
        self._exposition: Exposition | None = None
        self.address = ""
        """`HOST:PORT` for members of the pool."""

        self.join_address = ""
        """`HOST:PORT` for who joins."""

    def leader(self) -> Leader:
        """The one that decides here. Raises NotLeading."""
        if self._leader is None:
            raise NotLeading("another scheduler leads, or none yet")
        return self._leader

    async def coming(self) -> None:
        """Waits while this scheduler is about to lead, for a while: who is refused meanwhile comes
        again later than it leads."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(COMING_SECONDS):
                await self._settled.wait()

    async def start(self) -> None:
        """Opens the ports. Raises HarpError where that cannot be done."""
        members, authority = self._members, self._settings.authority
        denials = Denials(members)
        server = grpc.aio.server(options=OPTIONS, interceptors=[denials])
        agents = Agents(members, self.leader, self.coming)
        agent_pb2_grpc.add_AgentsServicer_to_server(agents, server)
        pool_pb2_grpc.add_PoolServicer_to_server(PoolApi(members, self.leader), server)
        history = HistoryApi(members.caller, self.leader, self._store)
        history_pb2_grpc.add_HistoryServicer_to_server(history, server)
        access = AccessApi(members, self.leader, lambda: port_of(self.join_address))
        access_pb2_grpc.add_AccessServicer_to_server(access, server)
        door = grpc.aio.server(options=JOIN_OPTIONS, maximum_concurrent_rpcs=JOINING_AT_ONCE)
        renewal = RenewalApi(members, self.leader, lambda: port_of(self.address))
        join_pb2_grpc.add_RenewalServicer_to_server(renewal, server)
        join = JoinApi(
            members,
            self.leader,
            lambda: port_of(self.address),
            access.revoked,
            denials,
            self._timings,
            self._log,
        )
        join_pb2_grpc.add_JoiningServicer_to_server(join, door)
        own = Certificate(authority, self._name)
        self.address = bind(server, self._settings.listen, own.credentials(True))
        host, port = endpoint.parse(self._settings.listen, EXAMPLE)
        after = endpoint.joined(host, port + 1 if port else 0)
        shown = Certificate(authority, self._name, Certificate.JOIN_AGE, joining.CLOCK_SKEW)
        self.join_address = bind(
            door, self._settings.join_listen or after, shown.credentials(False), "--join-listen"
        )
        self._certificates = [own, shown]
        if self._settings.metrics:
            self._exposition = self._expose(self._settings.metrics)
        self._servers = [server, door]
        for each in self._servers:
            await each.start()

    def _expose(self, listen: str) -> Exposition:
        """Opens the port for Prometheus. Raises HarpError."""
        loop = asyncio.get_running_loop()
        metrics = registry("scheduler")
        metrics.register(PoolCollector(lambda: called(loop, self._snapshot)))
        self._timings.register(metrics)
        exposition = Exposition(listen, metrics, self.health)
        self._log.info("metrics", address=exposition.address)
        return exposition

    async def _snapshot(self) -> Snapshot | None:
        leader = self._leader
        return None if leader is None else snapshot(leader.pool, leader.history, leader.revision)

    async def health(self) -> Health:
        """Whether this scheduler leads, or could: its database answers."""
        leads = self._leader is not None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(DATABASE_SECONDS):
                known = await loop.run_in_executor(self._thread, self._store.leader)
        except (StoreUnavailable, TimeoutError) as error:
            return Health(False, f"the database does not answer: {error or 'too slow'}")
        if leads:
            return Health(True, f"leads, in term {known.term}")
        return Health(True, f"follows {known.holder or 'nobody yet'}, of term {known.term}")

    async def run(self, workload: WorkloadFile | None = None) -> None:
        """Leads whenever it can, until it is cancelled. `workload`: where what arrives is
        recorded."""
        self._workload = workload
        watching = asyncio.create_task(self._watch_authority())
        try:
            await self._run()
        finally:
            watching.cancel()

    async def _watch_authority(self) -> None:
        """Takes another root when `harp ca rotate` has changed the folder."""
        folder, known = self._settings.ca, self._settings.authority
        failed = 0
        while folder is not None:
            await asyncio.sleep(AUTHORITY_AGAIN)
            try:
                found = Authority.load(folder)
            except HarpError as error:
                failed += 1
                # Once, it is just being changed.
                if failed == AUTHORITY_FAILS:
                    self._log.error("authority not read", cause=error.cause, next=error.next_step)
                continue
            failed = 0
            if found.trusted_pem() != known.trusted_pem():
                known = self._members.authority = found
                for certificate in self._certificates:
                    certificate.use(found)
                self._log.info("authority changed", root=found.fingerprint())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            lost = asyncio.Event()

            def tell(lost: asyncio.Event = lost) -> None:
                loop.call_soon_threadsafe(lost.set)

            try:
                term = await loop.run_in_executor(self._thread, self._store.lead, self._name, tell)
                if term is not None:
                    self._settled.clear()
                    await self._lead(term, lost)
            except (LeaderLost, StoreUnavailable, NotLeading) as error:
                self._log.warning("leads no more", cause=str(error))
            finally:
                self._leader = None
                self._settled.set()
            with contextlib.suppress(StoreUnavailable):
                await loop.run_in_executor(self._thread, self._store.step_down)
            await asyncio.sleep(LEAD_AGAIN)

    async def _lead(self, term: int, lost: asyncio.Event) -> None:
        """Until the lead is lost: then `lost` is set, or a transaction fails."""
        loop = asyncio.get_running_loop()
        # Of an earlier term. What is read now stays: the collections that the reading itself would
        # set off double its time, and each full one later would look at all of it again, for 200 ms
        # at 100,000 devices.
        gc.unfreeze()
        gc.collect()
        gc.disable()
        try:
            pool = await self._read(term)
        finally:
            gc.freeze()
            gc.enable()
        measured = await loop.run_in_executor(self._thread, self._store.measured)
        before = await loop.run_in_executor(self._thread, self._store.events)
        await self._members.load()
        leader = Leader(
            pool, self._store, self._thread, self._timings, measured, before, self._workload
        )
        leader.history.leads(self._name, term)
        running = asyncio.create_task(leader.run())
        losing = asyncio.create_task(lost.wait())
        try:
            # That it leads is stored before anything else that happens is told.
            first = Ticked() if pool.book.tenants else TenantSet(FIRST_TENANT, Quota())
            await leader.handle(first)
            self._leader = leader
            self._settled.set()
            self._log.info("leads", term=term, leases=len(pool.book.leases))
            await asyncio.wait({running, losing}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            raise NotLeading("the connection to the database that held the lead is gone")
        finally:
            self._leader = None
            losing.cancel()
            running.cancel()
            # Its own exception is known; that of whoever cancels this meanwhile has to get through.
            await asyncio.wait({running})
            if not running.cancelled():
                running.exception()

    async def _read(self, term: int) -> Pool:
        """The pool as it is stored."""
        loop = asyncio.get_running_loop()
        records, numbers = await loop.run_in_executor(self._thread, self._store.load)
        since_1970 = await loop.run_in_executor(self._thread, self._store.time)
        return Pool(
            term,
            time.monotonic(),
            records,
            numbers,
            grace=self._settings.grace,
            since_1970=since_1970,
        )

    async def stop(self) -> None:
        """Lets go of the lead at once, so that another one takes it, and closes its ports."""
        if self._exposition is not None:
            await self._exposition.close()
        await asyncio.gather(*(server.stop(STOP_SECONDS) for server in self._servers))
        loop = asyncio.get_running_loop()
        with contextlib.suppress(StoreUnavailable):
            await loop.run_in_executor(self._thread, self._store.step_down)
        self._thread.shutdown()


def bind(
    server: grpc.aio.Server,
    listen: str,
    credentials: grpc.ServerCredentials,
    flag: str = "--listen",
) -> str:
    """Opens a port of a server; where that is. Raises HarpError."""
    host, _ = endpoint.parse(listen, EXAMPLE)
    try:
        return endpoint.joined(host, server.add_secure_port(listen, credentials))
    except RuntimeError as error:
        raise HarpError(f"cannot listen on {listen}", f"choose another {flag} HOST:PORT") from error


def port_of(address: str) -> int:
    """The port of `HOST:PORT`."""
    return int(address.rpartition(":")[2])
