"""Opens a server's port for Prometheus: what of the agent is told there, and when it is well."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from harp_api.control.v1 import agent_pb2 as control
from harp_server.agent import Agent
from harp_server.exposition import Exposition, Health, called, registry
from harp_server.metrics import ServerCollector, Snapshot, copied, held
from harp_server.nvml import Nvml
from harp_server.scheduler_link import SILENCE, SchedulerLink


def expose(
    listen: str,
    agent: Agent,
    link: SchedulerLink | None,
    devices: Sequence[control.Device],
    nvml: Nvml | None,
    xids: Mapping[int, int] | None = None,
) -> Exposition:
    """Listens on `HOST:PORT`. `nvml`: of real devices; `xids`: the last of
    each, where somebody waits for them. Raises HarpError."""

    async def snapshot() -> Snapshot:
        states, memory = held(link.admission) if link is not None else ({}, None)
        heard = link.heard if link is not None else None
        silence = None if heard is None else time.monotonic() - heard
        return Snapshot(agent.running, copied(agent.totals), states, memory, silence)

    async def health() -> Health:
        if not agent.is_open:
            return Health(False, "accepts no sessions: it stops, or its gate is being started")
        if link is None:
            return Health(True, "accepts sessions")
        if link.heard is None or time.monotonic() - link.heard > SILENCE:
            # Not its own fault, and its sessions go on: taking it out of service would end them.
            return Health(True, "accepts sessions; the scheduler is out of reach")
        return Health(True, "accepts sessions; the scheduler is connected")

    loop = asyncio.get_running_loop()
    metrics = registry("server")
    metrics.register(ServerCollector(lambda: called(loop, snapshot), devices, nvml, xids))
    return Exposition(listen, metrics, health)
