"""Another root for a pool, while everybody goes on. Three steps, each after all certificates that
there were before it have been renewed or have expired:

    begin     the new root is trusted beside the old one, which goes on signing
    switch    the new root signs; the old one is still trusted
    finish    the old root is trusted no more

Whoever trusts is told with each renewal. In the authority's folder:

    ca.pem, ca.key        the root that signs
    trusted.pem           the other one that is trusted, between `begin` and `finish`; while
                          `switch` is at it, both
    next.pem, next.key    the new root, between `begin` and `switch`
"""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509

from harp_client.credentials import certificate, write
from harp_client.errors import HarpError
from harp_server.ca import Authority, KeyPair, pem

TRUSTED = "trusted.pem"
NEXT_CERTIFICATE, NEXT_KEY = "next.pem", "next.key"


def begin(folder: Path) -> None:
    """Makes the new root. Raises HarpError: another rotation is under way."""
    if (folder / TRUSTED).exists():
        raise HarpError(
            f"a rotation is under way in {folder}",
            "harp ca rotate --switch"
            if (folder / NEXT_KEY).exists()
            else "harp ca rotate --finish",
            5,
        )
    following = Authority.create(Authority.load(folder).pool).root
    write(folder / NEXT_KEY, following.key_pem())
    write(folder / NEXT_CERTIFICATE, following.certificate_pem())
    write(folder / TRUSTED, following.certificate_pem())


def switch(folder: Path, wait: datetime.timedelta) -> None:
    """Lets the new root sign. Raises HarpError: none is there, or it has been for less than `wait`.

    Done again where it was cut off."""
    if not (folder / NEXT_KEY).exists() or not (folder / TRUSTED).exists():
        raise HarpError(f"no rotation was begun in {folder}", f"harp ca rotate {folder}", 5)
    # Not that of the one that is trusted, which is written here too.
    _check_age(folder / NEXT_CERTIFICATE, wait)
    following = KeyPair.load(folder / NEXT_CERTIFICATE, folder / NEXT_KEY)
    signing = certificate(folder / "ca.pem")
    if signing != following.certificate:
        # Whichever of them signs meanwhile, both are trusted.
        write(folder / TRUSTED, following.certificate_pem() + pem(signing))
        write(folder / "ca.pem", following.certificate_pem())
    write(folder / "ca.key", following.key_pem())
    trusted = x509.load_pem_x509_certificates((folder / TRUSTED).read_bytes())
    write(
        folder / TRUSTED, b"".join(pem(each) for each in trusted if each != following.certificate)
    )
    (folder / NEXT_KEY).unlink()
    (folder / NEXT_CERTIFICATE).unlink()


def finish(folder: Path, wait: datetime.timedelta) -> None:
    """Trusts the old root no more. Raises HarpError: the new one does not sign, or has for less
    than `wait`."""
    if not (folder / TRUSTED).exists() or (folder / NEXT_KEY).exists():
        raise HarpError(f"no new root signs in {folder} yet", "harp ca rotate, then --switch", 5)
    _check_age(folder / TRUSTED, wait)
    (folder / TRUSTED).unlink()


def _check_age(written: Path, wait: datetime.timedelta) -> None:
    """Raises HarpError where the last step, which wrote a file, was too short a while ago."""
    made = datetime.datetime.fromtimestamp(written.stat().st_mtime, datetime.UTC)
    if datetime.datetime.now(datetime.UTC) < made + wait:
        raise HarpError(
            f"not everybody has renewed before {made + wait:%F %T} UTC",
            "wait, or say how long certificates live with --after (harp scheduler --user-life)",
            5,
        )
