"""Renews the certificates of a server at half of their life, without a restart."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc

from harp_api.control.v1 import join_pb2 as api
from harp_client import credentials
from harp_client.errors import HarpError
from harp_server.ca import SessionIssuer
from harp_server.logs import Log


class Renewal:
    """One server's credentials folder, and whoever uses what is in it."""

    def __init__(
        self,
        folder: Path,
        issuer: SessionIssuer,
        ask: Callable[[api.Requests], Awaitable[api.Credentials]],
        use: Callable[[SessionIssuer], None],
        log: Log,
    ) -> None:
        """`ask`: the scheduler, for certificates. `use` is called with the new ones."""
        self._folder, self._issuer = folder, issuer
        self._ask, self._use = ask, use
        self._log = log

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            left = (self._due() - datetime.datetime.now(datetime.UTC)).total_seconds()
            if left > 0:
                await asyncio.sleep(min(left, credentials.CHECK))
                continue
            try:
                await self._renew()
            except (HarpError, OSError, grpc.RpcError) as error:
                self._tell(error)
                await asyncio.sleep(credentials.RETRY)
            else:
                made = self._issuer.intermediate.certificate
                await asyncio.sleep(credentials.rest(made))

    def _due(self) -> datetime.datetime:
        agent = self._issuer.agent
        assert agent is not None
        used = (self._issuer.intermediate.certificate, agent.certificate)
        return min(credentials.half_life(certificate) for certificate in used)

    async def _renew(self) -> None:
        keys = credentials.Keys.load(self._folder, "server")
        signed = await self._ask(keys.requests())
        credentials.save(self._folder, "server", signed)
        self._issuer = SessionIssuer.load(self._folder)
        self._use(self._issuer)
        until = self._issuer.intermediate.certificate.not_valid_after_utc
        self._log.info("certificate renewed", until=str(until))

    def _tell(self, error: Exception) -> None:
        agent = self._issuer.agent
        assert agent is not None
        ends = agent.certificate.not_valid_after_utc
        cause = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
        following = ""
        if ends < datetime.datetime.now(datetime.UTC):
            following = "join again: harp token create, then harp join --replace"
        self._log.warning("certificate not renewed", until=str(ends), cause=cause, next=following)
