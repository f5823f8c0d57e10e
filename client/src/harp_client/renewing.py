"""Keeps a credentials folder fresh: at half of its certificate's life it gets another one."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path

from harp_client import credentials, leaf
from harp_client.errors import HarpError
from harp_client.scheduler import Scheduler

CALL_SECONDS = 5.0
"""How long a command that renews in passing tries to."""


def keep_fresh(scheduler: Scheduler, role: str = "user") -> bool:
    """Renews the certificate of a user's or a host's folder if it is time; says whether it did.

    What cannot be done now is told only when it becomes urgent. Raises HarpError where the
    certificate has expired: then only joining again helps.
    """
    folder = Path(scheduler.credentials)
    certificate = leaf.read(folder / f"{credentials.CLIENT[role]}.pem")
    now = datetime.datetime.now(datetime.UTC)
    check_valid(folder, certificate.not_valid_before_utc, certificate.not_valid_after_utc, now)
    if now < credentials.half_life(certificate):
        return False
    try:
        renew(scheduler, folder, role, CALL_SECONDS)
    except (HarpError, OSError) as error:
        left = certificate.not_valid_after_utc - now
        if left < (certificate.not_valid_after_utc - credentials.half_life(certificate)) / 2:
            cause = error.cause if isinstance(error, HarpError) else str(error)
            until = f"{certificate.not_valid_after_utc:%F %T} UTC"
            print(
                f"harp: the certificate in {folder} ends at {until}, and is not renewed: {cause}",
                file=sys.stderr,
            )
        return False
    return True


def renew(scheduler: Scheduler, folder: Path, role: str, seconds: float) -> None:
    """Gets a new certificate for a folder's keys. Raises HarpError, OSError."""
    keys = credentials.Keys.load(folder, role)
    signed = scheduler.call("RenewCertificate", keys.requests(), seconds)
    credentials.save(folder, role, signed)
    scheduler.reload()


def check_valid(
    folder: Path, begins: datetime.datetime, ends: datetime.datetime, now: datetime.datetime
) -> None:
    """Raises HarpError where a certificate is not valid by this machine's clock."""
    if now > ends:
        raise HarpError(
            f"the certificate in {folder} expired at {ends:%F %T} UTC",
            "join again: an admin's harp token create, then harp join --replace",
            4,
        )
    if now < begins:
        raise HarpError(
            f"the certificate in {folder} is not valid before {begins:%F %T} UTC, "
            f"and this machine's clock says {now:%F %T} UTC",
            "set the clock",
            5,
        )
