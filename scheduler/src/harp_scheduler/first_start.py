"""What a pool begins with: its authority, and an admin who can let in everybody else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harp_client.errors import HarpError
from harp_scheduler.service.members import ADMIN, SYSTEM, serial
from harp_scheduler.store.audit import AuditEntry
from harp_scheduler.store.store import Store
from harp_server.ca import Authority, KeyPair, identity, save_user

POOL = "harp"
"""Name of a new pool, where none is given."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A pool's authority; with the admin's credentials where it has just been made."""

    authority: Authority
    folder: Path
    admin: KeyPair | None = None

    def record(self, store: Store) -> None:
        """Notes the admin's certificate, so that it can be revoked."""
        assert self.admin is not None
        certificate = self.admin.certificate
        entry = AuditEntry(caller="first start", verb="join", subject=identity(certificate))
        store.record_certificate(
            serial(certificate), entry.subject, certificate.not_valid_after_utc, [entry]
        )

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
        return Opened(authority, admin, first)
    authority = Authority.load(ca)
    if pool and pool != authority.pool:
        raise HarpError(
            f"the authority in {ca} is that of pool {authority.pool}, not of {pool}",
            "leave --pool away, or choose another --state",
            2,
        )
    return Opened(authority, admin)
