"""The servers' agents: one call each, open as long as both live."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from harp_api.control.v1 import agent_pb2 as agent
from harp_api.control.v1 import agent_pb2_grpc
from harp_scheduler.core.events import Connected, Disconnected, Reported
from harp_scheduler.service.access import Context, Denied
from harp_scheduler.service.answers import answering
from harp_scheduler.service.leader import Leader, NotLeading
from harp_scheduler.service.members import Members

SILENCE = 15.0
"""Seconds without a report after which an agent's connection counts as broken."""

UNSENT_MAX = 64
"""Orders that wait for an agent that does not read; only the newest matter, so then it is cut."""


class Agents(agent_pb2_grpc.AgentsServicer):
    """Answers agents while this scheduler leads."""

    def __init__(
        self,
        members: Members,
        leader: Callable[[], Leader],
        coming: Callable[[], Awaitable[None]],
    ) -> None:
        """`leader` raises NotLeading where this scheduler does not lead; `coming` waits while it is
        about to."""
        self._members = members
        self._leader = leader
        self._coming = coming

    async def Connect(  # noqa: N802 - the name of the call
        self,
        request_iterator: AsyncIterator[agent.FromAgent],
        context: Context,
    ) -> AsyncIterator[agent.ToAgent]:
        async with answering(context):
            await self._coming()
            leader, caller = self._leader(), self._members.caller(context)
            if not caller.server:
                raise Denied(f"{caller.identity} is no server", "use the credentials of a server")
            link = Link(caller.server, leader, request_iterator, self._members, context)
            try:
                async for message in link.run():
                    yield message
            finally:
                await link.close()


class Link:
    """The connection of one agent."""

    def __init__(
        self,
        server: str,
        leader: Leader,
        messages: AsyncIterator[agent.FromAgent],
        members: Members,
        context: Context,
    ) -> None:
        self._members, self._context = members, context
        self._server = server
        self._leader = leader
        self._messages = messages
        self._unsent: asyncio.Queue[agent.ToAgent | None] = asyncio.Queue(UNSENT_MAX)

    def send(self, message: agent.ToAgent) -> None:
        """Puts a message on its way, or cuts off an agent that reads nothing."""
        try:
            self._unsent.put_nowait(message)
        except asyncio.QueueFull:
            self._stop()

    def _stop(self) -> None:
        while not self._unsent.empty():
            self._unsent.get_nowait()
        self._unsent.put_nowait(None)

    async def run(self) -> AsyncIterator[agent.ToAgent]:
        """The messages for the agent, until either end is gone."""
        reading = asyncio.create_task(self._read())
        try:
            while (message := await self._unsent.get()) is not None:
                yield message
            if reading.done():
                reading.result()
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError, NotLeading, TimeoutError):
                await reading

    async def _read(self) -> None:
        try:
            while True:
                async with asyncio.timeout(SILENCE):
                    message = await anext(self._messages, None)
                if message is None:
                    return
                await self._take(message)
        except TimeoutError:
            return
        finally:
            self._stop()

    async def _take(self, message: agent.FromAgent) -> None:
        self._members.check(self._context)
        if message.HasField("register"):
            number = message.register.report.number
            # From here on this connection gets the server's orders, and an older one none.
            self._leader.links[self._server] = self.send
            await self._leader.handle(Connected(self._server, message.register))
            self.send(revocation(self._members))
        elif self._leader.links.get(self._server) == self.send:
            number = message.report.number
            await self._leader.handle(Reported(self._server, message.report))
        else:
            return
        heard = agent.Heard(number=number, term=self._leader.pool.book.term)
        self.send(agent.ToAgent(heard=heard))

    async def close(self) -> None:
        """The connection is over; the pool is told, unless a newer one has taken its place."""
        if self._leader.links.get(self._server) == self.send:
            del self._leader.links[self._server]
            with contextlib.suppress(NotLeading):
                await self._leader.handle(Disconnected(self._server))


def revocation(members: Members) -> agent.ToAgent:
    """What servers are told of certificates that count no more."""
    return agent.ToAgent(revoked=agent.Revoked(serials=sorted(members.revoked)))
