"""The agent's link to the pool's scheduler: what it has, what it holds, and what it is to hold.

Keeps one call open to the scheduler that leads, of all whose addresses it was given. While none
can be reached, sessions go on until the leases' grace is over (`admission`).
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from harp_api.control.v1 import agent_pb2 as control
from harp_api.control.v1 import agent_pb2_grpc, join_pb2_grpc
from harp_api.control.v1 import join_pb2 as join
from harp_client import __version__
from harp_client.durable import put_in_place
from harp_client.errors import HarpError
from harp_client.scheduler import OPTIONS, disagreement
from harp_server import ca
from harp_server.admission import REVOKED, Admission, Entry
from harp_server.ca import SessionIssuer
from harp_server.health import CRASH_SIGNALS, Crashes, Health
from harp_server.logs import Log
from harp_server.process import how_it_ended
from harp_server.session import Session

HEARTBEAT = 2.0
"""Seconds between reports when nothing changes."""

RETRY = (0.2, 3.0)
"""Seconds before another attempt to connect: at first, and at most."""

TEXT_MAX = 200
"""Characters of what a report tells of a program; its host chose them."""

SILENCE = 10.0
"""Seconds without a word from the scheduler after which the connection counts as broken."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the server tells of itself."""

    address: str
    """Where programs reach its sessions: `HOST:PORT`."""

    devices: Sequence[control.Device]
    labels: Mapping[str, str]


