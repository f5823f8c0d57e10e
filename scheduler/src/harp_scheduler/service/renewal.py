"""How members get a new certificate before theirs expires: the service `Renewal`."""

from __future__ import annotations

from collections.abc import Callable

from harp_api.control.v1 import join_pb2 as api
from harp_api.control.v1 import join_pb2_grpc
from harp_client.errors import HarpError
from harp_scheduler.service.access import Context
from harp_scheduler.service.answers import Invalid, answering
from harp_scheduler.service.leader import Leader
from harp_scheduler.service.members import Members
from harp_scheduler.store.audit import AuditEntry


class RenewalApi(join_pb2_grpc.RenewalServicer):
    """Answers while this scheduler leads."""

    def __init__(
        self, members: Members, leader: Callable[[], Leader], port: Callable[[], int]
    ) -> None:
        """`port`: where members are answered. `leader` raises NotLeading."""
        self._members = members
        self._leader = leader
        self._port = port

    async def RenewCertificate(  # noqa: N802
        self, request: api.Requests, context: Context
    ) -> api.Credentials:
        async with answering(context):
            self._leader()
            caller = self._members.caller(context)
            try:
                signed = self._members.sign(caller, request)
            except HarpError as error:
                raise Invalid(error.cause, error.next_step) from error
            entry = AuditEntry(
                caller=caller.identity,
                verb="renew certificate",
                subject=caller.identity,
                tenant=caller.tenant,
                after={"expires": signed.client.not_valid_after_utc.isoformat()},
            )
            await self._members.in_store(lambda: self._members.record(signed, [entry]))
            return signed.message(self._port())
        raise AssertionError
