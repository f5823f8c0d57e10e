"""How a refusal reaches the caller: a gRPC status, one sentence, and what to do next."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from harp_client.errors import NEXT
from harp_scheduler.core.refused import Conflict, NotFound, OverQuota, Refused
from harp_scheduler.service import denials
from harp_scheduler.service.access import Context, Denied
from harp_scheduler.service.leader import NotLeading
from harp_scheduler.store.errors import StoreUnavailable, TokenRefused


class Invalid(Refused):
    """What was asked makes no sense."""


class TooMany(Refused):
    """For now; the cause says how long."""


STATUS: dict[type[Exception], grpc.StatusCode] = {
    NotFound: grpc.StatusCode.NOT_FOUND,
    Conflict: grpc.StatusCode.FAILED_PRECONDITION,
    OverQuota: grpc.StatusCode.RESOURCE_EXHAUSTED,
    TooMany: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Denied: grpc.StatusCode.PERMISSION_DENIED,
    TokenRefused: grpc.StatusCode.PERMISSION_DENIED,
    Invalid: grpc.StatusCode.INVALID_ARGUMENT,
}


@asynccontextmanager
async def answering(context: Context) -> AsyncIterator[None]:
    """Ends the call with the status that fits what was raised inside."""
    try:
        yield
    except (Refused, TokenRefused) as refused:
        status = STATUS.get(type(refused), grpc.StatusCode.FAILED_PRECONDITION)
        if isinstance(refused, Denied):
            await denials.record(context, refused)
        # Metadata is ASCII; names that are not were in the request and stay there.
        following = refused.next_step.encode("ascii", "replace").decode()
        await context.abort(status, refused.cause, ((NEXT, following),) if following else ())
    except NotLeading as error:
        await context.abort(grpc.StatusCode.UNAVAILABLE, f"this scheduler does not lead: {error}")
    except StoreUnavailable as error:
        await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