class SchedulerLink:
    """One agent's link. `end_session` is called with a session and the reason to end it."""

    def __init__(
        self,
        schedulers: Sequence[str],
        issuer: SessionIssuer,
        state: Path,
        end_session: Callable[[str, str], Awaitable[None]],
        revoke: Callable[[frozenset[str]], None],
        record: Callable[[str, str], None],
        log: Log,
    ) -> None:
        """`state`: the file that keeps what must outlive this process. `revoke` is called with the
        serial numbers of the certificates that count no more, `record` with a session and a payload
        policy. Raises HarpError where that file cannot be read, or is another."""
        self._schedulers = list(schedulers)
        self._credentials = channel_credentials(issuer)
        self._renewed = asyncio.Event()
        self._revoke = revoke
        self._record = record
        self._own = issuer.serials
        self._revoked: list[str] = []
        self._state = state
        self._end_session = end_session
        self._log = log
        self._inventory: Inventory | None = None
        self._admission = Admission({}, boot_time())
        self._news = asyncio.Event()
        self.health = Health(self._admission, self._news.set)
        self._crashes = Crashes(
            lambda faults: self.health.faults("sessions", faults),
            lambda seconds, what: asyncio.get_running_loop().call_later(seconds, what),
        )
        self._fenced = asyncio.Event()
        self._ending: set[asyncio.Task[None]] = set()
        self._said = ""
        self.heard: float | None = None
        """When the scheduler was heard last, by `time.monotonic`; None: not yet."""

        with contextlib.suppress(FileNotFoundError):
            self._restore()

    @property
    def admission(self) -> Admission:
        """What this server holds; to be read only."""
        return self._admission

    def offer(self, inventory: Inventory) -> None:
        """Says what there is, before `run`."""
        self._inventory = inventory
        self._admission.memory = {device.ordinal: device.memory for device in inventory.devices}

    def enter(self, lease: str, session: str) -> Entry:
        """A session begins under a lease. Raises Closed."""
        entry = self._admission.enter(lease, session)
        self._news.set()
        return entry

    def began(self, session: Session) -> None:
        """The program of a session has been let in."""
        running = control.Running(
            session=session.id,
            user=session.user[:TEXT_MAX],
            program=session.program[:TEXT_MAX],
            pid=session.pid,
            began=time.time(),
        )
        self._admission.began(running)
        self._news.set()

    def leave(self, session: str) -> None:
        """A session's worker is dead."""
        self._admission.leave(session)
        self._news.set()

    def ended(self, session: Session, ordinals: Sequence[int]) -> None:
        """A session in which a program was let in is over, and how is known."""
        crash = how_it_ended(-session.death) if session.death in CRASH_SIGNALS else ""
        if crash or session.went_well:
            self._crashes.ended(ordinals, session.user, crash)

    def use(self, issuer: SessionIssuer) -> None:
        """Takes new certificates: another connection takes the place of the one that there is."""
        self._credentials, self._own = channel_credentials(issuer), issuer.serials
        self._renewed.set()

    async def renew(self, requests: join.Requests) -> join.Credentials:
        """New certificates, from the scheduler that leads. Raises grpc.RpcError, HarpError."""
        failed: grpc.aio.AioRpcError | None = None
        for address in self._schedulers:
            async with grpc.aio.secure_channel(address, self._credentials, OPTIONS) as channel:
                try:
                    stub = join_pb2_grpc.RenewalStub(channel)
                    answer: join.Credentials = await stub.RenewCertificate(
                        requests, timeout=SILENCE
                    )
                    return answer
                except grpc.aio.AioRpcError as error:
                    failed = error
        raise failed or HarpError("no scheduler is named", "--scheduler HOST:PORT")

    def fault(self, cause: str) -> None:
        """The devices cannot be used, for this cause, and take no new leases; "": they can."""
        self.health.everywhere("workers", cause)

    async def run(self) -> None:
        """Until it is cancelled."""
        self._take_revoked()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            group.create_task(self._stay_connected())

    async def _watch(self) -> None:
        """Fences the server when the grace is over, whatever the connection does."""
        while True:
            await asyncio.sleep(min(1.0, max(0.1, self._admission.grace / 20)))
            if self._admission.fence(boot_time()):
                # A new connection brings new orders: the lease may still be wanted here.
                self._fenced.set()
                self._log.error(
                    "sessions are ended", cause="no word from the scheduler for the leases' grace"
                )
            self._end_sessions()

    async def _stay_connected(self) -> None:
        delay = RETRY[0]
        while True:
            for address in self._schedulers:
                began, event = time.monotonic(), "scheduler out of reach"
                try:
                    await self._hold(address)
                    cause = "the scheduler ended the connection"
                except grpc.aio.AioRpcError as error:
                    details = error.details() or error.code().name
                    if error.code() is grpc.StatusCode.PERMISSION_DENIED and details == ca.REVOKED:
                        self._be_revoked()
                    cause = disagreement(details) or details
                except TimeoutError:
                    cause = "no word from the scheduler"
                except OSError as error:
                    # A full disk, say. What could not be stored was not taken either: it comes
                    # again with the next connection.
                    event, cause = "orders not taken", f"{self._state}: {error.strerror or error}"
                if time.monotonic() - began > SILENCE:
                    delay = RETRY[0]
                self._say(event, address, cause)
            await asyncio.sleep(delay)
            delay = min(2 * delay, RETRY[1])

    def _say(self, event: str, address: str, cause: str) -> None:
        """Logs a change, and not the same again."""
        if (said := f"{event} {address} {cause}") != self._said:
            self._said = said
            self._log.warning(event, scheduler=address, cause=cause)

    async def _hold(self, address: str) -> None:
        """Talks to a scheduler until the connection breaks. With new certificates another
        connection takes its place, as soon as that has been answered."""
        self._renewed.clear()
        talking = asyncio.create_task(self._talk(address, asyncio.Event()))
        try:
            while True:
                await _either(talking, self._renewed)
                if talking.done():
                    return talking.result()
                self._renewed.clear()
                answered = asyncio.Event()
                following = asyncio.create_task(self._talk(address, answered))
                try:
                    await _either(following, answered)
                except asyncio.CancelledError:
                    await _end(following)
                    raise
                if following.done():
                    cause = str(following.exception())
                    self._log.warning("not connected anew", scheduler=address, cause=cause)
                else:
                    await _end(talking)
                    talking = following
        finally:
            await _end(talking)

    async def _talk(self, address: str, answered: asyncio.Event) -> None:
        async with grpc.aio.secure_channel(address, self._credentials, OPTIONS) as channel:
            call = agent_pb2_grpc.AgentsStub(channel).Connect(self._messages())
            self._fenced.clear()
            while True:
                message = await self._read(call)
                if message is grpc.aio.EOF:
                    code = await call.code()
                    details = await call.details()
                    raise TimeoutError(details or code.name)
                if not answered.is_set():
                    answered.set()
                    self._said = ""
                    self._log.info("scheduler connected", scheduler=address)
                self._take(message)

    async def _read(self, call: Any) -> Any:
        """The next message, or EOF. Raises TimeoutError when none comes, or too late ones."""
        reading = asyncio.ensure_future(call.read())
        fenced = asyncio.ensure_future(self._fenced.wait())
        try:
            await asyncio.wait(
                {reading, fenced}, timeout=SILENCE, return_when=asyncio.FIRST_COMPLETED
            )
            if fenced.done() or not reading.done():
                raise TimeoutError
            return reading.result()
        finally:
            fenced.cancel()
            reading.cancel()

    async def _messages(self) -> AsyncIterator[control.FromAgent]:
        inventory = self._inventory
        assert inventory is not None
        register = control.Register(
            version=__version__,
            address=inventory.address,
            labels=dict(inventory.labels),
            devices=inventory.devices,
            report=self._admission.register(boot_time()),
        )
        yield control.FromAgent(register=register)
        while True:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT):
                    await self._news.wait()
            yield control.FromAgent(report=self._admission.report(boot_time()))

    def _take(self, message: control.ToAgent) -> None:
        """Does what the scheduler says. Raises OSError where that cannot be stored."""
        self.heard = time.monotonic()
        if message.HasField("heard"):
            self._admission.heard(message.heard)
        elif message.HasField("revoked"):
            self._revoked = list(message.revoked.serials)
            self._take_revoked()
            self._store(self._admission.stored())
        elif message.HasField("record"):
            self._record(message.record.session, message.record.payload)
        elif message.HasField("orders"):
            self._take_orders(message.orders)

    def _take_orders(self, orders: control.Orders) -> None:
        stored = self._admission.stored_with(orders)
        if stored is not None:
            self._store(stored)
            self._admission.take_orders(orders)
            self._end_sessions()
            self._news.set()

    def _take_revoked(self) -> None:
        """Ends what began with certificates that count no more; all of it where one is our own."""
        self._revoke(frozenset(self._revoked))
        if not self._own.isdisjoint(self._revoked):
            self._be_revoked()

    def _be_revoked(self) -> None:
        if not self._admission.is_revoked:
            self._log.error("sessions are ended", cause=REVOKED, next="harp join --replace")
            self._admission.revoke()
            self._end_sessions()

    def _store(self, admission: Mapping[str, object]) -> None:
        partial = self._state.with_name(f".{self._state.name}.new")
        with partial.open("w") as file:
            json.dump({**admission, "revoked": self._revoked}, file)
        put_in_place(partial, self._state)

    def _restore(self) -> None:
        """What an earlier process has stored. Raises FileNotFoundError, HarpError."""
        try:
            stored = json.loads(self._state.read_text())
            self._admission.restore(stored)
            revoked = stored.get("revoked", [])
            if not isinstance(revoked, list):
                raise ValueError("no list of revoked certificates")
            self._revoked = [str(serial) for serial in revoked]
        except FileNotFoundError:
            raise
        except OSError as error:
            raise HarpError(f"cannot read {self._state}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            # Not set aside: which orders are too old would be forgotten, and nobody told.
            raise HarpError(
                f"{self._state} is not what this server has stored of its leases: {error}",
                "move it away: no session begins before the scheduler has given its orders anew",
            ) from error

    def _end_sessions(self) -> None:
        while self._admission.to_end:
            session, reason = self._admission.to_end.popitem()
            task = asyncio.ensure_future(self._end_session(session, reason))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)


async def _either(task: asyncio.Task[None], event: asyncio.Event) -> None:
    """Until a task is done, or an event set."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


async def _end(task: asyncio.Task[None]) -> None:
    """Ends a task, whatever it then says."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()


def channel_credentials(issuer: SessionIssuer) -> grpc.ChannelCredentials:
    """What the agent shows the scheduler. Raises HarpError where it has nothing to show."""
    if issuer.agent is None:
        raise HarpError(
            "the server's credentials have no agent.pem and agent.key",
            "harp join, or issue them anew: harp ca server CA_DIR NAME",
        )
    return grpc.ssl_channel_credentials(
        issuer.root_pem, issuer.agent.key_pem(), issuer.agent.certificate_pem()
    )


def boot_time() -> float:
    """Seconds since the machine was started, those that it slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
