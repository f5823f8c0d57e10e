"""What happened, who asked for it, and what was used: the service `History`."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import islice

from harp_api.control.v1 import history_pb2 as api
from harp_api.control.v1 import history_pb2_grpc
from harp_scheduler.service.access import Caller, Context, Role
from harp_scheduler.service.answers import answering
from harp_scheduler.service.api import bounded
from harp_scheduler.service.leader import Leader
from harp_scheduler.service.meter import HOUR
from harp_scheduler.store.audit import AuditRow
from harp_scheduler.store.events import Happening
from harp_scheduler.store.store import Store

PAGE = 500
"""Rows of the audit that are read at a time."""


class HistoryApi(history_pb2_grpc.HistoryServicer):
    """Answers while this scheduler leads."""

    def __init__(
        self,
        caller: Callable[[Context], Caller],
        leader: Callable[[], Leader],
        store: Store,
    ) -> None:
        """`caller` raises Denied, `leader` NotLeading."""
        self._caller = caller
        self._leader = leader
        self._store = store
        self._thread = ThreadPoolExecutor(1, "audit")
        """Long reads wait for each other and not in the way of what is stored."""

    async def Events(  # noqa: N802
        self, request: api.EventsRequest, context: Context
    ) -> AsyncIterator[api.Event]:
        async with answering(context):
            leader, last = self._leader(), request.after
            async for _ in leader.changes():
                caller = self._caller(context)  # each time: it may have been revoked since
                for happening in leader.history.since(last):
                    last = happening.number
                    if wanted(request, happening) and may_see(caller, happening):
                        yield event(happening)
                if not request.follow:
                    return

    async def Audit(  # noqa: N802
        self, request: api.AuditRequest, context: Context
    ) -> AsyncIterator[api.AuditRow]:
        async with answering(context):
            self._leader()
            self._caller(context).needs(Role.ADMIN, request.tenant or "*")
            rows = self._store.audit(
                request.after,
                caller=request.caller,
                subject=request.subject,
                tenant=request.tenant,
            )
            loop = asyncio.get_running_loop()
            while page := await loop.run_in_executor(self._thread, list, islice(rows, PAGE)):
                for row in page:
                    yield audit_row(row)

    async def VerifyAudit(  # noqa: N802
        self, request: api.VerifyAuditRequest, context: Context
    ) -> AsyncIterator[api.AuditState]:
        async with answering(context):
            self._leader()
            self._caller(context).needs(Role.ADMIN)
            loop = asyncio.get_running_loop()
            rows = await loop.run_in_executor(self._thread, self._store.audited)
            broken = await loop.run_in_executor(self._thread, self._store.verify_audit)
            if broken is None:
                yield api.AuditState(rows=rows)
            else:
                yield api.AuditState(
                    rows=broken.sequence - 1, broken=broken.sequence, cause=broken.cause
                )

    async def Usage(self, request: api.UsageRequest, context: Context) -> api.UsageReport:  # noqa: N802
        async with answering(context):
            leader, caller = self._leader(), self._caller(context)
            if request.tenant:
                caller.needs(Role.VIEWER, request.tenant)
            hour = bounded(request.since, 0.0, time.time()) // HOUR * HOUR
            since = datetime.fromtimestamp(hour, UTC)
            await leader.measure()
            loop = asyncio.get_running_loop()
            rows = await loop.run_in_executor(
                self._thread, self._store.usage, since, request.tenant
            )
            sums: dict[str, api.Usage] = defaultdict(api.Usage)
            for row in rows:
                if caller.role(row.tenant) >= Role.VIEWER:
                    used = sums[row.tenant]
                    used.tenant = row.tenant
                    used.device_seconds += row.device_seconds
                    used.compute_seconds += row.compute_seconds
                    used.byte_seconds += row.byte_seconds
            return api.UsageReport(usage=sums.values())
        raise AssertionError


def wanted(request: api.EventsRequest, happening: Happening) -> bool:
    """Whether it was asked for."""
    return (not request.subject or request.subject in (happening.subject, happening.name)) and (
        not request.tenant or request.tenant == happening.tenant
    )


def may_see(caller: Caller, happening: Happening) -> bool:
    """What is of a tenant, for those who may see the tenant; servers and devices for all."""
    if happening.kind == "tenant":
        return caller.role(happening.subject) >= Role.VIEWER
    return not happening.tenant or caller.role(happening.tenant) >= Role.VIEWER


def event(happening: Happening) -> api.Event:
    """As callers see it."""
    return api.Event(
        number=happening.number,
        time=happening.time,
        about=happening.kind,
        subject=happening.subject,
        name=happening.name,
        what=happening.what,
        reason=happening.reason,
        tenant=happening.tenant,
    )


def audit_row(row: AuditRow) -> api.AuditRow:
    """As callers see it."""
    return api.AuditRow(
        sequence=row.sequence,
        time=row.time.timestamp(),
        caller=row.caller,
        verb=row.verb,
        subject=row.subject,
        tenant=row.tenant,
        request=row.request,
        outcome=row.outcome,
        before=row.before,
        after=row.after,
        hash=row.hash,
    )
