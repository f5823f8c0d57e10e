"""What a pool begins with: its authority, and an admin who can let in everybody else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harp_client.credentials import certificate
from harp_client.errors import HarpError
from harp_scheduler.service.members import ADMIN, SYSTEM, serial
from harp_scheduler.store.audit import AuditEntry
from harp_scheduler.store.store import Store
from harp_server.ca import Authority, identity, save_user

POOL = "harp"
"""Name of a new pool, where none is given."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A pool's authority, and the folder for its admin's credentials."""

    authority: Authority
    folder: Path

    def is_new(self, store: Store) -> bool:
        """Whether nobody has led the pool yet, though somebody may have tried to start it: then it
        is to be said where its admin's credentials are. Notes their certificate, so that it can be
        revoked. Raises HarpError."""
        if store.leader().term or not (self.folder / "client.pem").exists():
            return False
        admin = certificate(self.folder / "client.pem")
        entry = AuditEntry(caller="first start", verb="join", subject=identity(admin))
        known = {each.serial for each in store.certificates(entry.subject)}
        if serial(admin) not in known:
            store.record_certificate(
                serial(admin), entry.subject, admin.not_valid_after_utc, [entry]
            )
        return True

    def welcome(self, address: str) -> str:
        """What to say to whoever started it first."""
        return (
            f"pool {self.authority.pool} is new; its admin's credentials are in {self.folder}:\n"
            f"  harp token create --role server --scheduler {address} --credentials {self.folder}"
        )


def open_authority(ca: Path, admin: Path, pool: str | None, make: bool) -> Opened:
    """Reads the authority in `ca`; makes it where there is none and `make` says so.

    Raises HarpError: there is none, or it is another pool's."""
    if make and not (ca / "ca.key").exists():
        authority = Authority.create(pool or POOL)
        first = authority.issue_user(SYSTEM, ADMIN)
        try:
            ca.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The admin's first: a start that is cut off here makes both anew.
            save_user(admin, authority.trusted_pem(), first)
            authority.save(ca)
        except OSError as error:
            raise HarpError(
                f"cannot make the pool's authority in {ca}: {error.strerror}", "--state DIR"
            ) from error
        return Opened(authority, admin)
    authority = Authority.load(ca)
    if pool and pool != authority.pool:
        raise HarpError(
            f"the authority in {ca} is that of pool {authority.pool}, not of {pool}",
            "leave --pool away, or choose another --state",
            2,
        )
    return Opened(authority, admin)
