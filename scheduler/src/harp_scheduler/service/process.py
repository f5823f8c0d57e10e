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
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc

from harp_api.control.v1 import agent_pb2_grpc, history_pb2_grpc, pool_pb2_grpc
from harp_client.errors import HarpError
from harp_scheduler.core.events import TenantSet
from harp_scheduler.core.model import Quota
from harp_scheduler.core.pool import GRACE, Pool
from harp_scheduler.metrics import PoolCollector, Snapshot, Timings, snapshot
from harp_scheduler.service.access import Role
from harp_scheduler.service.agents import Agents
from harp_scheduler.service.api import PoolApi
from harp_scheduler.service.history_api import HistoryApi
from harp_scheduler.service.leader import Leader, NotLeading
from harp_scheduler.store.errors import LeaderLost, StoreUnavailable
from harp_scheduler.store.store import Store
from harp_server.ca import Authority, KeyPair
from harp_server.exposition import Exposition, Health, called, registry
from harp_server.logs import Log

LEAD_AGAIN = 0.5
"""Seconds between attempts to lead."""

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

ADMIN = "tenant/system/user/admin"
"""Path of the identity that a new pool's first admin has."""

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


class Certificate:
    """The scheduler's own certificate, renewed at half its life without a restart."""

    LIFE = datetime.timedelta(days=1)

    def __init__(self, authority: Authority, name: str) -> None:
        self._authority, self._name = authority, name
        self._pair: KeyPair | None = None
        self._configuration: grpc.ServerCertificateConfiguration | None = None

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """For gRPC, at each handshake."""
        now = datetime.datetime.now(datetime.UTC)
        if self._pair and self._pair.certificate.not_valid_after_utc - now > self.LIFE / 2:
            assert self._configuration is not None
            return self._configuration
        self._pair = self._authority.issue_scheduler(self._name, self.LIFE)
        root = self._authority.root.certificate_pem()
        self._configuration = grpc.ssl_server_certificate_configuration(
            [(self._pair.key_pem(), self._pair.certificate_pem() + root)], root
        )
        return self._configuration

    def credentials(self) -> grpc.ServerCredentials:
        """Mutual TLS with whoever has a certificate of the pool."""
        first = self.configuration()
        return grpc.dynamic_ssl_server_credentials(first, self.configuration, True)


class Scheduler:
    """One scheduler process."""

    def __init__(self, settings: Settings, store: Store, log: Log) -> None:
        self._settings = settings
        self._store = store
        self._log = log
        self._thread = ThreadPoolExecutor(1, "store")
        self._leader: Leader | None = None
        self._name = settings.name or socket.gethostname().lower()
        self._roles: dict[str, dict[str, Role]] = {}
        self._server: grpc.aio.Server | None = None
        self._timings = Timings()
        self._exposition: Exposition | None = None
        self.address = ""

    def leader(self) -> Leader:
        """The one that decides here. Raises NotLeading."""
        if self._leader is None:
            raise NotLeading("another scheduler leads, or none yet")
        return self._leader

    def roles(self, identity: str) -> Mapping[str, Role]:
        """What an identity may do, by tenant."""
        known = dict(self._roles.get(identity, {}))
        if identity == f"spiffe://{self._settings.authority.pool}/{ADMIN}":
            known["*"] = Role.ADMIN
        return known

    async def start(self) -> None:
        """Opens the port. Raises HarpError where that cannot be done."""
        authority = self._settings.authority
        host, _, _ = self._settings.listen.rpartition(":")
        certificate = Certificate(authority, self._name)
        server = grpc.aio.server(options=OPTIONS)
        agent_pb2_grpc.add_AgentsServicer_to_server(Agents(authority.pool, self.leader), server)
        api = PoolApi(authority.pool, self.leader, self.roles)
        pool_pb2_grpc.add_PoolServicer_to_server(api, server)
        history = HistoryApi(api.caller, self.leader, self._store)
        history_pb2_grpc.add_HistoryServicer_to_server(history, server)
        try:
            bound = server.add_secure_port(self._settings.listen, certificate.credentials())
        except RuntimeError as error:
            raise HarpError(
                f"cannot listen on {self._settings.listen}", "choose another --listen HOST:PORT"
            ) from error
        self.address = f"{host}:{bound}"
        if self._settings.metrics:
            self._exposition = self._expose(self._settings.metrics)
        await server.start()
        self._server = server

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

    async def run(self) -> None:
        """Leads whenever it can, until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            lost = asyncio.Event()

            def tell(lost: asyncio.Event = lost) -> None:
                loop.call_soon_threadsafe(lost.set)

            try:
                term = await loop.run_in_executor(self._thread, self._store.lead, self._name, tell)
                if term is not None:
                    await self._lead(term, lost)
            except (LeaderLost, StoreUnavailable, NotLeading) as error:
                self._log.warning("leads no more", cause=str(error))
            finally:
                self._leader = None
            with contextlib.suppress(StoreUnavailable):
                await loop.run_in_executor(self._thread, self._store.step_down)
            await asyncio.sleep(LEAD_AGAIN)

    async def _lead(self, term: int, lost: asyncio.Event) -> None:
        """Until the lead is lost: then `lost` is set, or a transaction fails."""
        loop = asyncio.get_running_loop()
        records, numbers = await loop.run_in_executor(self._thread, self._store.load)
        pool = Pool(term, time.monotonic(), records, numbers, grace=self._settings.grace)
        # What was read stays: without this, each full collection looks at all of it again, for
        # 200 ms at 100,000 devices.
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        measured = await loop.run_in_executor(self._thread, self._store.measured)
        leader = Leader(pool, self._store, self._thread, self._timings, measured)
        running = asyncio.create_task(leader.run())
        losing = asyncio.create_task(lost.wait())
        try:
            if not pool.book.tenants:
                await leader.handle(TenantSet(FIRST_TENANT, Quota()))
            self._leader = leader
            self._log.info("leads", term=term, leases=len(pool.book.leases))
            await asyncio.wait({running, losing}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            raise NotLeading("the connection to the database that held the lead is gone")
        finally:
            self._leader = None
            losing.cancel()
            running.cancel()
            with contextlib.suppress(BaseException):
                await running

    async def stop(self) -> None:
        """Lets go of the lead at once, so that another one takes it, and closes its ports."""
        if self._exposition is not None:
            await self._exposition.close()
        if self._server is not None:
            await self._server.stop(STOP_SECONDS)
        loop = asyncio.get_running_loop()
        with contextlib.suppress(StoreUnavailable):
            await loop.run_in_executor(self._thread, self._store.step_down)
        self._thread.shutdown()
