"""A lease for one `harp-run`: what the command line asks for, and where the program then runs."""

import json
import re
import socket
from collections.abc import Mapping
from typing import NamedTuple

from harp_client import settings
from harp_client.attendant import Attendant, NotReady
from harp_client.errors import HarpError
from harp_client.target import Schedulers, Target

GOODBYE_SECONDS = 8.0
SOFT_MODEL = "HARP Soft GPU"
SERVER_NAME = "lease.harp-server"
"""What comes after the lease's id and a dot in the TLS server name of its sessions."""

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


class Wish(NamedTuple):
    """What a run asks the scheduler for; None where the command line says nothing."""

    gpus: str | None = None
    memory: str | None = None
    compute: str | None = None
    model: str | None = None
    profile: str | None = None
    queue_timeout: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing of devices."""
        return not any(self[:-1])

    def request(self) -> dict[str, object]:
        """An AttachRequest in protobuf's JSON form. Raises HarpError."""
        if self.profile:
            return {"profile": self.profile}
        demand: dict[str, object] = {"kind": "gpu"}
        if self.gpus is not None:
            if not self.gpus.isdigit() or not 1 <= int(self.gpus) <= 1024:
                raise HarpError(f"--gpus {self.gpus}: not a number of devices", "--gpus 2", 125)
            demand["count"] = int(self.gpus)
        if self.memory is not None:
            demand["memory"] = str(size(self.memory))
        if self.compute is not None:
            demand["compute"] = per_mille(self.compute)
        if self.model is not None:
            demand["models"] = self.model.split(",")
        return {"demand": demand}


class RunLease:
    """Taken on construction, which may wait in the queue; `close` gives it back.

    Without a wish it is the lease that is attached to this host, which stays as it is.
    """

    def __init__(self, pool: Schedulers, wish: Wish, environ: Mapping[str, str]) -> None:
        arguments = ["--credentials", pool.credentials]
        for address in pool.addresses:
            arguments += ["--scheduler", address]
        if wish.is_empty:
            arguments += ["--host", settings.HARP_HOST.get(environ) or socket.gethostname()]
        else:
            arguments += ["--request", json.dumps(wish.request())]
        if wish.queue_timeout is not None:
            arguments += ["--queue-timeout", str(seconds(wish.queue_timeout))]
        try:
            self._holder = Attendant("harp_client.lease_holder", arguments, environ, "the lease")
        except NotReady:
            raise SystemExit(125) from None
        answer = self._holder.answer
        targets = answer["targets"]
        addresses = list(dict.fromkeys(target["address"] for target in targets))
        self.target = Target(
            ",".join(addresses),
            pool.credentials,
            f"{answer['lease']}.{SERVER_NAME}",
            ptx=any(target["model"].startswith(SOFT_MODEL) for target in targets),
        )

    def close(self) -> None:
        """Gives the lease back, within a bound."""
        self._holder.close(GOODBYE_SECONDS)


def size(text: str) -> int:
    """Bytes of `8GiB`, `512M`, `1073741824`. Raises HarpError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found:
        raise HarpError(f"{text!r} is no size of memory", "write it like 8GiB or 512M", 125)
    return int(float(found[1]) * UNITS[found[2].upper()])


def per_mille(text: str) -> int:
    """Per mille of a device of `50%` or `0.5`. Raises HarpError."""
    try:
        value = float(text[:-1]) * 10 if text.endswith("%") else float(text) * 1000
    except ValueError:
        value = 0.0
    if not 1 <= value <= 1000:
        raise HarpError(f"{text!r} is no share of a device", "write it like 50%", 125)
    return round(value)


def seconds(text: str) -> float:
    """Seconds of `90`, `90s`, `5m`, `2h`, `7d`. Raises HarpError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if not found:
        raise HarpError(f"{text!r} is no time", "write it like 90s, 5m or 2h", 125)
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]]
