"""Calls that were denied, for the audit: who asked for what, and why he may not.

Anybody with a certificate can be denied as often as he likes, so there is room for a few of each
caller's only.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import grpc

from harp_scheduler.service.access import Context, Denied, names, read_identity
from harp_scheduler.store.audit import AuditEntry
from harp_scheduler.store.errors import StoreUnavailable

if TYPE_CHECKING:
    from harp_scheduler.service.members import Members

ROOM = 16
"""Denials of one caller that are recorded in one window."""

WINDOW = 3600.0
"""Seconds."""

TEXT_MOST = 300
"""Characters of a cause, or of a stranger's name: callers chose what is in them."""


class Denials(grpc.aio.ServerInterceptor):
    """Records them while the calls are answered that it is the interceptor of."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._recorded: Counter[str] = Counter()
        self._began = time.monotonic()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """For gRPC: lets `record` know which call it is in."""
        CALL.set((self, handler_call_details.method))
        return await continuation(handler_call_details)

    async def record(self, method: str, context: Context, denied: Denied) -> None:
        """Appends one to the audit, if there is room for the caller's, and the store can be used:
        the caller is denied in any case."""
        shown = names(context)
        pool = self._members.pool
        caller = next(filter(None, (read_identity(name, pool) for name in shown)), None)
        identity = (caller.identity if caller else " ".join(shown))[:TEXT_MOST]
        left = self.room(identity)
        if left < 0:
            return
        more = "" if left else f" (the last of this caller's for {WINDOW / 60:.0f} minutes at most)"
        entry = AuditEntry(
            caller=identity,
            verb=verb(method),
            subject="",
            tenant=caller.tenant if caller else "",
            outcome=f"refused: {denied.cause[:TEXT_MOST]}{more}",
        )
        with contextlib.suppress(StoreUnavailable):
            await self._members.in_store(lambda: self._members.store.record([entry]))

    def room(self, caller: str) -> int:
        """Takes one place of a caller's; how many are left then. Negative: there was none."""
        now = time.monotonic()
        if now - self._began >= WINDOW:
            self._began = now
            self._recorded.clear()
        self._recorded[caller] += 1
        return ROOM - self._recorded[caller]


CALL: ContextVar[tuple[Denials, str]] = ContextVar("CALL")
"""Who records denials of the call that is being answered, and the call's full name."""


async def record(context: Context, denied: Denied) -> None:
    """Records that the call which is being answered is denied; where nobody does that, nothing."""
    if found := CALL.get(None):
        denials, method = found
        await denials.record(method, context, denied)


def verb(method: str) -> str:
    """`/harp.control.v1.Access/CreateToken` in the words of the audit: `create token`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", method.rpartition("/")[2]).lower()
