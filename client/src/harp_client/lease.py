"""A lease for one `harp-run`: what the command line asks for, and where the program then runs."""

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from harp_client import settings
from harp_client.attendant import Attendant
from harp_client.device_kind import SOFT_NAME
from harp_client.errors import HarpError
from harp_client.quantities import per_mille, seconds, size
from harp_client.target import Schedulers, Target

GOODBYE_SECONDS = 8.0


class Wish(NamedTuple):
    """What a run asks the scheduler for; None where the command line says nothing."""

    gpus: str | None = None
    memory: str | None = None
    compute: str | None = None
    model: str | None = None
    size: str | None = None
    queue_timeout: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing of devices."""
        return not any(self[:-1])

    def request(self) -> dict[str, object]:
        """The fields of an AttachRequest. Raises HarpError."""
        if self.size is not None:
            if any((self.gpus, self.memory, self.compute, self.model)):
                raise HarpError("--size says all of it", "drop it, or the others", 2)
            return {"profile": self.size}
        demand: dict[str, object] = {"kind": "gpu"}
        if self.gpus is not None:
            if not self.gpus.isdigit() or not 1 <= int(self.gpus) <= 1024:
                raise HarpError(f"--gpus {self.gpus}: not a number of devices", "--gpus 2", 2)
            demand["count"] = int(self.gpus)
        if self.memory is not None:
            demand["memory"] = size(self.memory)
        if self.compute is not None:
            demand["compute"] = per_mille(self.compute)
        if self.model is not None:
            demand["models"] = self.model.split(",")
        return {"demand": demand}


class RunLease:
    """Taken on construction, which may wait in the queue; `close` gives it back.

    Without a wish it is what is attached to this host, which stays as it is: all leases that can
    be used, or the `named` ones. `left_out` are the others, a line for each.

    Raises NotReady where there is none, which has been said on stderr.
    """

    def __init__(
        self, pool: Schedulers, wish: Wish, named: Sequence[str], environ: Mapping[str, str]
    ) -> None:
        try:
            request = None if wish.is_empty else wish.request()
            timeout = wish.queue_timeout
            queue_seconds = None if timeout is None else seconds(timeout)
        except HarpError as error:
            # 2 may be the program's own status; 125 is a failure of `harp-run`.
            raise HarpError(error.cause, error.next_step, 125) from None
        host = settings.HARP_HOST.get(environ) or os.uname().nodename

        def work(lifeline: int, ready: int) -> int:
            # Loaded by the child alone: it is not needed here.
            from harp_client import lease_holder

            if request is None:
                return lease_holder.use_attached(lifeline, ready, pool, host, named)
            return lease_holder.hold(lifeline, ready, pool, request, queue_seconds)

        self._holder = Attendant(work, "the lease")
        answer = self._holder.answer
        targets = answer["targets"]
        # A session is under one lease, with one server, and has all of the lease's devices there.
        sessions = dict.fromkeys(f"{target['lease']}@{target['address']}" for target in targets)
        self.target = Target(
            ",".join(sessions),
            pool.credentials,
            ptx=any(target["model"] == SOFT_NAME for target in targets),
        )
        self.left_out: list[str] = answer["left_out"]

    def close(self) -> None:
        """Gives the lease back, within a bound."""
        self._holder.close(GOODBYE_SECONDS)
